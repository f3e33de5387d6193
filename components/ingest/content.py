"""What a file's first bytes say: its encoding, or that it is no text at all."""

import codecs
import io
import re
from typing import BinaryIO, cast

_HEAD_BYTES = 1 << 16
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SIGNATURES = (
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"PK\x03\x04", "a ZIP archive (or an Office document)"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"%PDF-", "a PDF"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"{\\rtf", "an RTF document"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1\x00\x00", "an Arrow file"),
)
_BZIP2 = re.compile(rb"BZh[1-9]1AY&SY")
# What no text has but by accident; form feed, backspace and escape are in terminals' output, shift
# in and out in ISO-2022.
_CONTROL = re.compile(rb"[\x00-\x07\x10-\x1a\x1c-\x1f]")
_MAX_CONTROL = 0.01  # of the first bytes; random ones have 10 %
_FEW_BYTES = 4096  # of a file of records, some of which may be broken
_CALLED_UTF8 = 8  # letters beyond ASCII that are all valid UTF-8 are no accident
_BAD_BYTE = "tokenmill-bad-byte"

# A bad byte becomes FF, which makes its record no UTF-8: it is quarantined, the rest is not.
codecs.register_error(_BAD_BYTE, lambda error: ("\udcff", cast(UnicodeDecodeError, error).end))


def binary_kind(handle: BinaryIO, is_whole: bool, encoding: str | None) -> str:
    """Say what a file is that is said to be text, by its first bytes; empty if it may be text.

    Args:
        handle: Has `peek`.
        is_whole: The file is one text, and not many records.
        encoding: What it is to be decoded from, if that was said.
    """
    head = cast(io.BufferedReader, handle).peek(_HEAD_BYTES)[:_HEAD_BYTES]
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if _BZIP2.match(head):
        return "a bzip2 archive"
    wide = encoding and codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
    if wide or any(head.startswith(mark) for mark, _ in _WIDE):
        return ""
    share = len(_CONTROL.findall(head)) / max(1, len(head))
    if share <= _MAX_CONTROL or not (is_whole or len(head) >= _FEW_BYTES):
        return ""
    zeros = ", as UTF-16 without its mark has (corpus.encoding)" if head.count(0) else ""
    return f"no text: {share:.0%} of its first bytes are control characters{zeros}"


def transcode(handle: BinaryIO, encoding: str | None) -> tuple[BinaryIO, str | None]:
    """Transcode a file to UTF-8: from UTF-16 and UTF-32 by their byte order mark, or as told.

    Args:
        handle: Has `peek`.
        encoding: Python's name of what the file is in; None for UTF-8, which stays as it is. A
            file that is evidently UTF-8 all the same is not decoded from it.

    Returns:
        What to read from, and the encoding that it was transcoded from, or None.
    """
    head = cast(io.BufferedReader, handle).peek(_HEAD_BYTES)[:_HEAD_BYTES]
    if encoding is None:
        for mark, wide in _WIDE:
            if head.startswith(mark):
                return _transcoded(handle, wide, "strict"), wide
    elif not _is_utf8(head):
        return _transcoded(handle, encoding, _BAD_BYTE), encoding
    return handle, None


def _transcoded(handle: BinaryIO, encoding: str, errors: str) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Transcoder(handle, encoding, errors), _HEAD_BYTES))


def _is_utf8(head: bytes) -> bool:
    """Tell whether bytes are UTF-8 that is more than ASCII; they may end within a letter."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return sum(not letter.isascii() for letter in text) >= _CALLED_UTF8


class _Transcoder(io.RawIOBase):
    """Reads `handle`, decoded and encoded anew as UTF-8, a block at a time."""

    def __init__(self, handle: BinaryIO, encoding: str, errors: str):
        self._handle = handle
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer) -> int:
        """Fill the buffer; return 0 at the end."""
        while not self._ready and not self._ended:
            block = self._handle.read(_HEAD_BYTES)
            self._ended = not block
            text = self._decoder.decode(block, final=self._ended)
            self._ready = text.encode("utf-8", "surrogateescape")
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
