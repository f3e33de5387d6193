"""From a document's id to its status without a scan: an index over kept, dropped and bad records.

In the ledger artifact lie `document_status.jsonl` (one record a document, in shards' order, so by
id within a shard) and, as little-endian arrays, `statuses-offsets` (int64 [n + 1], where each
record starts), `statuses-hashes` (uint64 [n], sorted hashes of the ids), `statuses-order` (uint32
[n], the record of each hash; a record whose id had to be made unique is there twice, by the id that
it came with, too) and `statuses-shards` (int64, first record of each shard). A look-up
maps the arrays, bisects the hashes and reads the records of equal hash. Local files are mapped,
remote ones read whole: 20 bytes a document.
"""

from __future__ import annotations

import difflib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from tokenmill.contracts.curation import list_dropped_shards, read_dropped_shard
from tokenmill.contracts.document_status import DROPPED, KEPT, QUARANTINED, RECORDS_NAME
from tokenmill.contracts.ingest import read_quarantine
from tokenmill.files import AtomicFile, list_files, open_file, write_bytes
from tokenmill.records.document_metadata import decode_metadata
from tokenmill.records.keys import shared_id, stable_hash
from tokenmill.records.splits import SPLITS, split_directory

_ARRAYS = {
    "offsets": "<i8",
    "hashes": "<u8",
    "order": "<u4",
    "shards": "<i8",
}
NEAREST = 3


def write_index(uri: str, curated_uri: str, dropped_uri: str, quarantine_uri: str) -> int:
    """Read the ids of all documents once and write the index; return how many.

    Args:
        uri: The ledger artifact.
        curated_uri: The curator's Examples.
        dropped_uri: The dropped documents.
        quarantine_uri: The records that could not be read.
    """
    return write_shards(uri, _shards(curated_uri, dropped_uri, quarantine_uri))


def _shards(
    curated_uri: str, dropped_uri: str, quarantine_uri: str
) -> Iterator[Iterator[tuple[bytes, bytes]]]:
    """Yield (id, record) of the documents of each file."""
    for split in SPLITS:
        for path in list_files(split_directory(curated_uri, split)):
            yield _kept(path, split)
    for path in list_dropped_shards(dropped_uri):
        yield _dropped(path)
    yield _quarantined(quarantine_uri)


def _kept(path: str, split: str) -> Iterator[tuple[bytes, bytes]]:
    from tokenmill.records.documents import QUALITY_SCORE, read_documents

    for documents in read_documents(path):
        names = ("doc_id", "source", "byte_count", "language", "metadata", QUALITY_SCORE)
        columns = (documents.column(name).to_pylist() for name in names)
        for doc_id, source, size, language, metadata, score in zip(*columns, strict=True):
            status = {
                "byte_count": size,
                "doc_id": doc_id.decode(),
                "language": language.decode(),
                "metadata": decode_metadata(metadata),
                "status": KEPT,
                "source": source.decode(),
                "split": split,
                **({} if score is None else {QUALITY_SCORE: round(score, 6)}),
            }
            yield doc_id, _line(status)


def _dropped(path: str) -> Iterator[tuple[bytes, bytes]]:
    for record in read_dropped_shard(path):
        yield record.doc_id, _line({**record.to_json(), "status": DROPPED})


def _quarantined(uri: str) -> Iterator[tuple[bytes, bytes]]:
    for record in read_quarantine(uri):
        status = {**asdict(record), "status": QUARANTINED, "doc_id": record.place}
        yield record.place.encode(), _line(status)


def _line(status: dict[str, Any]) -> bytes:
    return json.dumps(status, ensure_ascii=False, sort_keys=True).encode() + b"\n"


