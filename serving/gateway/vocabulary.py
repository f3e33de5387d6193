"""Names of a model's tokens in the API, and what a text's ids have around them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence

from serving.gateway.backend import HeldVersion
from tokenmill.contracts.chat import ChatFormat
from tokenmill.text.control_ids import ControlIds
from tokenmill.text.vocabulary import CONTROL_TOKENS

_OWN_NAMES = dict(
    zip(("pad", "unk", "bos", "eos", "mask", "cls", "sep"), CONTROL_TOKENS, strict=False)
)


class Vocabulary:
    """What the API says of a version's tokens.

    Args:
        control_ids: Of its tokenizer.
        token_bytes: What each id stands for; None for control tokens.
        chat_format: Of a model of conversations.
        adds_blank: Whether the tokenizer puts a blank before each text.
    """

    def __init__(
        self,
        control_ids: ControlIds,
        token_bytes: Sequence[bytes | None],
        chat_format: ChatFormat | None,
        adds_blank: bool,
    ):
        self.control_ids, self.adds_blank = control_ids, adds_blank
        self._token_bytes, self._chat_format = token_bytes, chat_format

    def bytes_of(self, token_id: int) -> bytes:
        """Return what a token stands for; nothing for control tokens and unused ids."""
        known = token_id < len(self._token_bytes)
        return (self._token_bytes[token_id] or b"") if known else b""

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without the blank that the tokenizer puts before a text."""
        text = b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.adds_blank else text

    @functools.cached_property
    def control_texts(self) -> dict[str, str]:
        """Return the text of each control token, by its role (pad, unk, bos, ..).

        Those that a chat format writes have that name, others the one that tokenmill's own
        vocabularies give them.
        """
        written = {} if self._chat_format is None else self._chat_format.special_tokens
        by_id = {value: name for name, value in sorted(written.items())}
        roles = self.control_ids.by_name()
        return {role: by_id.get(value, _OWN_NAMES[role]) for role, value in roles.items()}

    def control_id(self, text: str) -> int | None:
        """Return the control token that a text is the name of."""
        roles = self.control_ids.by_name()
        found = [roles[role] for role, name in self.control_texts.items() if name == text]
        return found[0] if found else None

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        owners: dict[str, int] = {}
        for i, value in enumerate(self._token_bytes):
            try:
                text = value.decode() if value else ""
            except UnicodeDecodeError:
                continue
            if text:
                # SentencePiece's bytes come before its pieces: "a" is the piece.
                names.pop(owners.get(text, -1), None)
                names[i], owners[text] = text, i
        for text, i in self._special_tokens.items():
            if text not in owners:
                names[i], owners[text] = text, i
        return names

    @functools.cached_property
    def _special_tokens(self) -> dict[str, int]:
        """Ids of control tokens, and of those that a chat template writes, by their text."""
        written = {} if self._chat_format is None else self._chat_format.special_tokens
        roles = self.control_ids.by_name()
        return dict(written) | {text: roles[role] for role, text in self.control_texts.items()}

    def name_of(self, token_id: int) -> str:
        """Return a name that no other token has: its text, or "token_id:N".

        The latter where the bytes are a part of a character, or another token has the same text.
        """
        return self._names.get(token_id, f"token_id:{token_id}")

    def with_begin(self, ids: Sequence[int]) -> list[int]:
        """Put the token that begins a text before ids that do not begin with it."""
        bos = self.control_ids.bos
        return list(ids) if bos is None or ids[:1] == [bos] else [bos, *ids]


_VOCABULARIES: weakref.WeakKeyDictionary[HeldVersion, Vocabulary] = weakref.WeakKeyDictionary()


async def vocabulary_of(held: HeldVersion) -> Vocabulary:
    """Return the vocabulary of a version, made once."""
    found = _VOCABULARIES.get(held)
    if found is None:
        (letter,) = await held.tokenize(["a"])
        begins = b"".join(held.token_bytes[i] or b"" for i in letter)
        found = Vocabulary(
            held.control_ids, held.token_bytes, held.chat_format, begins.startswith(b" ")
        )
        _VOCABULARIES[held] = found
    return found
