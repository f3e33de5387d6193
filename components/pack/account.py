"""The packer's books: what each shard counted, summed and checked."""

from typing import Any

import numpy as np

_SOURCE_COUNTS = ("documents", "bytes", "tokens", "targets", "dropped_empty")


def count_sources(
    sources: list[str], byte_counts: np.ndarray, token_counts: np.ndarray, causal: bool
) -> dict[str, dict[str, int]]:
    """Counts of a shard's documents by source.

    Args:
        sources: Source of each document.
        byte_counts: Bytes of text of each.
        token_counts: Tokens of each; a document without any is dropped (reason empty).
        causal: Whether a document's end is a target too.

    Returns:
        {source: {documents, bytes, tokens, targets, dropped_empty}}.
    """
    names, index = np.unique(np.array(sources, object), return_inverse=True)
    empty = token_counts == 0
    columns = (
        np.ones(len(index), np.int64),
        byte_counts,
        token_counts,
        token_counts + (~empty if causal else 0),
        empty,
    )
    sums = [
        np.bincount(index, weights=column, minlength=len(names)).astype(np.int64)
        for column in columns
    ]
    return {
        str(name): dict(zip(_SOURCE_COUNTS, (int(s[i]) for s in sums), strict=True))
        for i, name in enumerate(names)
    }


def sum_shards(shards: list[dict[str, Any]], slots: int, causal: bool) -> dict[str, Any]:
    """Sums the counts of all shards and checks that nothing is missing.

    Args:
        shards: Entries of `pack_shard`, each with "counts".
        slots: Slots of all rows.
        causal: Whether a document's end is a target too.

    Returns:
        {documents, bytes, tokens, targets, dropped_empty, slots, context_slots, frame_slots,
        padding_slots, segments, by_source}. slots = targets + context_slots + padding_slots;
        context_slots bear no loss, and frame_slots are those of them that hold CLS or SEP.

    Raises:
        ArithmeticError: Tokens went missing; a bug, and no run should go on with it.
    """
    by_source: dict[str, dict[str, int]] = {}
    for shard in shards:
        for source, account in shard["counts"]["by_source"].items():
            total = by_source.setdefault(source, dict.fromkeys(account, 0))
            for name, value in account.items():
                total[name] += value
    totals = {name: sum(a[name] for a in by_source.values()) for name in _SOURCE_COUNTS}
    counts = {
        name: sum(shard["counts"][name] for shard in shards)
        for name in ("segments", "filled_slots", "context_slots", "frame_slots", "packed_items")
    }
    packed_documents = totals["documents"] - totals["dropped_empty"]
    expected = totals["tokens"] + (packed_documents if causal else 0)
    loss_bearing = counts["filled_slots"] - counts["context_slots"] - counts["frame_slots"]
    if not loss_bearing == counts["packed_items"] == totals["targets"] == expected:
        raise ArithmeticError(
            f"packing does not balance: {totals['tokens']} tokens in {packed_documents} documents "
            f"make {totals['targets']} targets ({expected} expected); {counts['packed_items']} "
            f"were packed, into {loss_bearing} slots"
        )
    return {
        **totals,
        "slots": slots,
        "context_slots": counts["context_slots"] + counts["frame_slots"],
        "frame_slots": counts["frame_slots"],
        "padding_slots": slots - counts["filled_slots"],
        "segments": counts["segments"],
        "by_source": by_source,
    }
