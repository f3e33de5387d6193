"""Packed rows as records on disk and as dense arrays for the model.

A record holds, as little-endian integers of 2 bytes (4 if the vocabulary does not fit): the number
of segments k, then k values for each stored column, then the input ids. The columns are always the
segment lengths; the last targets in causal mode; the context lengths if there is an overlap; the
label in classification. Padding is not stored. Of conversations each input id is doubled, plus 1 if
its target bears a loss.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tokenmill.contracts.packed_rows import RowFormat
from tokenmill.rows.arrays import Row, Rows, spans


class Batch(NamedTuple):
    """Dense rows, each array of shape [rows, sequence_length].

    Attributes:
        inputs: int32 ids; 0 in padding.
        targets: int32 ids to predict; 0 in padding.
        segment_ids: int32, 1, 2, .. by document part; 0 in padding.
        positions: int32, position within the segment.
        loss_weights: float32, 1 where a target counts, 0 in padding, context, frame and what is
            no answer of a conversation.

    In classification the target of a row's first slot is its class, and no other one counts.
    """

    inputs: np.ndarray
    targets: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    loss_weights: np.ndarray


def row_dtype(vocab_size: int) -> str:
    """Return the stored integer type: 2 bytes as long as every number below this fits."""
    return "<u2" if vocab_size <= 65_536 else "<u4"


def encode_rows(rows: Rows, row_format: RowFormat) -> list[bytes]:
    """Encode rows as records, by way of one buffer for all."""
    counts, columns = rows.segment_counts, row_format.columns
    first_segment = np.cumsum(counts) - counts
    slots = np.add.reduceat(rows.segment_lengths, first_segment) if len(counts) else counts
    sizes = 1 + columns * counts + slots
    ends = np.cumsum(sizes)
    starts = ends - sizes
    buffer = np.empty(ends[-1] if len(ends) else 0, row_format.dtype)
    buffer[starts] = counts
    stored = (rows.segment_lengths, rows.last_targets, rows.context_lengths, rows.labels)
    for i, column in enumerate(column for column in stored if column is not None):
        buffer[spans(starts + 1 + i * counts, counts)] = column
    stored_inputs = rows.inputs
    if rows.bears_loss is not None:
        stored_inputs = 2 * rows.inputs + rows.bears_loss
    buffer[spans(ends - slots, slots)] = stored_inputs
    data = buffer.tobytes()
    bounds = (np.concatenate((starts, ends[-1:])) * buffer.itemsize).tolist()
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def decode_rows(records: Sequence[bytes], row_format: RowFormat) -> Rows:
    """Decode the rows of these records."""
    values = np.frombuffer(b"".join(records), row_format.dtype).astype(np.int32)
    ends = (
        np.cumsum([len(r) for r in records], dtype=np.int64) // np.dtype(row_format.dtype).itemsize
    )
    starts = np.concatenate((np.zeros(1, np.int64), ends))[: len(ends)]
    counts = values[starts].astype(np.int64)
    columns = [values[spans(starts + 1 + i * counts, counts)] for i in range(row_format.columns)]
    inputs_at = starts + 1 + row_format.columns * counts
    inputs, bears_loss = values[spans(inputs_at, ends - inputs_at)], None
    if row_format.answers:
        inputs, bears_loss = inputs >> 1, inputs & 1
    return Rows(
        counts,
        columns[0],
        inputs,
        columns[1] if row_format.last_targets else None,
        columns[1 + row_format.last_targets] if row_format.context else None,
        columns[-1] if row_format.label else None,
        bears_loss,
    )


def densify(rows: Rows | Sequence[Row], sequence_length: int) -> Batch:
    """Lay rows out as the arrays that the model takes.

    In the framed modes the targets are the inputs, and the weight is 1 wherever a token could be
    hidden; masking.py draws which ones are. In classification it is 1 at the first slot of each
    row, and its target the class.
    """
    if not isinstance(rows, Rows):
        rows = Rows.join(rows)
    counts, lengths = rows.segment_counts, rows.segment_lengths.astype(np.int64)
    shape = (len(counts), sequence_length)
    segments = np.cumsum(np.concatenate((np.zeros(1, np.int64), lengths)))
    bounds = segments[np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))]
    places = spans(np.arange(len(counts)) * sequence_length, np.diff(bounds))
    positions = spans(np.zeros(len(lengths), np.int64), lengths)
    weights = np.ones(len(places), np.float32)
    inputs = targets = rows.inputs
    skipped = 0
    if rows.last_targets is not None:
        targets = np.empty_like(inputs)
        targets[:-1] = inputs[1:]
        targets[segments[1:] - 1] = rows.last_targets
    else:
        skipped = 1
        weights[segments[1:] - 1] = 0
    if rows.context_lengths is not None:
        weights[positions < np.repeat(rows.context_lengths + skipped, lengths)] = 0
    elif skipped:
        weights[segments[:-1]] = 0
    if rows.bears_loss is not None:
        weights = rows.bears_loss.astype(np.float32)
    if rows.labels is not None:
        targets, weights = np.zeros_like(inputs), np.zeros_like(weights)
        targets[segments[:-1]] = rows.labels
        weights[segments[:-1]] = 1

    def dense(values: np.ndarray, dtype: type) -> np.ndarray:
        array: np.ndarray = np.zeros(shape, dtype)
        array.reshape(-1)[places] = values
        return array

    numbers = np.repeat(spans(np.ones(len(counts), np.int64), counts), lengths)
    return Batch(
        dense(inputs, np.int32),
        dense(targets, np.int32),
        dense(numbers, np.int32),
        dense(positions, np.int32),
        dense(weights, np.float32),
    )
