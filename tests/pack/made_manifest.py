"""Manifests of packed rows that a test makes up."""

from tokenmill.contracts.packed_rows import FORMAT, PackedManifest, SourceCounts

NOTHING = {
    "documents": 0, "bytes": 0, "tokens": 0, "loss_tokens": 0, "dropped_empty": 0,
    "slots": 0, "context_slots": 0, "frame_slots": 0, "padding_slots": 0, "segments": 0,
    "by_source": {}, "by_language": {}, "loss_tokens_by_source_and_language": {},
    "format": FORMAT, "task": "causal-lm", "sequence_length": 64, "vocab_size": 1000,
    "row_format": {"dtype": "<u2", "last_targets": True, "context": False},
    "overlap_tokens": 0, "source_weights": {}, "max_repetitions": None,
    "rows": 0, "stored_bytes": 0, "shard_count": 1, "shards": [],
}  # fmt: skip


def packed_manifest(**values):
    """The manifest of a split of next-token rows with these values; the others are of no rows.

    All its documents are of one language, unless `by_language` says otherwise.
    """
    all_values = {**NOTHING, **values}
    counts = {n: all_values[n] for n in SourceCounts.model_fields if n in all_values}
    return PackedManifest(**{**all_values, "by_language": {"en": counts}, **values})


def packed_shard(**values):
    """A shard's entry with these values."""
    return {
        "file": "", "index": "", "rows": 0, "bytes": 0, "sha256": "", "index_sha256": "",
        "shard": 0, "provenance": "", "provenance_sha256": "", "rows_by_source": [], **values,
    }  # fmt: skip
