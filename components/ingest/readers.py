"""Reads one file as documents; what cannot be read comes out as a `BadRecord`, never as an error.

The formats are in components/ingest/formats, one file each; this chooses one by the file's name
(or as corpus.format says) and takes care of compression (.gz, .bz2, .zst), of archives of files
(.zip, .tar) and of encodings.
"""

import bz2
import functools
import gzip
import io
import posixpath
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO, cast

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError

from components.ingest.config import CorpusConfig
from components.ingest.content import binary_kind, transcode
from components.ingest.encoding import looks_binary
from components.ingest.file_names import (
    ARCHIVE_SUFFIXES,
    bare_suffix,
    compression_of,
    format_of,
    why_left_out,
)
from components.ingest.formats.delimited import read_delimited
from components.ingest.formats.extracted import EXTRACTED, read_extracted
from components.ingest.formats.jsonl import read_json_lines
from components.ingest.formats.parquet import read_parquet
from components.ingest.formats.text import read_text
from components.ingest.formats.tfrecord import read_tfrecord
from components.ingest.manifest import InputFile
from components.ingest.records import Document, LeftOut, missing_text
from tokenmill.contracts.ingest import BadRecord
from tokenmill.files import open_file

Reader = Callable[[BinaryIO, InputFile, CorpusConfig], Iterator[Document | BadRecord]]

# Formats that may come in other encodings.
_CHARACTERS: dict[str, Reader] = {
    "jsonl": read_json_lines,
    "text": read_text,
    "csv": read_delimited,
}

# Formats of records with fields, and of archives of such.
_OF_RECORDS = ("jsonl", "csv", "parquet", "tfrecord", "zip", "tar", "tgz", "tbz2")
_RECORD_NAMES = "JSON, CSV, Parquet, Arrow and tf.Examples"

_BUFFER_BYTES = 1 << 16
# LZMA takes what memory its head asks for.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
# Text packs to a third or a tenth; an archive of a megabyte that unpacks to gigabytes is none.
_MAX_RATIO = 200
_SMALL_BYTES = 256 << 20
# A file of so many bad records before the first good one is not read on: it is something else.
_HOPELESS = 10_000
_MAX_COPY_BYTES = 4 << 30  # on disk; see `_local_copy`


def read_file(file: InputFile, settings: CorpusConfig) -> Iterator[Document | BadRecord | LeftOut]:
    """Yield the documents, bad records and what is no text of one file, in order.

    A file that breaks off (a truncated archive, a disk error) yields what came before, then a
    BadRecord with reason unreadable_file. Record 0 means that the file, or the rest of it, is lost.
    """
    return _guarded(file, _read_file(file, settings))


def _guarded(
    file: InputFile, items: Iterator[Document | BadRecord | LeftOut]
) -> Iterator[Document | BadRecord | LeftOut]:
    """Yield the items of a file, and a bad record for the error that they end with."""
    count = bad = 0
    try:
        for item in items:
            yield item
            count += 1
            if type(item) is BadRecord:
                bad += 1
                if bad == count == _HOPELESS:
                    raise ValueError("not one of these many records can be read")
        return
    except UnicodeDecodeError as error:  # in UTF-16, whose records have no known ends
        reason = "not_utf8"
        detail = f"{error.encoding}: {error.reason} at byte {error.start} of a block"
    # Decompressors and filesystems raise many kinds; whichever it is, the run can go on.
    except (
        BeamIOError, OSError, EOFError, ValueError, zlib.error, pa.ArrowException,
        tarfile.TarError, zipfile.BadZipFile, RuntimeError, struct.error, OverflowError,
    ) as error:  # fmt: skip
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "  # a sentence
        reason, detail = "unreadable_file", f"{kind}{error}"[:400]
    before = f"; {count:,} records came before it" if count else ""
    yield BadRecord(file.path, 0, reason, f"{detail}{before}", file.size_bytes)


def _read_file(file: InputFile, settings: CorpusConfig) -> Iterator[Document | BadRecord | LeftOut]:
    kind, compression = kind_of(file, settings), compression_of(file.path)
    if bad := _without_fields(kind, file, settings):
        yield bad
        return
    is_packed = compression and (kind, compression) != ("warc", ".gz")  # its reader unpacks it
    if kind in _FROM_PATH and "://" not in file.path and not is_packed:
        yield from _FROM_PATH[kind](file.path, file, settings)
        return
    with (
        open_file(file.path) as stored,
        _decompress(stored, compression, file.size_bytes) as handle,
    ):
        yield from _read_stream(handle, file, settings)


