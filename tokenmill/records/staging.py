"""Spool files: documents set aside on disk between two passes; Beam shuffles no text.

A first pass writes what it made of the documents into pieces of up to PIECE_DOCUMENTS: payloads
(the records to be), ids, and a table of fixed-size rows that tells where each lies. What travels
through Beam are the names of pieces and numbers of rows. The last pass sorts the ids of a shard and
copies its payloads, one at a time. Memory is bounded by a piece's rows and a shard's ids.

Files are written aside and renamed, and named by their input: a pass that is tried again replaces
them by the same bytes. All go through Beam's filesystems.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from apache_beam.io.filesystems import FileSystems

from tokenmill.files import AtomicFile, open_file
from tokenmill.records.keys import stable_hash
from tokenmill.records.sorted_hashes import ENTRY, filed, read_entries

# Rows of a piece: some 70 bytes each in memory, and as much again for each hash that is filed.
PIECE_DOCUMENTS = 1 << 15

# Of a table's rows, one in so many or less is read by itself.
_SPARSE = 256

# A document in a spool.
#   start, size: its payload's place in the file of payloads
#   text_size: bytes of the text, with which the payload ends; 0 if it holds no whole text
#   raw_bytes: bytes of the text as it came in
#   removed_bytes: of these, what the lines had that were removed
#   id_start, id_size: its id's place in the file of ids
#   source: place in the list of sources
#   shard: the shard it will be written to
#   flag: the passes' own; 0 is a document to be written
#   key: 128 bits of its content
#   digest: a hash of the payload, which orders documents that share their id
ROW = np.dtype(
    [
        ("start", "<u8"),
        ("size", "<u4"),
        ("text_size", "<u4"),
        ("raw_bytes", "<u8"),
        ("removed_bytes", "<u8"),
        ("id_start", "<u8"),
        ("id_size", "<u4"),
        ("source", "<u4"),
        ("shard", "<u4"),
        ("flag", "u1"),
        ("key", "<u8", (2,)),
        ("digest", "<u8"),
    ]
)


class Piece(NamedTuple):
    """A closed piece of a spool.

    Attributes:
        path: What its files' names begin with.
        split: The split its documents are in.
        rows: How many documents.
        shards: The shards that they will be written to, ascending.
    """

    path: str
    split: str
    rows: int
    shards: tuple[int, ...]


class PieceWriter:
    """Writes one piece, aside until `close`; `discard` takes away what was not closed."""

    def __init__(self, path: str, split: str, shards: int):
        self._path, self._split, self._shards = path, split, shards
        self._files = {kind: AtomicFile(f"{path}.{kind}") for kind in ("payloads", "ids")}
        self._sources: dict[bytes, int] = {}
        self._rows: list[np.ndarray] = []
        self._entries: dict[str, list[np.ndarray]] = {}
        self._payload_bytes = self._id_bytes = 0
        self.rows = 0

    def append(
        self,
        doc_ids: Sequence[bytes],
        sources: Sequence[bytes],
        payloads: Sequence[bytes],
        text_sizes: Sequence[int] | np.ndarray,
        raw_bytes: Sequence[int] | np.ndarray,
        flags: np.ndarray | int = 0,
        keys: np.ndarray | None = None,
        removed_bytes: np.ndarray | int = 0,
    ) -> None:
        """Appends documents; `keys` is uint64 [documents, 2]."""
        rows = np.zeros(len(doc_ids), ROW)
        rows["size"] = [len(payload) for payload in payloads]
        rows["start"] = self._payload_bytes + _starts(rows["size"])
        rows["text_size"], rows["raw_bytes"], rows["flag"] = text_sizes, raw_bytes, flags
        rows["removed_bytes"] = removed_bytes
        rows["id_size"] = [len(doc_id) for doc_id in doc_ids]
        rows["id_start"] = self._id_bytes + _starts(rows["id_size"])
        known = self._sources
        rows["source"] = [known.setdefault(source, len(known)) for source in sources]
        rows["shard"] = [stable_hash(doc_id) % self._shards for doc_id in doc_ids]
        if keys is not None:
            rows["key"] = keys
        rows["digest"] = [stable_hash(payload) for payload in payloads]
        self._files["payloads"].file.write(b"".join(payloads))
        self._files["ids"].file.write(b"".join(doc_ids))
        self._payload_bytes += int(rows["size"].sum(dtype=np.int64))
        self._id_bytes += int(rows["id_size"].sum(dtype=np.int64))
        self._rows.append(rows)
        self.rows += len(rows)

    def file_hashes(self, kind: str, hashes: np.ndarray, rows: np.ndarray) -> None:
        """Files hashes (uint64 [entries]) of rows (their numbers in this piece) under `kind`."""
        entries = np.zeros(len(hashes), ENTRY)
        entries["hash"], entries["row"] = hashes, rows
        self._entries.setdefault(kind, []).append(entries)

    def close(self) -> Piece:
        """Writes the rest, renames all files, and hands the piece over."""
        rows = np.concatenate([np.zeros(0, ROW), *self._rows])
        self._write("rows", rows.tobytes())
        names = [source.decode("utf-8", "surrogateescape") for source in self._sources]
        self._write("sources", json.dumps(names).encode())
        for kind, entries in self._entries.items():
            self._write(kind, filed(np.concatenate(entries)))
        for file in self._files.values():
            file.commit()
        shards = tuple(np.unique(rows["shard"]).tolist())
        return Piece(self._path, self._split, len(rows), shards)

    def discard(self) -> None:
        """Remove what was written so far."""
        for file in self._files.values():
            file.discard()

    def _write(self, kind: str, data: bytes) -> None:
        file = self._files[kind] = AtomicFile(f"{self._path}.{kind}")
        file.file.write(data)


class SpoolWriter:
    """Writes documents as pieces of up to PIECE_DOCUMENTS rows (and one batch).

    Args:
        path: What the names of the files begin with.
        split: The split that the documents are in.
        shards: Shards that they will be written to.
    """

    def __init__(self, path: str, split: str, shards: int):
        self._path, self._split, self._shards = path, split, shards
        self._number = 0
        self._writer: PieceWriter | None = None

    def piece(self) -> PieceWriter:
        """The piece that takes the next batch."""
        if self._writer is None:
            path = f"{self._path}-{self._number:05d}"
            self._writer = PieceWriter(path, self._split, self._shards)
        return self._writer

    def full(self) -> Iterator[Piece]:
        """The piece, closed, if it has enough."""
        if self._writer is not None and self._writer.rows >= PIECE_DOCUMENTS:
            yield from self.rest()

    def rest(self) -> Iterator[Piece]:
        """The last piece, closed, if there is one."""
        if self._writer is not None:
            piece = self._writer.close()
            self._writer = None
            self._number += 1
            yield piece

    def discard(self) -> None:
        """After an error: removes what is not closed."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None


