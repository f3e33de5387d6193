"""The account of ingest: what was read, repaired and quarantined."""

import json
from collections.abc import Iterable
from dataclasses import asdict

from components.ingest.records import BadRecord
from components.ingest.transforms import REPAIRED
from tokenmill.files import write_json, write_text
from tokenmill.records.documents import SPLITS

# ((split, source), (documents, bytes)); in the place of a split also "quarantined" or REPAIRED.
Count = tuple[tuple[str, str], tuple[int, int]]


def count_bad(record: BadRecord) -> Count:
    """Of a bad record."""
    return ("quarantined", record.reason), (1, record.size_bytes)


def count_repaired(kind: str, documents: int) -> Count:
    """Of documents that were repaired."""
    return (REPAIRED, kind), (documents, 0)


def add_counts(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The sum of (documents, bytes)."""
    documents = size_bytes = 0
    for d, b in pairs:
        documents += d
        size_bytes += b
    return documents, size_bytes


def write_counts(counts: Iterable[Count], path: str) -> None:
    """Writes counts.json: what was read, quarantined and repaired, by split, source and reason."""
    summary: dict = {
        "read": {"documents": 0, "bytes": 0},
        "quarantined": {"documents": 0, "bytes": 0, "by_reason": {}},
        REPAIRED: {},  # documents by kind; they are among those read
        "splits": {split: {"documents": 0, "bytes": 0, "by_source": {}} for split in SPLITS},
    }
    for (split, name), (documents, size_bytes) in sorted(counts):
        if split == REPAIRED:
            summary[REPAIRED][name] = documents
            continue
        entry = {"documents": documents, "bytes": size_bytes}
        if split == "quarantined":
            totals = [summary["quarantined"]]
            summary["quarantined"]["by_reason"][name] = entry
        else:
            totals = [summary["read"], summary["splits"][split]]
            summary["splits"][split]["by_source"][name] = entry
        for total in totals:
            total["documents"] += documents
            total["bytes"] += size_bytes
    write_json(path, summary)


def write_quarantine(records: list[BadRecord], path: str) -> None:
    """Writes quarantine.jsonl: the bad records, by file and place."""
    ordered = sorted(records, key=lambda r: (r.file, r.record, r.reason))
    write_text(path, "".join(json.dumps(asdict(r), sort_keys=True) + "\n" for r in ordered))
