"""Records that are conversations: turns of role and content, or a prompt and its completion."""

import functools
import json
from collections.abc import Callable
from typing import Any

from components.ingest.config import CorpusConfig
from components.ingest.declared import NOTHING, Declared
from components.ingest.encoding import repair
from components.ingest.manifest import InputFile
from components.ingest.records import Document, make_document, missing_text, not_utf8
from tokenmill.contracts.ingest import BadRecord
from tokenmill.records.conversations import (
    ANSWERING_ROLE,
    Turn,
    encode_conversation,
    text_of_conversation,
)

_INVALID = "invalid_messages"
# Templates are rendered turn by turn, which takes quadratic time; no row holds so many.
_MOST_TURNS = 1_000
# Of records in ShareGPT's words.
_SHAREGPT_ROLES = {"human": "user", "gpt": ANSWERING_ROLE}
# What a turn may hold that is more than text, and would be lost.
_NO_TEXT = ("tool_calls", "function_call", "images", "audio", "reasoning_content", "thinking")


class Conversations:
    """Makes documents of records that are conversations.

    Args:
        settings: Names of the fields.

    Attributes:
        fields: Those that a record has to have.
    """

    def __init__(self, settings: CorpusConfig):
        self.fields = settings.content_fields
        self._messages_field = settings.messages_field
        # Each turn is repaired for itself, so that the document is the turns.
        self._whole = settings.model_copy(update={"repair_encoding": False, "encoding": None})
        self._repairs = settings.repair_encoding

    def document(
        self,
        value_of: Callable[[str], Any],
        doc_id: bytes,
        source: bytes,
        file: InputFile,
        record: int,
        size: int,
        repaired: tuple[str, ...] = (),
        label: bytes | None = None,
        declared: Declared = NOTHING,
    ) -> Document | BadRecord:
        """Make a document of a record, or say what is wrong with it.

        Its text is that of its turns, one after the other with a blank line between.

        Args:
            value_of: Returns the value of a field, None where there is none.
            doc_id: Its id.
            source: Where it came from.
            file: What it was read from.
            record: Its number there.
            size: Of the record, bytes.
            repaired: What was repaired before.
            label: Its class.
            declared: Its language and metadata.
        """
        for field in self.fields:
            if value_of(field) is None:
                return missing_text(file, record, size, f"nothing under {field!r}")
        try:
            turns = self._turns(value_of)
        except ValueError as error:
            return BadRecord(file.path, record, _INVALID, str(error)[:500], size)
        sound: list[Turn] = []
        for turn in turns:
            try:
                data = turn.content.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as error:  # a lone surrogate, "\ud800", is legal JSON
                return BadRecord(file.path, record, "not_utf8", str(error)[:500], size)
            if not data.isascii():
                fixed = repair(data, self._repairs)
                if fixed is None:
                    return not_utf8(file, record, data, self._whole)
                data, kinds = fixed
                repaired = (*repaired, *(kind for kind in kinds if kind not in repaired))
            sound.append(Turn(turn.role, data.decode("utf-8")))
        text = text_of_conversation(sound).encode("utf-8")
        made = make_document(
            text, doc_id, source, file, record, self._whole, repaired, label, declared
        )
        if isinstance(made, BadRecord):
            return made
        if not any(turn.content.strip() for turn in sound if turn.role == ANSWERING_ROLE):
            detail = f"every turn of the role {ANSWERING_ROLE!r} is blank, so there is no answer"
            return BadRecord(file.path, record, _INVALID, detail, size)
        return made._replace(messages=encode_conversation(sound))

    def _turns(self, value_of: Callable[[str], Any]) -> list[Turn]:
        """Return the turns of a record.

        Raises:
            ValueError: It is no conversation, or has nothing to learn.
        """
        if self._messages_field is None:
            prompt, completion = (_text(value_of(field), field) for field in self.fields)
            return [Turn("user", prompt), Turn(ANSWERING_ROLE, completion)]
        value = value_of(self._messages_field)
        if isinstance(value, str | bytes):  # a column of JSON
            try:
                value = json.loads(value)
            except RecursionError as error:
                raise ValueError(str(error)) from None
        if not isinstance(value, list | tuple) or not value:
            raise ValueError(f"{self._messages_field!r} is no list of turns")
        if len(value) > _MOST_TURNS:
            raise ValueError(f"{len(value):,} turns; a conversation has at most {_MOST_TURNS:,}")
        turns = [_turn(turn, f"turn {number}") for number, turn in enumerate(value, 1)]
        if not any(turn.role == ANSWERING_ROLE for turn in turns):
            roles = ", ".join(sorted({turn.role for turn in turns}))
            raise ValueError(f"no turn of the role {ANSWERING_ROLE!r}, so no answer; found {roles}")
        return turns


@functools.lru_cache(maxsize=8)
def conversations_of(settings: CorpusConfig) -> Conversations | None:
    """Return what makes documents of conversations; None where records are texts."""
    return Conversations(settings) if settings.holds_conversations else None


def _turn(turn: Any, where: str) -> Turn:
    if not isinstance(turn, dict):
        raise ValueError(f"{where} is no object with role and content")
    for name in _NO_TEXT:
        if turn.get(name):
            raise ValueError(f"{where} has {name}, and text alone is read")
    role, content = turn.get("role"), turn.get("content")
    if role is None and content is None and "from" in turn:
        role, content = turn["from"], turn.get("value")
        role = _SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role
    if role == ANSWERING_ROLE and turn.get("weight") == 0:
        raise ValueError(f"{where} has the weight 0, and all answers are learned")
    if not isinstance(role, str | bytes) or not role:
        raise ValueError(f"{where} has no role")
    role = _text(role, f"{where}, role")
    try:
        role.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}, role = {role!a} is no UTF-8") from None
    return Turn(role, _text(content, f"{where}, content"))


def _text(value: Any, where: str) -> str:
    """Return a text, which may come as a list of parts ({"type": "text", "text": ..})."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in value
    ):
        return "".join(part["text"] for part in value)
    raise ValueError(f"{where} is no text: {json.dumps(value, default=str)[:100]}")
