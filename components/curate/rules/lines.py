"""C4's rules for single lines (Raffel et al. 2020, section 2.2): a line goes, its document stays.

They come before the rules for documents, which then see the lines that are left, as in C4. Lines
are those of TextColumns: without surrounding blanks, never empty.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from components.curate.normalise import normalise
from components.curate.rules.rule import Rule, sets
from components.curate.text_columns import Spans, TextColumns

_SOURCE = "Raffel et al. 2020, 2.2"
# Not in the paper; the code that made C4 has it.
_CODE = "TensorFlow Datasets, c4_utils"

_END_MARKS = '.!?"”'
_POLICY = re.compile(
    "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies",
    re.IGNORECASE | re.ASCII,
)
_JAVASCRIPT = re.compile("javascript", re.IGNORECASE | re.ASCII)


class Removed(NamedTuple):
    """What is left when lines are taken out, and what went.

    Attributes:
        texts: The texts without the lines, normalised.
        sizes: int64 [documents], UTF-8 bytes of the removed lines of each document, without their
            indentation and line feeds.
        by_reason: (lines, bytes) by reason.
    """

    texts: list[str]
    sizes: np.ndarray
    by_reason: dict[str, tuple[int, int]]


def _longest_word(columns: TextColumns) -> np.ndarray:
    """Characters of the longest word of each line."""
    if not len(columns.lines.start):
        return np.zeros(0)
    first = np.searchsorted(columns.words.start, columns.lines.start)
    return np.maximum.reduceat(columns.words.length, first).astype(np.float64)


def _end_marks(columns: TextColumns) -> np.ndarray:
    """1 for a line that ends in . ! ? or a quotation mark, though not in an ellipsis; else 0."""
    lines, codes = columns.lines, columns.codes
    marks = np.isin(codes[lines.end - 1], [ord(mark) for mark in _END_MARKS])
    dots = lines.length >= 3
    for back in (1, 2, 3):
        dots &= codes[np.maximum(lines.end - back, 0)] == ord(".")
    return (marks & ~dots).astype(np.float64)


def _words(columns: TextColumns) -> np.ndarray:
    edges = np.append(columns.lines.start, len(columns.codes))
    return np.diff(np.searchsorted(columns.words.start, edges)).astype(np.float64)


def _occurrences(pattern: re.Pattern[str], columns: TextColumns) -> np.ndarray:
    """How often a line has the pattern, whatever the case."""
    starts = [
        int(columns.first[i]) + match.start()
        for i, text in enumerate(columns.texts)
        for match in pattern.finditer(text)
    ]
    line = np.searchsorted(columns.lines.start, np.array(starts, np.int64), side="right") - 1
    return np.bincount(line, minlength=len(columns.lines.start)).astype(np.float64)


def _javascript(columns: TextColumns) -> np.ndarray:
    return _occurrences(_JAVASCRIPT, columns)


def _policy_phrases(columns: TextColumns) -> np.ndarray:
    return _occurrences(_POLICY, columns)


# Measures are float64 [lines] here. In the order of C4's code: the first that removes a line gives
# the reason. FineWeb, which the set `web` follows, leaves out the rule on terminal punctuation
# (Penedo et al. 2024, 3.6): by itself it removes some 30 % of the tokens.
LINE_RULES = (
    Rule(
        "line_long_word", "max_line_word_characters", _longest_word, "above", _CODE,
        sets(1000, c4=1000),
    ),
    Rule("line_without_end_mark", "min_line_end_marks", _end_marks, "below", _SOURCE, sets(c4=1)),
    Rule("line_few_words", "min_line_words", _words, "below", _SOURCE, sets(5, c4=5)),
    Rule(
        "line_javascript", "max_line_javascript", _javascript, "above", _SOURCE, sets(0, c4=0)
    ),
    Rule(
        "line_policy", "max_line_policy_phrases", _policy_phrases, "above", _SOURCE, sets(0, c4=0)
    ),
)  # fmt: skip


def remove_lines(texts: list[str], thresholds: Mapping[str, float]) -> Removed:
    """Takes the lines out that the rules say.

    Args:
        texts: Normalised.
        thresholds: By setting; a rule without one does not run.
    """
    rules = [rule for rule in LINE_RULES if rule.setting in thresholds]
    if not rules:
        return Removed(texts, np.zeros(len(texts), np.int64), {})
    columns = TextColumns(texts)
    reason = np.full(len(columns.lines.start), -1)
    for number, rule in enumerate(rules):
        values, threshold = rule.measure(columns), thresholds[rule.setting]
        goes = values < threshold if rule.drop_if == "below" else values > threshold
        reason[goes & (reason < 0)] = number
    return take_out(columns, reason, [rule.reason for rule in rules])


def take_out(columns: TextColumns, reason: np.ndarray, names: Sequence[str]) -> Removed:
    """Takes lines out.

    Args:
        columns: Of normalised texts.
        reason: int64 [lines], why each goes, a place in `names`; -1 if it stays.
        names: The reasons.
    """
    sizes = np.where(reason >= 0, _encoded_sizes(columns, columns.lines), 0)
    by_reason = {
        name: (int((reason == number).sum()), int(sizes[reason == number].sum()))
        for number, name in enumerate(names)
        if (reason == number).any()
    }
    by_document = np.bincount(columns.lines.document, sizes, columns.documents).astype(np.int64)
    return Removed(_cut(columns, reason >= 0), by_document, by_reason)


def _cut(columns: TextColumns, gone: np.ndarray) -> list[str]:
    """The texts without the lines where `gone` (bool [lines]) holds, normalised again."""
    lines, result = columns.lines, list(columns.texts)
    going = np.flatnonzero(gone)
    documents = lines.document[going]
    bounds = [*np.flatnonzero(np.diff(documents, prepend=-1)).tolist(), len(going)]
    for low, high in itertools.pairwise(bounds):
        document = int(documents[low])
        start, text = int(columns.first[document]), result[document]
        parts, at = [], 0
        for i in going[low:high].tolist():
            parts.append(text[at : lines.start[i] - start])
            at = int(lines.end[i]) - start
        result[document] = normalise("".join([*parts, text[at:]]))
    return result


def _encoded_sizes(columns: TextColumns, spans: Spans) -> np.ndarray:
    """UTF-8 bytes of each span, int64 [spans]."""
    codes = columns.codes
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    ends = np.concatenate(([0], np.cumsum(sizes)))
    return ends[spans.end] - ends[spans.start]
