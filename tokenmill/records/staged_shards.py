"""Shards written from staged documents: sorted by id, one record in memory at a time.

What is held is a shard's ids and rows, not its texts.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenmill.files import open_file
from tokenmill.records.staging import ROW, StagedPart, Staging, read_ids, read_rows
from tokenmill.records.tfrecord import write_tfrecords

_OPEN_FILES = 128


class Record(NamedTuple):
    """A document that a shard takes."""

    reference: int
    part: StagedPart
    row: np.void
    payload: bytes


def sorted_shard(
    staging: Staging,
    shard: int,
    takes: Callable[[int, StagedPart, np.ndarray], np.ndarray],
    renamed: Mapping[int, bytes] | None = None,
) -> Iterator[Record]:
    """Yield the records of a shard, one at a time, by id and then by a hash of the payload.

    Args:
        staging: All parts.
        shard: Which shard.
        takes: (number of the part's first document, part, rows) -> bool [rows], what to take.
        renamed: Ids that some documents have instead of the staged ones, by number.
    """
    tables, references, parts, ids = [np.zeros(0, ROW)], [], [], []
    for number, part in enumerate(staging.parts):
        if shard not in part.shards:
            continue
        first = int(staging.first[number])
        rows = read_rows(part)
        places = np.flatnonzero((rows["shard"] == shard) & takes(first, part, rows))
        if len(places):
            tables.append(rows[places])
            references.append(first + places)
            parts.append(np.full(len(places), number))
            ids.append(pa.array(read_ids(part, rows[places]), pa.large_binary()))
    if not ids:
        return
    rows = np.concatenate(tables)
    keys = pa.table(
        {
            "id": _with_new_ids(pa.chunked_array(ids), np.concatenate(references), renamed or {}),
            "digest": rows["digest"],
            "reference": np.concatenate(references),
        }
    )
    order = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names]).to_numpy()
    of_part, all_references = np.concatenate(parts), keys.column("reference").to_numpy()
    del ids, keys
    with _Files() as files:
        for place in order.tolist():
            part, row = staging.parts[of_part[place]], rows[place]
            file = files.open(f"{part.path}.payloads")
            file.seek(int(row["start"]))
            yield Record(int(all_references[place]), part, row, file.read(int(row["size"])))


def _with_new_ids(
    ids: pa.ChunkedArray, references: np.ndarray, renamed: Mapping[int, bytes]
) -> pa.ChunkedArray:
    if not renamed:
        return ids
    is_new = np.isin(references, list(renamed))
    new = pa.array([renamed[number] for number in references[is_new].tolist()], ids.type)
    return pc.replace_with_mask(ids, pa.array(is_new), new)


def write_sorted_shard(
    path: str,
    staging: Staging,
    split: str,
    shard: int,
    goes: Callable[[int, int], np.ndarray] | None = None,
    renamed: Mapping[int, bytes] | None = None,
    rename: Callable[[bytes, bytes], bytes] | None = None,
) -> int:
    """Write the documents of a split's shard, without those dropped, as a gzipped TFRecord file.

    Args:
        path: The file.
        staging: All parts.
        split: The split.
        shard: The shard.
        goes: (number of a part's first document, its rows) -> bool [rows], which of them are not
            written; None drops none.
        renamed: As for `sorted_shard`.
        rename: (payload, new id) -> the payload that is written of a renamed document.

    Returns:
        The number of documents that were written.
    """

    def takes(first: int, part: StagedPart, rows: np.ndarray) -> np.ndarray:
        live = (rows["flag"] == 0) & (part.split == split)
        return live if goes is None else live & ~goes(first, len(rows))

    count = 0

    def payloads() -> Iterator[bytes]:
        nonlocal count
        for record in sorted_shard(staging, shard, takes, renamed):
            count += 1
            new_id = renamed.get(record.reference) if renamed else None
            yield rename(record.payload, new_id) if rename and new_id else record.payload

    write_tfrecords(path, payloads(), gzip=True)
    return count


class _Files:
    """Open files, the least recently used of which are closed."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def open(self, path: str) -> BinaryIO:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if len(self._open) >= _OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        file = self._open[path] = open_file(path)
        return file
