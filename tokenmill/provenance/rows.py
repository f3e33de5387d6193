"""Which rows hold a document, and which documents a row holds; neither needs a scan.

Beside each shard of rows lies a file of columns, little-endian: a header of four int64 (documents,
placements, rows, bytes of all ids), then

| column | type | entries |
| --- | --- | --- |
| hash of the document's id, ascending | uint64 | documents |
| where its id begins among the ids | int64 | documents + 1 |
| where its placements begin | int64 | documents + 1 |
| where the row's entries begin in the next column | int64 | rows + 1 |
| placements in the order of rows | int32 | placements |
| document, row, row offset, first token, length, context: six columns | int32 | placements |
| ids | bytes | |

A document is looked up in the shard that its hash chooses, by binary search in the first column
with reads of single blocks; a row by its entry. Both read a few kilobytes whatever the size.
"""

import hashlib
import os
from typing import Any, NamedTuple

import numpy as np

from tokenmill.contracts.packed_rows import PackedShard, read_packed_manifest
from tokenmill.files import write_bytes
from tokenmill.records.keys import stable_hash
from tokenmill.records.splits import split_directory
from tokenmill.rows.arrays import Parts
from tokenmill.rows.packed_split import RandomAccessFile

_HEADER = 4
# The search in the sorted hashes goes on by reading until so few are left to look through.
_BLOCK = 2048


class Placement(NamedTuple):
    """Where a part of a document lies.

    Attributes:
        doc_id: The document.
        row: Row number in the split, as PackedSplit.read takes it.
        row_offset: Slot of the row where the part begins, after its context (and after the CLS
            that frames a part in masked-lm and classification).
        document_token_start: First token of the document (from 0) that is asked for in this
            part: the target of slot `row_offset` in causal mode, its input otherwise.
        length: Slots from `row_offset` on. In causal mode the last part of a document asks for
            its end too: the parts cover tokens 0 to n, and n is the EOS.
        context_length: Slots before `row_offset` that repeat the tokens before, without a loss.
    """

    doc_id: bytes
    row: int
    row_offset: int
    document_token_start: int
    length: int
    context_length: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields, the id as text."""
        return {**self._asdict(), "doc_id": self.doc_id.decode()}


def write_provenance(
    path: str, doc_ids: list[bytes], parts: Parts, rows: int, frame_slots: int
) -> str:
    """Write the columns of one shard; return the file's SHA-256.

    Args:
        path: File to write.
        doc_ids: Ids of the documents that `parts.document` counts.
        parts: In the order of rows, `parts.row` being the row of this shard.
        rows: Rows of the shard.
        frame_slots: Slots that a part takes beside items and context.
    """
    hashes = np.array([stable_hash(doc_id) for doc_id in doc_ids], np.uint64)
    order = np.argsort(hashes, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    document = place[parts.document]
    # Slots: a part begins where those before it in its row end.
    sizes = parts.length + parts.context + frame_slots
    ends = np.cumsum(sizes)
    per_row = np.bincount(parts.row, minlength=rows)
    row_starts = np.concatenate(([0], np.cumsum(per_row)))
    begin = np.concatenate(([0], ends))[row_starts[:-1]]
    offset = ends - sizes - begin[parts.row] + parts.context + frame_slots // 2
    by_document = np.lexsort((parts.start, document))
    by_row = np.empty(len(by_document), np.int64)
    by_row[by_document] = np.arange(len(by_document))
    ids = [doc_ids[i] for i in order.tolist()]
    id_starts = np.concatenate(([0], np.cumsum([len(i) for i in ids], dtype=np.int64)))
    placements = (document, parts.row, offset, parts.start, parts.length, parts.context)
    first = np.concatenate(([0], np.cumsum(np.bincount(document, minlength=len(ids)))))
    header = [len(ids), len(by_document), rows, id_starts[-1]]
    columns = [
        np.array(header, "<i8"),
        hashes[order].astype("<u8"),
        *(column.astype("<i8") for column in (id_starts, first, row_starts)),
        by_row.astype("<i4"),
        *(column[by_document].astype("<i4") for column in placements),
    ]
    data = b"".join([*(c.tobytes() for c in columns), *ids])
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


class _Columns:
    """Reads parts of one shard's columns."""

    def __init__(self, path: str):
        self._file = RandomAccessFile(path)
        header = np.frombuffer(self._file.read(0, 8 * _HEADER), "<i8").tolist()
        self.documents, self.placements, rows, _ = header
        at, self._at = 8 * _HEADER, {}
        for name, dtype, entries in (
            ("hash", "<u8", self.documents),
            ("id", "<i8", self.documents + 1),
            ("first", "<i8", self.documents + 1),
            ("row", "<i8", rows + 1),
            *((str(i), "<i4", self.placements) for i in range(7)),
            ("ids", "u1", 0),
        ):
            self._at[name] = (at, np.dtype(dtype))
            at += entries * np.dtype(dtype).itemsize

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Read entries start .. stop - 1 of a column."""
        at, dtype = self._at[name]
        size = dtype.itemsize
        return np.frombuffer(self._file.read(at + start * size, (stop - start) * size), dtype)

    def close(self) -> None:
        self._file.close()

    def doc_id(self, document: int) -> bytes:
        start, stop = self.read("id", document, document + 2).tolist()
        return self.read("ids", start, stop).tobytes()

    def find(self, doc_id: bytes) -> list[int]:
        """Find the documents with this id; more than one if the user's ids repeat."""
        key = np.uint64(stable_hash(doc_id))
        low, high = 0, self.documents
        while high - low > _BLOCK:  # the first entry that is not below the key is in low .. high
            middle = (low + high) // 2
            if self.read("hash", middle, middle + 1)[0] < key:
                low = middle + 1
            else:
                high = middle
        start = low + int(np.searchsorted(self.read("hash", low, high), key))
        found = []
        while start < self.documents and self.read("hash", start, start + 1)[0] == key:
            if self.doc_id(start) == doc_id:  # and not another one with the same hash
                found.append(start)
            start += 1
        return found

    def placements_at(self, numbers: list[int], first_row: int) -> list[Placement]:
        """Return the placements of these numbers; rows are counted from `first_row`."""
        result = []
        for number in numbers:
            document, row, *rest = (
                int(self.read(str(1 + i), number, number + 1)[0]) for i in range(6)
            )
            result.append(Placement(self.doc_id(document), first_row + row, *rest))
        return result


