"""Documents as they travel between steps: Arrow record batches in memory, tf.Examples on disk.

A document has four features, everywhere: `doc_id` (stable; unique unless the user's own ids
repeat), `source` (where it came from), `text` (UTF-8) and `byte_count` (length of `text` in bytes).
A labeled one (corpus.label_field) has `label` too. Records
lie in shards that are chosen by a hash of `doc_id` and sorted by it, so that the same documents
give the same files whatever the order, the bundles or the number of workers that computed them.

Nothing here, nor in what Beam's workers run for ingest and curation, imports TensorFlow: it takes
some seconds and 500 MB of every worker.
"""

import functools
import gzip
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import google_crc32c
import pyarrow as pa
from apache_beam.io.filesystems import FileSystems
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from tokenmill.records.sorted_hashes import create_plain, open_plain

SPLITS = ("train", "eval")

DOCUMENT_FEATURES = ("doc_id", "source", "text", "byte_count")
"""What every document on disk has; `label` is there where it is not empty."""

DOCUMENT_SCHEMA = pa.schema(
    [
        ("doc_id", pa.large_binary()),
        ("source", pa.large_binary()),
        ("text", pa.large_binary()),
        ("byte_count", pa.int64()),
        ("label", pa.large_binary()),
    ]
)

# Documents a batch: enough to pay for Beam's per-element cost, few enough to stay small in memory.
BATCH_DOCUMENTS = 512
BATCH_BYTES = 16 << 20

# TFRecord framing: length, checksum of the length, data, checksum of the data.
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_READ_BYTES = 1 << 20
_WRITE_BYTES = 1 << 18
_ONE_BYTE = [bytes([value]) for value in range(0x80)]


def document_batch(
    doc_ids: Sequence[bytes],
    sources: Sequence[bytes],
    texts: Sequence[bytes],
    labels: Sequence[bytes] | None = None,
) -> pa.RecordBatch:
    """Builds a batch of documents; `byte_count` is the length of each text in bytes.

    Args:
        doc_ids: Id of each.
        sources: Where each came from.
        texts: UTF-8.
        labels: Class of each, empty where it has none; None: no document has one.
    """
    return pa.RecordBatch.from_arrays(
        [
            pa.array(doc_ids, pa.large_binary()),
            pa.array(sources, pa.large_binary()),
            pa.array(texts, pa.large_binary()),
            pa.array([len(text) for text in texts], pa.int64()),
            pa.array([b""] * len(texts) if labels is None else labels, pa.large_binary()),
        ],
        schema=DOCUMENT_SCHEMA,
    )


def decode_documents(serialized: list[bytes]) -> pa.RecordBatch:
    """Parses serialized tf.Examples (single-valued features) into flat Arrow columns."""
    batch = ExamplesToRecordBatchDecoder().DecodeBatch(serialized)
    columns = [
        batch.column(batch.schema.get_field_index(name)).flatten() for name in DOCUMENT_FEATURES
    ]
    labels = [b""] * batch.num_rows
    if (place := batch.schema.get_field_index("label")) >= 0:
        labels = [values[0] if values else b"" for values in batch.column(place).to_pylist()]
    columns.append(pa.array(labels, pa.large_binary()))
    return pa.RecordBatch.from_arrays(columns, schema=DOCUMENT_SCHEMA)


def encode_documents(batch: pa.RecordBatch) -> list[tuple[bytes, bytes]]:
    """Serializes each document; returns (doc_id, tf.Example) pairs.

    The wire format is written here, features in sorted order, as protobuf's deterministic
    serialization does (a fifth of its time): the C++ batch encoder of tfx-bsl orders the features
    anew in every process, and the files would differ from run to run. The text comes last.
    """
    columns = [batch.column(i).to_pylist() for i in range(5)]
    pairs = []
    for doc_id, source, text, byte_count, label in zip(*columns, strict=True):
        number = _varint(byte_count)
        features = b"".join(
            (
                _feature_head(b"byte_count", b"\x1a", len(number)),
                number,
                _feature_head(b"doc_id", b"\x0a", len(doc_id)),
                doc_id,
                *((_feature_head(b"label", b"\x0a", len(label)), label) if label else ()),
                _feature_head(b"source", b"\x0a", len(source)),
                source,
                _feature_head(b"text", b"\x0a", len(text)),
                text,
            )
        )
        pairs.append((doc_id, b"\x0a" + _varint(len(features)) + features))
    return pairs


@functools.lru_cache(maxsize=1 << 14)
def _feature_head(name: bytes, kind: bytes, size: int) -> bytes:
    """What comes before the value of an entry {1: name, 2: Feature{kind: list{1: value}}}."""
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


