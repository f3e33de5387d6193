"""Counts of each shard, added up and checked."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tokenmill.contracts.packed_rows import LABEL_REASONS, PackedCounts, SourceCounts


class ShardCounts(NamedTuple):
    """What was counted of a shard.

    Attributes:
        segments: Parts of documents in its rows.
        filled_slots: Slots that are not padding.
        context_slots: Those of them that repeat tokens as context.
        frame_slots: Those of them that hold CLS or SEP.
        packed_items: Items of the parts.
        slots: Slots of its rows with padding.
        by_source: Counts of its documents.
    """

    segments: int
    filled_slots: int
    context_slots: int
    frame_slots: int
    packed_items: int
    slots: int
    by_source: dict[str, SourceCounts]


def count_sources(sources: list[str], columns: Mapping[str, np.ndarray]) -> dict[str, SourceCounts]:
    """Add up a shard's documents by source.

    Args:
        sources: Source of each document.
        columns: What to add up, by its name in `SourceCounts`: a number for each document.
    """
    names, index = np.unique(np.array(sources, object), return_inverse=True)
    sums = {
        column: np.bincount(index, weights=values, minlength=len(names)).astype(np.int64)
        for column, values in columns.items()
    }
    return {
        str(name): SourceCounts(**{column: int(values[i]) for column, values in sums.items()})
        for i, name in enumerate(names)
    }


def _add_up(parts: Iterable[SourceCounts], names: Iterable[str]) -> dict[str, int]:
    parts = list(parts)
    return {name: sum(getattr(part, name) for part in parts) for name in names}


def sum_shards(shards: Sequence[ShardCounts], task: str) -> PackedCounts:
    """Add up the counts of all shards and check that nothing is missing.

    Args:
        shards: Counts of each.
        task: In causal-lm a document's end bears a loss too; in classification documents without a
            known label are left out, and what is behind the row's end is cut off.

    Raises:
        ArithmeticError: Tokens went missing; a bug, and no run should go on with it.
    """
    names = [
        name
        for name, field in SourceCounts.model_fields.items()
        if field.is_required() or task == "classification"
    ]
    parts: dict[str, list[SourceCounts]] = {}
    for shard in shards:
        for source, counts in shard.by_source.items():
            parts.setdefault(source, []).append(counts)
    by_source = {source: SourceCounts(**_add_up(c, names)) for source, c in parts.items()}
    totals = SourceCounts(**_add_up(by_source.values(), names))
    slots = sum(shard.slots for shard in shards)
    segments = sum(shard.segments for shard in shards)
    filled = sum(shard.filled_slots for shard in shards)
    frame = sum(shard.frame_slots for shard in shards)
    without_loss = frame + sum(shard.context_slots for shard in shards)
    items = sum(shard.packed_items for shard in shards)
    documents = totals.documents - totals.dropped_empty
    expected = totals.tokens + (documents if task == "causal-lm" else 0)
    if task == "classification":
        documents -= sum(getattr(totals, f"dropped_{reason}") for reason in LABEL_REASONS)
        expected -= totals.dropped_tokens + totals.truncated_tokens
        if documents != segments:
            raise ArithmeticError(
                f"packing does not balance: {documents} documents have a label, but "
                f"{segments} were packed"
            )
    if not filled - without_loss == items == totals.loss_tokens == expected:
        raise ArithmeticError(
            f"packing does not balance: {totals.tokens} tokens in {documents} documents "
            f"make {totals.loss_tokens} targets ({expected} expected); {items} "
            f"were packed, into {filled - without_loss} slots"
        )
    return PackedCounts(
        **totals.counted(),
        slots=slots,
        context_slots=without_loss,
        frame_slots=frame,
        padding_slots=slots - filled,
        segments=segments,
        by_source=by_source,
    )
