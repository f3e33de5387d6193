"""The last pass: what stays and what goes, written shard by shard from the staged parts."""

import functools
import os
from collections.abc import Iterator

import numpy as np

from components.curate.counts import KEPT, OutcomeCounts
from components.curate.deduplicate import NO_COPY, DroppedGroup, dropped_mask, dropped_slice
from components.curate.first_pass import DROPPED_ROW
from tokenmill.contracts.curation import DroppedDocument, write_dropped_shard
from tokenmill.records.documents import decode_documents
from tokenmill.records.splits import split_directory
from tokenmill.records.staged_shards import Record, sorted_shard, write_sorted_shard
from tokenmill.records.staging import StagedPart, Staging, read_rows, read_sources
from tokenmill.text.text_columns import TextColumns

Count = tuple[tuple[str, str, str], OutcomeCounts]


def write_kept(
    item: tuple[str, int],
    parts: list[StagedPart],
    dropped: list[DroppedGroup],
    uri: str,
    shards: int,
) -> int:
    """Write the documents of one (split, shard) that stay; return how many."""
    split, shard = item
    staging = Staging(parts)
    name = f"documents-{shard:05d}-of-{shards:05d}.gz"
    path = os.path.join(split_directory(uri, split), name)
    return write_sorted_shard(path, staging, split, shard, functools.partial(dropped_mask, dropped))


def count(
    part: StagedPart, parts: list[StagedPart], dropped: list[DroppedGroup]
) -> Iterator[Count]:
    """Count, by source, what became of the documents of a part that passed the first pass."""
    staging = Staging(parts)
    first = int(staging.first[staging.parts.index(part)])
    rows = read_rows(part)
    sources = [source.decode() for source in read_sources(part)]
    left = rows["flag"] != DROPPED_ROW
    for group in dropped:
        places = group.references[dropped_slice(group, first, len(rows))] - first
        left[places] = False
        yield from _by_source(rows[places], sources, part.split, group.reason)
    yield from _by_source(rows[left], sources, part.split, KEPT)


def _by_source(rows: np.ndarray, sources: list[str], split: str, outcome: str) -> Iterator[Count]:
    number, place = np.unique(rows["source"], return_inverse=True)
    documents = np.bincount(place, minlength=len(number))
    # Sums of float64 are exact up to 2^53 bytes.
    names = ("raw_bytes", "text_size", "removed_bytes")
    sizes = [np.bincount(place, rows[name], len(number)) for name in names]
    for i, source in enumerate(number.tolist()):
        raw, kept, removed = (int(size[i]) for size in sizes)
        if outcome != KEPT:
            kept = removed = 0
        yield (
            (split, sources[source], outcome),
            OutcomeCounts(int(documents[i]), raw, kept, removed),
        )


def write_dropped(
    shard: int, parts: list[StagedPart], dropped: list[DroppedGroup], dropped_uri: str, shards: int
) -> int:
    """Write one shard of the dropped documents of both splits, as JSON; return how many."""
    staging = Staging(parts)
    why = _Why(staging, dropped)

    def takes(first: int, part: StagedPart, rows: np.ndarray) -> np.ndarray:
        gone = dropped_mask(dropped, first, len(rows))
        why.add(first + np.flatnonzero(gone & (rows["shard"] == shard)))
        return (rows["flag"] == DROPPED_ROW) | gone

    written = 0

    def lines() -> Iterator[bytes]:
        nonlocal written
        for record in sorted_shard(staging, shard, takes):
            written += 1
            if record.row["flag"] == DROPPED_ROW:
                yield record.payload
            else:
                yield why.record(record)

    write_dropped_shard(dropped_uri, shard, shards, lines())
    return written


class _Why:
    """Why documents were dropped: first `add` them all, then ask."""

    def __init__(self, staging: Staging, dropped: list[DroppedGroup]):
        self._staging, self._dropped = staging, dropped
        self._added = [np.zeros(0, np.int64)]

    def add(self, references: np.ndarray) -> None:
        """Remember dropped documents that will be asked for."""
        self._added.append(references)

    @functools.cached_property
    def _reasons(self) -> dict[int, tuple[str, float, float, bytes, tuple[int, int]]]:
        reasons = {}
        added = np.sort(np.concatenate(self._added))
        for group in self._dropped:
            mine, _, places = np.intersect1d(
                added, group.references, assume_unique=True, return_indices=True
            )
            kept = group.kept[places]
            ids = np.full(len(kept), b"", object)
            for place in np.flatnonzero(kept < NO_COPY).tolist():
                ids[place] = b"benchmark text %d" % (NO_COPY - kept[place])
            has_copy = kept > NO_COPY
            copies = kept[has_copy]
            ids[has_copy] = self._staging.ids_of(copies, self._staging.rows_of(copies))
            values = group.values[places].tolist()
            assert group.runs is not None  # join_dropped gives them
            runs = group.runs[places].tolist()
            for reference, value, kept_copy, run in zip(
                mine.tolist(), values, ids, runs, strict=True
            ):
                reasons[reference] = (group.reason, value, group.threshold, kept_copy, run)
        return reasons

    def record(self, record: Record) -> bytes:
        """Return the record of one dropped document."""
        batch = decode_documents([record.payload])
        names = ("doc_id", "source", "text", "language", "metadata")
        doc_id, source, text, language, metadata = (batch.column(n)[0].as_py() for n in names)
        text = text.decode()
        reason, value, threshold, kept_copy, run = self._reasons[record.reference]
        dropped = DroppedDocument(
            record.part.split,
            doc_id,
            source,
            text,
            int(record.row["raw_bytes"]),
            reason,
            value,
            threshold,
            kept_copy,
            language.decode(),
            _words(text, *run),
            metadata,
        )
        return dropped.shortened().to_line()


def _words(text: str, first: int, count: int) -> str:
    """Return a run of words of a text, as `bare_words` counts them."""
    if not count:
        return ""
    words = TextColumns([text], cut_long_words=True, east_asian="words").bare_words
    return text[words.start[first] : words.end[min(first + count, len(words.end)) - 1]]
