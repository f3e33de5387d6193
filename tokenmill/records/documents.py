"""Documents as they travel between steps: Arrow record batches in memory, tf.Examples on disk.

A document has four features, everywhere: `doc_id` (stable and unique: ingest gives documents that
share an id ids of their own), `source` (where it came from), `text` (UTF-8) and `byte_count`
(length of `text` in bytes). Where they are known, it has `label` (its class), `language` (ISO 639:
before curation as the input says, behind it as found), `messages` (of a conversation: before
curation its turns, tokenmill/records/conversations.py; behind it as its chat template writes them,
tokenmill/text/chat.py) and `metadata` (a JSON object with sorted keys: title, url, date, license).
Behind curation it has `quality_score` (a float from 0 to 1) where a scorer was trained.
Records lie in shards that are chosen by a hash of `doc_id` (as it
came in) and sorted by it, so that the same documents give the same files whatever the order, the
bundles or the number of workers that computed them.

Nothing here, nor in what Beam's workers run for ingest and curation, imports TensorFlow: it takes
some seconds and 500 MB of every worker.
"""

import functools
import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from tokenmill import progress
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import read_tfrecords

DOCUMENT_FEATURES = ("doc_id", "source", "text", "byte_count")
"""What every document on disk has."""

OPTIONAL_FEATURES = ("label", "language", "messages", "metadata")
"""What a document has where it is not empty."""

QUALITY_SCORE = "quality_score"

DOCUMENT_SCHEMA = pa.schema(
    [
        ("doc_id", pa.large_binary()),
        ("source", pa.large_binary()),
        ("text", pa.large_binary()),
        ("byte_count", pa.int64()),
        *((name, pa.large_binary()) for name in OPTIONAL_FEATURES),
        (QUALITY_SCORE, pa.float32()),
    ]
)

# Documents a batch: enough to pay for Beam's per-element cost, few enough to stay small in memory.
BATCH_DOCUMENTS = 512
BATCH_BYTES = 16 << 20

_ONE_BYTE = [bytes([value]) for value in range(0x80)]


def document_batch(
    doc_ids: Sequence[bytes],
    sources: Sequence[bytes],
    texts: Sequence[bytes],
    labels: Sequence[bytes] | None = None,
    languages: Sequence[bytes] | None = None,
    metadata: Sequence[bytes] | None = None,
    messages: Sequence[bytes] | None = None,
    scores: Sequence[float] | np.ndarray | None = None,
) -> pa.RecordBatch:
    """Build a batch of documents; `byte_count` is the length of each text in bytes.

    Args:
        doc_ids: Id of each.
        sources: Where each came from.
        texts: UTF-8.
        labels: Class of each, empty where it has none; None: no document has one.
        languages: Language of each, likewise.
        metadata: A JSON object of each, likewise.
        messages: Turns of each that is a conversation, likewise.
        scores: Quality of each, from 0 to 1; None: no document has a score.
    """
    none = [b""] * len(texts)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(doc_ids, pa.large_binary()),
            pa.array(sources, pa.large_binary()),
            pa.array(texts, pa.large_binary()),
            pa.array([len(text) for text in texts], pa.int64()),
            *(
                pa.array(none if values is None else values, pa.large_binary())
                for values in (labels, languages, messages, metadata)
            ),
            pa.nulls(len(texts), pa.float32())
            if scores is None
            else pa.array(scores, pa.float32()),
        ],
        schema=DOCUMENT_SCHEMA,
    )


def decode_documents(serialized: list[bytes]) -> pa.RecordBatch:
    """Parse serialized tf.Examples (single-valued features) into flat Arrow columns."""
    batch = ExamplesToRecordBatchDecoder().DecodeBatch(serialized)
    columns = [
        batch.column(batch.schema.get_field_index(name)).flatten() for name in DOCUMENT_FEATURES
    ]
    for name in OPTIONAL_FEATURES:
        found = [b""] * batch.num_rows
        if (place := batch.schema.get_field_index(name)) >= 0:
            found = [values[0] if values else b"" for values in batch.column(place).to_pylist()]
        columns.append(pa.array(found, pa.large_binary()))
    scores: list[float | None] = [None] * batch.num_rows
    if (place := batch.schema.get_field_index(QUALITY_SCORE)) >= 0:
        scores = [values[0] if values else None for values in batch.column(place).to_pylist()]
    columns.append(pa.array(scores, pa.float32()))
    return pa.RecordBatch.from_arrays(columns, schema=DOCUMENT_SCHEMA)