class Spool:
    """The pieces of a spool; a document is referred to by its number over all of them, int64.

    Args:
        pieces: In any order; they are sorted by path, so that numbers do not depend on it.
    """

    def __init__(self, pieces: Iterable[Piece]):
        self.pieces = sorted(pieces)
        self.first = _starts_and_end([piece.rows for piece in self.pieces])

    @property
    def rows(self) -> int:
        """Documents in all."""
        return int(self.first[-1])

    def by_piece(self, references: np.ndarray) -> Iterator[tuple[Piece, np.ndarray, np.ndarray]]:
        """(piece, places in `references` of its documents, their rows: ROW [places])."""
        for number, places in self._places(references):
            piece = self.pieces[number]
            yield piece, places, read_some_rows(piece, references[places] - self.first[number])

    def rows_of(self, references: np.ndarray) -> np.ndarray:
        """ROW [references]."""
        rows = np.zeros(len(references), ROW)
        for _, places, found in self.by_piece(references):
            rows[places] = found
        return rows

    def splits_of(self, references: np.ndarray) -> np.ndarray:
        """Whether each is of the train split, bool [references]."""
        is_train = np.array([piece.split == "train" for piece in self.pieces], bool)
        return is_train[np.searchsorted(self.first, references, side="right") - 1]

    def ids_of(self, references: np.ndarray, rows: np.ndarray) -> list[bytes]:
        """The documents' ids; `rows` is what `rows_of` gave for them."""
        ids = [b""] * len(references)
        for number, places in self._places(references):
            found = read_ids(self.pieces[number], rows[places])
            for place, doc_id in zip(places.tolist(), found, strict=True):
                ids[place] = doc_id
        return ids

    def texts_of(self, references: np.ndarray, rows: np.ndarray) -> list[str]:
        """The documents' texts; `rows` is what `rows_of` gave for them."""
        texts = [""] * len(references)
        for number, places in self._places(references):
            found = read_texts(self.pieces[number], rows[places])
            for place, text in zip(places.tolist(), found, strict=True):
                texts[place] = text.decode()
        return texts

    def _places(self, references: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(number of a piece, places in `references` of its documents), by ascending reference.

        One sort for all pieces: a look at each piece for each question would be quadratic.
        """
        order = np.argsort(references, kind="stable")
        numbers = np.searchsorted(self.first, references[order], side="right") - 1
        bounds = [*np.flatnonzero(np.diff(numbers, prepend=-1)).tolist(), len(order)]
        for start, end in itertools.pairwise(bounds):
            yield int(numbers[start]), order[start:end]

    def filed(self, kind: str, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
        """The hashes filed under `kind` in one of `parts` ranges: (uint64, int64 references).

        A range lies in the same place in each piece's file, so only that is read.
        """
        found = [
            (entries["hash"], entries["row"] + first)
            for piece, first in zip(self.pieces, self.first[:-1], strict=True)
            if len(entries := read_entries(f"{piece.path}.{kind}", part, parts))
        ]
        hashes = np.concatenate([np.zeros(0, np.uint64), *(hashes for hashes, _ in found)])
        references = np.concatenate([np.zeros(0, np.int64), *(rows for _, rows in found)])
        return hashes, references.astype(np.int64)


def read_rows(piece: Piece) -> np.ndarray:
    """ROW [rows]."""
    with open_file(f"{piece.path}.rows") as file:
        return np.frombuffer(file.read(), ROW)


def read_some_rows(piece: Piece, numbers: np.ndarray) -> np.ndarray:
    """ROW [numbers]: rows by number, ascending; few of them are read one by one."""
    if len(numbers) * _SPARSE >= piece.rows:
        return read_rows(piece)[numbers]
    with open_file(f"{piece.path}.rows") as file:
        starts = numbers * ROW.itemsize
        found = b"".join(_slices(file, starts, np.full(len(numbers), ROW.itemsize)))
    return np.frombuffer(found, ROW)


def read_sources(piece: Piece) -> list[bytes]:
    """What `source` of a row is a place in."""
    with open_file(f"{piece.path}.sources") as file:
        return [name.encode("utf-8", "surrogateescape") for name in json.loads(file.read())]


def read_ids(piece: Piece, rows: np.ndarray) -> list[bytes]:
    """The ids of rows."""
    with open_file(f"{piece.path}.ids") as file:
        return list(_slices(file, rows["id_start"], rows["id_size"]))


def read_payloads(piece: Piece, rows: np.ndarray) -> Iterator[bytes]:
    """The payloads of rows, one at a time."""
    with open_file(f"{piece.path}.payloads") as file:
        yield from _slices(file, rows["start"], rows["size"])


def read_texts(piece: Piece, rows: np.ndarray) -> Iterator[bytes]:
    """The texts of rows, one at a time."""
    starts = rows["start"] + rows["size"] - rows["text_size"]
    with open_file(f"{piece.path}.payloads") as file:
        yield from _slices(file, starts, rows["text_size"])


def remove_spool(directory: str) -> None:
    """Removes the files of a spool, if there are any; an empty directory may stay."""
    pattern = FileSystems.join(directory, "*")
    if FileSystems.match([pattern], [1])[0].metadata_list:
        FileSystems.delete([f"{directory}/"])


def _slices(file: BinaryIO, starts: np.ndarray, sizes: np.ndarray) -> Iterator[bytes]:
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        file.seek(int(start))
        yield file.read(size)


def _starts(sizes: np.ndarray) -> np.ndarray:
    sizes = sizes.astype(np.uint64)
    return np.cumsum(sizes) - sizes


def _starts_and_end(sizes: Sequence[int]) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(np.array(sizes, np.int64)))).astype(np.int64)
