"""A tokenizer's files: in its own artifact, and beside a pushed model."""

from __future__ import annotations

import os
from typing import Literal

from tokenmill.contracts.base import Document, Part, key
from tokenmill.text.control_ids import ControlIds

TOKENIZER_MODEL_NAME = "tokenizer.model"
"""The SentencePiece model, or a compiled tokenizer (tokenmill/text/tokenizers/compiled.py)."""
TOKENIZER_PATH = os.path.join("assets.extra", TOKENIZER_MODEL_NAME)
"""Where it lies in a SavedModel."""
DESCRIPTION_NAME = "tokenizer.json"
"""`TokenizerDescription` in the artifact, `TokenizerAsset` beside a model."""

COMPILED_FORMAT = "tokenmill-tokenizer-1"
"""Format of the file of an imported tokenizer (tokenmill/text/tokenizers/compiled.py)."""
Kind = Literal["sentencepiece", "wordpiece", "byte-level-bpe"]
Prefix = Literal["none", "always", "unless-blank"]
"""Whether a text is given a blank before it: never, always, or if it does not begin with one."""


class Sample(Part):
    """Text of a source that the vocabulary was trained on."""

    documents: int = key("Documents.", ge=0)
    bytes: int = key("Bytes of their text, UTF-8.", ge=0)


class TokenizerDescription(Document):
    """How a vocabulary was made: the keys of [tokenizer] that decide on it, and what came out."""

    model_type: Literal["bpe", "unigram", "wordpiece", "byte-level-bpe"] = key(
        "tokenizer.model_type."
    )
    vocab_size: int = key("tokenizer.vocab_size.", gt=0)
    sample_bytes: int = key("tokenizer.sample_bytes.", gt=0)
    source_weights: dict[str, float] = key("tokenizer.source_weights.")
    user_symbols: tuple[str, ...] = key("tokenizer.user_symbols.")
    path: str | None = key("tokenizer.path; null where the vocabulary was trained.")
    sample: dict[str, Sample] = key("What it was trained on, by source; empty with path.")
    cut_words: int = key(
        "Words (runs without a blank) of the sample that were too long for SentencePiece's "
        "training, which saw them in parts; 0 with path.",
        default=0,
        ge=0,
    )
    lossy_fraction: float = key(
        "Share of the documents, of some of the train split, whose text does not come back from "
        "their tokens; 0 where the vocabulary was trained.",
        default=0.0,
        ge=0,
        le=1,
    )
    tokens: int = key("Size of the vocabulary.", gt=0)
    sha256: str = key("Of the model file, hexadecimal.")


class TokenizerAsset(Document):
    """What a client without TensorFlow has to know of the tokenizer beside a SavedModel."""

    sha256: str = key("Of the model file, hexadecimal.")
    control_ids: dict[str, int] = key("Ids of the control tokens.")


class CompiledTokenizer(Document):
    """compiled.json: the kind of a tokenizer and its settings; null where the kind has none."""

    format: Literal["tokenmill-tokenizer-1"] = key(f"{COMPILED_FORMAT}.")
    kind: Kind = key("How text becomes tokens.")
    control_ids: ControlIds = key("Ids of the control tokens.")
    vocab_size: int = key("Ids are from 0 to vocab_size - 1.", gt=0)
    prefix: Prefix = key(
        "Whether a text is given a blank: none, always, unless-blank (if it begins with none)."
    )
    nfc: bool = key("Whether a text is brought into Unicode's NFC.", default=False)
    added: tuple[str, ...] = key(
        "Tokens that are found in text before all else, the longest first.", default=()
    )
    look_ahead: str | None = key(
        "Regular expression (RE2) of two groups between which a word begins.", default=None
    )
    words: str | None = key("Regular expression (RE2) of a word.", default=None)
    unk_text: str | None = key("The unknown token, of WordPiece.", default=None)
    continuation: str | None = key("What marks a token inside a word, of WordPiece.", default=None)
    longest_word: int | None = key(
        "Characters above which a word is unknown, of WordPiece.", default=None
    )