def stable_hash(key: bytes) -> int:
    """A 64-bit hash that is the same in every process and version (unlike `hash()`)."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def split_directory(uri: str, split: str) -> str:
    """The directory of a split inside an Examples artifact (TFX's own naming)."""
    return os.path.join(uri, f"Split-{split}")


def write_tfrecords(path: str, records: Iterable[bytes], gzip: bool) -> None:
    """Writes records as a TFRecord file, aside first and then renamed: never half a file.

    Like all files here, on every filesystem that Beam knows.
    """
    _write(path, _gzipped(_framed(records)) if gzip else _framed(records))


def _write(path: str, blocks: Iterable[bytes]) -> None:
    aside = f"{path}.writing"
    with create_plain(aside) as out:
        for block in blocks:
            out.write(block)
    FileSystems.rename([aside], [path])


def _framed(records: Iterable[bytes]) -> Iterator[bytes]:
    """TFRecords in blocks; half the time of TensorFlow's writer, which is called for each."""
    parts: list[bytes] = []
    size = 0
    for record in records:
        length = len(record).to_bytes(8, "little")
        parts += (length, _FOOTER.pack(_masked_crc32c(length)), record)
        parts.append(_FOOTER.pack(_masked_crc32c(record)))
        size += len(record)
        if size >= _WRITE_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)


def _gzipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """One gzip stream, without a time in its head.

    Level 1: a third of the default's time for a tenth more bytes; these files are read once.
    """
    compressor = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for block in blocks:
        yield compressor.compress(block)
    yield compressor.flush()


def write_text(path: str, text: str) -> None:
    """Writes a small UTF-8 file, aside first and then renamed."""
    _write(path, [text.encode("utf-8")])


def write_json(path: str, value: Any) -> None:
    """Writes `value` as sorted, indented JSON, aside first and then renamed."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str) -> Any:
    """Reads a JSON file."""
    with open_plain(path) as source:
        return json.loads(source.read().decode("utf-8"))


class DocumentFile(NamedTuple):
    """A file of documents of a split."""

    split: str
    path: str


def read_documents(path: str) -> Iterator[pa.RecordBatch]:
    """The documents of one TFRecord file, in batches of BATCH_DOCUMENTS or BATCH_BYTES."""
    batch: list[bytes] = []
    size = 0
    for record in read_tfrecords(path):
        batch.append(record)
        size += len(record)
        if len(batch) == BATCH_DOCUMENTS or size >= BATCH_BYTES:
            yield decode_documents(batch)
            batch, size = [], 0
    if batch:
        yield decode_documents(batch)


def read_tfrecords(path: str) -> Iterator[bytes]:
    """The records of a TFRecord file, gzipped if it is called .gz, on any of Beam's filesystems.

    Several times faster than tf.data and Beam's own reader, which make an object or two of each
    record; the checksums are looked at all the same.

    Raises:
        ValueError: A record is broken off or has another checksum, or the file is not what gzip
            wrote.
    """
    with open_plain(path) as stored:
        file = gzip.GzipFile(fileobj=stored) if path.endswith(".gz") else stored
        rest, missing = b"", 0
        while block := _read(path, file, max(_READ_BYTES, missing)):
            data = rest + block
            at = missing = 0
            while len(data) >= at + _HEADER.size:
                size, checksum = _HEADER.unpack_from(data, at)
                if checksum != _masked_crc32c(data[at : at + 8]):
                    raise ValueError(f"{path}: the length of a record has another checksum")
                end = at + _HEADER.size + size
                if len(data) < end + _FOOTER.size:
                    missing = end + _FOOTER.size - len(data)
                    break
                record = data[at + _HEADER.size : end]
                if _FOOTER.unpack_from(data, end)[0] != _masked_crc32c(record):
                    raise ValueError(f"{path}: a record has another checksum")
                yield record
                at = end + _FOOTER.size
            rest = data[at:]
        if rest:
            raise ValueError(f"{path}: the last record is broken off")


def _read(path: str, file: Any, size: int) -> bytes:
    """The next block; what gzip says of a broken file becomes a ValueError that names it."""
    try:
        return file.read(size)
    except EOFError:
        raise ValueError(f"{path}: the compressed file is broken off") from None
    except gzip.BadGzipFile as error:
        raise ValueError(f"{path}: not a gzip file, or a damaged one ({error})") from error
    except zlib.error as error:
        raise ValueError(f"{path}: damaged ({error})") from error


def _masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecords: CRC-32C, rotated and shifted."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


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
