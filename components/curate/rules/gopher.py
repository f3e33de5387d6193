"""Quality rules of Gopher (Rae et al. 2021, "Scaling Language Models", appendix A1.1)."""

import numpy as np

from components.curate.languages import stop_words
from components.curate.rules.rule import SENTENCE_ENDS, Rule, fraction, sets
from tokenmill.text.text_columns import (
    BLANK,
    DIGIT,
    HANGUL,
    LETTER,
    LINE_FEED,
    MARK,
    PIECES,
    WORD,
    Spans,
    TextColumns,
)

_SOURCE = "Rae et al. 2021, A1.1"
_BULLETS = "•‣▪▫◦*-"
_LINK_SEPARATORS = "|¦•·»›→"
_MENU_WORDS = 4
_MENU_CHARACTERS = 10


def _word_count(columns: TextColumns) -> np.ndarray:
    return columns.words.count.astype(np.float64)


def _mean_word_length(columns: TextColumns) -> np.ndarray:
    """Characters a word; NaN where most of the text is of scripts without blanks, or Hangul.

    A Hangul syllable is two or three letters in one character: Korean words have some two.
    """
    words = columns.words
    hangul = columns.count((columns.codes >= HANGUL[0]) & (columns.codes <= HANGUL[1]))
    korean = (hangul > 0) & (hangul * 4 >= columns.solid_characters)
    cut = (columns.classes[words.start] & (WORD | PIECES)) > 0
    if not cut.any():
        return np.where(korean, np.nan, fraction(columns.solid_characters, words.count))
    ordinary = words.sum(words.length * ~cut)
    mean = fraction(ordinary, words.sum(~cut))
    return np.where(korean | (ordinary * 2 < columns.solid_characters), np.nan, mean)


def _symbols_per_word(columns: TextColumns) -> np.ndarray:
    """Hashes and ellipses ("..." or "…") a word."""
    codes, words = columns.codes, columns.words
    hashes = columns.count(codes == ord("#"))
    # An ellipsis is a run of three or more dots; it does not go on in the next document.
    dots = columns.runs(codes == ord("."))
    ellipses = dots.sum(dots.length >= 3) + columns.count(codes == ord("…"))
    return fraction(np.maximum(hashes, ellipses), words.count)


def _bullet_lines(columns: TextColumns) -> np.ndarray:
    lines = columns.lines
    bullets = np.isin(columns.codes[lines.start], [ord(c) for c in _BULLETS])
    return fraction(lines.sum(bullets), lines.count)


def _ellipsis_lines(columns: TextColumns) -> np.ndarray:
    lines, codes = columns.lines, columns.codes
    last = codes[lines.end - 1]
    dots = last == ord(".")
    for back in (2, 3):
        long_enough = lines.length >= back
        dots &= long_enough & (codes[np.maximum(lines.end - back, 0)] == ord("."))
    return fraction(lines.sum(dots | (last == ord("…"))), lines.count)


def _alphabetic_words(columns: TextColumns) -> np.ndarray:
    """Share of the words with a letter in them."""
    return fraction(columns.words.sum(_has_letter(columns, columns.words)), columns.words.count)


def _has_letter(columns: TextColumns, spans: Spans) -> np.ndarray:
    flags = (columns.classes & (LETTER | MARK | PIECES)) > 0
    letters = np.concatenate(([0], np.cumsum(flags, dtype=np.int64)))
    return letters[spans.end] > letters[spans.start]


def _letter_fraction(columns: TextColumns) -> np.ndarray:
    """Letters and the marks on them among the characters that are not blank."""
    letters = columns.count((columns.classes & (LETTER | MARK)) > 0).astype(np.float64)
    return fraction(letters, columns.solid_characters)


def _digit_fraction(columns: TextColumns) -> np.ndarray:
    """Digits among the characters that are not blank."""
    digits = columns.count((columns.classes & DIGIT) > 0).astype(np.float64)
    return fraction(digits, columns.solid_characters)


