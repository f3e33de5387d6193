"""Text encodings: what is not UTF-8, or was made UTF-8 of the wrong thing, repaired where safe.

Safe means: the bytes are defined in the other encoding, and what comes out looks like text. The
rest stays as it is (text that is UTF-8) or is refused (bytes that are not).

Another encoding is taken for what it looks like (uchardet), if all bytes are defined in it, and
what comes out is, by fastText, in a language that is written in it. Only encodings of scripts other
than Latin are: the languages of the Latin ones differ in few letters.

Mojibake (UTF-8 that was read as a code page) is undone by evidence, since every pair of its
characters may stand in a sound text ("MAÇÃ»."): all characters beyond ASCII must be whole UTF-8
sequences, and some must be what no sound text has. A text about encodings is left alone.
"""

import codecs
import re
from collections.abc import Mapping
from typing import NamedTuple

from resiliparse.parse.encoding import detect_encoding

from tokenmill.text.language import identify

BOM = codecs.BOM_UTF8


class _CodePage(NamedTuple):
    """A code page through which UTF-8 may have gone.

    Attributes:
        encode: The byte of each character (code points).
        evidence: Finds what no sound text has.
        hints: In UTF-8, one of them is in whatever `evidence` finds.
    """

    encode: Mapping[int, int]
    evidence: re.Pattern[str]
    hints: re.Pattern[bytes]


def _bytes_of(name: str) -> dict[int, int]:
    """Return the byte of each character of a code page; undefined bytes stand for themselves."""
    latin_1 = {byte: byte for byte in range(256)} if name in ("cp1252", "latin-1") else {}
    undefined = {byte: byte for byte in range(0x80, 0xA0)}
    named = {ord(c): b for b in range(256) if (c := bytes([b]).decode(name, "ignore"))}
    return latin_1 | undefined | named


# The characters of the bytes 80-BF in Windows-1252, and those of them that never come directly
# after a letter; the others may close a word (quotation marks, dashes, footnotes, trademarks).
_TAIL = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_ODD = "[\x80-\x9f¡-¥§¯±µ¸¼-¿€‚ƒ„ˆ‰ŠŒŽ˜šœžŸ]"
_TWO, _THREE, _FOUR = f"[Â-Å]{_TAIL}", f"[à-ï]{_TAIL}{{2}}", f"ð{_TAIL}{{3}}"
_ANY = f"(?:{_TWO}|{_THREE}|{_FOUR})"
_LETTER = "A-Za-zÀ-ÿ"
_ODD_SEQUENCE = f"(?:[Â-Å]{_ODD}|[à-ï](?:{_ODD}{_TAIL}|{_TAIL}{_ODD}))"
_WINDOWS_1252 = _CodePage(
    _bytes_of("cp1252"),
    re.compile(
        f"(?<=[{_LETTER}]){_ODD_SEQUENCE}|{_ODD_SEQUENCE}(?=[{_LETTER}])"
        f"|{_ANY}{_ODD_SEQUENCE}|{_ODD_SEQUENCE}{_ANY}"
        # A capital after a small letter; a sign between capital and small letter.
        f"|(?<=[a-zß-ÿ]){_TWO}|(?<![A-ZÀ-Þ])[Â-Å][©ª®°²³¹º](?=[a-z])"
        "|Â[¡-¥§±](?=[0-9])"
        f"|ð[Ÿ\x9f]{_TAIL}{{2}}"  # an emoji
        f"|(?:[Î-Ñ×-Ù]{_TAIL}){{3}}"  # Greek, Cyrillic, Hebrew, Arabic
    ),
    re.compile(rb"\xc3[\x82-\xb0](?:[\xc2\xc5\xcb]|\xc6\x92|\xe2[\x80\x82\x84])"),
)
_CODE_PAGES = (
    _WINDOWS_1252,
    # Cyrillic letters, and punctuation after or before a letter.
    _CodePage(
        _bytes_of("cp1251"),
        re.compile("(?:[РС][^\\s\\w]|[РС][Ђ-Џђ-џҐґ]){4}|(?<=[A-Za-z])вЂ|вЂ.(?=[A-Za-z])"),
        re.compile("вЂ|Р°|Рѕ|Рµ".encode()),
    ),
    _CodePage(
        _bytes_of("mac-roman"),
        re.compile("(?<=[A-Za-z])‚Ä|‚Ä.(?=[A-Za-z])"),
        re.compile("‚Ä".encode()),
    ),
    _CodePage(
        _bytes_of("cp437"),
        re.compile("(?<=[A-Za-z])ΓÇ|ΓÇ.(?=[A-Za-z])"),
        re.compile("ΓÇ".encode()),
    ),
)
_MOST_TIMES = 3  # that a text has gone through a code page
_ABOUT_ENCODINGS = re.compile(
    "mojibake|encod|unicode|utf-?8|charset|character set|latin-?1|iso-?8859|windows-125|cp-?125"
    "|code ?page|kodier|zeichens[aä]tz|codage|codific|кодиров|文字化け|文字コード|エンコード"
    "|编码|編碼|乱码|亂碼|인코딩",
    re.IGNORECASE,
)
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
# Letters that no language of Windows-1252 has both of: Turkish, Czech, Hungarian, Baltic languages
# as they look in it.
_NOT_TOGETHER = (
    ("ðýþÐÝÞ", "çüÇÜ"), ("šžŠŽ", "èìùøïòñÈÌÙØÏÒÑ"), ("õÕ", "ûÛüÜ"), ("ðþÐÞ", "ëàûêùËÀÛÊÙ"),
)  # fmt: skip
_HIGH_LETTERS = re.compile(f"[{_HIGH_LETTER}]")
_LETTERS = re.compile(f"[A-Za-z{_HIGH_LETTER}]")
_CYRILLIC = frozenset(
    {"ru", "uk", "be", "bg", "sr", "mk", "kk", "ky", "tg", "mn", "tt", "ba", "os"}
)
_ARABIC = frozenset({"ar", "arz", "fa", "ur", "ckb", "ps", "ug"})
# By the name that uchardet gives: the codec, which may know more characters, and its languages.
_ENCODINGS = {
    **{name: (name, _CYRILLIC) for name in ("cp1251", "iso8859-5", "cp866", "cp855")},
    "koi8-r": ("koi8_u", _CYRILLIC),
    **{name: (name, frozenset({"el"})) for name in ("cp1253", "iso8859-7")},
    **{name: (name, _ARABIC) for name in ("cp1256", "iso8859-6")},
    **{name: (name, frozenset({"he", "yi"})) for name in ("cp1255", "iso8859-8")},
    **{name: ("cp874", frozenset({"th"})) for name in ("tis-620", "iso8859-11", "cp874")},
    "shift_jis": ("cp932", frozenset({"ja"})),
    "cp932": ("cp932", frozenset({"ja"})),
    "euc_jp": ("euc_jp", frozenset({"ja"})),
    **{name: ("gb18030", frozenset({"zh", "wuu", "yue"})) for name in ("gb18030", "gbk", "gb2312")},
    "big5": ("big5", frozenset({"zh", "wuu", "yue"})),
    "utf-8": ("cp949", frozenset({"ko"})),  # its name for what it does not know: Korean, too
}
_LEAST_LANGUAGE_SCORE = 0.8
_DETECTED_BYTES = 1 << 16
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_MAX_UTF8_SHARE = 0.7  # of the bytes beyond ASCII; in Greek, Cyrillic and CJK 0 to 50 %
_MAX_HIGH_LETTERS = 0.4  # of all letters; French has 4 %, Cyrillic as Windows-1252 has 100 %


