"""Weights to start a training from: a pushed model's, or those of an open model."""

import hashlib
import os

import tensorflow as tf

from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.checkpoints.directory import is_checkpoint
from tokenmill.contracts.served_model import Pooling, read_served_model
from tokenmill.model.backbone import Backbone
from tokenmill.model.base_model import load_base_model

_SAVED = "variables/variables.*"  # of a SavedModel
_BLOCK_BYTES = 2**24


def load_start_weights(model: Backbone, directory: str, tokenizer_path: str) -> list[str]:
    """Assign the weights of a base model; a head that it lacks keeps its random start.

    Args:
        model: Built; its other weights are overwritten.
        directory: A SavedModel that tokenmill exported, or a Hugging Face checkpoint.
        tokenizer_path: The tokenizer that this run's rows are made with; compared with an exported
            model's.

    Returns:
        Paths of the variables that kept their random start.

    Raises:
        TokenmillError: There is no such model, or its tokenizer or shape is another.
    """
    if is_checkpoint(directory):
        return read_checkpoint(directory, model.shape_config.sequence_length).assign(model)
    return load_base_model(model, directory, tokenizer_path)


def read_pooling(directory: str) -> Pooling | None:
    """Read how a base model makes one vector of a text; None where it does not say.

    Args:
        directory: As for `load_start_weights`.

    Raises:
        TokenmillError: The directory cannot be read.
    """
    if is_checkpoint(directory):
        # What it says does not depend on the rows of a run, which shorter ones always fit.
        return read_checkpoint(directory, sequence_length=1).pooling
    return read_served_model(directory).pooling


def weights_fingerprint(directory: str) -> str:
    """Return a hash of the files with a base model's weights, the same wherever it lies.

    Args:
        directory: As for `load_start_weights`.
    """
    patterns = ("*.safetensors", "*/*.safetensors") if is_checkpoint(directory) else (_SAVED,)
    paths = [p for pattern in patterns for p in tf.io.gfile.glob(os.path.join(directory, pattern))]
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(os.path.relpath(path, directory).encode())
        with tf.io.gfile.GFile(path, "rb") as source:
            while block := source.read(_BLOCK_BYTES):  # a file may be larger than the memory
                digest.update(block)
    return digest.hexdigest()[:32]