def _menus(columns: TextColumns) -> np.ndarray:
    """Share of the characters in short phrases that end no sentence: links of a menu, keywords.

    Phrases are parted by line ends and by the marks that part links. A short one has at most four
    words or ten characters: a Chinese word is one or two.
    """
    codes, words = columns.codes, columns.words
    parted = np.isin(codes, [ord(c) for c in _LINK_SEPARATORS])
    is_solid = ~parted & ((columns.classes & BLANK) == 0)
    solid = np.flatnonzero(is_solid)
    phrases = columns.runs(~parted & ((columns.classes & LINE_FEED) == 0))
    low, high = (np.searchsorted(solid, edge) for edge in (phrases.start, phrases.end))
    phrases, low, high = phrases.take(low < high), low[low < high], high[low < high]
    first, last = solid[low], solid[high - 1]
    # A word may begin before the mark that parts it.
    count = np.searchsorted(words.start, last, side="right") - np.searchsorted(words.start, first)
    count += ~np.isin(first, words.start)
    is_short = (count <= _MENU_WORDS) | (last + 1 - first <= _MENU_CHARACTERS)
    is_short &= ~np.isin(codes[last], [ord(c) for c in SENTENCE_ENDS + ",;:"])
    return fraction(phrases.sum(is_short * (high - low)), phrases.sum(high - low))


def _replacement_characters(columns: TextColumns) -> np.ndarray:
    """Share of U+FFFD, which stands for what could not be decoded."""
    lost = columns.count(columns.codes == 0xFFFD).astype(np.float64)
    return fraction(lost, columns.solid_characters)


RULES = (
    Rule(
        "too_few_words", "min_words", _word_count, "below", _SOURCE, sets(50, 30, 10, fineweb2=50)
    ),
    Rule(
        "too_many_words",
        "max_words",
        _word_count,
        "above",
        _SOURCE,
        sets(1e5, 1e5, 1e5, fineweb2=1e5),
    ),
    Rule(
        "short_words",
        "min_mean_word_length",
        _mean_word_length,
        "below",
        _SOURCE,
        sets(3, 3, 2, fineweb2=3),
    ),
    Rule(
        "long_words",
        "max_mean_word_length",
        _mean_word_length,
        "above",
        _SOURCE,
        sets(10, 12, 25, fineweb2=10),
    ),
    Rule(
        "symbols",
        "max_symbols_per_word",
        _symbols_per_word,
        "above",
        _SOURCE,
        sets(0.1, 0.1, 0.5, fineweb2=0.1),
    ),
    Rule(
        "bullets",
        "max_bullet_line_fraction",
        _bullet_lines,
        "above",
        _SOURCE,
        sets(0.9, 0.9, fineweb2=0.9),
    ),
    Rule(
        "ellipses",
        "max_ellipsis_line_fraction",
        _ellipsis_lines,
        "above",
        _SOURCE,
        sets(0.3, 0.3, fineweb2=0.3),
    ),
    Rule(
        "few_alphabetic_words",
        "min_alphabetic_word_fraction",
        _alphabetic_words,
        "below",
        _SOURCE,
        sets(0.8, 0.7, 0.4, fineweb2=0.8),
    ),
    Rule(
        "few_stop_words", "min_stop_words", stop_words, "below", _SOURCE, sets(2, 2, 1, fineweb2=2)
    ),
    Rule(
        "few_letters",
        "min_letter_fraction",
        _letter_fraction,
        "below",
        "ours: tables of numbers and markup",
        sets(prose=0.6, code_docs=0.5),
    ),
    Rule(
        "many_digits",
        "max_digit_fraction",
        _digit_fraction,
        "above",
        "ours: tables of numbers",
        sets(prose=0.3, code_docs=0.3),
    ),
    Rule(
        "menus",
        "max_menu_character_fraction",
        _menus,
        "above",
        "ours: lists of links",
        sets(0.8, 0.8),
    ),
    Rule(
        "replacement_characters",
        "max_replacement_character_fraction",
        _replacement_characters,
        "above",
        "ours: text that was decoded wrongly",
        sets(0.005, 0.005, 0.005),
    ),
)
