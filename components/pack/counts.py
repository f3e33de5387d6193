"""The packer's books: what each shard counted, summed and checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tokenmill.rows.source_counts import source_counts


def count_sources(
    sources: list[str], columns: Mapping[str, np.ndarray]
) -> dict[str, dict[str, int]]:
    """Sums of a shard's documents by source.

    Args:
        sources: Source of each document.
        columns: What to sum, a number for each document.

    Returns:
        {source: {name of a column: sum}}.
    """
    names, index = np.unique(np.array(sources, object), return_inverse=True)
    sums = {
        column: np.bincount(index, weights=values, minlength=len(names)).astype(np.int64)
        for column, values in columns.items()
    }
    return {
        str(name): {column: int(values[i]) for column, values in sums.items()}
        for i, name in enumerate(names)
    }


def sum_shards(shards: list[dict[str, Any]], slots: int, task: str) -> dict[str, Any]:
    """Sums the counts of all shards and checks that nothing is missing.

    Args:
        shards: Entries of `pack_shard`, each with "counts".
        slots: Slots of all rows.
        task: In causal-lm a document's end is a target too; in classification documents without a
            known label are left out, and what is behind the row's end is cut off.

    Returns:
        {documents, bytes, tokens, targets, dropped_empty, slots, context_slots, frame_slots,
        padding_slots, segments, by_source}, in classification with dropped_no_label,
        dropped_unknown_label, dropped_bytes, dropped_tokens (of these documents) and
        truncated_tokens.
        slots = targets + context_slots + padding_slots; context_slots bear no loss, and
        frame_slots are those of them that hold CLS or SEP.

    Raises:
        ArithmeticError: Tokens went missing; a bug, and no run should go on with it.
    """
    by_source: dict[str, dict[str, int]] = {}
    for shard in shards:
        for source, account in shard["counts"]["by_source"].items():
            total = by_source.setdefault(source, dict.fromkeys(account, 0))
            for name, value in account.items():
                total[name] += value
    totals = {name: sum(a[name] for a in by_source.values()) for name in source_counts(task)}
    counts = {
        name: sum(shard["counts"][name] for shard in shards)
        for name in ("segments", "filled_slots", "context_slots", "frame_slots", "packed_items")
    }
    packed_documents = totals["documents"] - totals["dropped_empty"]
    expected = totals["tokens"] + (packed_documents if task == "causal-lm" else 0)
    if task == "classification":
        packed_documents -= totals["dropped_no_label"] + totals["dropped_unknown_label"]
        expected -= totals["dropped_tokens"] + totals["truncated_tokens"]
        if packed_documents != counts["segments"]:
            raise ArithmeticError(
                f"packing does not balance: {packed_documents} documents have a label, but "
                f"{counts['segments']} were packed"
            )
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
