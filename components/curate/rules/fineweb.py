"""Document rules of FineWeb (Penedo et al. 2024, section 3.6)."""

import numpy as np

from components.curate.rules.repetition import duplicate_line_characters
from components.curate.rules.rule import (
    SENTENCE_ENDS,
    Rule,
    fraction,
    parts_sentences_by_blanks,
    sets,
)
from tokenmill.text.text_columns import LINE_FEED, WORD, TextColumns

_SOURCE = "Penedo et al. 2024, 3.6"
# Where code and paper may differ, the numbers are those of the code that made FineWeb.
_CODE = "datatrove, FineWebQualityFilter"
_LINE_ENDS = SENTENCE_ENDS + "\"'”’»」』"
_SHORT_LINE_CHARACTERS = 30


def _punctuated_lines(columns: TextColumns) -> np.ndarray:
    """Share of the lines that end in terminal punctuation; NaN for Thai, Lao and the like."""
    lines = columns.lines
    ends = np.isin(columns.codes[lines.end - 1], [ord(c) for c in _LINE_ENDS])
    return np.where(
        parts_sentences_by_blanks(columns), np.nan, fraction(lines.sum(ends), lines.count)
    )


def _short_lines(columns: TextColumns) -> np.ndarray:
    """Share of the lines of fewer than 30 characters; a Chinese one or a kana counts for three."""
    lines = columns.lines
    wide = np.concatenate(([0], np.cumsum((columns.classes & WORD) > 0)))
    length = lines.length + 2 * (wide[lines.end] - wide[lines.start])
    return fraction(lines.sum(length < _SHORT_LINE_CHARACTERS), lines.count)


def _line_feeds_per_word(columns: TextColumns) -> np.ndarray:
    feeds = columns.count((columns.classes & LINE_FEED) > 0).astype(np.float64)
    return fraction(feeds, columns.words.count)


RULES = (
    Rule(
        "few_punctuated_lines",
        "min_punctuated_line_fraction",
        _punctuated_lines,
        "below",
        _SOURCE,
        sets(0.12, fineweb2=0.12),
    ),
    Rule("short_lines", "max_short_line_fraction", _short_lines, "above", _SOURCE, sets(0.67, 0.9)),
    Rule(
        "repeated_line_characters",
        "max_repeated_line_characters",
        duplicate_line_characters,
        "above",
        _CODE,
        sets(0.01, fineweb2=0.1),
    ),
    Rule(
        "many_line_feeds",
        "max_line_feeds_per_word",
        _line_feeds_per_word,
        "above",
        _CODE,
        sets(0.3, 0.5, fineweb2=0.3),
    ),
)
