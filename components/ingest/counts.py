"""Counts of ingest: what was read, repaired and quarantined."""

from collections.abc import Iterable

from components.ingest.transforms import FILES, FORMATS, LEFT_OUT, RENAMED, REPAIRED, UNREADABLE
from tokenmill.contracts.ingest import (
    Amount,
    BadRecord,
    IngestCounts,
    IngestedFiles,
    IngestedSplit,
    Quarantined,
    write_ingest_counts,
)
from tokenmill.records.splits import SPLITS

# ((split, source), (documents, bytes)); in the place of a split also QUARANTINED, FILES, ..
QUARANTINED = "quarantined"
Count = tuple[tuple[str, str], tuple[int, int]]


def count_bad(record: BadRecord) -> Count:
    """Return the count of a bad record, under its reason."""
    return (QUARANTINED, record.reason), (1, record.size_bytes)


def count_repaired(kind: str, documents: int) -> Count:
    """Return the count of documents that were repaired in one way."""
    return (REPAIRED, kind), (documents, 0)


def add_counts(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the sum of (documents, bytes)."""
    documents = size_bytes = 0
    for d, b in pairs:
        documents += d
        size_bytes += b
    return documents, size_bytes


def write_counts(counts: Iterable[Count], quarantine_uri: str) -> None:
    """Write counts.json: what was read, quarantined and repaired, by split, source and reason."""
    read = Amount(documents=0, bytes=0)
    quarantined = Quarantined(documents=0, bytes=0, by_reason={})
    repaired: dict[str, int] = {}
    left_out: dict[str, int] = {}
    formats: dict[str, Amount] = {}
    renamed = 0
    files = {"": (0, 0), UNREADABLE: (0, 0)}
    splits = {split: IngestedSplit(documents=0, bytes=0, by_source={}) for split in SPLITS}
    for (split, name), (documents, size) in sorted(counts):
        if split == REPAIRED:
            repaired[name] = documents
        elif split == FORMATS:
            formats[name] = Amount(documents=documents, bytes=size)
        elif split == LEFT_OUT:
            left_out[name] = documents
        elif split == RENAMED:
            renamed = documents
        elif split == FILES:
            files[name] = documents, size
        elif split == QUARANTINED:
            quarantined.by_reason[name] = Amount(documents=documents, bytes=size)
            quarantined.add(documents, size)
        else:
            splits[split].by_source[name] = Amount(documents=documents, bytes=size)
            splits[split].add(documents, size)
            read.add(documents, size)
    write_ingest_counts(
        quarantine_uri,
        IngestCounts(
            files=IngestedFiles(
                files=files[""][0],
                bytes=files[""][1],
                unreadable=files[UNREADABLE][0],
                unreadable_bytes=files[UNREADABLE][1],
            ),
            read=read,
            quarantined=quarantined,
            repaired=repaired,
            formats=formats,
            left_out=left_out,
            shared_ids=renamed,
            splits=splits,
        ),
    )