def _without_fields(kind: str, file: InputFile, settings: CorpusConfig) -> BadRecord | None:
    """Return the bad record of a file that holds no records, where conversations are wanted."""
    if not settings.holds_conversations or kind in _OF_RECORDS:
        return None
    field = settings.content_fields[0]
    detail = f"{kind} has no field {field!r}; conversations are read from {_RECORD_NAMES}"
    return missing_text(file, 0, file.size_bytes, detail)


def kind_of(file: InputFile, settings: CorpusConfig) -> str:
    """Return the format that a file is read as; of an archive of files, its suffix (zip)."""
    suffix = bare_suffix(file.path)
    if suffix in ARCHIVE_SUFFIXES:
        return suffix.lstrip(".")
    return format_of(file.path) if settings.format == "auto" else settings.format


def _read_stream(
    handle: BinaryIO, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord | LeftOut]:
    """Read a file, unpacked."""
    kind = kind_of(file, settings)
    if kind in _CHARACTERS:
        yield from _read_characters(handle, kind, file, settings)
    elif kind in _FROM_PATH:
        with _local_copy(handle) as path:
            yield from _FROM_PATH[kind](path, file, settings)
    else:
        yield from _FROM_STREAM[kind](handle, file, settings)


def _read_zip(
    path: str, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord | LeftOut]:
    left = max(_SMALL_BYTES, _MAX_RATIO * file.size_bytes)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            wrong = "encrypted" if member.flag_bits & 1 else ""
            if member.compress_type not in _ZIP_METHODS:
                wrong = f"compressed by method {member.compress_type}, not deflate or bzip2"
            if wrong:
                name = f"{file.path}!{member.filename}"
                yield BadRecord(name, 0, "unreadable_file", wrong, member.file_size)
                continue
            content = cast(BinaryIO, archive.open(member))
            bounded = _Bounded(content, left)
            yield from _read_member(bounded, member.filename, member.file_size, file, settings)
            left = bounded.left


def _read_tar(
    handle: BinaryIO, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord | LeftOut]:
    blocks = _Blocks(handle)
    with tarfile.open(fileobj=cast(BinaryIO, blocks), mode="r|") as archive:
        archive_stream = cast(BinaryIO, archive.fileobj)
        for member in archive:
            if member.isdir():
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                yield LeftOut("link or device in an archive")
                continue
            bounded = _Bounded(cast(BinaryIO, content), member.size)
            yield from _read_member(bounded, member.name, member.size, file, settings)
        # tarfile takes a damaged head, and the end of a file that breaks off, for the archive's.
        while rest := archive_stream.read(_BUFFER_BYTES):
            if rest.strip(b"\0"):
                raise ValueError("the head of a file in it is damaged; what follows is lost")
    if blocks.size % tarfile.BLOCKSIZE or blocks.last.strip(b"\0"):
        raise ValueError("the archive breaks off: it has no end")


class _Blocks:
    """Reads a stream, and knows its size and its last block."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.size = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes."""
        data = self._stream.read(size)
        self.size += len(data)
        self.last = (self.last + data)[-tarfile.BLOCKSIZE :]
        return data


def _read_member(
    content: "_Bounded", name: str, size: int, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord | LeftOut]:
    """Read a file of an archive as if it lay in a directory of the archive's name."""
    if why := why_left_out(name):
        yield LeftOut(f"{why} in an archive")
        return
    if bare_suffix(name) in ARCHIVE_SUFFIXES:
        yield LeftOut(f"{bare_suffix(name)} in an archive")
        return
    path = f"{file.path}!{name}"
    below = posixpath.normpath(name).lstrip("./")  # tar's ./FILE is FILE; no name leads out
    member = replace(file, path=path, name=f"{file.name}/{below}", size_bytes=size)
    if bad := _without_fields(kind_of(member, settings), member, settings):
        yield bad
        return
    with (
        io.BufferedReader(content, _BUFFER_BYTES) as buffered,
        _decompress(cast(BinaryIO, buffered), compression_of(name), size) as handle,
    ):
        yield from _guarded(member, _read_stream(handle, member, settings))


