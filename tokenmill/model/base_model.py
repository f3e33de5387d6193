"""Weights to start from: those of a model that tokenmill exported or pushed.

A SavedModel keeps its variables in a TensorFlow checkpoint under `variables/`, named by the path
of attributes from the saved object; the model is `served.model` of it
(tokenmill/export/saved_model.py).
"""

import hashlib
import os
import re

import tensorflow as tf

from tokenmill.contracts.tokenizer import TOKENIZER_PATH
from tokenmill.errors import TokenmillError
from tokenmill.model.backbone import Backbone

# Parts that a new task may bring with it: the base model need not have them.
_HEADS = ("head_dense", "head_norm", "output_layer", "output_bias", "pooler", "classifier")
_KEY = "served/model/{}/.ATTRIBUTES/VARIABLE_VALUE"


def checkpoint_key(path: str) -> str:
    """Return the key in a SavedModel's checkpoint of the variable with this Keras path.

    Example: decoder/layer0/mlp/up/kernel -> served/model/blocks/0/mlp/up/_kernel/..
    """
    attributes = path.split("/", 1)[1]
    attributes = re.sub(r"^layer(\d+)/", r"blocks/\1/", attributes)
    attributes = re.sub(r"(^|/)(kernel|embeddings)$", r"\1_\2", attributes)
    return _KEY.format(attributes)


def load_base_model(model: Backbone, directory: str, tokenizer_path: str) -> list[str]:
    """Assign the weights of a saved model; a head that it lacks keeps its random start.

    Args:
        model: Built; its other weights are overwritten.
        directory: A SavedModel that tokenmill exported (such as <run>/serving_model/<version>).
        tokenizer_path: The SentencePiece model that this run's rows are made with.

    Returns:
        Paths of the variables that kept their random start.

    Raises:
        TokenmillError: There is no such model, or its tokenizer or shape is another.
    """
    name = f"model.base_model = {directory}"
    prefix = os.path.join(directory, "variables", "variables")
    if not tf.io.gfile.exists(prefix + ".index"):
        raise TokenmillError(
            f"{name}: no SavedModel there ({prefix}.index is missing).",
            "Give the directory of one version, such as runs/demo/serving_model/<version>.",
        )
    _check_tokenizer(name, os.path.join(directory, TOKENIZER_PATH), tokenizer_path)
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    values, kept = [], []
    for variable in model.base_variables:
        key = checkpoint_key(variable.path)
        if key in shapes and tuple(shapes[key]) == tuple(variable.shape):
            values.append((variable, key))
        elif variable.path.split("/")[1] in _HEADS:
            kept.append(variable.path)
        elif key in shapes:
            raise TokenmillError(
                f"{name}: {variable.path} has the shape {list(shapes[key])} there and "
                f"{list(variable.shape)} here.",
                "Give [model] and tokenizer.vocab_size the values of the base model's run.",
            )
        else:
            raise TokenmillError(
                f"{name}: it holds no weight for {variable.path}.",
                "Give [model] the values of the base model's run; a model that was pushed with "
                "quantized weights cannot be trained further.",
            )
    for variable, key in values:  # only now, so that an error changes nothing
        variable.assign(reader.get_tensor(key))
    return kept


def _check_tokenizer(name: str, theirs: str, ours: str) -> None:
    if not tf.io.gfile.exists(theirs):
        raise TokenmillError(
            f"{name}: {theirs} is missing, so its tokenizer is unknown.",
            "Give a model that tokenmill pushed.",
        )
    digests = [_sha256(path) for path in (theirs, ours)]
    if digests[0] != digests[1]:
        raise TokenmillError(
            f"{name}: its tokenizer (SHA-256 {digests[0][:12]}) is not this run's "
            f"({digests[1][:12]}), so an id means another piece of text.",
            f"Tokenize with {theirs}, or train from scratch.",
        )


def _sha256(path: str) -> str:
    with tf.io.gfile.GFile(path, "rb") as source:
        return hashlib.sha256(source.read()).hexdigest()
