"""What is imported: a tokenizer.json as read, and how to refuse a part of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tokenizers

from tokenmill.errors import TokenmillError

# Baked into the file by whoever used it last; how long a row is, is the pipeline's matter.
_OF_USE = ("truncation", "padding")

PLAIN_BPE: Mapping[str, Iterable[Any]] = {
    "dropout": (None, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
}
"""Values of a BPE's options that every kind of it has here."""


def refuse(path: str, part: str, found: object, understood: str) -> TokenmillError:
    """Make the error of a setting that cannot be carried out exactly.

    Args:
        path: Of the file.
        part: The setting's place in it.
        found: Its value.
        understood: What is understood there.
    """
    shown = json.dumps(found, ensure_ascii=False) if not isinstance(found, str) else found
    shown = shown if len(shown) <= 300 else f"{shown[:300]}.."
    return TokenmillError(
        f"{path}: {part} = {shown} is not understood, so its ids would not be the same.",
        f"Understood: {understood}.",
    )


@dataclass(frozen=True)
class AddedToken:
    """A token beside the model's own vocabulary.

    Attributes:
        id: Its id.
        content: Its text.
        special: A control token.
    """

    id: int
    content: str
    special: bool


class TokenizerJson:
    """A tokenizer.json.

    Args:
        content: Of the file.
        path: Its name, for messages.

    Attributes:
        path: As given.
        values: The JSON, without truncation and padding.
        library: The `tokenizers` library's object, to which special tokens in text are text.

    Raises:
        TokenmillError: It is none, or the library cannot read it.
    """

    def __init__(self, content: bytes, path: str):
        self.path = path
        try:
            self.values: dict[str, Any] = json.loads(content)
            for name in _OF_USE:
                self.values[name] = None
            self.library = tokenizers.Tokenizer.from_str(json.dumps(self.values))
        # The library raises Exception itself.
        except Exception as error:
            raise TokenmillError(
                f"{path}: no tokenizer.json that the tokenizers library reads: {error}.",
                "Give the file of a Hugging Face model.",
            ) from error
        self.library.encode_special_tokens = True

    @property
    def model(self) -> dict[str, Any]:
        """Return the section `model`."""
        return self.values["model"]

    @property
    def kind(self) -> str:
        """The type of the model: BPE, WordPiece, Unigram, WordLevel."""
        return self.model.get("type") or ("BPE" if "merges" in self.model else "WordPiece")

    def encode(self, text: str) -> list[int]:
        """Return the library's ids of a text, without control tokens around it."""
        return self.library.encode(text, add_special_tokens=False).ids

    def added_tokens(self) -> list[AddedToken]:
        """Return the tokens beside the model's vocabulary, by id.

        Raises:
            TokenmillError: One that is no control token takes blanks beside it along, or wants a
                word of its own.
        """
        tokens = []
        for values in self.values.get("added_tokens") or ():
            for option in ("single_word", "lstrip", "rstrip"):
                if values.get(option) and not values.get("special"):
                    raise refuse(
                        self.path, f"added_tokens, {values['content']!r}, {option}", True, "false"
                    )
            tokens.append(AddedToken(values["id"], values["content"], bool(values.get("special"))))
        return sorted(tokens, key=lambda token: token.id)

    def found_in_text(self) -> tuple[str, ...]:
        """Return the added tokens that text becomes (`special: false`), the longest first.

        Raises:
            TokenmillError: One is looked for in normalized text, and there is a normalizer.
        """
        ordinary = [v for v in self.values.get("added_tokens") or () if not v.get("special")]
        for values in ordinary:
            if values.get("normalized") and self.values.get("normalizer"):
                where = f"added_tokens, {values['content']!r}, normalized"
                raise refuse(self.path, where, True, "false where there is a normalizer")
        self.added_tokens()
        return tuple(sorted((v["content"] for v in ordinary), key=lambda text: (-len(text), text)))

    def check_model(self, allowed: Mapping[str, Iterable[Any]]) -> None:
        """Check options of the model.

        Args:
            allowed: Values that are understood, by the option's name; absent counts as None.

        Raises:
            TokenmillError: One has another value.
        """
        for name, values in allowed.items():
            options = list(values)
            if self.model.get(name) not in options:
                shown = ", ".join(json.dumps(value) for value in options)
                raise refuse(self.path, f"model.{name}", self.model[name], shown)

    def parts(self, name: str) -> list[dict[str, Any]]:
        """Return a section (normalizer, pre_tokenizer) as the list of its steps."""
        section = self.values.get(name)
        if section is None:
            return []
        inner = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}[name]
        return section[inner] if section["type"] == "Sequence" else [section]
