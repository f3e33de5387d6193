"""A tokenizer's files: in its own artifact, and beside a pushed model."""

from __future__ import annotations

import os
from typing import Literal

from tokenmill.contracts.base import Document, Part, key

TOKENIZER_MODEL_NAME = "tokenizer.model"
"""The SentencePiece model."""
TOKENIZER_PATH = os.path.join("assets.extra", TOKENIZER_MODEL_NAME)
"""Where it lies in a SavedModel."""
DESCRIPTION_NAME = "tokenizer.json"
"""`TokenizerDescription` in the artifact, `TokenizerAsset` beside a model."""


class Sample(Part):
    """Text of a source that the vocabulary was trained on."""

    documents: int = key("Documents.", ge=0)
    bytes: int = key("Bytes of their text, UTF-8.", ge=0)


class TokenizerDescription(Document):
    """How a vocabulary was made: the keys of [tokenizer] that decide on it, and what came out."""

    model_type: Literal["bpe", "unigram"] = key("tokenizer.model_type.")
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
