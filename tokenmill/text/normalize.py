"""Normalization of text."""

import functools
import re
import unicodedata

# C0 and C1 control characters but for tab and line feed; form feeds and escapes carry no text.
# In UTF-8 the C0 ones are single bytes, which bytes.translate deletes many times faster than a
# regular expression finds them; the C1 ones all begin with the byte C2.
_C0 = bytes({*range(0x20), 0x7F} - {0x09, 0x0A})
_LINE_ENDS = bytes.maketrans(b"\x0b\x0c", b"\n\n")
_C1 = re.compile("[\x80-\x9f]")
# The look-behind starts each run of blanks once: without it a long run takes quadratic time.
_TRAILING_BLANKS = re.compile(r"(?<![ \t])[ \t]+(?=\n|\Z)")
# Layout, not text: inside a line; at its start, blanks are indentation and mean something.
# It begins with a blank, which the engine finds fast, and only then looks behind it.
_INNER_BLANKS = re.compile(r"[ \t](?<=[^ \t\n][ \t])[ \t]{2,}(?=[^ \t\n])")
_MANY_NEWLINES = re.compile(r"\n{3,}")
# Putting marks into canonical order takes time quadratic in their number. Unicode's Stream-Safe
# Text Format (UAX #15, section 13) allows 30 in a row; no language has more than a few.
_MOST_MARKS = 30


@functools.cache
def _too_many_marks(astral: bool) -> re.Pattern[str]:
    """Compile a search for runs of more than _MOST_MARKS characters that canonical order moves.

    Args:
        astral: Whether characters above U+FFFF count. With them a class of characters is a list of
            ranges to the engine, without them a table: 60 times as fast.
    """
    below, above = _marks()
    one = f"[{below}{above if astral else ''}]"
    # The first apart, as the engine skips to what a pattern of a fixed beginning may begin with.
    return re.compile(f"{one}{one}{{{_MOST_MARKS},}}")


@functools.cache
def _marks() -> tuple[str, str]:
    """Return all characters that canonical order moves: those up to U+FFFF, those above."""
    marks = [
        chr(code)
        for code in range(0x300, 0x20000)
        if unicodedata.combining(unicodedata.normalize("NFD", chr(code))[0])
    ]
    return (
        "".join(mark for mark in marks if mark <= "\uffff"),
        "".join(mark for mark in marks if mark > "\uffff"),
    )


@functools.cache
def _astral_marks() -> re.Pattern[str]:
    """Compile a search for the range in which marks above U+FFFF are: no emoji."""
    _, astral = _marks()
    return re.compile(f"[{astral[0]}-{astral[-1]}]")


def _compose(text: str) -> str:
    """Return text in NFC, but for runs of too many marks, which stay as they are."""
    parts, start = [], 0
    astral = _astral_marks().search(text) is not None
    for run in _too_many_marks(astral).finditer(text):
        parts += [unicodedata.normalize("NFC", text[start : run.start()]), run[0]]
        start = run.end()
    return "".join([*parts, unicodedata.normalize("NFC", text[start:])])


def normalize(text: str) -> str:
    r"""Return text in NFC, with "\n" line ends, without control characters and trailing blanks.

    Indentation stays: it means something in code. Inside a line three and more blanks become
    two; three and more line feeds become two. A run of more than 30 combining marks is not brought
    into NFC. Time is linear in the text.
    """
    data = text.encode()
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # Vertical tab, form feed and NEL end a line too; deleted, they would join two words.
    data = data.translate(_LINE_ENDS).replace(b"\xc2\x85", b"\n")
    # First out with the control characters: one may part a letter from its accent.
    text = data.translate(None, _C0).decode()
    if b"\xc2" in data:
        text = _C1.sub("", text)
    if not text.isascii():
        text = _compose(text)
    # Each pattern is looked for by a plain search first: most texts have none of it.
    if " \n" in text or "\t\n" in text or text[-1:] in (" ", "\t"):
        text = _TRAILING_BLANKS.sub("", text)
    if "   " in text or "\t" in text:
        text = _INNER_BLANKS.sub("  ", text)
    if "\n\n\n" in text:
        text = _MANY_NEWLINES.sub("\n\n", text)
    return text.strip("\n")
