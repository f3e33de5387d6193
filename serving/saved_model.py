"""Finds and calls a pushed SavedModel; needs TensorFlow and tensorflow-text, nothing of TFX."""

import os
from dataclasses import dataclass
from typing import Any

from components.errors import TokenmillError


@dataclass(frozen=True)
class Completion:
    """A continuation, with the tokens that it took."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def newest_version(path: str) -> str:
    """The SavedModel at `path`, or the highest-numbered version below it.

    Raises:
        TokenmillError: There is none.
    """
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        return path
    try:
        names = os.listdir(path)
    except OSError:
        names = []
    versions = [n for n in names if n.isascii() and n.isdigit()]
    if not versions:
        raise TokenmillError(
            f"no pushed model in {path}.",
            "Run `tokenmill run` first, or name a SavedModel directory with --model.",
        )
    return os.path.join(path, max(versions, key=int))


def load(path: str) -> Any:
    """Loads a SavedModel with the tokeniser's ops registered."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

    return tf.saved_model.load(newest_version(path))


def generate(
    model: Any, prompt: str, max_new_tokens: int, temperature: float, seed: int
) -> Completion:
    """Calls the raw-text signature `generate` with one prompt."""
    import tensorflow as tf

    outputs = model.signatures["generate"](
        text=tf.constant([prompt]),
        max_new_tokens=tf.constant(max_new_tokens),
        temperature=tf.constant(temperature, tf.float32),
        seed=tf.constant(seed),
    )
    return Completion(
        outputs["text"].numpy()[0].decode("utf-8", "replace"),
        int(outputs["prompt_tokens"].numpy()[0]),
        int(outputs["completion_tokens"].numpy()[0]),
    )
