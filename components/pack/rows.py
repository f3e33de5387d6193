"""How packed rows lie on disk, and how they are read back by number.

A split is a set of TFRecord files (each record with its checksums, readable from any filesystem
that TensorFlow knows), beside each an index of record offsets for random access, and a
`manifest.json` with the counts and a SHA-256 a file. A record holds, as little-endian integers of
2 bytes (4 if the vocabulary does not fit): the number of segments k, k segment lengths, k last
targets and the input ids. Padding is not stored.
"""

import hashlib
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from components.documents import read_json, split_directory, write_tfrecords
from components.errors import TokenmillError
from components.pack.packing import Row

FORMAT = "tokenmill-rows-1"
MANIFEST_NAME = "manifest.json"

# TFRecord's frame: 8 bytes of length and 4 of its checksum before, 4 of checksum after.
_HEADER_BYTES, _FOOTER_BYTES = 12, 4


class Batch(NamedTuple):
    """Dense rows, each array of shape [rows, sequence_length].

    Attributes:
        inputs: int32 ids; 0 in padding.
        targets: int32 ids to predict; 0 in padding.
        segment_ids: int32, 1, 2, .. by document piece; 0 in padding.
        positions: int32, position within the segment.
        loss_weights: float32, 1 where a target counts, 0 in padding.
    """

    inputs: np.ndarray
    targets: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    loss_weights: np.ndarray


def row_dtype(vocab_size: int) -> str:
    """The stored integer type: 2 bytes as long as every id fits."""
    return "<u2" if vocab_size <= 65_536 else "<u4"


def encode_row(row: Row, dtype: str) -> bytes:
    """A row as a record."""
    parts = ([len(row.segment_lengths)], row.segment_lengths, row.last_targets, row.inputs)
    return np.concatenate(parts).astype(dtype).tobytes()


def decode_row(record: bytes, dtype: str) -> Row:
    """A record as a row."""
    values = np.frombuffer(record, dtype).astype(np.int32)
    segments = int(values[0])
    lengths, last_targets, inputs = np.split(values[1:], [segments, 2 * segments])
    return Row(lengths, inputs, last_targets)


def densify(rows: Sequence[Row], sequence_length: int) -> Batch:
    """Rows as the arrays that the model takes."""
    shape = (len(rows), sequence_length)
    inputs, targets, segment_ids, positions = (np.zeros(shape, np.int32) for _ in range(4))
    for i, row in enumerate(rows):
        used = len(row.inputs)
        ends = np.cumsum(row.segment_lengths)
        starts = ends - row.segment_lengths
        inputs[i, :used] = row.inputs
        targets[i, : used - 1] = row.inputs[1:]
        targets[i, ends - 1] = row.last_targets
        segment_ids[i, :used] = np.repeat(np.arange(1, len(ends) + 1), row.segment_lengths)
        positions[i, :used] = np.arange(used) - np.repeat(starts, row.segment_lengths)
    return Batch(inputs, targets, segment_ids, positions, (segment_ids > 0).astype(np.float32))


def write_shard(directory: str, name: str, rows: Sequence[Row], dtype: str) -> dict[str, Any]:
    """Writes rows as `<name>.tfrecord` and `<name>.index`; returns the shard's manifest entry."""
    records = [encode_row(row, dtype) for row in rows]
    sizes = np.array([len(r) for r in records], np.int64) + _HEADER_BYTES + _FOOTER_BYTES
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype("<i8")
    path = os.path.join(directory, f"{name}.tfrecord")
    write_tfrecords(path, records, gzip=False)
    index_path = os.path.join(directory, f"{name}.index")
    with tf.io.gfile.GFile(f"{index_path}.writing", "wb") as out:
        out.write(offsets.tobytes())
    tf.io.gfile.rename(f"{index_path}.writing", index_path, overwrite=True)
    with tf.io.gfile.GFile(path, "rb") as written:
        digest = hashlib.sha256(written.read()).hexdigest()
    return {
        "file": f"{name}.tfrecord",
        "index": f"{name}.index",
        "rows": len(rows),
        "bytes": int(offsets[-1]),
        "sha256": digest,
    }


class PackedSplit:
    """Random access to the rows of one split.

    Args:
        uri: A PackedRows artifact.
        split: "train" or "eval".

    Raises:
        TokenmillError: The format is not one that this version reads.
    """

    def __init__(self, uri: str, split: str):
        self._directory = split_directory(uri, split)
        self.manifest: dict[str, Any] = read_json(os.path.join(self._directory, MANIFEST_NAME))
        if self.manifest["format"] != FORMAT:
            raise TokenmillError(
                f"{self._directory}: rows of format {self.manifest['format']!r}, "
                f"expected {FORMAT!r}."
            )
        self.rows: int = self.manifest["rows"]
        self.sequence_length: int = self.manifest["sequence_length"]
        self._dtype: str = self.manifest["dtype"]
        shards = self.manifest["shards"]
        self._first_row = np.cumsum([0] + [shard["rows"] for shard in shards])
        self._offsets: dict[int, np.ndarray] = {}
        self._files: dict[int, Any] = {}

    def read(self, row_numbers: np.ndarray) -> Batch:
        """The rows of these numbers (0 to rows - 1), in this order."""
        rows = []
        for number in row_numbers:
            shard = int(np.searchsorted(self._first_row, number, side="right")) - 1
            rows.append(self._read_row(shard, int(number - self._first_row[shard])))
        return densify(rows, self.sequence_length)

    def _read_row(self, shard: int, row: int) -> Row:
        if shard not in self._files:
            entry = self.manifest["shards"][shard]
            index_path = os.path.join(self._directory, entry["index"])
            with tf.io.gfile.GFile(index_path, "rb") as source:
                self._offsets[shard] = np.frombuffer(source.read(), "<i8")
            self._files[shard] = tf.io.gfile.GFile(
                os.path.join(self._directory, entry["file"]), "rb"
            )
        start, end = self._offsets[shard][row : row + 2]
        file = self._files[shard]
        file.seek(int(start) + _HEADER_BYTES)
        return decode_row(file.read(int(end - start) - _HEADER_BYTES - _FOOTER_BYTES), self._dtype)
