"""Reads one file as documents; what cannot be read comes out as a `BadRecord`, never as an error.

Formats: JSON lines (a document a line) and plain text (a document a file), each plain or
compressed (.gz, .bz2, .zst), by the file's name.
"""

import bz2
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.ingest.manifest import JSON_LINES_SUFFIXES, InputFile, bare_suffix


@dataclass(frozen=True)
class ReadSettings:
    """The keys of the [corpus] section that reading needs."""

    text_field: str
    id_field: str
    source_field: str
    max_document_bytes: int
    eval_fraction: float


@dataclass(frozen=True)
class Document:
    """A document as read; `text` is valid UTF-8."""

    doc_id: bytes
    source: bytes
    text: bytes


@dataclass(frozen=True)
class BadRecord:
    """A record that could not be used, and why.

    Attributes:
        file: The file as the user would name it.
        record: Line number (JSON lines, from 1) or 0 for the file as a whole.
        reason: unreadable_file, invalid_json, missing_text, not_utf8, empty_text or too_large.
        detail: What was found.
        size_bytes: Size of the record where it is known, else 0.
    """

    file: str
    record: int
    reason: str
    detail: str
    size_bytes: int


def read_file(file: InputFile, settings: ReadSettings) -> Iterator[Document | BadRecord]:
    """Yields the documents and bad records of one file, in order.

    A file that breaks off (a truncated archive, a disk error) yields what came before, then a
    BadRecord with reason unreadable_file.
    """
    json_lines = bare_suffix(file.path) in JSON_LINES_SUFFIXES
    read = _read_json_lines if json_lines else _read_text
    try:
        stored = FileSystems.open(file.path, compression_type=CompressionTypes.UNCOMPRESSED)
        with stored, _decompress(stored, file.path) as handle:
            yield from read(handle, file, settings)
    # Decompressors and filesystems raise many kinds; whichever it is, the run can go on.
    except (BeamIOError, OSError, EOFError, ValueError, zlib.error) as error:
        detail = f"{type(error).__name__}: {error}"[:500]
        yield BadRecord(file.path, 0, "unreadable_file", detail, file.size_bytes)


def _decompress(stored: BinaryIO, path: str) -> BinaryIO:
    """The content of an archive, by its suffix, a buffer at a time.

    Not by Beam: its CompressedFile has no bounded readline, unpacks up to 16 MiB of archive at
    once, however much that gives, and takes a truncated archive for a whole one.
    """
    lower = path.lower()
    if lower.endswith(".gz"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=stored))
    if lower.endswith(".bz2"):
        return cast(BinaryIO, bz2.BZ2File(stored))
    if lower.endswith(".zst"):
        unpacked = pa.CompressedInputStream(pa.PythonFile(stored, "r"), "zstd")
        return io.BufferedReader(unpacked)
    return stored


def _read_text(
    handle: BinaryIO, file: InputFile, settings: ReadSettings
) -> Iterator[Document | BadRecord]:
    # One byte more than allowed is enough to know; the rest of a huge file is never read.
    text = handle.read(settings.max_document_bytes + 1)
    if len(text) > settings.max_document_bytes:
        yield _too_large(file, 0, max(file.size_bytes, len(text)), settings)
    else:
        yield _document(text, file.name, _default_source(file), file, 0)


def _read_json_lines(
    handle: BinaryIO, file: InputFile, settings: ReadSettings
) -> Iterator[Document | BadRecord]:
    # Three times the limit for the escapes (a Cyrillic letter of 2 bytes is 6 as \u0436) and some
    # for the JSON around the text; the text itself is checked below. A longer line is skipped in
    # pieces, so that it never lies in memory whole.
    limit = 3 * settings.max_document_bytes + 65_536
    number = 0
    while line := handle.readline(limit):
        number += 1
        size = len(line)
        if size >= limit and not line.endswith(b"\n"):
            while (piece := handle.readline(limit)) and not piece.endswith(b"\n"):
                size += len(piece)
            yield _too_large(file, number, size + len(piece), settings)
        elif line.strip():
            yield _json_document(line, number, file, settings)


def _json_document(
    line: bytes, number: int, file: InputFile, settings: ReadSettings
) -> Document | BadRecord:
    try:
        record: Any = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        detail = f"{error.reason} at byte {error.start}"
        return BadRecord(file.path, number, "not_utf8", detail, len(line))
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        return BadRecord(file.path, number, "invalid_json", str(error)[:500], len(line))
    text = record.get(settings.text_field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        keys = sorted(record)[:10] if isinstance(record, dict) else type(record).__name__
        detail = f"no string under {settings.text_field!r}; found {keys}"[:500]
        return BadRecord(file.path, number, "missing_text", detail, len(line))
    source = record.get(settings.source_field)
    source = source if isinstance(source, str) and source else _default_source(file)
    doc_id = record.get(settings.id_field)
    doc_id = str(doc_id) if isinstance(doc_id, str | int) else f"{file.name}:{number}"
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:  # a lone surrogate, "\ud800", is legal JSON
        return BadRecord(file.path, number, "not_utf8", str(error)[:500], len(line))
    if len(data) > settings.max_document_bytes:
        return _too_large(file, number, len(data), settings)
    return _document(data, doc_id, source, file, number)


def _document(
    text: bytes, doc_id: str, source: str, file: InputFile, record: int
) -> Document | BadRecord:
    text = text.removeprefix(b"\xef\xbb\xbf")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"{error.reason} at byte {error.start}"
        return BadRecord(file.path, record, "not_utf8", detail, len(text))
    if not text.strip():
        return BadRecord(file.path, record, "empty_text", "only blanks", len(text))
    # An id or a source that came from a file name may hold undecodable bytes.
    return Document(doc_id.encode("utf-8", "replace"), source.encode("utf-8", "replace"), text)


def _too_large(file: InputFile, record: int, size: int, settings: ReadSettings) -> BadRecord:
    detail = f"{size:,} bytes, corpus.max_document_bytes is {settings.max_document_bytes:,}"
    return BadRecord(file.path, record, "too_large", detail, size)


def _default_source(file: InputFile) -> str:
    """The first directory below what the user named, or the file's name without its suffixes."""
    head, slash, _ = file.name.partition("/")
    return head if slash else os.path.basename(file.name).split(".")[0] or "input"
