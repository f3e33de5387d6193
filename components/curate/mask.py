"""Masking of personal data: e-mail addresses, IP addresses and URLs become placeholders."""

import re
from collections.abc import Iterable

# Deliberately plain: what looks like one is masked; no attempt is made to resolve or verify.
_PATTERNS = {
    "url": (re.compile(r"\b(?:https?|ftp)://[^\s<>\"'`)\]}]+", re.IGNORECASE), "<URL>"),
    "email": (
        re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,24}\b"),
        "<EMAIL>",
    ),
    "ip": (
        re.compile(
            r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"
        ),
        "<IP>",
    ),
}
KINDS = tuple(_PATTERNS)


def mask(text: str, kinds: Iterable[str]) -> tuple[str, dict[str, int]]:
    """Replace what looks like personal data.

    Args:
        text: Any text.
        kinds: Some of KINDS; URLs go before e-mail addresses, which they may hold.

    Returns:
        The text, and how many of each kind were replaced (only kinds that occurred).
    """
    counts = {}
    for kind in KINDS:
        if kind in kinds:
            pattern, placeholder = _PATTERNS[kind]
            text, count = pattern.subn(placeholder, text)
            if count:
                counts[kind] = count
    return text, counts
