"""Text that comes from data, made safe for a terminal and a log: controls are shown, not obeyed."""

import re

# Controls C0 and C1 (escape sequences begin with one), line separators, bidirectional overrides
# and isolates (they reorder what is around), and halves of characters, which no stream takes.
_REST = r"\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROLS = re.compile(rf"[\x00-\x08{_REST}]")
_ALL_CONTROLS = re.compile(rf"[\x00-\x0a{_REST}]")
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}


def visible(text: str) -> str:
    r"""Return a text on one line: ESC becomes \u001b, a line feed \n."""
    return _ALL_CONTROLS.sub(_show, text)


def visible_lines(text: str) -> str:
    r"""Return a text with its lines and tabs, other controls as \u001b; JSON stays JSON."""
    return _CONTROLS.sub(_show, text)


def _show(found: re.Match[str]) -> str:
    return _SHORT.get(found[0], f"\\u{ord(found[0]):04x}")
