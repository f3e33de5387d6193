"""What reading gives: `Document` or `BadRecord`, and the checks that every format's text passes."""

import os
from typing import NamedTuple

from components.ingest.config import CorpusConfig
from components.ingest.encoding import decode_error, repair
from components.ingest.manifest import InputFile
from tokenmill.contracts.ingest import BadRecord


class Document(NamedTuple):
    """A document as read.

    Attributes:
        doc_id: Its id in the input, or file:record.
        source: Where it came from.
        text: Valid UTF-8, not blank.
        repaired: What was repaired: bom, utf-16, utf-32, cp1252, mojibake.
        label: Its class; empty if it has none.
    """

    doc_id: bytes
    source: bytes
    text: bytes
    repaired: tuple[str, ...] = ()
    label: bytes = b""


def make_document(
    text: bytes,
    doc_id: bytes,
    source: bytes,
    file: InputFile,
    record: int,
    settings: CorpusConfig,
    repaired: tuple[str, ...] = (),
    label: bytes | None = None,
) -> Document | BadRecord:
    """Make a document of `text`, its encoding repaired where safe, or say what is wrong with it."""
    if len(text) > settings.max_document_bytes:
        return too_large(file, record, len(text), settings)
    if not text.isascii():
        size = len(text)
        fixed = repair(text, settings.repair_encoding)
        if fixed is None:
            return BadRecord(file.path, record, "not_utf8", decode_error(text), size)
        text, kinds = fixed
        if kinds:
            repaired = (*repaired, *(kind for kind in kinds if kind not in repaired))
            if len(text) > settings.max_document_bytes:
                return too_large(file, record, len(text), settings)
    if not text or text.isspace():
        return BadRecord(file.path, record, "empty_text", "only blanks", len(text))
    return Document(doc_id, source, text, repaired, label or b"")


def too_large(file: InputFile, record: int, size: int, settings: CorpusConfig) -> BadRecord:
    """Make the bad record of a text that is longer than allowed."""
    detail = f"{size:,} bytes, corpus.max_document_bytes is {settings.max_document_bytes:,}"
    return BadRecord(file.path, record, "too_large", detail, size)


def missing_text(file: InputFile, record: int, size: int, detail: str) -> BadRecord:
    """Make the bad record of a record, or a file, without the text field."""
    return BadRecord(file.path, record, "missing_text", detail[:500], size)


def to_bytes(value: object) -> bytes | None:
    """Return an id, source or label as UTF-8; None if it is no text and no whole number, or empty.

    Undecodable bytes and lone surrogates become question marks: they do not cost the document.
    """
    if isinstance(value, str):
        data = value.encode("utf-8", "replace")
    elif isinstance(value, bytes):
        data = value if value.isascii() else value.decode("utf-8", "replace").encode("utf-8")
    elif isinstance(value, int):
        data = str(value).encode()
    else:
        return None
    return data or None


def source_or_none(value: object) -> bytes | None:
    """Return a source as `to_bytes` does; None for a number."""
    return to_bytes(value) if isinstance(value, str | bytes) else None


def file_id(file: InputFile) -> bytes:
    """Return the id of a file's only document; with :record it is that of one of several."""
    return file.name.encode("utf-8", "replace")


def default_source(file: InputFile) -> bytes:
    """Return the first directory below what the user named, or the file's bare name."""
    head, slash, _ = file.name.partition("/")
    name = head if slash else os.path.basename(file.name).split(".")[0] or "input"
    return name.encode("utf-8", "replace")
