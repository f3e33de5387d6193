"""C4's rules for single lines (Raffel et al. 2020, section 2.2): a line goes, its document stays.

They come before the rules for documents, which then see the lines that are left, as in C4. Lines
are those of TextColumns: without surrounding blanks, never empty.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from components.curate.rules.rule import SENTENCE_ENDS, Rule, sets
from tokenmill.text.text_columns import TextColumns

_SOURCE = "Raffel et al. 2020, 2.2"
# Not in the paper; the code that made C4 has it.
_CODE = "TensorFlow Datasets, c4_utils"

_END_MARKS = SENTENCE_ENDS + '"”»」』'
_POLICY = re.compile(
    "terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies",
    re.IGNORECASE | re.ASCII,
)
_MANY_LINE_FEEDS = re.compile(r"\n{3,}")
_JAVASCRIPT = re.compile("javascript", re.IGNORECASE | re.ASCII)


class Removed(NamedTuple):
    """What is left when lines are taken out, and what went.

    Attributes:
        texts: The texts without the lines, normalized as they were.
        sizes: int64 [documents], UTF-8 bytes of the removed lines of each document, without their
            indentation and line feeds.
        by_reason: (lines, bytes) by reason.
    """

    texts: list[str]
    sizes: np.ndarray
    by_reason: dict[str, tuple[int, int]]


def _longest_word(columns: TextColumns) -> np.ndarray:
    """Characters of the longest word of each line."""
    first = columns.first_word_of_line
    if not len(first):
        return np.zeros(0)
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
    return columns.words_of_line.astype(np.float64)


def _occurrences(
    pattern: re.Pattern[str], hints: tuple[str, ...], columns: TextColumns
) -> np.ndarray:
    """Count the occurrences of the pattern in each line, whatever the case.

    The pattern is slow and rarely there: texts are first searched for `hints` (in lower case), one
    of which is in whatever it matches.
    """
    starts = []
    for i, text in enumerate(columns.texts):
        lower = text.lower()
        if any(hint in lower for hint in hints):
            starts += [int(columns.first[i]) + found.start() for found in pattern.finditer(text)]
    line = np.searchsorted(columns.lines.start, np.array(starts, np.int64), side="right") - 1
    return np.bincount(line, minlength=len(columns.lines.start)).astype(np.float64)


def _javascript(columns: TextColumns) -> np.ndarray:
    return _occurrences(_JAVASCRIPT, ("javascript",), columns)


def _policy_phrases(columns: TextColumns) -> np.ndarray:
    return _occurrences(_POLICY, ("cookie", "terms of use", "privacy policy"), columns)


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
    """Remove the lines that the rules say.

    Args:
        texts: Normalized.
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
    """Remove lines.

    Args:
        columns: Of normalized texts.
        reason: int64 [lines], why each goes, a place in `names`; -1 if it stays.
        names: The reasons.
    """
    lines, texts = columns.lines, list(columns.texts)
    going = np.flatnonzero(reason >= 0)
    documents = lines.document[going]
    starts = (lines.start[going] - columns.first[documents]).tolist()
    ends = (lines.end[going] - columns.first[documents]).tolist()
    sizes = np.zeros(len(going), np.int64)
    bounds = [*np.flatnonzero(np.diff(documents, prepend=-1)).tolist(), len(going)]
    for low, high in itertools.pairwise(bounds):
        document = int(documents[low])
        text, parts, at = texts[document], [], 0
        for i in range(low, high):
            sizes[i] = len(text[starts[i] : ends[i]].encode())
            # The whole line goes, from the line feed before it to its own.
            feed = text.rfind("\n", at, starts[i])
            parts.append(text[at : at if feed < 0 else feed + 1])
            feed = text.find("\n", ends[i])
            at = len(text) if feed < 0 else feed + 1
        text = "".join([*parts, text[at:]])
        if "\n\n\n" in text:
            text = _MANY_LINE_FEEDS.sub("\n\n", text)
        texts[document] = text.strip("\n")
    by_reason = {
        name: (int(mine.sum()), int(sizes[mine].sum()))
        for number, name in enumerate(names)
        if (mine := reason[going] == number).any()
    }
    by_document = np.bincount(documents, sizes, columns.documents).astype(np.int64)
    return Removed(texts, by_document, by_reason)
