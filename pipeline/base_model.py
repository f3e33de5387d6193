"""The shape and tokenizer of a pushed model, as keys of the run that goes on from it."""

import os
from typing import Any

from tokenmill.contracts.served_model import read_served_model
from tokenmill.contracts.tokenizer import TOKENIZER_PATH
from tokenmill.errors import TokenmillError
from tokenmill.model.config import ModelConfig

# Of the run that goes on: its task's classes, and where the base model is.
_OWN_KEYS = {"classes", "base_model"}


def base_model_values(directory: str) -> dict[tuple[str, str], Any]:
    """Return the values by (section, key); none if the model cannot be read, or is in a bucket.

    Why it cannot be read is told before the first step (pipeline/runners/preflight.py).

    Args:
        directory: One version of a pushed model.
    """
    if "://" in directory:  # without credentials that takes minutes
        return {}
    try:
        shape = read_served_model(directory).model_shape
    except (OSError, TokenmillError):
        return {}
    values: dict[tuple[str, str], Any] = {
        ("model", name): getattr(shape, name)
        for name in ModelConfig.model_fields
        if name not in _OWN_KEYS
    }
    return values | {
        ("tokenizer", "vocab_size"): shape.vocab_size,
        ("tokenizer", "path"): os.path.join(directory, TOKENIZER_PATH),
    }
