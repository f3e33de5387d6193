"""Loads a tokenizer of whichever kind from its file."""

from __future__ import annotations

import tensorflow as tf

from tokenmill.text.tokenizers.base import Tokenizer
from tokenmill.text.tokenizers.byte_level_bpe import ByteLevelBpe
from tokenmill.text.tokenizers.compiled import CompiledFile, is_compiled, unpack_tokenizer
from tokenmill.text.tokenizers.sentencepiece_model import SentencePieceTokenizer
from tokenmill.text.tokenizers.word_piece import WordPiece

SENTENCEPIECE_MODEL = "sentencepiece.model"
"""Part of a compiled SentencePiece tokenizer: the model."""


def read_tokenizer(path: str) -> Tokenizer:
    """Load the tokenizer of a file, on any filesystem that TensorFlow knows."""
    with tf.io.gfile.GFile(path, "rb") as source:
        return load_tokenizer(source.read(), path)


def load_tokenizer(content: bytes, path: str) -> Tokenizer:
    """Load a tokenizer.

    Args:
        content: Of the file: a SentencePiece model or a compiled tokenizer (compiled.py).
        path: Its name, for messages.

    Raises:
        TokenmillError: A compiled tokenizer is damaged.
    """
    if is_compiled(content):
        return of_compiled(unpack_tokenizer(content, path))
    return SentencePieceTokenizer(content)


def of_compiled(file: CompiledFile) -> Tokenizer:
    """Make the tokenizer of a compiled file."""
    if file.description.kind == "byte-level-bpe":
        return ByteLevelBpe(file)
    if file.description.kind == "wordpiece":
        return WordPiece(file)
    return SentencePieceTokenizer(
        file.parts[SENTENCEPIECE_MODEL], file.description.control_ids, file.description.prefix
    )
