"""Repetition rules of Gopher (Rae et al. 2021, table A1): lines, paragraphs and n-grams."""

import functools

import numpy as np

from components.curate.rules.rule import Rule, fraction, sets
from tokenmill.text.text_columns import Spans, TextColumns, mix

_SOURCE = "Rae et al. 2021, table A1"


def _is_repeat(hashes: np.ndarray, document: np.ndarray) -> np.ndarray:
    """Tell which spans repeat an earlier one of the same document, bool [spans]."""
    keys = hashes ^ mix(document.astype(np.uint64) + np.uint64(1))
    _, first = np.unique(keys, return_index=True)
    repeats = np.ones(len(keys), bool)
    repeats[first] = False
    return repeats


def _duplicate_fraction(columns: TextColumns, spans: Spans) -> np.ndarray:
    repeats = _is_repeat(columns.hash_spans(spans), spans.document)
    return fraction(spans.sum(repeats), spans.count)


def _duplicate_characters(columns: TextColumns, spans: Spans) -> np.ndarray:
    repeats = _is_repeat(columns.hash_spans(spans), spans.document)
    return fraction(spans.sum(repeats * spans.length), columns.characters)


def duplicate_lines(columns: TextColumns) -> np.ndarray:
    """Share of the lines that repeat an earlier one."""
    return _duplicate_fraction(columns, columns.lines)


def duplicate_line_characters(columns: TextColumns) -> np.ndarray:
    """Share of the characters in lines that repeat an earlier one."""
    return _duplicate_characters(columns, columns.lines)


def duplicate_paragraphs(columns: TextColumns) -> np.ndarray:
    """Share of the paragraphs that repeat an earlier one."""
    return _duplicate_fraction(columns, columns.paragraphs)


def duplicate_paragraph_characters(columns: TextColumns) -> np.ndarray:
    """Share of the characters in paragraphs that repeat an earlier one."""
    return _duplicate_characters(columns, columns.paragraphs)


def repeated_ngrams(columns: TextColumns, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Find all occurrences of the word n-grams that a document has at least twice.

    An n-gram can repeat only where the (n-1)-gram before its last word does, so each n looks at
    what the one below left over, which soon is little.

    Returns:
        uint64 keys (different for different documents) and int64 index of the first word, both
        [occurrences], in order of occurrence.
    """
    if n not in columns.repeated_ngrams:
        words, hashes = columns.words, columns.word_hashes
        if n == 2:
            first = np.arange(max(0, len(hashes) - 1))
            keys = hashes[first] ^ mix(words.document[first].astype(np.uint64) + np.uint64(1))
        else:
            keys, first = repeated_ngrams(columns, n - 1)
        inside = first + n - 1 < len(hashes)
        first, keys = first[inside], keys[inside]
        inside = words.document[first] == words.document[first + n - 1]
        first, keys = first[inside], keys[inside]
        keys = mix(keys * np.uint64(0x9E3779B97F4A7C15) + hashes[first + n - 1])
        in_order = np.sort(keys)
        repeated = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
        if len(repeated):
            place = np.minimum(np.searchsorted(repeated, keys), len(repeated) - 1)
            again = repeated[place] == keys
            keys, first = keys[again], first[again]
        else:
            keys, first = keys[:0], first[:0]
        columns.repeated_ngrams[n] = keys, first
    return columns.repeated_ngrams[n]


def top_ngram_characters(columns: TextColumns, n: int) -> np.ndarray:
    """Share of the characters in occurrences of the n-gram that covers most of them.

    An n-gram that occurs once is no repetition and counts nothing.
    """
    keys, first = repeated_ngrams(columns, n)
    words = columns.words
    _, index, counts = np.unique(keys, return_index=True, return_counts=True)
    span = words.end[first[index] + n - 1] - words.start[first[index]]
    covered = np.zeros(columns.documents)
    np.maximum.at(covered, words.document[first[index]], (span * counts).astype(np.float64))
    return np.minimum(fraction(covered, columns.characters), 1.0)


def duplicate_ngram_characters(columns: TextColumns, n: int) -> np.ndarray:
    """Share of the characters in n-grams that repeat an earlier one; no character counts twice."""
    keys, first = repeated_ngrams(columns, n)
    repeats = np.ones(len(keys), bool)
    repeats[np.unique(keys, return_index=True)[1]] = False
    words = columns.words
    # Mark the words under each repeated n-gram, then add up their characters.
    marks = np.zeros(len(words.start) + 1, np.int64)
    np.add.at(marks, first[repeats], 1)
    np.add.at(marks, first[repeats] + n, -1)
    covered = np.cumsum(marks[:-1]) > 0
    return fraction(words.sum(covered * words.length), columns.solid_characters)


# Thresholds of table A1 by n; code documentation repeats parameter lists by its nature.
_TOP_NGRAMS = {2: (0.20, 0.3, 0.4), 3: (0.18, 0.3, 0.4), 4: (0.16, 0.3, 0.4)}
_DUPLICATE_NGRAMS = {
    5: (0.15, 0.4, 0.7),
    6: (0.14, 0.4, 0.7),
    7: (0.13, 0.4, 0.7),
    8: (0.12, 0.4, 0.7),
    9: (0.11, 0.4, 0.7),
    10: (0.10, 0.4, 0.7),
}

RULES = (
    Rule(
        "duplicate_lines",
        "max_duplicate_line_fraction",
        duplicate_lines,
        "above",
        _SOURCE,
        sets(0.3, 0.3, 0.5, fineweb2=0.3),
    ),
    Rule(
        "duplicate_paragraphs",
        "max_duplicate_paragraph_fraction",
        duplicate_paragraphs,
        "above",
        _SOURCE,
        sets(0.3, 0.3, 0.5),
    ),
    Rule(
        "duplicate_line_characters",
        "max_duplicate_line_character_fraction",
        duplicate_line_characters,
        "above",
        _SOURCE,
        sets(0.2, 0.2, 0.4),
    ),
    Rule(
        "duplicate_paragraph_characters",
        "max_duplicate_paragraph_character_fraction",
        duplicate_paragraph_characters,
        "above",
        _SOURCE,
        sets(0.2, 0.2, 0.4),
    ),
    *(
        Rule(
            f"top_{n}gram",
            f"max_top_{n}gram_character_fraction",
            functools.partial(top_ngram_characters, n=n),
            "above",
            _SOURCE,
            sets(*thresholds, fineweb2=thresholds[0]),
        )
        for n, thresholds in _TOP_NGRAMS.items()
    ),
    *(
        Rule(
            f"duplicate_{n}grams",
            f"max_duplicate_{n}gram_character_fraction",
            functools.partial(duplicate_ngram_characters, n=n),
            "above",
            _SOURCE,
            sets(*thresholds, fineweb2=thresholds[0]),
        )
        for n, thresholds in _DUPLICATE_NGRAMS.items()
    ),
)
