"""Conversations as a feature of documents, `messages`: a JSON list of turns."""

from collections.abc import Sequence
from typing import NamedTuple

import orjson

ANSWERING_ROLE = "assistant"
"""Whose turns are answers: what a model learns to write."""


class Turn(NamedTuple):
    """What one side says.

    Attributes:
        role: Who says it: system, user, assistant, ..
        content: The text.
    """

    role: str
    content: str


def encode_conversation(turns: Sequence[Turn]) -> bytes:
    """Encode turns as the feature `messages`: [{"content": "..", "role": ".."}, ..], UTF-8."""
    return orjson.dumps([turn._asdict() for turn in turns], option=orjson.OPT_SORT_KEYS)


def decode_conversation(data: bytes) -> list[Turn]:
    """Return the turns that `encode_conversation` was given."""
    return [Turn(**values) for values in orjson.loads(data)]


def text_of_conversation(turns: Sequence[Turn]) -> str:
    """Return what is said, without who says it: what curation and a vocabulary see of it."""
    return "\n\n".join(turn.content for turn in turns)
