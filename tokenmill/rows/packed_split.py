"""How packed rows lie on disk, and how they are read back by number.

A split is a set of TFRecord files, which hold a CRC-32C of each record and can be read from any
filesystem that TensorFlow knows; beside each an index of record offsets for random access and an
index of provenance (tokenmill/provenance/rows.py); flags of the vocabulary; and a manifest with the
counts and a SHA-256 of each file (tokenmill/contracts/packed_rows.py). docs/packing.md says why
this format.
"""

import hashlib
import os
import threading

import numpy as np
import tensorflow as tf

from tokenmill.contracts.packed_rows import (
    TARGET_COUNTS_NAME,
    TOKEN_FLAGS_NAME,
    PackedManifest,
    RowFormat,
    ShardFiles,
    read_packed_manifest,
)
from tokenmill.errors import TokenmillError
from tokenmill.files import AtomicFile, write_bytes
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import FRAME_BYTES, unframe, write_tfrecords
from tokenmill.rows.arrays import Rows
from tokenmill.rows.codec import Batch, decode_rows, densify, encode_rows
from tokenmill.rows.masking import MaskSettings
from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS, ControlIds

_REPAIR_HINT = "Copy the file anew, or delete the artifact and run again: the step packs anew."


def write_shard(directory: str, name: str, rows: Rows, row_format: RowFormat) -> ShardFiles:
    """Write rows as `<name>.tfrecord` and `<name>.index`; return what the manifest says of them."""
    records = encode_rows(rows, row_format)
    sizes = np.array([len(r) for r in records], np.int64) + FRAME_BYTES
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype("<i8")
    path = os.path.join(directory, f"{name}.tfrecord")
    write_tfrecords(path, records, gzip=False)
    index = offsets.tobytes()
    write_bytes(os.path.join(directory, f"{name}.index"), index)
    return ShardFiles(
        file=f"{name}.tfrecord",
        index=f"{name}.index",
        rows=len(records),
        bytes=int(offsets[-1]),
        sha256=sha256_of(path),
        index_sha256=hashlib.sha256(index).hexdigest(),
    )


def sha256_of(path: str) -> str:
    """Compute the SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as source:
        while block := source.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def verify_split(uri: str, split: str) -> int:
    """Compare every file of a split with its SHA-256 in the manifest; return the bytes read.

    Raises:
        TokenmillError: A file is missing or differs; its name is in the message.
    """
    directory = split_directory(uri, split)
    read = 0
    for entry in read_packed_manifest(uri, split).shards:
        for name, expected in (
            (entry.file, entry.sha256),
            (entry.index, entry.index_sha256),
            (entry.provenance, entry.provenance_sha256),
        ):
            path = os.path.join(directory, name)
            try:
                found = sha256_of(path)
                read += tf.io.gfile.stat(path).length
            except tf.errors.NotFoundError:
                raise TokenmillError(f"{path}: the file is missing.", _REPAIR_HINT) from None
            if found != expected:
                raise TokenmillError(
                    f"{path}: SHA-256 is {found}, the manifest says {expected}.", _REPAIR_HINT
                )
    return read


class RandomAccessFile:
    """Reads byte ranges of a file; safe to use from several threads.

    Local files are read without TensorFlow's file layer, which takes 40 times as long for a row.
    """

    def __init__(self, path: str):
        self.path = path
        try:
            if "://" in path:
                self._remote = tf.io.gfile.GFile(path, "rb")
                self._remote.size()  # opens it
                self._lock = threading.Lock()
            else:
                self._remote = None
                self._descriptor = os.open(path, os.O_RDONLY)
        except (OSError, tf.errors.NotFoundError):
            raise TokenmillError(f"{path}: the file is missing.", _REPAIR_HINT) from None

    def read(self, offset: int, size: int) -> bytes:
        """Read up to `size` bytes from `offset`; fewer at the end of the file."""
        if self._remote is None:
            return os.pread(self._descriptor, size, offset)
        with self._lock:
            self._remote.seek(offset)
            return self._remote.read(size)

    def close(self) -> None:
        """Close the file."""
        if self._remote is None:
            os.close(self._descriptor)
        else:
            self._remote.close()


class _Shard:
    """One TFRecord file with its index."""

    def __init__(self, directory: str, entry: ShardFiles):
        self._file = RandomAccessFile(os.path.join(directory, entry.file))
        index_path = os.path.join(directory, entry.index)
        rows = entry.rows
        index = RandomAccessFile(index_path)
        data = index.read(0, 8 * (rows + 2))
        index.close()
        if len(data) != 8 * (rows + 1) or hashlib.sha256(data).hexdigest() != entry.index_sha256:
            raise TokenmillError(
                f"{index_path}: the index of {rows} rows is damaged.", _REPAIR_HINT
            )
        self._offsets = np.frombuffer(data, "<i8").tolist()

    def record_bytes(self) -> np.ndarray:
        """Return the bytes of each record's payload, int64 [rows]."""
        return np.diff(np.array(self._offsets, np.int64)) - FRAME_BYTES

    def record(self, row: int) -> bytes:
        """Read the payload of a record and verify its checksums."""
        start, end = self._offsets[row : row + 2]
        framed = self._file.read(start, end - start)
        try:
            return unframe(framed, end - start)
        except ValueError as error:
            raise TokenmillError(
                f"{self._file.path}: row {row} at byte {start}: {error}.", _REPAIR_HINT
            ) from None


