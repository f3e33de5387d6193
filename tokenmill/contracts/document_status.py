"""document_status.jsonl of the ledger: what became of each document, a line each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from tokenmill.contracts.base import Document, Number, key

RECORDS_NAME = "document_status.jsonl"
KEPT, DROPPED, QUARANTINED = "kept", "dropped", "quarantined"


class KeptDocument(Document):
    """A document that curation kept."""

    status: Literal["kept"] = key("What became of it.")
    doc_id: str = key("Id, as in the input.")
    source: str = key("Where it came from.")
    split: Literal["train", "eval"] = key("Its split.")
    byte_count: int = key("Bytes of its text after normalization.", ge=0)
    language: str = key("ISO 639 code; und where it is not known.")
    metadata: dict[str, str] = key("What its record says: some of title, url, date, license.")
    quality_score: float | None = key(
        "What a learned scorer gave it, from 0 to 1; absent without [curate.quality].", default=None
    )


class DroppedDocument(Document):
    """A document that curation dropped (tokenmill/contracts/curation.py has the fields)."""

    status: Literal["dropped"] = key("What became of it.")
    doc_id: str = key("Id, as in the input.")
    source: str = key("Where it came from.")
    split: Literal["train", "eval"] = key("The split that it was in.")
    raw_bytes: int = key("Bytes of its text before normalization.", ge=0)
    excerpt: str = key("The beginning of its text.")
    reason: str = key("The drop reason.")
    value: Number = key("What was measured.")
    threshold: Number = key("What it was held against.")
    kept_copy: str = key("Id of the copy that stays, or of who shares words; empty if none.")
    language: str = key("ISO 639 code; und where it is not known.")
    shared: str = key("The beginning of the words that a contaminated document shares.")
    metadata: dict[str, str] = key("What its record says: some of title, url, date, license.")
    matched: str = key("What of it is on a list for which it was dropped; empty if none.")


class QuarantinedRecord(Document):
    """A record that ingest could not use (tokenmill/contracts/ingest.py has the fields)."""

    status: Literal["quarantined"] = key("What became of it.")
    doc_id: str = key("The file and where in it.")
    file: str = key("The file as the user would name it.")
    record: int = key("Line, row or record from 1; 0 for the file as a whole.", ge=0)
    reason: str = key("Why.")
    detail: str = key("What was found.")
    size_bytes: int = key("Size where it is known, else 0.", ge=0)


DocumentStatus = KeptDocument | DroppedDocument | QuarantinedRecord
document_status: TypeAdapter[DocumentStatus] = TypeAdapter(
    Annotated[DocumentStatus, Field(discriminator="status")]
)
"""Validates what the index holds of a document."""
