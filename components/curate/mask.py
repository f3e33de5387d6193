"""Masking of personal data and secrets: addresses, numbers and keys become placeholders.

Deliberately plain: what looks like one is masked; nothing is resolved. Accounts and cards are
numbers whose check digits are right; phone numbers are international ones that a country's plan
has, since any date or bug number is a national one somewhere. Four numbers of up to 255 are an IPv4
address, as in Dolma and FineWeb, though they may be a version ("v1.2.3.4" is none).
Time is linear in the text, whatever it holds: a pattern starts once in a run of its characters, or
is bounded.
"""

import contextlib
import functools
import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable

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
# Keys by the prefixes that their issuers document, so that a leaked one can be found; private keys.
_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"gh[opsur]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{36,251}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|xox[abeoprs]-[A-Za-z0-9-]{10,251}"
    r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,251}|sk-[A-Za-z0-9_-]{32,251}|hf_[A-Za-z0-9]{30,64}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,251}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"
    r"|eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,2000}"
    r")(?![A-Za-z0-9_-])"
    r"|-----BEGIN (?:[A-Z]{1,16} )?PRIVATE KEY-----(?:[A-Za-z0-9+/=\s:,.]|-(?!-)){0,8000}"
    r"-----END (?:[A-Z]{1,16} )?PRIVATE KEY-----"
)
_KEY_STARTS = re.compile(
    r"gh[opsur]_|github_pat_|glpat-|AKIA|ASIA|AIza|xox|k_live_|k_test_|sk-|hf_|npm_|pypi-|SG\.|eyJ"
    r"|PRIVATE KEY"
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?|[A-Z0-9]{11,30})"
    r"(?![A-Za-z0-9])(?!\.[0-9])"
)
# Visa, Mastercard, Discover, UnionPay and JCB; American Express and Diners Club.
_CARD = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9]\.)(?:"
    r"(?:4[0-9]{3}|5[1-5][0-9]{2}|2[2-7][0-9]{2}|6[0-9]{3}|35[0-9]{2})"
    r"([ -]?)[0-9]{4}\1[0-9]{4}\1[0-9]{4}"
    r"|3[47][0-9]{2}([ -]?)[0-9]{6}\2[0-9]{5}|3[068][0-9]{2}([ -]?)[0-9]{6}\3[0-9]{4}"
    r")(?![0-9A-Za-z])(?!\.[0-9])"
)
# What has a point and a digit before or behind it is a number of another kind.
_NUMBER = (
    r"(?:\+[ (]{0,2}|(?<!\d\.)00)[1-9](?:[ ()./\u2010-\u2013-]{0,3}\d){6,14}"
    r"(?![A-Za-z0-9_])(?!\.\d)"
)
_PHONE = re.compile(rf"(?<![A-Za-z0-9_+]){_NUMBER}")
_NEXT_PHONE = re.compile(_NUMBER)  # directly behind one that is masked
_LAST_GROUP = re.compile(r"[ ()/\u2010-\u2013-][ ()./\u2010-\u2013-]*\d[\d.]*$")
KINDS = ("url", "email", "key", "ip", "iban", "card", "phone")
"""In the order in which they are masked: a URL may hold an address, an IBAN a number."""


def mask(text: str, kinds: Iterable[str]) -> tuple[str, dict[str, int]]:
    """Replace what looks like personal data, or a secret.

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
    if "key" in kinds and _KEY_STARTS.search(text):
        text, counts["key"] = _KEY.subn("<KEY>", text)
    if "ip" in kinds:
        text, counts["ip"] = _mask_ip(text)
    if "iban" in kinds:
        text, counts["iban"] = _substitute(_IBAN, "<IBAN>", text, _is_iban)
    if "card" in kinds:
        text, counts["card"] = _substitute(_CARD, "<CARD>", text, _is_card)
    if "phone" in kinds:
        text, counts["phone"] = _mask_phones(text)
    return text, {kind: count for kind, count in counts.items() if count}


def _substitute(
    pattern: re.Pattern[str], placeholder: str, text: str, is_one: Callable[[str], bool]
) -> tuple[str, int]:
    count = 0

    def replace(found: re.Match[str]) -> str:
        nonlocal count
        if not is_one(found[0]):
            return found[0]
        count += 1
        return placeholder

    return pattern.sub(replace, text), count


def _is_iban(text: str) -> bool:
    """Tell whether the check digits are right (ISO 13616: the number modulo 97 is 1)."""
    number = text.replace(" ", "")
    digits = "".join(str(int(c, 36)) for c in number[4:] + number[:4])
    return 15 <= len(number) <= 34 and int(digits) % 97 == 1


def _is_card(text: str) -> bool:
    """Tell whether the check digit is right (ISO/IEC 7812: Luhn), and it is no row of one digit."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d if i % 2 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits[-2::-1])]
    return (sum(doubled) + digits[-1]) % 10 == 0 and len(set(digits)) > 1


def _mask_phones(text: str) -> tuple[str, int]:
    parts: list[str] = []
    done = 0  # characters that are in parts, or masked
    found = _PHONE.search(text)
    while found:
        if number := _phone_in(found[0]):
            parts.append(text[done : found.start()])
            done = found.start() + len(number)
            found = _NEXT_PHONE.match(text, done) or _PHONE.search(text, done)
        else:
            found = _PHONE.search(text, found.end())
    return "<PHONE>".join((*parts, text[done:])), len(parts)


def _phone_in(text: str) -> str:
    """Return the number that a text begins with, which others may follow; empty for none."""
    for _ in range(3):
        if _is_phone(text):
            return text
        shorter = _LAST_GROUP.sub("", text)
        if len(shorter) == len(text):
            break
        text = shorter
    return ""


@functools.lru_cache(maxsize=1 << 14)
def _is_phone(text: str) -> bool:
    import phonenumbers

    with contextlib.suppress(phonenumbers.NumberParseException):
        number = phonenumbers.parse(f"+{text[2:]}" if text.startswith("00") else text)
        return phonenumbers.is_valid_number(number)
    return False


def _mask_ip(text: str) -> tuple[str, int]:
    versions_6 = 0
    if ":" in text:
        text, versions_6 = _substitute(_MAYBE_IPV6, "<IP>", text, _is_ipv6)
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
