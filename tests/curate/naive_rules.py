"""Every quality rule once more, in plain Python on one text: what the tests hold the arrays to."""

import bisect
import itertools
import math
import re
import unicodedata
from collections import Counter

from components.curate.rules.rule import SENTENCE_ENDS as ENDS
from tokenmill.text import text_columns

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}


def _characters(ranges):
    return frozenset(chr(c) for first, last in ranges for c in range(first, last + 1))


WHOLE, PIECES, CLOSES = map(
    _characters,
    (text_columns.WORD_CHARACTERS, text_columns.PIECE_CHARACTERS, text_columns.CLOSING_CHARACTERS),
)
CLOSING = "\"'”’»)）」』】》"


def _mix(value):
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) % 2**64
    return value ^ value >> 31


def word_places(text, cut_long_words=False, join_characters=False):
    """(start, end) of each word: runs without blanks, cut where a script has none."""
    if join_characters:
        places = word_places(text, cut_long_words)
        for place in range(len(places) - 2, -1, -1):
            (start, end), (next_start, next_end) = places[place : place + 2]
            pair = text[end - 1 : end + 1]
            is_han = all(c in WHOLE and c >= "\u3400" for c in pair)
            number = (ord(pair[0]) * 0x100000001B3 + ord(pair[-1])) % 2**64
            if end == next_start and is_han and _mix(number) % 3 == 0:
                places[place : place + 2] = [(start, next_end)]
        return places
    found = []
    for match in re.finditer(r"\S+", text):
        found += _cut(text, *match.span(), lambda i: text[i] in PIECES)
    if cut_long_words:
        long_ones = [(a, b) for a, b in found if b - a > 256]

        def in_piece(i):
            place = bisect.bisect(long_ones, (i, len(text)))
            return text[i] in PIECES or (place > 0 and i < long_ones[place - 1][1])

        found = []
        for match in re.finditer(r"\S+", text):
            found += _cut(text, *match.span(), in_piece)
    return found


def kana(character):
    """Which kana it is, or None; Unicode's names tell."""
    for script, ranges in (
        ("hiragana", text_columns.HIRAGANA),
        ("katakana", text_columns.KATAKANA),
    ):
        if any(first <= ord(character) <= last for first, last in ranges):
            return script
    return None


def _cut(text, start, end, in_piece):
    places = [start]
    for i in range(start + 1, end):
        whole = text[i] in WHOLE and not in_piece(i)
        before = text[i - 1]
        after_whole = (before in WHOLE and not in_piece(i - 1)) or before in CLOSES
        begins_word = text[i].isalpha() or text[i].isdigit()
        cut = whole or (begins_word and after_whole)
        if kana(text[i]) is not None and (
            kana(text[i]) == kana(before) or (text[i] == "ー" and kana(before) is not None)
        ):
            cut = False
        if in_piece(i) != in_piece(i - 1):
            cut = cut or in_piece(i) or begins_word
        if i >= 3 and all(in_piece(i - back) for back in range(4)):
            one, two, three = (_mix(ord(c)) for c in text[i - 3 : i])
            base = 0x100000001B3
            cut = cut or _mix((three + two * base + one * base * base) % 2**64) % 4 == 0
        if cut:
            places.append(i)
    return list(itertools.pairwise([*places, end]))


def split_words(text):
    return [text[start:end] for start, end in word_places(text)]


def _share(part, whole):
    return part / whole if whole else 0.0


def _lines(text):
    return [line.strip() for line in text.split("\n") if line.strip()]


def _solid(text):
    return "".join(text.split())


def _paragraphs(text):
    """Runs of lines that are not blank, without the blanks around the whole."""
    found, current = [], []
    for line in [*text.split("\n"), ""]:
        if line.strip():
            current.append(line)
        elif current:
            found.append("\n".join(current).strip())
            current = []
    return found


def _repeats(items):
    seen, repeats = set(), []
    for item in items:
        if item in seen:
            repeats.append(item)
        seen.add(item)
    return repeats


def _stop_words(text):
    words = split_words(text)
    if 4 * _unspaced(text) >= len(_solid(text)) > 0 and _unspaced(text):
        return math.nan
    return float(sum(w in words or w.title() in words for w in STOP_WORDS))


def _unspaced(text):
    return sum(c in WHOLE or c in PIECES for c in text)


def _mean_length(text):
    ordinary = [w for w in split_words(text) if w[0] not in WHOLE and w[0] not in PIECES]
    hangul = sum("가" <= c <= "힣" for c in text)
    if 2 * sum(map(len, ordinary)) < len(_solid(text)) or 0 < len(_solid(text)) <= 4 * hangul:
        return math.nan
    return _share(sum(map(len, ordinary)), len(ordinary))


def _has_letter(word):
    return any(c.isalpha() or c in PIECES or unicodedata.category(c)[0] == "M" for c in word)


