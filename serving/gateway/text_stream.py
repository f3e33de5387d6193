"""Tokens, as they come, to text: whole characters only, and nothing of a stop string."""

from __future__ import annotations

import codecs
import functools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class TextPiece(Generic[Payload]):
    """What may be shown since the last piece.

    Attributes:
        text: The text.
        tokens: The tokens that begin in it, each with where it begins, in characters of the whole
            text, and what was pushed beside it.
    """

    text: str
    tokens: list[tuple[int, Payload]]


class TextStream(Generic[Payload]):
    """Puts the bytes of tokens together to text that never has to be taken back.

    All pieces together are what the bytes of all tokens, decoded at once, are up to a stop string:
    bytes that are not UTF-8 become U+FFFD as `bytes.decode(errors="replace")` has it. Of several
    stop strings that one counts which ends first, and of those the longest; so it does not matter
    how text is cut into tokens. The time is linear in text and stop strings.

    Args:
        stops: Strings that end the text, without being a part of it.
        drop_blank: Whether a blank that begins the text is left out: one that a tokenizer puts
            before each text itself.

    Attributes:
        stopped: Whether a stop string has come; then nothing more is to be pushed.
    """

    def __init__(self, stops: Sequence[str] = (), drop_blank: bool = False):
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._matchers = [_Matcher(stop) for stop in stops]
        self._drop_blank = drop_blank
        self._waiting: deque[tuple[int, bool, Payload]] = deque()
        self._held = ""  # decoded, perhaps the beginning of a stop string
        self._decoded = 0  # characters, but for a dropped blank
        self._released = 0
        self.stopped = False

    def push(self, token: bytes, payload: Payload, may_stop: bool = True) -> TextPiece[Payload]:
        """Add a token.

        Args:
            token: Its bytes; none of a control token.
            payload: What comes back with the piece in which the token begins.
            may_stop: Whether its characters may be a part of a stop string: not those of a prompt.
        """
        pending = self._decoder.getstate()[0]
        # A character that is begun belongs to the token before, unless this one breaks it.
        broken = pending if token and not _goes_on(pending, token[:1]) else b""
        begins = self._decoded + len(broken.decode("utf-8", "replace"))
        self._waiting.append((begins, bool(token), payload))
        return self._take(self._decoder.decode(token), may_stop, final=False)

    def finish(self) -> TextPiece[Payload]:
        """End the text; return what was held back."""
        return self._take(self._decoder.decode(b"", True), True, final=True)

    def _take(self, text: str, may_stop: bool, final: bool) -> TextPiece[Payload]:
        if self._drop_blank and text:
            # The blank's token now begins where the text does, and so does the one after it.
            text, self._drop_blank = text.removeprefix(" "), False
        self._decoded += len(text)
        self._held += text
        keep = 0
        if may_stop and not self.stopped:
            keep = self._match(text)
        free = len(self._held) if final or self.stopped else len(self._held) - keep
        piece, self._held = self._held[:free], self._held[free:]
        self._released += len(piece)
        tokens = []
        while self._waiting and self._is_released(*self._waiting[0][:2], final):
            begins, _, payload = self._waiting.popleft()
            tokens.append((begins, payload))
        if self.stopped:
            self._waiting.clear()
        return TextPiece(piece, tokens)

    def _match(self, text: str) -> int:
        """Look for stop strings; cut before one; return how many characters may begin another."""
        if not self._matchers:
            return 0
        before = len(self._held) - len(text)
        for place, character in enumerate(text, before + 1):
            ended = [m.length for m in self._matchers if m.advance(character)]
            if ended:
                self.stopped = True
                self._held = self._held[: place - max(ended)]
                return 0
        return max(m.matched for m in self._matchers)

    def _is_released(self, begins: int, has_bytes: bool, final: bool) -> bool:
        if begins < self._released:
            return True
        # A token without text stands between two characters; the last of a stopped text is cut.
        return begins == self._released and not self.stopped and (final or not has_bytes)


class _Matcher:
    """Finds one string in a stream of characters (Knuth, Morris and Pratt 1977).

    Attributes:
        length: Of the string.
        matched: How many of its characters the last ones of the stream are.
    """

    def __init__(self, text: str):
        self._text, self.length, self.matched = text, len(text), 0
        self._fallback = _borders(text)

    def advance(self, character: str) -> bool:
        """Take the next character; tell whether the string ends with it."""
        while self.matched and character != self._text[self.matched]:
            self.matched = self._fallback[self.matched - 1]
        self.matched += character == self._text[self.matched]
        return self.matched == self.length


@functools.lru_cache(maxsize=256)  # all choices of a request have the same
def _borders(text: str) -> list[int]:
    """Return, by place, the length of the longest border of text[: place + 1]."""
    borders = [0] * len(text)
    border = 0
    for place in range(1, len(text)):
        while border and text[place] != text[border]:
            border = borders[border - 1]
        border += text[place] == text[border]
        borders[place] = border
    return borders


def _goes_on(pending: bytes, first: bytes) -> bool:
    """Tell whether a byte goes on with a character that is begun."""
    if pending == b"\xed" and first >= b"\xa0":
        return False  # a surrogate: Python's decoder waits for its third byte, and refuses it then
    try:
        codecs.utf_8_decode(pending + first, "strict", False)
    except UnicodeDecodeError:
        return False
    return True
