"""Documents as they travel between steps: Arrow record batches in memory, tf.Examples on disk.

A document has four fields, everywhere: `doc_id` (stable; unique unless the user's own ids repeat),
`source` (where it came from), `text` (UTF-8) and `byte_count` (length of `text` in bytes). Records
lie in shards that are chosen by a hash of `doc_id` and sorted by it, so that the same documents
give the same files whatever the order, the bundles or the number of workers that computed them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

SPLITS = ("train", "eval")

DOCUMENT_SCHEMA = pa.schema(
    [
        ("doc_id", pa.large_binary()),
        ("source", pa.large_binary()),
        ("text", pa.large_binary()),
        ("byte_count", pa.int64()),
    ]
)

# Documents a batch: enough to pay for Beam's per-element cost, few enough to stay small in memory.
BATCH_DOCUMENTS = 512


def document_batch(
    doc_ids: Sequence[bytes], sources: Sequence[bytes], texts: Sequence[bytes]
) -> pa.RecordBatch:
    """Builds a batch of documents; `byte_count` is the length of each text in bytes."""
    return pa.RecordBatch.from_arrays(
        [
            pa.array(doc_ids, pa.large_binary()),
            pa.array(sources, pa.large_binary()),
            pa.array(texts, pa.large_binary()),
            pa.array([len(text) for text in texts], pa.int64()),
        ],
        schema=DOCUMENT_SCHEMA,
    )


def decode_documents(serialized: list[bytes]) -> pa.RecordBatch:
    """Parses serialised tf.Examples (single-valued features) into flat Arrow columns."""
    batch = ExamplesToRecordBatchDecoder().DecodeBatch(serialized)
    return pa.RecordBatch.from_arrays(
        [batch.column(batch.schema.get_field_index(f.name)).flatten() for f in DOCUMENT_SCHEMA],
        schema=DOCUMENT_SCHEMA,
    )


def encode_documents(batch: pa.RecordBatch) -> list[tuple[bytes, bytes]]:
    """Serialises each document; returns (doc_id, tf.Example) pairs.

    Features are written in sorted order: the C++ batch encoder of tfx-bsl orders them anew in
    every process, and the files would differ from run to run.
    """
    columns = [batch.column(i).to_pylist() for i in range(4)]
    pairs = []
    for doc_id, source, text, byte_count in zip(*columns, strict=True):
        example = tf.train.Example()
        feature = example.features.feature
        feature["doc_id"].bytes_list.value.append(doc_id)
        feature["source"].bytes_list.value.append(source)
        feature["text"].bytes_list.value.append(text)
        feature["byte_count"].int64_list.value.append(byte_count)
        pairs.append((doc_id, example.SerializeToString(deterministic=True)))
    return pairs


def stable_hash(key: bytes) -> int:
    """A 64-bit hash that is the same in every process and version (unlike `hash()`)."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def split_directory(uri: str, split: str) -> str:
    """The directory of a split inside an Examples artifact (TFX's own naming)."""
    return os.path.join(uri, f"Split-{split}")


def write_tfrecords(path: str, records: Iterable[bytes], gzip: bool) -> int:
    """Writes records as a TFRecord file, aside first and then renamed: never half a file.

    Works on every filesystem that TensorFlow knows. Returns the payload bytes written.
    """
    aside = f"{path}.writing"
    tf.io.gfile.makedirs(os.path.dirname(path))
    written_bytes = 0
    # Level 1: a third of the default's time for a tenth more bytes; these files are read once.
    options = tf.io.TFRecordOptions("GZIP" if gzip else "", compression_level=1 if gzip else None)
    with tf.io.TFRecordWriter(aside, options=options) as writer:
        for record in records:
            writer.write(record)
            written_bytes += len(record)
    tf.io.gfile.rename(aside, path, overwrite=True)
    return written_bytes


def write_text(path: str, text: str) -> None:
    """Writes a small UTF-8 file, aside first and then renamed."""
    tf.io.gfile.makedirs(os.path.dirname(path))
    aside = f"{path}.writing"
    with tf.io.gfile.GFile(aside, "wb") as out:
        out.write(text.encode("utf-8"))
    tf.io.gfile.rename(aside, path, overwrite=True)


def write_json(path: str, value: Any) -> None:
    """Writes `value` as sorted, indented JSON, aside first and then renamed."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str) -> Any:
    """Reads a JSON file from any filesystem that TensorFlow knows."""
    with tf.io.gfile.GFile(path, "rb") as source:
        return json.loads(source.read().decode("utf-8"))


@beam.typehints.with_output_types(pa.RecordBatch)
class ReadDocuments(beam.PTransform):
    """Reads one split of an Examples artifact as batches of documents."""

    def __init__(self, uri: str, split: str):
        super().__init__()
        self._pattern = os.path.join(split_directory(uri, split), "*")

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Pipeline -> PCollection of pa.RecordBatch (DOCUMENT_SCHEMA)."""
        return (
            pipeline
            | "Read" >> beam.io.ReadFromTFRecord(self._pattern)
            | "Batch"
            >> beam.BatchElements(min_batch_size=BATCH_DOCUMENTS, max_batch_size=BATCH_DOCUMENTS)
            | "Decode" >> beam.Map(decode_documents)
        )


def shard_documents(batch: pa.RecordBatch, shards: int) -> Iterator[tuple[int, list]]:
    """Serialises a batch and groups it by shard: (shard, [(doc_id, tf.Example)])."""
    by_shard: dict[int, list[tuple[bytes, bytes]]] = {}
    for pair in encode_documents(batch):
        by_shard.setdefault(stable_hash(pair[0]) % shards, []).append(pair)
    yield from by_shard.items()


class WriteDocuments(beam.PTransform):
    """Writes batches of one split as sorted, gzipped TFRecord shards.

    Args:
        uri: The Examples artifact.
        split: "train" or "eval".
        shards: Number of files; a worker holds one shard in memory to sort it.
    """

    def __init__(self, uri: str, split: str, shards: int):
        super().__init__()
        self._directory = split_directory(uri, split)
        self._shards = shards

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """PCollection of pa.RecordBatch -> PCollection of the records written per file."""
        directory, shards = self._directory, self._shards
        return (
            batches
            | "Shard" >> beam.FlatMap(shard_documents, shards)
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write_shard, directory, shards)
        )


def _write_shard(item: tuple[int, Iterable[list]], directory: str, shards: int) -> int:
    shard, groups = item
    pairs = sorted(pair for group in groups for pair in group)
    path = os.path.join(directory, f"documents-{shard:05d}-of-{shards:05d}.gz")
    write_tfrecords(path, (serialized for _, serialized in pairs), gzip=True)
    return len(pairs)
