"""Labelled examples for sequence classification: one example a row, rows of like length together.

Examples are not packed with each other. A batch is as wide as its bucket: widths double from 32 up
to sequence_length, so that a step is compiled for a handful of shapes and short examples cost
little padding. The order is a pure function of (seed, epoch).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from components.errors import TokenmillError
from components.pack.packing import spans
from components.tokenize.vocabulary import CLS_ID, SEP_ID

_FIRST_WIDTH = 32


class LabelledExamples(NamedTuple):
    """Framed examples and the books of how they came about.

    Attributes:
        inputs: Ids of all examples, each `CLS tokens SEP`, int32.
        lengths: Slots of each example, int64.
        labels: Class of each, int32, an index into `label_names`.
        label_names: The classes, sorted.
        dropped: Documents left out, by reason: empty, no_label.
        tokens: Tokens of the documents kept, before truncation.
        truncated_tokens: Tokens cut off; tokens = sum(lengths - 2) + truncated_tokens.
    """

    inputs: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    label_names: list[bytes]
    dropped: dict[str, int]
    tokens: int
    truncated_tokens: int


class LabelledBatch(NamedTuple):
    """A batch for a classifier; a bucket's last batch is filled up with rows of weight 0.

    Attributes:
        inputs: int32 [rows, width]; 0 in padding.
        segment_ids: int32 [rows, width]; 1, and 0 in padding.
        positions: int32 [rows, width].
        labels: int32 [rows].
        weights: float32 [rows]; 1 for an example, 0 for a row that fills up.
    """

    inputs: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


def frame_examples(
    documents: Sequence[np.ndarray],
    labels: Sequence[bytes | None],
    sequence_length: int,
    label_names: Sequence[bytes] | None = None,
) -> LabelledExamples:
    """Frames each document, keeping its first sequence_length - 2 tokens.

    Args:
        documents: Ids of each document, 1-D int arrays.
        labels: Label of each; None or empty if it has none.
        sequence_length: Slots of the longest row.
        label_names: The classes, for a held-out split those of training; None: those found.

    Raises:
        TokenmillError: A label is none of `label_names`.
    """
    names = sorted({x for x in labels if x} if label_names is None else label_names)
    number = {name: i for i, name in enumerate(names)}
    kept, dropped = [], {"empty": 0, "no_label": 0}
    for i, (document, label) in enumerate(zip(documents, labels, strict=True)):
        if not len(document):
            dropped["empty"] += 1
        elif not label:
            dropped["no_label"] += 1
        elif label not in number:
            raise TokenmillError(
                f"label {label.decode(errors='replace')!r} is none of training's {len(names)}.",
                "Give training an example of it, or leave the document out.",
            )
        else:
            kept.append(i)
    counts = np.array([len(documents[i]) for i in kept], np.int64)
    lengths = np.minimum(counts, sequence_length - 2) + 2
    inputs = np.empty(lengths.sum(), np.int32)
    ends = np.cumsum(lengths)
    inputs[ends - lengths], inputs[ends - 1] = CLS_ID, SEP_ID
    if kept:
        inputs[spans(ends - lengths + 1, lengths - 2)] = np.concatenate(
            [documents[i][: n - 2] for i, n in zip(kept, lengths.tolist(), strict=True)]
        )
    return LabelledExamples(
        inputs,
        lengths,
        np.array([number[labels[i] or b""] for i in kept], np.int32),
        names,
        dropped,
        int(counts.sum()),
        int((counts + 2 - lengths).sum()),
    )


def widths(sequence_length: int) -> list[int]:
    """Widths of the buckets, ascending; the last is sequence_length."""
    result = []
    width = _FIRST_WIDTH
    while width < sequence_length:
        result.append(width)
        width *= 2
    return [*result, sequence_length]


def bucketed_batches(
    examples: LabelledExamples, sequence_length: int, batch_size: int, seed: int, epoch: int
) -> Iterator[LabelledBatch]:
    """One epoch: every example once, in batches of one bucket each, the batches shuffled.

    Args:
        examples: Of `frame_examples`.
        sequence_length: As given there.
        batch_size: Rows of every batch.
        seed: Of the order.
        epoch: Each has an order of its own.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = generator.permutation(len(examples.lengths))
    bounds = widths(sequence_length)
    bucket = np.searchsorted(bounds, examples.lengths[order])
    batches = [
        (width, mine[i : i + batch_size])
        for b, width in enumerate(bounds)
        for mine in [order[bucket == b]]
        for i in range(0, len(mine), batch_size)
    ]
    starts = np.cumsum(examples.lengths) - examples.lengths
    for i in generator.permutation(len(batches)).tolist():
        width, numbers = batches[i]
        lengths = examples.lengths[numbers]
        places = spans(np.arange(len(numbers)) * width, lengths)
        inputs, segment_ids, positions = (np.zeros((batch_size, width), np.int32) for _ in range(3))
        inputs.reshape(-1)[places] = examples.inputs[spans(starts[numbers], lengths)]
        segment_ids.reshape(-1)[places] = 1
        positions.reshape(-1)[places] = spans(np.zeros(len(numbers), np.int64), lengths)
        missing = batch_size - len(numbers)
        labels = np.pad(examples.labels[numbers], (0, missing))
        weights = np.pad(np.ones(len(numbers), np.float32), (0, missing))
        yield LabelledBatch(inputs, segment_ids, positions, labels, weights)
