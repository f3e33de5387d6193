"""Names of the files of a Hugging Face tokenizer, and what they tell without its library."""

from __future__ import annotations

import json
import os
from typing import Any

from tokenmill.files import list_files, open_file

TOKENIZER_JSON, SENTENCEPIECE_FILE, VOCABULARY = "tokenizer.json", "tokenizer.model", "vocab.txt"
TOKENIZER_FILES = (TOKENIZER_JSON, SENTENCEPIECE_FILE, VOCABULARY)
"""In the order in which one is chosen."""
TOKENIZER_CONFIG, CHAT_TEMPLATE_FILE = "tokenizer_config.json", "chat_template.jinja"


def is_hugging_face(path: str) -> bool:
    """Tell whether a path is a directory, a tokenizer.json or a vocab.txt."""
    return os.path.basename(path) in (TOKENIZER_JSON, VOCABULARY) or _is_directory(path)


def _is_directory(path: str) -> bool:
    # Only a bucket needs TensorFlow, which takes seconds.
    if "://" not in path:
        return os.path.isdir(path)
    import tensorflow as tf

    return bool(tf.io.gfile.isdir(path))


def type_and_size(path: str) -> tuple[str, int] | None:
    """Return model_type and size of the vocabulary of a directory or one of its files.

    None if it cannot be read, which whoever imports it reports.
    """
    try:
        if _is_directory(path):
            there = set(map(os.path.basename, list_files(path)))
            path = os.path.join(path, next(name for name in TOKENIZER_FILES if name in there))
        with open_file(path) as source:
            content = source.read()
        if os.path.basename(path) == VOCABULARY:
            return "wordpiece", len(content.decode().removesuffix("\n").split("\n"))
        if os.path.basename(path) == TOKENIZER_JSON:
            return _of_json(json.loads(content))
        return _of_sentencepiece(content)
    except (OSError, StopIteration, ValueError, KeyError, TypeError):
        return None


def _of_json(values: dict[str, Any]) -> tuple[str, int]:
    model = values["model"]
    ids = [*model["vocab"].values(), *(token["id"] for token in values.get("added_tokens") or ())]
    if "merges" not in model:
        return "wordpiece", max(ids) + 1
    return "bpe" if model.get("byte_fallback") else "byte-level-bpe", max(ids) + 1


def _of_sentencepiece(content: bytes) -> tuple[str, int]:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(content)
    types = sentencepiece_model_pb2.TrainerSpec
    kind = "unigram" if proto.trainer_spec.model_type == types.UNIGRAM else "bpe"
    return kind, len(proto.pieces)