def find_document(uri: str, split: str, doc_id: bytes) -> list[Placement]:
    """Find the parts of a document in its own order; none if the split does not hold it.

    Args:
        uri: A PackedRows artifact.
        split: "train" or "eval".
        doc_id: The document's id.

    Raises:
        TokenmillError: A file is missing or of another format.
    """
    manifest = read_packed_manifest(uri, split)
    shard = stable_hash(doc_id) % manifest.shard_count
    first_row = 0
    for entry in manifest.shards:
        if entry.shard == shard:
            columns = _open(uri, split, entry)
            try:
                numbers: list[int] = []
                for document in columns.find(doc_id):
                    numbers += range(*columns.read("first", document, document + 2).tolist())
                return columns.placements_at(numbers, first_row)
            finally:
                columns.close()
        first_row += entry.rows
    return []


def documents_of_row(uri: str, split: str, row: int) -> list[Placement]:
    """List the parts that a row holds, in the order of the row.

    Raises:
        IndexError: There is no such row.
        TokenmillError: A file is missing or of another format.
    """
    manifest = read_packed_manifest(uri, split)
    if not 0 <= row < manifest.rows:
        raise IndexError(f"row {row}: the {split} split has rows 0 to {manifest.rows - 1}")
    first_row = 0
    for entry in manifest.shards:
        if row < first_row + entry.rows:
            break
        first_row += entry.rows
    columns = _open(uri, split, entry)
    try:
        start, stop = columns.read("row", row - first_row, row - first_row + 2).tolist()
        return columns.placements_at(columns.read("0", start, stop).tolist(), first_row)
    finally:
        columns.close()


def _open(uri: str, split: str, entry: PackedShard) -> _Columns:
    return _Columns(os.path.join(split_directory(uri, split), entry.provenance))
