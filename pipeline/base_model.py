"""The shape and tokenizer of a base model, as keys of the run that goes on from it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tokenmill.checkpoints.directory import is_checkpoint
from tokenmill.contracts.served_model import read_served_model
from tokenmill.contracts.tokenizer import TOKENIZER_PATH
from tokenmill.errors import TokenmillError
from tokenmill.model.config import ModelConfig
from tokenmill.model.shape import EXPERT_KEYS, ModelShape
from tokenmill.text.tokenizers.hugging_face_files import is_hugging_face, type_and_size

if TYPE_CHECKING:
    from tokenmill.checkpoints.checkpoint import Checkpoint

# Of the run that goes on: its task's classes, and where the base model is.
_OWN_KEYS = {"classes", "base_model"}


def base_model_values(directory: str) -> dict[tuple[str, str], Any]:
    """Return the values by (section, key); none if the model cannot be read, or is in a bucket.

    Why it cannot be read is told before the first step (pipeline/runners/preflight.py).

    Args:
        directory: One version of a pushed model, or a checkpoint of an open one.
    """
    if "://" in directory:  # without credentials that takes minutes
        return {}
    try:
        if is_checkpoint(directory):
            # It takes NumPy, which a configuration without such a base model does not need.
            from tokenmill.checkpoints.checkpoint import read_checkpoint

            # The run's rows, whose length is not known yet, are checked before the first step.
            return checkpoint_values(read_checkpoint(directory, sequence_length=1))
        shape = read_served_model(directory).model_shape
    except (OSError, TokenmillError):
        return {}
    return {
        **_shape_values(shape),
        ("tokenizer", "path"): os.path.join(directory, TOKENIZER_PATH),
    }


def checkpoint_values(checkpoint: Checkpoint) -> dict[tuple[str, str], Any]:
    """Return the values of a checkpoint of an open model by (section, key).

    The length of rows is not among them unless the default is too long: rows as long as such models
    were made for are rarely wanted.
    """
    values = _shape_values(checkpoint.shape)
    del values["model", "sequence_length"]
    if checkpoint.max_positions < ModelConfig().sequence_length:
        values["model", "sequence_length"] = checkpoint.max_positions
    return values | {("tokenizer", "path"): checkpoint.directory}


def _shape_values(shape: ModelShape) -> dict[tuple[str, str], Any]:
    values: dict[tuple[str, str], Any] = {
        ("model", name): getattr(shape, name)
        for name in ModelConfig.model_fields
        if name not in _OWN_KEYS
        # A dense model says nothing of experts, so that a user's keys keep their defaults.
        if name not in EXPERT_KEYS or shape.experts > 1
    }
    return values | {("tokenizer", "vocab_size"): shape.vocab_size}


def tokenizer_values(path: str) -> dict[tuple[str, str], Any]:
    """Return type and size of a tokenizer by (section, key); none where they cannot be told.

    Args:
        path: tokenizer.path. A SentencePiece model's are the user's to say, as ever.
    """
    if "://" in path or not is_hugging_face(path):
        return {}
    found = type_and_size(path)
    if found is None:
        return {}
    return {("tokenizer", "model_type"): found[0], ("tokenizer", "vocab_size"): found[1]}
