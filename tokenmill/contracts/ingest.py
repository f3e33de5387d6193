"""What ingest leaves for others: counts.json, and quarantine.jsonl with what it could not read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from tokenmill.contracts.base import Document, Part, key, read_document, write_document
from tokenmill.files import open_file, write_text

INGEST_COUNTS_NAME = "counts.json"
QUARANTINE_NAME = "quarantine.jsonl"


class Amount(Part):
    """A number of documents (or records) and their size."""

    documents: int = key("Documents.", ge=0)
    bytes: int = key("Bytes of their text.", ge=0)

    def add(self, documents: int, size: int) -> None:
        """Add documents and their bytes."""
        self.documents += documents
        self.bytes += size


class Quarantined(Amount):
    """Records that could not be read."""

    by_reason: dict[str, Amount] = key("The same by reason.")


class IngestedSplit(Amount):
    """The documents of one split."""

    by_source: dict[str, Amount] = key("The same by source.")


class IngestedFiles(Part):
    """The files of the input."""

    files: int = key("Files.", ge=0)
    bytes: int = key("Their size as stored.", ge=0)
    unreadable: int = key("Of these, files that could not be read, or not to their end.", ge=0)
    unreadable_bytes: int = key("The size of those as stored.", ge=0)


class IngestCounts(Document):
    """counts.json: what was read, quarantined and repaired."""

    files: IngestedFiles
    read: Amount = key("Documents that were read.")
    quarantined: Quarantined
    repaired: dict[str, int] = key("Documents whose encoding was repaired (among read), by kind.")
    formats: dict[str, Amount] = key(
        "Documents by the format of their file; of an archive of files by its suffix (zip)."
    )
    left_out: dict[str, int] = key(
        "Records that are no text (pictures in a web archive, redirects of a wiki), by what it is."
    )
    shared_ids: int = key(
        "Documents (among read) that got an id of their own: others had theirs, too.", ge=0
    )
    splits: dict[str, IngestedSplit] = key("The documents that were read, by split.")


def read_ingest_counts(quarantine_uri: str) -> IngestCounts:
    """Read counts.json of a quarantine artifact."""
    return read_document(os.path.join(quarantine_uri, INGEST_COUNTS_NAME), IngestCounts)


def write_ingest_counts(quarantine_uri: str, counts: IngestCounts) -> None:
    """Write counts.json into a quarantine artifact."""
    write_document(os.path.join(quarantine_uri, INGEST_COUNTS_NAME), counts)


@dataclass(frozen=True)
class BadRecord:
    """A record that could not be used, and why: a line of quarantine.jsonl.

    Attributes:
        file: The file as the user would name it.
        record: Line (JSON lines, CSV, paragraphs), row (Parquet), value (JSON) or record
            (TFRecord), from 1; 0 for the file as a whole, or the rest of it.
        reason: unreadable_file, invalid_json, malformed_row, bad_checksum, invalid_example,
            missing_text, invalid_messages, not_utf8, empty_text, too_large or extraction_failed.
        detail: What was found.
        size_bytes: Size of the record where it is known, else 0.
    """

    file: str
    record: int
    reason: str
    detail: str
    size_bytes: int

    @property
    def place(self) -> str:
        """File and record, as ingest names a document without an id of its own."""
        return f"{self.file}:{self.record}" if self.record else self.file

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}: {self.detail}"


def read_quarantine(quarantine_uri: str) -> Iterator[BadRecord]:
    """Yield the records of quarantine.jsonl, by file and place."""
    with open_file(os.path.join(quarantine_uri, QUARANTINE_NAME)) as lines:
        for line in lines:
            yield BadRecord(**json.loads(line))


def write_quarantine(quarantine_uri: str, records: Iterable[BadRecord]) -> None:
    """Write quarantine.jsonl, sorted by file and place."""
    ordered = sorted(records, key=lambda r: (r.file, r.record, r.reason))
    text = "".join(json.dumps(asdict(r), sort_keys=True) + "\n" for r in ordered)
    write_text(os.path.join(quarantine_uri, QUARANTINE_NAME), text)
