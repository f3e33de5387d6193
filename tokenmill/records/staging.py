"""Staging: documents that lie on disk between two passes, so that Beam shuffles no text.

A first pass writes what it made of the documents into parts of up to PART_DOCUMENTS: payloads
(the records to be), ids, and a table of fixed-size rows that tells where each lies. What travels
through Beam are the names of parts and numbers of rows. The last pass sorts the ids of a shard and
copies its payloads, one at a time. Memory is bounded by a part's rows and a shard's ids.

Files are written atomically and named by their input: a pass that is tried again replaces them by
the same bytes.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from apache_beam.io.filesystems import FileSystems

from tokenmill.contracts.quality_model import NOT_SCORED
from tokenmill.files import AtomicFile, open_file
from tokenmill.records.keys import stable_hash
from tokenmill.records.sorted_hashes import ENTRY, encode_sorted, read_entries

# Rows of a part: some 80 bytes each in memory, and as much again for each hash.
PART_DOCUMENTS = 1 << 15

# Of a table's rows, one in so many or less is read by itself.
_SPARSE = 256

# A staged document.
#   start, size: its payload's place in the file of payloads
#   text_size: bytes of the text, with which the payload ends; 0 if it holds no whole text
#   raw_bytes: bytes of the text as it came in
#   removed_bytes: of these, what the lines had that were removed
#   id_start, id_size: its id's place in the file of ids
#   source: place in the list of sources
#   shard: the shard it will be written to
#   flag: the passes' own; 0 is a document to be written
#   score: what a scorer of quality gave it, from 0 to 1; NOT_SCORED for none
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
        ("score", "<f4"),
        ("key", "<u8", (2,)),
        ("digest", "<u8"),
    ]
)


class StagedPart(NamedTuple):
    """A part of the staged documents that is written.

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


class PartWriter:
    """A part that is being written; `close` gives its files their names, `discard` removes them."""

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
        scores: np.ndarray | np.float32 = NOT_SCORED,
    ) -> None:
        """Append documents; `keys` is uint64 [documents, 2], `scores` float32 [documents]."""
        rows = np.zeros(len(doc_ids), ROW)
        rows["size"] = [len(payload) for payload in payloads]
        rows["start"] = self._payload_bytes + _starts(rows["size"])
        rows["text_size"], rows["raw_bytes"], rows["flag"] = text_sizes, raw_bytes, flags
        rows["removed_bytes"], rows["score"] = removed_bytes, scores
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

    def add_hashes(self, kind: str, hashes: np.ndarray, rows: np.ndarray) -> None:
        """Add hashes (uint64 [entries]) of rows (their numbers in this part) to the file `kind`."""
        entries = np.zeros(len(hashes), ENTRY)
        entries["hash"], entries["row"] = hashes, rows
        self._entries.setdefault(kind, []).append(entries)

    def close(self) -> StagedPart:
        """Write the rest, give all files their names, and return the part."""
        rows = np.concatenate([np.zeros(0, ROW), *self._rows])
        self._write("rows", rows.tobytes())
        names = [source.decode("utf-8", "surrogateescape") for source in self._sources]
        self._write("sources", json.dumps(names).encode())
        for kind, entries in self._entries.items():
            self._write(kind, encode_sorted(np.concatenate(entries)))
        for file in self._files.values():
            file.commit()
        shards = tuple(np.unique(rows["shard"]).tolist())
        return StagedPart(self._path, self._split, len(rows), shards)

    def discard(self) -> None:
        """Remove what was written so far."""
        for file in self._files.values():
            file.discard()

    def _write(self, kind: str, data: bytes) -> None:
        file = self._files[kind] = AtomicFile(f"{self._path}.{kind}")
        file.file.write(data)