def _read_characters(
    handle: BinaryIO, kind: str, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord]:
    """Read a format of characters, from corpus.encoding, UTF-16 or UTF-32 too."""
    if found := binary_kind(handle, kind == "text", settings.encoding):
        yield BadRecord(file.path, 0, "unreadable_file", f"this is {found}", file.size_bytes)
        return
    encoding = None
    if settings.encoding or settings.repair_encoding:
        handle, encoding = transcode(handle, settings.encoding)
    if settings.encoding:  # by now it is UTF-8, but for bytes that were none of that encoding
        update = {"encoding": None, "repair_encoding": encoding is None}
        settings = settings.model_copy(update=update)
    read = _CHARACTERS[kind]
    if encoding is None:
        yield from read(handle, file, settings)
        return
    for item in read(handle, file, settings):
        if isinstance(item, BadRecord):
            yield item
        elif looks_binary(item.text):
            name = item.doc_id.decode("utf-8")
            detail = f"{name}: decoded from {encoding}, this has control characters"
            yield BadRecord(file.path, 0, "not_utf8", detail[:500], len(item.text))
        else:
            yield item._replace(repaired=(encoding, *item.repaired))


class _Bounded(io.RawIOBase):
    """Reads the content of an archive, as long as that is in proportion to its size."""

    def __init__(self, content: BinaryIO, limit: int):
        self._content = content
        self._limit = self.left = limit

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer) -> int:
        """Fill the buffer; return 0 at the end."""
        data = self._content.read1(len(buffer))  # type: ignore[attr-defined]
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(
                f"the archive unpacks to more than {self._limit:,} bytes: no text does"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the archive, too."""
        self._content.close()
        super().close()


def _decompress(stored: BinaryIO, compression: str, stored_bytes: int) -> BinaryIO:
    """Open the content of an archive, a buffer at a time; the suffix says of which kind.

    Not by Beam: its CompressedFile has no bounded readline, unpacks up to 16 MiB of archive at
    once, however much that gives, and takes a truncated archive for a whole one.

    Raises:
        EOFError: The archive is empty, which no archive is: the libraries would say nothing.
    """
    if not hasattr(stored, "peek") or not hasattr(stored, "read1"):
        stored = cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stored), _BUFFER_BYTES))
    if compression and not cast(io.BufferedReader, stored).peek(1):
        raise EOFError("the archive has 0 bytes")
    if compression == ".gz":
        content = cast(BinaryIO, gzip.GzipFile(fileobj=stored))
    elif compression == ".bz2":
        content = cast(BinaryIO, bz2.BZ2File(stored))
    elif compression == ".zst":  # refuses a window of more than 128 MiB
        unpacked = pa.CompressedInputStream(pa.PythonFile(stored, "r"), "zstd")
        content = cast(BinaryIO, io.BufferedReader(unpacked, _BUFFER_BYTES))
    else:
        return stored
    limit = max(_SMALL_BYTES, _MAX_RATIO * stored_bytes)
    return cast(BinaryIO, io.BufferedReader(_Bounded(content, limit), _BUFFER_BYTES))


@contextmanager
def _local_copy(handle: BinaryIO) -> Iterator[str]:
    """Copy an archive's content, or a remote file, to a file, as some readers want one."""
    with tempfile.NamedTemporaryFile() as copy:
        size = 0
        while block := handle.read(_BUFFER_BYTES):
            size += len(block)
            if size > _MAX_COPY_BYTES:
                raise ValueError(
                    f"unpacks to more than {_MAX_COPY_BYTES:,} bytes: give smaller files, or "
                    "without the archive (Parquet compresses its pages itself)"
                )
            copy.write(block)
        copy.flush()
        yield copy.name


# Formats that are read from a local file, by its path; and as they come.
_FROM_PATH: dict[str, Callable[[str, InputFile, CorpusConfig], Iterator]] = {
    "parquet": read_parquet,
    **{kind: functools.partial(read_extracted, kind) for kind in EXTRACTED},
    "zip": _read_zip,
}
_FROM_STREAM: dict[str, Callable[[BinaryIO, InputFile, CorpusConfig], Iterator]] = {
    "tfrecord": read_tfrecord,
    **dict.fromkeys(("tar", "tgz", "tbz2"), _read_tar),
}