def _parts_sentences_by_blanks(text):
    return 2 * sum(c in PIECES for c in text) > len(_solid(text))


def _punctuated_lines(text):
    if _parts_sentences_by_blanks(text):
        return math.nan
    return _share(sum(line[-1] in ENDS + "\"'”’»」』" for line in _lines(text)), len(_lines(text)))


def _menus(text):
    short = whole = 0
    for line in re.split(r"[\n|¦•·»›→]", text):
        if words := split_words(line):
            characters = sum(map(len, words))
            whole += characters
            if words[-1][-1] not in ENDS + ",;:" and (len(words) <= 4 or len(line.strip()) <= 10):
                short += characters
    return _share(short, whole)


def _sentences(text):
    ends = 0
    for word in split_words(text):
        if len(word) > 1 and word[-1] in CLOSING:
            word = word[:-1]
        ends += word[-1] in ENDS
    ends += sum(line[-1] in ":：" and len(split_words(line)) >= 5 for line in _lines(text))
    return math.nan if _parts_sentences_by_blanks(text) else ends


def _lorem(text):
    words = split_words(text)
    cases = ({"lorem", "Lorem", "LOREM"}, {"ipsum", "Ipsum", "IPSUM"})
    return sum(a in cases[0] and b in cases[1] for a, b in itertools.pairwise(words))


def _ngrams(text, n):
    words = split_words(text)
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _top_ngram(text, n):
    places, grams = word_places(text), _ngrams(text, n)
    best = 0
    for gram, count in Counter(grams).items():
        if count > 1:
            at = grams.index(gram)
            best = max(best, count * (places[at + n - 1][1] - places[at][0]))
    return min(1.0, _share(best, len(text)))


def _duplicate_ngrams(text, n):
    words, seen, covered = split_words(text), set(), set()
    for i, gram in enumerate(_ngrams(text, n)):
        if gram in seen:
            covered.update(range(i, i + n))
        seen.add(gram)
    return _share(sum(len(words[i]) for i in covered), len(_solid(text)))


def _ellipses(text):
    return len(re.findall(r"\.{3,}", text)) + text.count("…")


MEASURES = {
    "min_words": lambda t: len(split_words(t)),
    "max_words": lambda t: len(split_words(t)),
    "min_mean_word_length": _mean_length,
    "max_mean_word_length": _mean_length,
    "max_symbols_per_word": lambda t: _share(max(t.count("#"), _ellipses(t)), len(split_words(t))),
    "max_bullet_line_fraction": lambda t: _share(
        sum(line[0] in "•‣▪▫◦*-" for line in _lines(t)), len(_lines(t))
    ),
    "max_ellipsis_line_fraction": lambda t: _share(
        sum(line.endswith(("...", "…")) for line in _lines(t)), len(_lines(t))
    ),
    "min_alphabetic_word_fraction": lambda t: _share(
        sum(map(_has_letter, split_words(t))), len(split_words(t))
    ),
    "min_stop_words": _stop_words,
    "min_letter_fraction": lambda t: _share(
        sum(c.isalpha() or unicodedata.category(c)[0] == "M" for c in t), len(_solid(t))
    ),
    "max_digit_fraction": lambda t: _share(sum(map(str.isdigit, t)), len(_solid(t))),
    "min_sentences": _sentences,
    "max_curly_brackets": lambda t: t.count("{"),
    "max_lorem_ipsum": _lorem,
    "min_punctuated_line_fraction": _punctuated_lines,
    "max_menu_character_fraction": _menus,
    "max_replacement_character_fraction": lambda t: _share(t.count("\ufffd"), len(_solid(t))),
    "max_short_line_fraction": lambda t: _share(
        sum(len(line) + 2 * sum(c in WHOLE for c in line) < 30 for line in _lines(t)),
        len(_lines(t)),
    ),
    "max_repeated_line_characters": lambda t: _share(sum(map(len, _repeats(_lines(t)))), len(t)),
    "max_line_feeds_per_word": lambda t: _share(t.count("\n"), len(split_words(t))),
    "max_duplicate_line_fraction": lambda t: _share(len(_repeats(_lines(t))), len(_lines(t))),
    "max_duplicate_paragraph_fraction": lambda t: _share(
        len(_repeats(_paragraphs(t))), len(_paragraphs(t))
    ),
    "max_duplicate_line_character_fraction": lambda t: _share(
        sum(map(len, _repeats(_lines(t)))), len(t)
    ),
    "max_duplicate_paragraph_character_fraction": lambda t: _share(
        sum(map(len, _repeats(_paragraphs(t)))), len(t)
    ),
    **{f"max_top_{n}gram_character_fraction": lambda t, n=n: _top_ngram(t, n) for n in (2, 3, 4)},
    **{
        f"max_duplicate_{n}gram_character_fraction": lambda t, n=n: _duplicate_ngrams(t, n)
        for n in range(5, 11)
    },
}
