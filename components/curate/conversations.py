"""Conversations in curation: each turn is tidied for itself, then the chat template writes all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from components.curate.decision import Judged
from components.curate.mask import mask
from tokenmill.errors import TokenmillError
from tokenmill.records.conversations import Turn, decode_conversation, text_of_conversation
from tokenmill.text.chat import Chat
from tokenmill.text.normalize import normalize

CHAT_TEMPLATE = "chat_template"
"""Why a conversation is dropped that the model's template refuses."""


class Tidied(NamedTuple):
    """A batch of conversations, normalized and masked.

    Attributes:
        texts: What is said in each.
        conversations: Each as the template writes it, UTF-8; empty where it refuses.
        refused: What the template says, by the conversation's place.
    """

    texts: list[str]
    conversations: list[bytes]
    refused: dict[int, str]


def tidy_conversations(
    messages: Sequence[bytes], kinds: Sequence[str], masked: Counter[str], chat: Chat
) -> Tidied:
    """Normalize and mask the turns of conversations, and write them by the chat template.

    Args:
        messages: The feature of each (tokenmill/records/conversations.py).
        kinds: What to mask.
        masked: Takes how many of each kind were masked.
        chat: Writes them.
    """
    texts, conversations, refused = [], [], {}
    for place, encoded in enumerate(messages):
        turns = []
        for turn in decode_conversation(encoded):
            content, counts = mask(normalize(turn.content), kinds)
            masked.update(counts)
            turns.append(Turn(turn.role, content))
        texts.append(text_of_conversation(turns))
        try:
            conversations.append(chat.conversation([turn._asdict() for turn in turns]).encode())
        except TokenmillError as error:
            conversations.append(b"")
            refused[place] = str(error).splitlines()[0]
    return Tidied(texts, conversations, refused)


def drop_refused(judged: Judged, refused: Mapping[int, str]) -> None:
    """Add the conversations that the chat template refuses to those that are dropped.

    Args:
        judged: Of a batch; what is dropped for another reason keeps it.
        refused: `Tidied.refused` of the same.
    """
    for place, why in refused.items():
        if judged.dropped.setdefault(place, (CHAT_TEMPLATE, 0.0, 1.0))[0] == CHAT_TEMPLATE:
            judged.matched[place] = why
