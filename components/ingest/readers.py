"""Reads one file as documents; what cannot be read comes out as a `BadRecord`, never as an error.

The formats are in components/ingest/formats, one file each; this chooses one by the file's name
(or as corpus.format says) and takes care of compression (.gz, .bz2, .zst) and of encodings.
"""

import bz2
import gzip
import io
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, cast

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError

from components.ingest.config import CorpusConfig
from components.ingest.content import binary_kind, transcode
from components.ingest.encoding import looks_binary
from components.ingest.file_names import compression_of, format_of
from components.ingest.formats.delimited import read_delimited
from components.ingest.formats.jsonl import read_json_lines
from components.ingest.formats.parquet import read_parquet
from components.ingest.formats.text import read_text
from components.ingest.formats.tfrecord import read_tfrecord
from components.ingest.manifest import InputFile
from components.ingest.records import Document
from tokenmill.contracts.ingest import BadRecord
from tokenmill.files import open_file

Reader = Callable[[BinaryIO, InputFile, CorpusConfig], Iterator[Document | BadRecord]]

_READERS: dict[str, Reader] = {
    "jsonl": read_json_lines,
    "text": read_text,
    "csv": read_delimited,
    "tfrecord": read_tfrecord,
}
_CHARACTERS = ("jsonl", "text", "csv")  # formats that may come in other encodings

_BUFFER_BYTES = 1 << 16
# Text packs to a third or a tenth; an archive of a megabyte that unpacks to gigabytes is none.
_MAX_RATIO = 200
_SMALL_BYTES = 256 << 20
# A file of so many bad records before the first good one is not read on: it is something else.
_HOPELESS = 10_000
_MAX_UNPACKED_PARQUET_BYTES = 4 << 30  # on disk; see `_local_copy`


def read_file(file: InputFile, settings: CorpusConfig) -> Iterator[Document | BadRecord]:
    """Yield the documents and bad records of one file, in order.

    A file that breaks off (a truncated archive, a disk error) yields what came before, then a
    BadRecord with reason unreadable_file. Record 0 means that the file, or the rest of it, is lost.
    """
    count = bad = 0
    try:
        for item in _read_file(file, settings):
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
    except (BeamIOError, OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "  # a sentence
        reason, detail = "unreadable_file", f"{kind}{error}"[:400]
    before = f"; {count:,} records came before it" if count else ""
    yield BadRecord(file.path, 0, reason, f"{detail}{before}", file.size_bytes)


def _read_file(file: InputFile, settings: CorpusConfig) -> Iterator[Document | BadRecord]:
    kind = format_of(file.path) if settings.format == "auto" else settings.format
    compression = compression_of(file.path)
    with ExitStack() as stack:
        if kind == "parquet" and not compression and "://" not in file.path:
            yield from read_parquet(file.path, file, settings)
            return
        stored = stack.enter_context(open_file(file.path))
        handle = stack.enter_context(_decompress(stored, compression, file.size_bytes))
        if kind in _CHARACTERS:
            yield from _read_characters(handle, kind, file, settings)
        elif kind == "parquet":
            path = stack.enter_context(_local_copy(handle))
            yield from read_parquet(path, file, settings)
        else:
            yield from _READERS[kind](handle, file, settings)


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
    read = _READERS[kind]
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

    def __init__(self, content: BinaryIO, stored_bytes: int):
        self._content = content
        self._limit = max(_SMALL_BYTES, _MAX_RATIO * stored_bytes)
        self._left = self._limit

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer) -> int:
        """Fill the buffer; return 0 at the end."""
        data = self._content.read1(len(buffer))  # type: ignore[attr-defined]
        self._left -= len(data)
        if self._left < 0:
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
    return cast(BinaryIO, io.BufferedReader(_Bounded(content, stored_bytes), _BUFFER_BYTES))


@contextmanager
def _local_copy(handle: BinaryIO) -> Iterator[str]:
    """Copy an archive's content, or a remote file, to a file: Parquet is read from its end."""
    with tempfile.NamedTemporaryFile() as copy:
        size = 0
        while block := handle.read(_BUFFER_BYTES):
            size += len(block)
            if size > _MAX_UNPACKED_PARQUET_BYTES:
                raise ValueError(
                    f"unpacks to more than {_MAX_UNPACKED_PARQUET_BYTES:,} bytes; Parquet "
                    "compresses its pages itself: give smaller files, without the archive"
                )
            copy.write(block)
        copy.flush()
        yield copy.name