class StagingWriter:
    """A writer of documents as parts of up to PART_DOCUMENTS rows (and one batch).

    Args:
        path: What the names of the files begin with.
        split: The split that the documents are in.
        shards: Shards that they will be written to.
    """

    def __init__(self, path: str, split: str, shards: int):
        self._path, self._split, self._shards = path, split, shards
        self._number = 0
        self._writer: PartWriter | None = None

    def part(self) -> PartWriter:
        """Return the part that takes the next batch."""
        if self._writer is None:
            path = f"{self._path}-{self._number:05d}"
            self._writer = PartWriter(path, self._split, self._shards)
        return self._writer

    def full(self) -> Iterator[StagedPart]:
        """Yield the part, closed, if it has enough documents."""
        if self._writer is not None and self._writer.rows >= PART_DOCUMENTS:
            yield from self.rest()

    def rest(self) -> Iterator[StagedPart]:
        """Yield the last part, closed, if there is one."""
        if self._writer is not None:
            part = self._writer.close()
            self._writer = None
            self._number += 1
            yield part

    def discard(self) -> None:
        """Remove what is not closed, after an error."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None


class Staging:
    """All staged parts; a document is referred to by its number over all of them, int64.

    Args:
        parts: In any order; they are sorted by path, so that numbers do not depend on it.
    """

    def __init__(self, parts: Iterable[StagedPart]):
        self.parts = sorted(parts)
        self.first = _starts_and_end([part.rows for part in self.parts])

    @property
    def rows(self) -> int:
        """Number of documents."""
        return int(self.first[-1])

    def by_part(
        self, references: np.ndarray
    ) -> Iterator[tuple[StagedPart, np.ndarray, np.ndarray]]:
        """Yield each part, the places in `references` of its documents, and their rows (ROW)."""
        for number, places in self._places(references):
            part = self.parts[number]
            yield part, places, read_some_rows(part, references[places] - self.first[number])

    def rows_of(self, references: np.ndarray) -> np.ndarray:
        """Read the rows of documents, ROW [references]."""
        rows = np.zeros(len(references), ROW)
        for _, places, found in self.by_part(references):
            rows[places] = found
        return rows

    def splits_of(self, references: np.ndarray) -> np.ndarray:
        """Tell which documents are of the train split, bool [references]."""
        is_train = np.array([part.split == "train" for part in self.parts], bool)
        return is_train[np.searchsorted(self.first, references, side="right") - 1]

    def ids_of(self, references: np.ndarray, rows: np.ndarray) -> list[bytes]:
        """Read the documents' ids; `rows` is what `rows_of` gave for them."""
        ids = [b""] * len(references)
        for number, places in self._places(references):
            found = read_ids(self.parts[number], rows[places])
            for place, doc_id in zip(places.tolist(), found, strict=True):
                ids[place] = doc_id
        return ids

    def texts_of(self, references: np.ndarray, rows: np.ndarray) -> list[str]:
        """Read the documents' texts; `rows` is what `rows_of` gave for them."""
        texts = [""] * len(references)
        for number, places in self._places(references):
            found = read_texts(self.parts[number], rows[places])
            for place, text in zip(places.tolist(), found, strict=True):
                texts[place] = text.decode()
        return texts

    def _places(self, references: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number of a part, places in `references` of its documents), in ascending order.

        One sort for all parts: a look at each part for each question would be quadratic.
        """
        order = np.argsort(references, kind="stable")
        numbers = np.searchsorted(self.first, references[order], side="right") - 1
        bounds = [*np.flatnonzero(np.diff(numbers, prepend=-1)).tolist(), len(order)]
        for start, end in itertools.pairwise(bounds):
            yield int(numbers[start]), order[start:end]

    def hashes_in_range(
        self, kind: str, hash_range: int, hash_ranges: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read the hashes of `kind` in one of `hash_ranges` ranges: (uint64, int64 references).

        A range lies in the same place in each part's file, so only that is read.
        """
        found = [
            (entries["hash"], entries["row"] + first)
            for part, first in zip(self.parts, self.first[:-1], strict=True)
            if len(entries := read_entries(f"{part.path}.{kind}", hash_range, hash_ranges))
        ]
        hashes = np.concatenate([np.zeros(0, np.uint64), *(hashes for hashes, _ in found)])
        references = np.concatenate([np.zeros(0, np.int64), *(rows for _, rows in found)])
        return hashes, references.astype(np.int64)


def read_rows(part: StagedPart) -> np.ndarray:
    """Read all rows of a part, ROW [rows]."""
    with open_file(f"{part.path}.rows") as file:
        return np.frombuffer(file.read(), ROW)


def read_some_rows(part: StagedPart, numbers: np.ndarray) -> np.ndarray:
    """Read rows by number (ascending), ROW [numbers]; few of them are read one by one."""
    if len(numbers) * _SPARSE >= part.rows:
        return read_rows(part)[numbers]
    with open_file(f"{part.path}.rows") as file:
        starts = numbers * ROW.itemsize
        found = b"".join(_slices(file, starts, np.full(len(numbers), ROW.itemsize)))
    return np.frombuffer(found, ROW)


def read_sources(part: StagedPart) -> list[bytes]:
    """Read the sources of a part; `source` of a row is a place in this list."""
    with open_file(f"{part.path}.sources") as file:
        return [name.encode("utf-8", "surrogateescape") for name in json.loads(file.read())]


def read_ids(part: StagedPart, rows: np.ndarray) -> list[bytes]:
    """Read the ids of rows."""
    with open_file(f"{part.path}.ids") as file:
        return list(_slices(file, rows["id_start"], rows["id_size"]))


def read_texts(part: StagedPart, rows: np.ndarray) -> Iterator[bytes]:
    """Yield the texts of rows, one at a time."""
    starts = rows["start"] + rows["size"] - rows["text_size"]
    with open_file(f"{part.path}.payloads") as file:
        yield from _slices(file, starts, rows["text_size"])


def remove_staging(directory: str) -> None:
    """Remove the files of a staging directory, if there are any; an empty directory may stay."""
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
