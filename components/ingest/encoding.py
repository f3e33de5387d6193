"""Text encodings: what is not UTF-8, or was made UTF-8 of the wrong thing, repaired where safe.

Safe means: the bytes are defined in the other encoding, and what comes out looks like text. The
rest stays as it is (text that is UTF-8) or is refused (bytes that are not).
"""

import codecs
import re

BOM = codecs.BOM_UTF8

# What UTF-8 bytes 80-BF become in Windows-1252 or Latin-1, themselves in UTF-8.
_TAIL = (
    rb"(?:\xc2[\x80-\xbf]|\xc5[\x92\x93\xa0\xa1\xb8\xbd\xbe]|\xc6\x92|\xcb[\x86\x9c]"
    rb"|\xe2(?:\x80[\x93\x94\x98-\x9a\x9c-\x9e\xa0-\xa2\xa6\xb0\xb9\xba]|\x82\xac|\x84\xa2))"
)
# The first letter of mojibake and as many of its followers as UTF-8 would have: "Ã©", "â€™". (All
# begin with the byte C3, which makes the search fast.)
_SUSPICIOUS = re.compile(
    rb"\xc3(?:[\x82-\x9e]" + _TAIL + rb"|[\xa0-\xaf]" + _TAIL + rb"{2}|\xb0" + _TAIL + rb"{2})"
)
# "à" whose no-break space became a blank, and "’" through Windows-1251, Mac Roman and CP437.
_SUSPICIOUS_TOO = tuple(text.encode() for text in ("Ã ", "вЂ", "‚Ä", "ΓÇ"))
_UTF8_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_HIGH_LETTER = "À-ÖØ-öø-ÿŠšŽžŒœŸ"
# Not in the text of a language that is written in Windows-1252, but in what another code page
# looks like in it:
_NOT_WESTERN = re.compile(
    f"[{_HIGH_LETTER}]{{4}}"  # Cyrillic, Greek
    "|[a-zß-öø-ÿ][À-ÖØ-ÞŠŽŒŸ]"  # KOI8-R, Mac Roman: a capital inside a word
    "|[ƒˆ˜¤¨¬¯¸]|[a-z][‚„]|[A-Za-z][“”†‡•‹›¹²³¿¼¾ºª][A-Za-z]"  # DOS, Asian, Polish
)
# Letters that no language of Windows-1252 has both of: Turkish and Czech as they look in it.
_NOT_TOGETHER = (("ðýþÐÝÞ", "çüÇÜ"), ("šžŠŽ", "èìùøïòñÈÌÙØÏÒÑ"))
_HIGH_LETTERS = re.compile(f"[{_HIGH_LETTER}]")
_LETTERS = re.compile(f"[A-Za-z{_HIGH_LETTER}]")
_MAX_HIGH_LETTERS = 0.4  # of all letters; French has 4 %, Cyrillic as Windows-1252 has 100 %


def repair(data: bytes, other_encodings: bool) -> tuple[bytes, tuple[str, ...]] | None:
    """Return UTF-8 of `data`, and what had to be repaired; None if it cannot be decoded safely.

    Args:
        data: One document's text.
        other_encodings: Repair Windows-1252 and mojibake too, not the byte order mark only.
    """
    kinds: tuple[str, ...] = ()
    if data.startswith(BOM):
        data, kinds = data[len(BOM) :], ("bom",)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        text = decode_cp1252(data) if other_encodings else None
        return None if text is None else (text.encode("utf-8"), (*kinds, "cp1252"))
    if other_encodings and _is_suspicious(data):
        fixed = _without_mojibake(data)
        if fixed != data:
            return fixed, (*kinds, "mojibake")
    return data, kinds


def decode_cp1252(data: bytes) -> str | None:
    """Decode Windows-1252; None if bytes are undefined or it does not look like text.

    Other code pages are told by combinations that Western languages do not have; a text with few
    accented letters may show none, and a text of few letters may look like another code page.
    """
    if _UTF8_SEQUENCE.search(data):
        return None  # UTF-8 with a broken place: the rest would become mojibake
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return None
    if _CONTROL.search(text) or _NOT_WESTERN.search(text):
        return None
    letters = set(text)
    if any(letters & set(some) and letters & set(others) for some, others in _NOT_TOGETHER):
        return None
    high = len(_HIGH_LETTERS.findall(text))
    if high > _MAX_HIGH_LETTERS * len(_LETTERS.findall(text)):
        return None
    return text


def _is_suspicious(data: bytes) -> bool:
    """Tell whether ftfy should have a look: it takes 1 s for 1-4 MB."""
    return _SUSPICIOUS.search(data) is not None or any(some in data for some in _SUSPICIOUS_TOO)


def _without_mojibake(data: bytes) -> bytes:
    """Undo mojibake line by line: lines may have come by different ways."""
    import ftfy  # 0.1 s, and most corpora never need it

    lines = data.split(b"\n")
    for i, line in enumerate(lines):
        if _is_suspicious(line):
            try:
                lines[i] = ftfy.fix_encoding(line.decode("utf-8")).encode("utf-8")
            except UnicodeEncodeError:  # a lone surrogate came out: not what it was
                continue
    return b"\n".join(lines)


def decode_error(data: bytes) -> str:
    """Say why bytes are not UTF-8, and where."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"{error.reason} at byte {error.start}"
    return ""


def looks_binary(text: bytes) -> bool:
    """Tell whether text decoded from UTF-16 holds control characters: it was none."""
    return _CONTROL.search(text.decode("utf-8")) is not None
