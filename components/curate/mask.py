"""Masking of personal data: e-mail addresses, IP addresses and URLs become placeholders.

Deliberately plain: what looks like one is masked; nothing is resolved. Four numbers of up to 255
are an IPv4 address, as in Dolma and FineWeb, though they may be a version ("v1.2.3.4" is none).
Time is linear in the text, whatever it holds: a pattern starts once in a run of its characters, or
is bounded.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Iterable

# Letters of scripts that are written without blanks, or whose particles follow a word without one
# (Thai to Tibetan, Myanmar, Hangul, Khmer, kana, Han): where they begin, an address has ended.
_JOINED = (
    "\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3105-\u318e"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
# Marks and punctuation beyond ASCII that a URL ends before.
_STOPS = (
    "\u00ab\u00bb\u060c\u061b\u061f\u06d4\u0964\u0965\u2000-\u206f\u2e80-\u303f\ufe10-\ufe6f"
    "\uff00-\uffef"
)
# Vowel signs and points, of which half a word may be and which \w has not, and the joiners that
# stand between letters.
_MARKS = "".join(
    re.escape(chr(code))
    for code in (*range(0x300, 0xE00), 0x200C, 0x200D)
    if code > 0x2000 or unicodedata.category(chr(code)) in ("Mn", "Mc")
)
_WORD = rf"[^\W{_JOINED}]"  # a letter, digit or _ of another script
_LOCAL = rf"(?:{_WORD}|[.%+{_MARKS}-])"
_IN_URL = rf"[^\s<>\"'`)\]}}{_JOINED}{_STOPS}]"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"

_URL = re.compile(
    r"(?<![A-Za-z0-9])(?:https?|ftp)://(?:\[[0-9A-Fa-f:.]{2,45}\])?"
    rf"(?:[\w-]{{1,63}}\.)*(?:(?<=[{_JOINED}]\.)[{_JOINED}]{{1,6}})?"  # any script in the host
    rf"{_IN_URL}*(?<![.,;:!?])(?<!://)",
    re.IGNORECASE,
)
_EMAIL = re.compile(
    rf"(?:(?<!{_LOCAL}){_LOCAL}+|(?<![{_JOINED}])[{_JOINED}]+)@"
    rf"(?:(?:(?:[^\W_{_JOINED}]|[{_MARKS}-])+|[{_JOINED}]+)\.)+"
    rf"(?:xn--[A-Za-z0-9-]{{1,59}}|(?:[^\W\d_{_JOINED}]|[{_MARKS}]){{2,24}}|(?<=[{_JOINED}]\.)[{_JOINED}]{{2,6}})"
    rf"(?!{_WORD})"
)
_IPV4 = re.compile(
    rf"(?<![0-9A-Za-z_])(?<![0-9]\.)(?:{_BYTE}\.){{3}}{_BYTE}(?![0-9A-Za-z_])(?!\.[0-9])"
)
# Whatever may be an IPv6 address; the standard library knows which are.
_MAYBE_IPV6 = re.compile(
    r"(?<![0-9A-Za-z_])(?:[0-9A-Fa-f]{1,4}|:):[0-9A-Fa-f:.]{0,41}"
    r"(?:(?<=[0-9A-Fa-f])|(?<=::))(?![0-9A-Za-z_])"
)
KINDS = ("url", "email", "ip")
"""In the order in which they are masked: a URL may hold an address."""


def mask(text: str, kinds: Iterable[str]) -> tuple[str, dict[str, int]]:
    """Replace what looks like personal data.

    Args:
        text: Any text.
        kinds: Some of KINDS.

    Returns:
        The text, and how many of each kind were replaced (only kinds that occurred).
    """
    counts = {}
    if "url" in kinds and "://" in text:
        text, counts["url"] = _URL.subn("<URL>", text)
    if "email" in kinds and "@" in text:
        text, counts["email"] = _EMAIL.subn("<EMAIL>", text)
    if "ip" in kinds:
        text, counts["ip"] = _mask_ip(text)
    return text, {kind: count for kind, count in counts.items() if count}


def _mask_ip(text: str) -> tuple[str, int]:
    versions_6 = 0

    def replace(found: re.Match[str]) -> str:
        nonlocal versions_6
        if not _is_ipv6(found[0]):
            return found[0]
        versions_6 += 1
        return "<IP>"

    if ":" in text:
        text = _MAYBE_IPV6.sub(replace, text)
    text, versions_4 = _IPV4.subn("<IP>", text)
    return text, versions_4 + versions_6


def _is_ipv6(text: str) -> bool:
    """Tell whether it is an address, and not C++'s "a::b": four hexadecimal digits, one decimal."""
    digits = text.replace(":", "").replace(".", "")
    if len(digits) < 4 or digits.isalpha():
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
