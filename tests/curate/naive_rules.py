"""Every quality rule once more, in plain Python on one text: what the tests hold the arrays to."""

import itertools
import re
from collections import Counter

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}


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
    words = text.split()
    return float(sum(w in words or w.title() in words for w in STOP_WORDS))


def _sentences(text):
    ends = 0
    for word in text.split():
        if len(word) > 1 and word[-1] in "\"'”’)":
            word = word[:-1]
        ends += word[-1] in ".!?"
    return ends


def _lorem(text):
    words = text.split()
    cases = ({"lorem", "Lorem", "LOREM"}, {"ipsum", "Ipsum", "IPSUM"})
    return sum(a in cases[0] and b in cases[1] for a, b in itertools.pairwise(words))


def _word_places(text):
    return [match.span() for match in re.finditer(r"\S+", text)]


def _ngrams(text, n):
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _top_ngram(text, n):
    places, grams = _word_places(text), _ngrams(text, n)
    best = 0
    for gram, count in Counter(grams).items():
        if count > 1:
            at = grams.index(gram)
            best = max(best, count * (places[at + n - 1][1] - places[at][0]))
    return min(1.0, _share(best, len(text)))


def _duplicate_ngrams(text, n):
    words, seen, covered = text.split(), set(), set()
    for i, gram in enumerate(_ngrams(text, n)):
        if gram in seen:
            covered.update(range(i, i + n))
        seen.add(gram)
    return _share(sum(len(words[i]) for i in covered), len(_solid(text)))


def _ellipses(text):
    return len(re.findall(r"\.{3,}", text)) + text.count("…")


MEASURES = {
    "min_words": lambda t: len(t.split()),
    "max_words": lambda t: len(t.split()),
    "min_mean_word_length": lambda t: _share(len(_solid(t)), len(t.split())),
    "max_mean_word_length": lambda t: _share(len(_solid(t)), len(t.split())),
    "max_symbols_per_word": lambda t: _share(max(t.count("#"), _ellipses(t)), len(t.split())),
    "max_bullet_line_fraction": lambda t: _share(
        sum(line[0] in "•‣▪▫◦*-" for line in _lines(t)), len(_lines(t))
    ),
    "max_ellipsis_line_fraction": lambda t: _share(
        sum(line.endswith(("...", "…")) for line in _lines(t)), len(_lines(t))
    ),
    "min_alphabetic_word_fraction": lambda t: _share(
        sum(any(map(str.isalpha, word)) for word in t.split()), len(t.split())
    ),
    "min_stop_words": _stop_words,
    "min_letter_fraction": lambda t: _share(sum(map(str.isalpha, t)), len(_solid(t))),
    "max_digit_fraction": lambda t: _share(sum(map(str.isdigit, t)), len(_solid(t))),
    "min_sentences": _sentences,
    "max_curly_brackets": lambda t: t.count("{"),
    "max_lorem_ipsum": _lorem,
    "min_punctuated_line_fraction": lambda t: _share(
        sum(line[-1] in ".!?\"'”’" for line in _lines(t)), len(_lines(t))
    ),
    "max_short_line_fraction": lambda t: _share(
        sum(len(line) < 30 for line in _lines(t)), len(_lines(t))
    ),
    "max_repeated_line_characters": lambda t: _share(sum(map(len, _repeats(_lines(t)))), len(t)),
    "max_line_feeds_per_word": lambda t: _share(t.count("\n"), len(t.split())),
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