def repair(data: bytes, other_encodings: bool) -> tuple[bytes, tuple[str, ...]] | None:
    """Return UTF-8 of `data`, and what had to be repaired; None if it cannot be decoded safely.

    Args:
        data: One document's text.
        other_encodings: Repair other encodings and mojibake too, not the byte order mark only.
    """
    kinds: tuple[str, ...] = ()
    if data.startswith(BOM):
        data, kinds = data[len(BOM) :], ("bom",)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        found = decode_other(data) if other_encodings else None
        return None if found is None else (found[0].encode("utf-8"), (*kinds, found[1]))
    if other_encodings and not data.isascii():
        fixed = _without_mojibake(data)
        if fixed != data:
            return fixed, (*kinds, "mojibake")
    return data, kinds


def decode_other(data: bytes) -> tuple[str, str] | None:
    """Decode what is not UTF-8; return the text and the encoding, None if none is safe."""
    if detected := _decode_detected(data):
        return detected
    text = decode_cp1252(data)
    return None if text is None else (text, "cp1252")


def _decode_detected(data: bytes) -> tuple[str, str] | None:
    first = _NOT_ASCII.search(data)
    if first is None:
        return None
    beyond_ascii = len(data) - len(data.translate(None, bytes(range(0x80, 0x100))))
    if sum(map(len, _UTF8_SEQUENCE.findall(data))) > _MAX_UTF8_SHARE * beyond_ascii:
        return None  # UTF-8 with a broken place
    name = detect_encoding(data[first.start() : first.start() + _DETECTED_BYTES])
    if name not in _ENCODINGS:
        return None
    encoding, languages = _ENCODINGS[name]
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    if _CONTROL.search(text):
        return None
    ((language, score),) = identify([text[len(data[: first.start()]) :]])
    return (text, encoding) if language in languages and score >= _LEAST_LANGUAGE_SCORE else None


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


def _without_mojibake(data: bytes) -> bytes:
    """Undo mojibake in all lines, or in single ones where others are sound."""
    pages = [page for page in _CODE_PAGES if page.hints.search(data)]
    if not pages:
        return data
    text = data.decode("utf-8")
    if _ABOUT_ENCODINGS.search(text):
        return data
    for page in pages:
        if page.evidence.search(text) and (fixed := _undo(text, page)) is not None:
            return fixed.encode("utf-8")
    lines = text.split("\n")
    for i, line in enumerate(lines):
        for page in pages:
            if page.evidence.search(line) and (fixed := _undo(line, page)) is not None:
                if sum(c > "\x7f" for c in fixed) > 1:  # one odd place may be meant
                    lines[i] = fixed
                break
    return "\n".join(lines).encode("utf-8")


def _undo(text: str, page: _CodePage) -> str | None:
    """Decode text that went through a code page, perhaps several times; None if it did not."""
    fixed = None
    for _ in range(_MOST_TIMES):
        try:
            data, _ = codecs.charmap_encode(text, "strict", page.encode)
            # "à" and the no-break space end in a byte A0 that is often made a blank.
            data = data.replace(b"\xc3  ", b"\xc3\xa0 ").replace(b"\xc3 ", b"\xc3\xa0 ")
            fixed = text = data.replace(b"\xc2 ", b"\xc2\xa0").decode("utf-8")
        except UnicodeError:
            break
        if not page.evidence.search(text):
            break
    return fixed


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
