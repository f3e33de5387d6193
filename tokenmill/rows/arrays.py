"""Packed rows in memory: what a row is, and where each part of a document went.

components/pack/packing.py makes them; its docstring says what items, slots and segments are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS, ControlIds


class Row(NamedTuple):
    """A packed row: segments of lengths that sum to at most sequence_length.

    Attributes:
        segment_lengths: Slots of each segment, context and frame included.
        inputs: Input ids of all segments, one after the other; padding is not stored.
        last_targets: For each segment, the target of its last slot (all other targets are the
            next input). None in the framed modes, where targets are the inputs themselves.
        context_lengths: For each segment, how many of its items are context. None without.
        labels: Class of each segment, in classification, where it is the only target. None else.
        bears_loss: Of each input whether its target counts, 1 or 0; None: all do.
    """

    segment_lengths: np.ndarray
    inputs: np.ndarray
    last_targets: np.ndarray | None = None
    context_lengths: np.ndarray | None = None
    labels: np.ndarray | None = None
    bears_loss: np.ndarray | None = None


class Rows(NamedTuple):
    """Many rows: the arrays of `Row`, one row after the other; all int32 or int64.

    Attributes:
        segment_counts: Segments of each row.
        segment_lengths: See Row.
        inputs: See Row.
        last_targets: See Row.
        context_lengths: See Row.
        labels: See Row.
        bears_loss: See Row.
    """

    segment_counts: np.ndarray
    segment_lengths: np.ndarray
    inputs: np.ndarray
    last_targets: np.ndarray | None
    context_lengths: np.ndarray | None
    labels: np.ndarray | None = None
    bears_loss: np.ndarray | None = None

    def split(self) -> list[Row]:
        """Return the rows one by one."""
        rows, segment, item = [], 0, 0
        for count in self.segment_counts.tolist():
            mine = slice(segment, segment + count)
            slots = int(self.segment_lengths[mine].sum())
            rows.append(
                Row(
                    self.segment_lengths[mine],
                    self.inputs[item : item + slots],
                    None if self.last_targets is None else self.last_targets[mine],
                    None if self.context_lengths is None else self.context_lengths[mine],
                    None if self.labels is None else self.labels[mine],
                    None if self.bears_loss is None else self.bears_loss[item : item + slots],
                )
            )
            segment, item = segment + count, item + slots
        return rows

    @classmethod
    def join(cls, rows: Sequence[Row]) -> "Rows":
        """Put single rows into joint arrays; the reverse of `split`."""

        def column(i: int, optional: bool = False) -> Any:
            if optional and rows and rows[0][i] is None:
                return None
            return np.concatenate([row[i] for row in rows]) if rows else np.zeros(0, np.int32)

        counts = np.array([len(row.segment_lengths) for row in rows], np.int64)
        optional = (column(i, True) for i in (2, 3, 4, 5))
        return cls(counts, column(0), column(1), *optional)


class Parts(NamedTuple):
    """Where each part went; int64 arrays, in the order of rows and of places in a row.

    Attributes:
        document: Index of the part's document.
        start: First item of the document in this part, context not counted.
        length: Items.
        context: Items before `start` that are repeated.
        row: Row of the part; from 0 up without a gap.
    """

    document: np.ndarray
    start: np.ndarray
    length: np.ndarray
    context: np.ndarray
    row: np.ndarray


@dataclass(frozen=True)
class Layout:
    """How parts are laid into rows.

    Attributes:
        sequence_length: Slots of a row.
        framed: Tokens between CLS and SEP, instead of questions.
        overlap: Items of context that are repeated before a part, where there are so many.
        fixed_cuts: Cut where a row is full and nowhere else, as the served model cuts long text.
        control_ids: Of the vocabulary: what begins and ends a text.
    """

    sequence_length: int
    framed: bool = False
    overlap: int = 0
    fixed_cuts: bool = False
    control_ids: ControlIds = TOKENMILL_CONTROL_IDS

    @property
    def frame_slots(self) -> int:
        """Slots that a part takes beside its items and its context."""
        return 2 if self.framed else 0

    def room(self, start: int) -> int:
        """Return the items that fit into an empty row if the part begins at item `start`."""
        return self.sequence_length - self.frame_slots - min(self.overlap, start)


def spans(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Count lengths[i] numbers up from each starts[i]; return them one run after the other."""
    ends = np.cumsum(lengths)
    numbers: np.ndarray = np.repeat(starts - (ends - lengths), lengths)
    numbers += np.arange(len(numbers))
    return numbers
