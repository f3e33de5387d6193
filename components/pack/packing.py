"""Best-fit packing of documents into fixed-length rows; plain Python and NumPy.

A document of ids `t1 .. tn` is read as x = [BOS, t1, .., tn, EOS], and training asks n + 1
questions of it: predict x[i + 1] from x[0 .. i]. A *slot* of a row holds one question: an input
token x[i] and its target x[i + 1]. A document longer than a row is cut into *pieces* of whole
questions, so each question is asked exactly once, whatever the cut; a piece is a segment of its
row, and attention does not leave the segment. Example with sequence_length 6 and documents
[7, 8] and [9]:

    input    2 7 8 2 9 0        2 = BOS, 3 = EOS, 0 = padding
    target   7 8 3 9 3 0
    segment  1 1 1 2 2 0
    position 0 1 2 0 1 0
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from components.tokenize.training import BOS_ID, EOS_ID


class Piece(NamedTuple):
    """A run of questions of one document: x[start : start + length] and the targets after."""

    document: int
    start: int
    length: int


@dataclass(frozen=True)
class Row:
    """A packed row: segments of lengths that sum to at most sequence_length.

    Attributes:
        segment_lengths: Slots of each segment.
        inputs: Input ids of all segments, one after the other; padding is not stored.
        last_targets: For each segment, the target of its last slot. All other targets are the
            next input, so nothing else has to be stored.
    """

    segment_lengths: np.ndarray
    inputs: np.ndarray
    last_targets: np.ndarray


def cut_into_pieces(token_counts: Sequence[int], sequence_length: int) -> list[Piece]:
    """The pieces of documents with so many tokens (BOS and EOS not counted)."""
    return [
        Piece(document, start, min(sequence_length, count + 1 - start))
        for document, count in enumerate(token_counts)
        for start in range(0, count + 1, sequence_length)
    ]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: the longest first, each into the fullest bin that still takes it.

    Args:
        lengths: Lengths from 1 to `capacity`; equal ones are taken in the order given.
        capacity: Room of a bin.

    Returns:
        For each bin, the indices of its items. The bins in use with a given room are found by a
        bit set over rooms, so the cost is O(n) for a fixed capacity, not O(n x bins).
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    bins: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set if by_room[r] is not empty
    for index in order:
        length = lengths[index]
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            target = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, target = capacity, len(bins)
            bins.append([])
        bins[target].append(index)
        room -= length
        by_room[room].append(target)
        rooms |= 1 << room
    return bins


def pack(documents: Sequence[np.ndarray], sequence_length: int) -> list[Row]:
    """Packs documents (1-D integer arrays of token ids) into rows.

    The result depends on the order of the documents and on nothing else.
    """
    pieces = cut_into_pieces([len(d) for d in documents], sequence_length)
    bins = best_fit([piece.length for piece in pieces], sequence_length)
    framed = [np.concatenate(([BOS_ID], d, [EOS_ID])).astype(np.int32) for d in documents]
    rows = []
    for indices in bins:
        chosen = [pieces[i] for i in indices]
        rows.append(
            Row(
                segment_lengths=np.array([p.length for p in chosen], np.int32),
                inputs=np.concatenate(
                    [framed[p.document][p.start : p.start + p.length] for p in chosen]
                ),
                last_targets=np.array(
                    [framed[p.document][p.start + p.length] for p in chosen], np.int32
                ),
            )
        )
    return rows