class PackedSplit:
    """Random access to the rows of one split; safe to use from several threads.

    Args:
        uri: A PackedRows artifact.
        split: "train" or "eval".

    Raises:
        TokenmillError: The format is not one that this version reads, or a file is missing or
            damaged; reading a damaged row names file and row.
    """

    def __init__(self, uri: str, split: str):
        self._directory = split_directory(uri, split)
        self.manifest: PackedManifest = read_packed_manifest(uri, split)
        self.rows = self.manifest.rows
        self.sequence_length = self.manifest.sequence_length
        self.task = self.manifest.task
        self._format = self.manifest.row_format
        self._first_row = np.cumsum([0] + [shard.rows for shard in self.manifest.shards])
        self._shards: dict[int, _Shard] = {}
        self._opening = threading.Lock()
        self.failure: TokenmillError | None = None
        """Why the last read failed; tf.data passes on only the text of an error."""

    def read(self, row_numbers: np.ndarray, width: int | None = None) -> Batch:
        """Read the rows of these numbers (0 to rows - 1), in this order.

        Args:
            row_numbers: int64 [rows].
            width: Slots of a row, as many as the longest has at least; None: sequence_length.
        """
        return densify(self.read_rows(row_numbers), width or self.sequence_length)

    def row_lengths(self) -> np.ndarray:
        """Return the filled slots of each row, int64 [rows], of a split with one segment a row.

        They follow from the indexes: no row is read.
        """
        size = np.dtype(self._format.dtype).itemsize
        parts = [np.zeros(0, np.int64)]
        for number in range(len(self.manifest.shards)):
            parts.append(self._shard(number).record_bytes())
        return np.concatenate(parts) // size - 1 - self._format.columns

    def read_rows(self, row_numbers: np.ndarray) -> Rows:
        """Read the rows of these numbers as they are stored, without padding."""
        shards = np.searchsorted(self._first_row, row_numbers, side="right") - 1
        local = row_numbers - self._first_row[shards]
        try:
            records = [
                self._shard(shard).record(row)
                for shard, row in zip(shards.tolist(), local.tolist(), strict=True)
            ]
        except TokenmillError as error:
            self.failure = error
            raise
        return decode_rows(records, self._format)

    def token_flags(self) -> np.ndarray:
        """Read the flags of the vocabulary's tokens (token_flags.py), uint8 [vocab_size]."""
        return read_array(os.path.join(self._directory, TOKEN_FLAGS_NAME))

    def mask_settings(self) -> MaskSettings:
        """Return how tokens of the rows are hidden, in masked-lm."""
        mask = self.control_ids.need("mask")
        return MaskSettings(self.manifest.mask_rate, self.manifest.whole_word, mask)

    @property
    def control_ids(self) -> ControlIds:
        """Ids of the vocabulary's control tokens."""
        return self.manifest.control_ids or TOKENMILL_CONTROL_IDS

    def target_counts(self) -> np.ndarray:
        """Read how often each id, or each class of a classifier, is a target; int64."""
        return read_array(os.path.join(self._directory, TARGET_COUNTS_NAME))

    def _shard(self, number: int) -> _Shard:
        shard = self._shards.get(number)
        if shard is None:
            with self._opening:
                shard = self._shards.get(number) or _Shard(
                    self._directory, self.manifest.shards[number]
                )
                self._shards[number] = shard
        return shard


def write_array(path: str, array: np.ndarray) -> None:
    """Write a .npy file atomically."""
    with AtomicFile(path) as out:
        np.save(out, array)


def read_array(path: str) -> np.ndarray:
    """Read a .npy file."""
    with tf.io.gfile.GFile(path, "rb") as source:
        return np.load(source)