def write_shards(uri: str, shards: Iterable[Iterable[tuple[bytes, bytes]]]) -> int:
    """Write the index of (id, record line) pairs; only 8 bytes a document stay in memory twice."""
    sizes: list[np.ndarray] = []
    hashes: list[np.ndarray] = []
    firsts = [0]
    shared: list[tuple[int, int]] = []  # (hash of an id that was made unique, record)
    with AtomicFile(os.path.join(uri, RECORDS_NAME)) as out:
        for shard in shards:
            lines, lengths, keys, held = [], [], [], 0
            count = 0
            for doc_id, line in shard:
                lines.append(line)
                lengths.append(len(line))
                keys.append(stable_hash(doc_id))
                if (came_with := shared_id(doc_id.decode()).encode()) != doc_id:
                    shared.append((stable_hash(came_with), firsts[-1] + count))
                held += len(line)
                count += 1
                if held > 1 << 20:
                    out.write(b"".join(lines))
                    lines, held = [], 0
                if len(lengths) == 1 << 16:
                    sizes.append(np.array(lengths, np.int64))
                    hashes.append(np.array(keys, np.uint64))
                    lengths, keys = [], []
            out.write(b"".join(lines))
            sizes.append(np.array(lengths, np.int64))
            hashes.append(np.array(keys, np.uint64))
            firsts.append(firsts[-1] + count)
    all_hashes = np.concatenate([*hashes, np.array([h for h, _ in shared], np.uint64)])
    records = sum(map(len, hashes))
    numbers = np.concatenate((np.arange(records), np.array([n for _, n in shared], np.int64)))
    order = np.argsort(all_hashes, kind="stable")
    offsets = np.concatenate([np.zeros(1, np.int64), *sizes]).cumsum()
    arrays = {
        "offsets": offsets,
        "hashes": all_hashes[order],
        "order": numbers[order],
        "shards": np.array(firsts),
    }
    for name, array in arrays.items():
        write_bytes(os.path.join(uri, f"statuses-{name}"), array.astype(_ARRAYS[name]).tobytes())
    return records


class DocumentIndex:
    """Look-ups in the index of a ledger artifact.

    Args:
        uri: The ledger artifact.

    Raises:
        FileNotFoundError: There is no index.
    """

    def __init__(self, uri: str):
        self._uri = uri
        if "://" not in uri and not os.path.exists(os.path.join(uri, RECORDS_NAME)):
            raise FileNotFoundError(os.path.join(uri, RECORDS_NAME))
        self._arrays = {name: self._array(name) for name in _ARRAYS}

    def __len__(self) -> int:
        return len(self._arrays["offsets"]) - 1

    def find(self, doc_id: str) -> list[dict[str, Any]]:
        """Find the statuses of all documents that have this id, or came with it.

        If there are none, a file that has it as its name, or a record of one (file:record): what is
        in quarantine is found by the end of its path.
        """
        wanted = np.uint64(stable_hash(doc_id.encode()))
        hashes = self._arrays["hashes"]
        first = int(np.searchsorted(hashes, wanted, side="left"))
        last = int(np.searchsorted(hashes, wanted, side="right"))
        numbers = sorted(int(n) for n in self._arrays["order"][first:last])
        with open_file(os.path.join(self._uri, RECORDS_NAME)) as records:
            found = [self._read(records, number) for number in numbers]
        found = [s for s in found if doc_id in (s["doc_id"], shared_id(s["doc_id"]))]
        end = "/" + doc_id.lstrip("./")
        return found or [
            status
            for status in self.quarantined()
            if f"/{status['file']}".endswith(end) or f"/{status['doc_id']}".endswith(end)
        ]

    def quarantined(self) -> Iterator[dict[str, Any]]:
        """Yield the statuses of what ingest could not read, by file and place."""
        starts = self._arrays["shards"][-2:]  # of the last shard
        with open_file(os.path.join(self._uri, RECORDS_NAME)) as records:
            for number in range(int(starts[0]), int(starts[-1])):
                if (status := self._read(records, number)).get("status") == QUARANTINED:
                    yield status

    def nearest(self, doc_id: str) -> list[str]:
        """Find ids that look alike among the neighbors in each shard, most similar first."""
        neighbors: set[str] = set()
        shards = self._arrays["shards"]
        with open_file(os.path.join(self._uri, RECORDS_NAME)) as records:
            for start, end in itertools.pairwise(shards):
                low, high = int(start), int(end)
                while low < high:
                    middle = (low + high) // 2
                    if self._read(records, middle)["doc_id"].encode() < doc_id.encode():
                        low = middle + 1
                    else:
                        high = middle
                for number in range(max(int(start), low - 2), min(int(end), low + 2)):
                    neighbors.add(self._read(records, number)["doc_id"])
        close = difflib.get_close_matches(doc_id, sorted(neighbors), n=NEAREST, cutoff=0.5)
        contained = [name for name in sorted(neighbors) if doc_id in name]
        return list(dict.fromkeys([*close, *contained]))[:NEAREST]

    def _read(self, records: Any, number: int) -> dict[str, Any]:
        start, end = (int(n) for n in self._arrays["offsets"][number : number + 2])
        records.seek(start)
        return json.loads(records.read(end - start))

    def _array(self, name: str) -> np.ndarray:
        path = os.path.join(self._uri, f"statuses-{name}")
        if "://" not in self._uri and os.path.getsize(path):
            return np.memmap(path, _ARRAYS[name], "r")
        with open_file(path) as source:
            return np.frombuffer(source.read(), _ARRAYS[name])
