"""Reads one file as documents; what cannot be read comes out as a `BadRecord`, never as an error.

The formats are in components/ingest/formats, one file each; this chooses one by the file's name
(or as corpus.format says) and takes care of compression (.gz, .bz2, .zst) and of UTF-16.
"""

import bz2
import gzip
import io
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import BinaryIO, cast

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.ingest.config import CorpusConfig
from components.ingest.encoding import looks_binary, transcode_wide
from components.ingest.formats.delimited import read_delimited
from components.ingest.formats.jsonl import read_json_lines
from components.ingest.formats.parquet import read_parquet
from components.ingest.formats.text import read_text
from components.ingest.formats.tfrecord import read_tfrecord
from components.ingest.manifest import COMPRESSION_SUFFIXES, InputFile, format_of
from components.ingest.records import Document
from tokenmill.contracts.ingest import BadRecord

Reader = Callable[[BinaryIO, InputFile, CorpusConfig], Iterator[Document | BadRecord]]

_READERS: dict[str, Reader] = {
    "jsonl": read_json_lines,
    "text": read_text,
    "csv": read_delimited,
    "parquet": read_parquet,
    "tfrecord": read_tfrecord,
}
_CHARACTERS = ("jsonl", "text", "csv")  # formats that may come as UTF-16

_BUFFER_BYTES = 1 << 16
_MAX_UNPACKED_PARQUET_BYTES = 4 << 30  # on disk; see `_unpacked`
_IN_MEMORY_BYTES = 64 << 20


def read_file(file: InputFile, settings: CorpusConfig) -> Iterator[Document | BadRecord]:
    """Yield the documents and bad records of one file, in order.

    A file that breaks off (a truncated archive, a disk error) yields what came before, then a
    BadRecord with reason unreadable_file.
    """
    kind = format_of(file.path) if settings.format == "auto" else settings.format
    try:
        with ExitStack() as stack:
            stored = stack.enter_context(
                FileSystems.open(file.path, compression_type=CompressionTypes.UNCOMPRESSED)
            )
            handle = stack.enter_context(_decompress(stored, file.path))
            if kind in _CHARACTERS and settings.repair_encoding:
                yield from _read_characters(handle, file, settings, _READERS[kind])
                return
            if kind == "parquet" and file.path.lower().endswith(COMPRESSION_SUFFIXES):
                handle = stack.enter_context(_unpacked(handle))
            yield from _READERS[kind](handle, file, settings)
    except UnicodeDecodeError as error:  # in UTF-16, whose records have no known ends
        detail = f"{error.encoding}: {error.reason} at byte {error.start} of a block"
        yield BadRecord(file.path, 0, "not_utf8", detail, file.size_bytes)
    # Decompressors and filesystems raise many kinds; whichever it is, the run can go on.
    except (BeamIOError, OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        detail = f"{type(error).__name__}: {error}"[:500]
        yield BadRecord(file.path, 0, "unreadable_file", detail, file.size_bytes)


def _read_characters(
    handle: BinaryIO, file: InputFile, settings: CorpusConfig, read: Reader
) -> Iterator[Document | BadRecord]:
    """Read a format of characters, from UTF-16 or UTF-32 too."""
    handle, encoding = transcode_wide(handle)
    if encoding is None:
        yield from read(handle, file, settings)
        return
    for item in read(handle, file, settings):
        if isinstance(item, BadRecord):
            yield item
        elif looks_binary(item.text):
            name = item.doc_id.decode("utf-8")
            detail = f"{name}: the file has the mark of {encoding}, this has control characters"
            yield BadRecord(file.path, 0, "not_utf8", detail[:500], len(item.text))
        else:
            yield item._replace(repaired=(encoding, *item.repaired))


def _decompress(stored: BinaryIO, path: str) -> BinaryIO:
    """Open the content of an archive, by its suffix, a buffer at a time.

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
        return cast(BinaryIO, io.BufferedReader(unpacked, _BUFFER_BYTES))
    if not hasattr(stored, "peek") or not hasattr(stored, "read1"):
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stored), _BUFFER_BYTES))
    return stored


def _unpacked(handle: BinaryIO) -> BinaryIO:
    """Make a seekable copy of an archive's content: Parquet is read from its end."""
    unpacked = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115
    size = 0
    while block := handle.read(_BUFFER_BYTES):
        size += len(block)
        if size > _MAX_UNPACKED_PARQUET_BYTES:
            unpacked.close()
            raise ValueError(
                f"unpacks to more than {_MAX_UNPACKED_PARQUET_BYTES:,} bytes; Parquet compresses "
                "its pages itself: give it without the archive"
            )
        unpacked.write(block)
    unpacked.seek(0)
    return cast(BinaryIO, unpacked)
