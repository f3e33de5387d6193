"""The last pass: writes what stays and what goes, shard by shard, from the spool."""

import os
from collections.abc import Iterator

import numpy as np

from components.curate.account import KEPT, Outcome, Rejected
from components.curate.deduplicate import NO_COPY, Dropped, dropped_mask
from components.curate.first_pass import REJECTED_ROW
from components.documents import decode_documents, split_directory, write_tfrecords
from components.spool import Piece, Spool, read_rows, read_sources
from components.spooled_shards import Record, sorted_shard, write_sorted_shard

Count = tuple[tuple[str, str, str], Outcome]


def write_kept(
    item: tuple[str, int], pieces: list[Piece], dropped: list[Dropped], uri: str, shards: int
) -> int:
    """Writes one shard of documents of one (split, shard); returns how many."""
    split, shard = item
    spool = Spool(pieces)
    name = f"documents-{shard:05d}-of-{shards:05d}.gz"
    path = os.path.join(split_directory(uri, split), name)
    return write_sorted_shard(path, spool, split, shard, dropped_mask(spool, dropped))


def count(piece: Piece, pieces: list[Piece], dropped: list[Dropped]) -> Iterator[Count]:
    """What became of the documents of a piece that the first pass did not reject, by source."""
    spool = Spool(pieces)
    first = int(spool.first[spool.pieces.index(piece)])
    rows = read_rows(piece)
    sources = [source.decode() for source in read_sources(piece)]
    left = rows["flag"] != REJECTED_ROW
    for group in dropped:
        places = group.references - first
        places = places[(places >= 0) & (places < len(rows))]
        left[places] = False
        yield from _by_source(rows[places], sources, piece.split, group.reason)
    yield from _by_source(rows[left], sources, piece.split, KEPT)


def _by_source(rows: np.ndarray, sources: list[str], split: str, outcome: str) -> Iterator[Count]:
    number, place = np.unique(rows["source"], return_inverse=True)
    documents = np.bincount(place, minlength=len(number))
    # Sums of float64 are exact up to 2^53 bytes.
    raw, kept = (np.bincount(place, rows[name], len(number)) for name in ("raw_bytes", "text_size"))
    for i, source in enumerate(number.tolist()):
        kept_bytes = int(kept[i]) if outcome == KEPT else 0
        yield (
            (split, sources[source], outcome),
            Outcome(int(documents[i]), int(raw[i]), kept_bytes),
        )


def write_rejected(
    shard: int, pieces: list[Piece], dropped: list[Dropped], directory: str, shards: int
) -> int:
    """Writes one shard of rejected documents of both splits, as JSON; returns how many."""
    spool = Spool(pieces)
    gone = dropped_mask(spool, dropped)

    def takes(first: int, piece: Piece, rows: np.ndarray) -> np.ndarray:
        return (rows["flag"] == REJECTED_ROW) | gone[first : first + len(rows)]

    written = 0

    def lines() -> Iterator[bytes]:
        nonlocal written
        why = _Why(spool, dropped, shard)
        for record in sorted_shard(spool, shard, takes):
            written += 1
            if record.row["flag"] == REJECTED_ROW:
                yield record.payload
            else:
                yield why.record(record)

    path = os.path.join(directory, f"rejected-{shard:05d}-of-{shards:05d}.gz")
    write_tfrecords(path, lines(), gzip=True)
    return written


class _Why:
    """Why the documents of a shard were dropped."""

    def __init__(self, spool: Spool, dropped: list[Dropped], shard: int):
        self._reasons: dict[int, tuple[str, float, float, bytes]] = {}
        for group in dropped:
            for _, places, rows in spool.by_piece(group.references):
                mine = places[rows["shard"] == shard]
                kept = group.kept[mine]
                ids = np.full(len(mine), b"", object)
                has_copy = kept != NO_COPY
                ids[has_copy] = spool.ids_of(kept[has_copy])
                for reference, value, kept_copy in zip(
                    group.references[mine].tolist(), group.values[mine].tolist(), ids, strict=True
                ):
                    why = (group.reason, value, group.threshold, kept_copy)
                    self._reasons[reference] = why

    def record(self, record: Record) -> bytes:
        """The record of one rejected document."""
        batch = decode_documents([record.payload])
        doc_id, source, text = (batch.column(i)[0].as_py() for i in range(3))
        rejected = Rejected(
            record.piece.split,
            doc_id,
            source,
            text.decode(),
            int(record.row["raw_bytes"]),
            *self._reasons[record.reference],
        )
        return rejected.shortened().as_json()
