"""Text normalisation, and the key by which copies of a text are found."""

import hashlib
import re
import unicodedata

# C0 and C1 control characters but for tab and line feed; form feeds and escapes carry no text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TRAILING_BLANKS = re.compile(r"[ \t]+(?=\n|\Z)")
_MANY_NEWLINES = re.compile(r"\n{3,}")
_BLANKS = re.compile(rb"\s+")


def normalise(text: str) -> str:
    r"""Unicode NFC, "\n" line ends, no control characters, no trailing blanks.

    Indentation stays: it means something in code. Three and more line feeds become two.
    """
    text = unicodedata.normalize("NFC", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub("", text)
    text = _TRAILING_BLANKS.sub("", text)
    return _MANY_NEWLINES.sub("\n\n", text).strip("\n")


def content_key(text: bytes) -> bytes:
    """A 16-byte key that is equal for texts that differ only in blanks and (ASCII) case."""
    collapsed = _BLANKS.sub(b" ", text.strip()).lower()
    return hashlib.blake2b(collapsed, digest_size=16).digest()