def encode_documents(batch: pa.RecordBatch) -> list[tuple[bytes, bytes]]:
    """Serialize each document; return (doc_id, tf.Example) pairs.

    The wire format is written here, features in sorted order, as protobuf's deterministic
    serialization does (a fifth of its time): the C++ batch encoder of tfx-bsl orders the features
    anew in every process, and the files would differ from run to run. The text comes last.
    """
    columns = (column.to_pylist() for column in batch.columns)
    pairs = []
    for doc_id, source, text, byte_count, *optional, score in zip(*columns, strict=True):
        number = _varint(byte_count)
        features = b"".join(
            (
                _feature_head(b"byte_count", b"\x1a", len(number)),
                number,
                _feature_head(b"doc_id", b"\x0a", len(doc_id)),
                doc_id,
                *_optional_features(optional),
                *_score_feature(score),
                _feature_head(b"source", b"\x0a", len(source)),
                source,
                _feature_head(b"text", b"\x0a", len(text)),
                text,
            )
        )
        pairs.append((doc_id, b"\x0a" + _varint(len(features)) + features))
    return pairs


def _optional_features(values: Sequence[bytes]) -> Iterator[bytes]:
    for name, value in zip(OPTIONAL_FEATURES, values, strict=True):
        if value:
            yield _feature_head(name.encode(), b"\x0a", len(value))
            yield value


def _score_feature(score: float | None) -> Iterator[bytes]:
    if score is not None:
        yield _feature_head(QUALITY_SCORE.encode(), b"\x12", 4)
        yield struct.pack("<f", score)


@functools.lru_cache(maxsize=1 << 14)
def _feature_head(name: bytes, kind: bytes, size: int) -> bytes:
    """Encode the head of an entry {1: name, 2: Feature{kind: list{1: value}}}, before its value."""
    value = b"\x0a" + _varint(size)
    values = kind + _varint(len(value) + size) + value
    feature = b"\x12" + _varint(len(values) + size) + values
    entry = b"\x0a" + _varint(len(name)) + name + feature
    return b"\x0a" + _varint(len(entry) + size) + entry


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _ONE_BYTE[value]
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


class DocumentFile(NamedTuple):
    """A file of documents of a split."""

    split: str
    path: str


def read_documents(path: str) -> Iterator[pa.RecordBatch]:
    """Yield the documents of one TFRecord file, in batches of BATCH_DOCUMENTS or BATCH_BYTES."""
    return map(decode_documents, read_batches(path, BATCH_DOCUMENTS, BATCH_BYTES))


def read_batches(path: str, most_documents: int, most_bytes: int) -> Iterator[list[bytes]]:
    """Yield the documents of one TFRecord file, serialized, in batches.

    Args:
        path: Of the file.
        most_documents: Of a batch.
        most_bytes: A batch ends with the document that reaches them.
    """
    batch: list[bytes] = []
    size = 0
    for record in read_tfrecords(path):
        batch.append(record)
        size += len(record)
        if len(batch) == most_documents or size >= most_bytes:
            progress.read(len(batch), size)
            yield batch
            batch, size = [], 0
    if batch:
        progress.read(len(batch), size)
        yield batch


@beam.typehints.with_output_types(pa.RecordBatch)
class ReadDocuments(beam.PTransform):
    """A Beam source: one split of an Examples artifact as batches of documents."""

    def __init__(self, uri: str, split: str):
        super().__init__()
        self._pattern = os.path.join(split_directory(uri, split), "*")

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Read the split as a PCollection of pa.RecordBatch (DOCUMENT_SCHEMA)."""
        return (
            pipeline
            | "Read" >> beam.io.ReadFromTFRecord(self._pattern)
            | "Batch"
            >> beam.BatchElements(min_batch_size=BATCH_DOCUMENTS, max_batch_size=BATCH_DOCUMENTS)
            | "Decode" >> beam.Map(_decode_told)
        )


def _decode_told(serialized: list[bytes]) -> pa.RecordBatch:
    progress.read(len(serialized), sum(map(len, serialized)))
    return decode_documents(serialized)
