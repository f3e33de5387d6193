"""A document's way through the pipeline, and a row's documents; plain look-ups, no TFX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tokenmill.contracts.document_status import (
    KEPT,
    DocumentStatus,
    KeptDocument,
    document_status,
)
from tokenmill.errors import TokenmillError
from tokenmill.provenance.document_index import DocumentIndex
from tokenmill.provenance.rows import Placement, documents_of_row, find_document
from tokenmill.records.splits import SPLITS
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.schedule import row_order

# Rows of the data order that are computed at a time.
_CHUNK = 1 << 20


class Explanation(NamedTuple):
    """What became of a document.

    Attributes:
        status: What its last step wrote of it.
        placements: Where its parts are in the rows, if it was kept; None otherwise.
    """

    status: DocumentStatus
    placements: list[Placement] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the status, and with it the placements of a kept document."""
        if self.placements is None:
            return self.status.to_json()
        return {**self.status.to_json(), "placements": [p.to_json() for p in self.placements]}


class RowDocument(NamedTuple):
    """A document that a row holds: where, and its source (empty if it is in no index)."""

    placement: Placement
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return the placement with the source."""
        return {**self.placement.to_json(), "source": self.source}


def explain_document(index: DocumentIndex, rows_uri: str, doc_id: str) -> list[Explanation]:
    """Find what became of a document, from the index and the rows' provenance.

    Args:
        index: Of the run's ledger.
        rows_uri: The packed rows.
        doc_id: As in the input, or file:record of a record without an id.

    Returns:
        What became of each document of this id.

    Raises:
        TokenmillError: No document has this id; the hint names the nearest.
    """
    statuses = [document_status.validate_python(status) for status in index.find(doc_id)]
    if not statuses:
        near = index.nearest(doc_id)
        raise TokenmillError(
            f"no document of this run has the id {doc_id!r} ({len(index):,} have others).",
            f"The nearest: {', '.join(near)}."
            if near
            else "Ids are those of the input; records without one are named file:record.",
        )
    return [
        Explanation(status, find_document(rows_uri, status.split, status.doc_id.encode()))
        if isinstance(status, KeptDocument)
        else Explanation(status)
        for status in statuses
    ]


def explain_row(index: DocumentIndex, rows_uri: str, split: str, row: int) -> list[RowDocument]:
    """List the documents that a row holds, in order.

    Raises:
        TokenmillError: There is no such split or row.
    """
    if split not in SPLITS:
        raise TokenmillError(f"--split {split}: expected {' or '.join(SPLITS)}.")
    try:
        placements = documents_of_row(rows_uri, split, row)
    except IndexError as error:
        raise TokenmillError(f"--row {row}: {error}.", "Rows are counted from 0.") from None
    found = []
    for placement in placements:
        statuses = index.find(placement.doc_id.decode())
        source = next((s["source"] for s in statuses if s["status"] == KEPT), "")
        found.append(RowDocument(placement, source))
    return found


def times_trained(
    rows_uri: str, rows: Sequence[int], steps: int, global_batch_size: int, seed: int
) -> dict[int, int]:
    """Count how often a training run read each of some rows: its order is a function of the seed.

    Args:
        rows_uri: The packed rows.
        rows: Row numbers of the training split.
        steps: Steps of the run.
        global_batch_size: Rows a step.
        seed: Of the run.
    """
    split = PackedSplit(rows_uri, "train")
    wanted = np.array(sorted(set(rows)), np.int64)
    counts = dict.fromkeys(wanted.tolist(), 0)
    done, read = 0, steps * global_batch_size
    if split.task == "classification":  # which rows make a batch depends on its size
        bucketed = row_order(split, global_batch_size, seed)
        for step in range(steps):
            numbers, _ = bucketed.rows_of_step(step)
            for row in numbers[np.isin(numbers, wanted)].tolist():
                counts[row] += 1
        return counts
    if not split.manifest.has_weights:  # every whole epoch reads every row once
        whole = read // split.rows
        counts = dict.fromkeys(counts, whole)
        done = whole * split.rows
    # The order is one of samples, whatever the batch: large batches as far as they go.
    large = global_batch_size * max(1, _CHUNK // global_batch_size)
    start = done
    for size in (large, global_batch_size):
        order = row_order(split, size, seed)
        while (step := start // size) < read // size:
            numbers, _ = order.rows_of_step(step)
            numbers = numbers[start - step * size :]
            found = np.bincount(np.searchsorted(wanted, numbers[np.isin(numbers, wanted)]),
                                minlength=len(wanted))  # fmt: skip
            for row, times in zip(wanted.tolist(), found.tolist(), strict=True):
                counts[row] += times
            start = (step + 1) * size
    return counts
