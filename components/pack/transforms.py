"""Packing as a Beam transform: tokenised documents of one split in, shards of rows out."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.documents import (
    BATCH_DOCUMENTS,
    split_directory,
    stable_hash,
    write_json,
)
from components.pack.packing import pack
from components.pack.rows import FORMAT, MANIFEST_NAME, row_dtype, write_shard
from components.tokenize.training import EOS_ID


@dataclass(frozen=True)
class PackSettings:
    """Length of a row, size of the vocabulary, files per split."""

    sequence_length: int
    vocab_size: int
    shards: int


class TokenisedDocument(NamedTuple):
    """A document as Transform leaves it; `token_ids` is int32."""

    doc_id: bytes
    source: bytes
    byte_count: int
    token_ids: np.ndarray


def decode_tokenised(serialized: list[bytes]) -> list[TokenisedDocument]:
    """Parses serialised, transformed tf.Examples."""
    batch = ExamplesToRecordBatchDecoder().DecodeBatch(serialized)

    def column(name: str):
        return batch.column(batch.schema.get_field_index(name))

    count = batch.num_rows
    token_column = batch.schema.get_field_index("token_ids")
    if token_column < 0:  # no document of the batch has a token
        token_lists = [np.zeros(0, np.int32)] * count
    else:
        tokens = batch.column(token_column)
        flat = tokens.flatten().to_numpy(zero_copy_only=False).astype(np.int32)
        lengths = tokens.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        token_lists = np.split(flat, np.cumsum(lengths)[:-1]) if count else []
    return [
        TokenisedDocument(*fields)
        for fields in zip(
            column("doc_id").flatten().to_pylist(),
            column("source").flatten().to_pylist(),
            column("byte_count").flatten().to_pylist(),
            token_lists,
            strict=True,
        )
    ]


class PackSplit(beam.PTransform):
    """Packs one split of transformed examples and writes its rows and manifest.

    A shard holds the documents whose hash falls to it, sorted by id: the rows depend on the
    documents and the number of shards, not on bundles, workers or the order of files.
    """

    def __init__(self, examples_pattern: str, output_uri: str, split: str, settings: PackSettings):
        super().__init__()
        self._pattern = examples_pattern
        self._directory = split_directory(output_uri, split)
        self._settings = settings

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Pipeline -> PCollection of one element, the manifest."""
        settings = self._settings
        return (
            pipeline
            | "Read" >> beam.io.ReadFromTFRecord(self._pattern)
            | "Batch"
            >> beam.BatchElements(min_batch_size=BATCH_DOCUMENTS, max_batch_size=BATCH_DOCUMENTS)
            | "Shard" >> beam.FlatMap(_shard, settings.shards)
            | "Group" >> beam.GroupByKey()
            | "Pack" >> beam.Map(pack_shard, self._directory, settings)
            | "Shards" >> beam.combiners.ToList()
            | "Manifest" >> beam.Map(write_manifest, self._directory, settings)
        )


def _shard(serialized: list[bytes], shards: int) -> Iterator[tuple[int, list[TokenisedDocument]]]:
    by_shard: dict[int, list[TokenisedDocument]] = {}
    for document in decode_tokenised(serialized):
        by_shard.setdefault(stable_hash(document.doc_id) % shards, []).append(document)
    yield from by_shard.items()


def pack_shard(
    item: tuple[int, Iterable[list[TokenisedDocument]]], directory: str, settings: PackSettings
) -> dict[str, Any]:
    """Packs and writes one shard; returns its manifest entry with its counts."""
    shard, groups = item
    documents = sorted((d for group in groups for d in group), key=lambda d: (d.doc_id, d.source))
    packable = [d for d in documents if len(d.token_ids)]
    rows = pack([d.token_ids for d in packable], settings.sequence_length)
    entry = write_shard(directory, f"rows-{shard:05d}", rows, row_dtype(settings.vocab_size))
    by_source: dict[str, dict[str, int]] = {}
    for document in documents:
        account = by_source.setdefault(
            document.source.decode(),
            {"documents": 0, "bytes": 0, "tokens": 0, "targets": 0, "dropped_empty": 0},
        )
        account["documents"] += 1
        account["bytes"] += document.byte_count
        account["tokens"] += len(document.token_ids)
        if len(document.token_ids):
            account["targets"] += len(document.token_ids) + 1
        else:
            account["dropped_empty"] += 1
    counts = np.zeros(settings.vocab_size, np.int64)
    for document in packable:
        counts += np.bincount(document.token_ids, minlength=settings.vocab_size)
    counts[EOS_ID] += len(packable)
    entry["counts"] = {
        "segments": sum(len(row.segment_lengths) for row in rows),
        "filled_slots": sum(len(row.inputs) for row in rows),
        "by_source": by_source,
    }
    entry["target_counts"] = counts
    return entry


def write_manifest(
    shards: list[dict[str, Any]], directory: str, settings: PackSettings
) -> dict[str, Any]:
    """Sums the shards' counts, checks that they balance, and writes `manifest.json`.

    `target_counts.npy` beside it holds how often each id is a target (int64, [vocab_size]).

    Raises:
        ArithmeticError: Tokens went missing; a bug, and no run should go on with it.
    """
    shards = sorted(shards, key=lambda shard: shard["file"])
    by_source: dict[str, dict[str, int]] = {}
    for shard in shards:
        for source, account in shard["counts"]["by_source"].items():
            total = by_source.setdefault(source, dict.fromkeys(account, 0))
            for name, value in account.items():
                total[name] += value
    totals = {
        name: sum(account[name] for account in by_source.values())
        for name in ("documents", "bytes", "tokens", "targets", "dropped_empty")
    }
    rows = sum(shard["rows"] for shard in shards)
    slots = rows * settings.sequence_length
    filled = sum(shard["counts"]["filled_slots"] for shard in shards)
    packed_documents = totals["documents"] - totals["dropped_empty"]
    if not filled == totals["targets"] == totals["tokens"] + packed_documents:
        raise ArithmeticError(
            f"packing does not balance: {totals['tokens']} tokens in {packed_documents} documents "
            f"make {totals['targets']} targets, but {filled} slots were filled"
        )
    target_counts = sum(
        (shard.pop("target_counts") for shard in shards),
        start=np.zeros(settings.vocab_size, np.int64),
    )
    manifest = {
        "format": FORMAT,
        "dtype": row_dtype(settings.vocab_size),
        "sequence_length": settings.sequence_length,
        "vocab_size": settings.vocab_size,
        "rows": rows,
        "slots": slots,
        "padding_slots": slots - filled,
        "segments": sum(shard["counts"]["segments"] for shard in shards),
        **totals,
        "stored_bytes": sum(shard["bytes"] for shard in shards),
        "by_source": by_source,
        "shards": [{k: v for k, v in shard.items() if k != "counts"} for shard in shards],
    }
    _write_array(os.path.join(directory, "target_counts.npy"), target_counts)
    write_json(os.path.join(directory, MANIFEST_NAME), manifest)
    return manifest


def _write_array(path: str, array: np.ndarray) -> None:
    import tensorflow as tf

    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "wb") as out:
        np.save(out, array)
