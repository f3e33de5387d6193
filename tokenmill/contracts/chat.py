"""How a model's conversations are written: beside the tokenizer, and beside a pushed model."""

from __future__ import annotations

import os

from tokenmill.contracts.base import Document, find_document, key, read_document, write_document

CHAT_FORMAT_NAME = "chat_format.json"


class ChatFormat(Document):
    """chat_format.json: a chat template, and what it needs of the tokenizer."""

    template: str = key("The template, in Jinja.")
    special_tokens: dict[str, int] = key("Texts of the tokens that the template may write: ids.")
    variables: dict[str, str] = key("What else the template reads, such as bos_token.")
    stop_ids: list[int] = key("Tokens that end an answer.")
    adds_blank: bool = key(
        "Whether the tokenizer puts a blank before a text (SentencePiece's dummy prefix)."
    )


def read_chat_format(directory: str) -> ChatFormat:
    """Read chat_format.json of a Tokenizer artifact or of a model's assets.extra."""
    return read_document(os.path.join(directory, CHAT_FORMAT_NAME), ChatFormat)


def find_chat_format(directory: str) -> ChatFormat | None:
    """Read chat_format.json of a directory; None where there is none."""
    return find_document(os.path.join(directory, CHAT_FORMAT_NAME), ChatFormat)


def write_chat_format(directory: str, chat_format: ChatFormat) -> None:
    """Write chat_format.json into a directory."""
    write_document(os.path.join(directory, CHAT_FORMAT_NAME), chat_format)
