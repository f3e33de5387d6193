"""A pushed model as a directory for Hugging Face's transformers: weights, settings, tokenizer."""

import os
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tokenmill.checkpoints.checkpoint import read_checkpoint
from tokenmill.checkpoints.pooling import write_modules
from tokenmill.checkpoints.writing import find_form, write_checkpoint
from tokenmill.contracts.chat import ChatFormat, find_chat_format
from tokenmill.contracts.served_model import ServedModel, read_served_model
from tokenmill.contracts.tokenizer import TOKENIZER_PATH
from tokenmill.errors import TokenmillError
from tokenmill.export.decoder_signatures import NO_TOKEN
from tokenmill.export.hugging_face_tokenizer import write_tokenizer
from tokenmill.export.tokenizer_assets import read_tokenizer_asset
from tokenmill.export.transformers_check import (
    CHECKED_TEXTS,
    TransformersCheck,
    check_with_transformers,
    is_installed,
)
from tokenmill.files import make_empty_directory, write_json
from tokenmill.model.base_model import checkpoint_key
from tokenmill.model.build import Decoder, Encoder, build_model
from tokenmill.text.control_ids import ControlIds
from tokenmill.text.tokenizers.load import load_tokenizer

_CHECKED_TOKENS = 32


class HuggingFaceExport(NamedTuple):
    """What was written.

    Attributes:
        architecture: The class of transformers that the model is one of.
        files: Names of the files.
        exact_ids: Whether the tokenizer gives the ids that the pushed model's gives, of any text.
        largest_difference: Of the logits from the pushed model's; None where it was not checked.
        by_transformers: What transformers computes; None where it was not asked or not installed.
    """

    architecture: str
    files: list[str]
    exact_ids: bool
    largest_difference: float | None
    by_transformers: TransformersCheck | None


def export_hugging_face(
    saved_model: str, directory: str, dtype: str = "float32", check: bool = True
) -> HuggingFaceExport:
    """Write config.json, the weights, generation_config.json and the tokenizer.

    Args:
        saved_model: A SavedModel that tokenmill pushed.
        directory: Where to; made if it is not there, and empty.
        dtype: What the weights are stored in: float32, float16 or bfloat16.
        check: Whether to read the weights back and compare logits with the pushed model's, here
            and, where it is installed, with transformers.

    Raises:
        TokenmillError: transformers has no class for the model, its weights are quantized, or the
            directory holds something.
    """
    described = read_served_model(saved_model)
    shape = described.model_shape
    form = find_form(shape)
    if described.quantization != "float32":
        raise TokenmillError(
            f"{saved_model} was pushed with {described.quantization} weights, less than was "
            "trained.",
            'Push it with push.quantization = "float32" and export that.',
        )
    content = read_tokenizer_asset(saved_model)
    make_empty_directory(directory)
    chat_format = find_chat_format(os.path.join(saved_model, "assets.extra"))
    tokenizer = write_tokenizer(content, directory, shape, chat_format)
    control = tokenizer.control_ids
    reader = tf.train.load_checkpoint(os.path.join(saved_model, "variables", "variables"))
    files = write_checkpoint(
        directory,
        shape,
        lambda path: reader.get_tensor(checkpoint_key(f"model/{path}")),
        dtype,
        {**_token_ids(control), **_labels(described)},
        form,
    )
    if shape.head == "lm":
        generation = _generation_config(control, chat_format)
        files.append(_write(directory, "generation_config.json", generation))
    if described.pooling is not None:
        # What is served, of rows that may be shorter than those of the base model.
        longest = min(described.pooling.max_tokens, shape.sequence_length)
        served = described.pooling.model_copy(update={"max_tokens": longest})
        files += write_modules(directory, served, shape.d_model)
    difference = by_transformers = None
    if check:
        asked = _ask(saved_model, control)
        difference = _compare(directory, asked)
        if is_installed():
            encoded = load_tokenizer(content, TOKENIZER_PATH).tokenize(tf.constant(CHECKED_TEXTS))
            by_transformers = check_with_transformers(
                directory, shape.head, asked.ids, asked.answer, encoded.to_list()
            )
    return HuggingFaceExport(
        form.architecture,
        [*files, *tokenizer.files],
        tokenizer.exact_ids,
        difference,
        by_transformers,
    )


def _token_ids(control: ControlIds) -> dict[str, int]:
    """Return the ids that transformers' models know of."""
    known = ("bos", "eos", "pad")
    return {f"{name}_token_id": i for name, i in control.by_name().items() if name in known}


def _labels(described: ServedModel) -> dict[str, Any]:
    names = described.label_names
    if names is None:
        return {}
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def _generation_config(control: ControlIds, chat_format: ChatFormat | None) -> dict[str, Any]:
    """Return the ids that generation begins with and ends at."""
    ids: dict[str, Any] = _token_ids(control)
    if chat_format is not None and chat_format.stop_ids:
        ids["eos_token_id"] = sorted({*chat_format.stop_ids, control.need("eos")})
    return ids


def _write(directory: str, name: str, content: dict) -> str:
    write_json(os.path.join(directory, name), content)
    return name


class _Asked(NamedTuple):
    """What the pushed model answers.

    Attributes:
        ids: int32 [1, tokens], drawn from the whole vocabulary, so that each part of the model has
            its say; a classifier's stand between CLS and SEP.
        answer: Logits, float32 [1, tokens, vocabulary]; of a classifier probabilities [1, classes].
    """

    ids: np.ndarray
    answer: np.ndarray


def _ask(saved_model: str, control: ControlIds) -> _Asked:
    import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

    pushed = tf.saved_model.load(saved_model)
    shape = read_served_model(saved_model).model_shape
    length = min(_CHECKED_TOKENS, shape.sequence_length - 2)
    some = np.random.default_rng(0).integers(0, shape.vocab_size, (1, length), np.int32)
    # Padding is none of the text's tokens.
    drawn = np.where(some == control.padding, some - 1 if control.padding else some + 1, some)
    if shape.head == "classifier":
        answer = pushed.signatures["classify_ids"](token_ids=tf.constant(drawn))["probabilities"]
        frame = (control.need("cls"), control.need("sep"))
        framed = np.pad(drawn, ((0, 0), (1, 1)), constant_values=((0, 0), frame))
        return _Asked(framed, answer.numpy())
    answer = pushed.signatures["logits_ids"](token_ids=tf.constant(drawn))["logits"]
    return _Asked(drawn, answer.numpy())


def _compare(directory: str, asked: _Asked) -> float:
    """Return the largest difference of the answer from that of what was written, read back here."""
    checkpoint = read_checkpoint(directory)
    model = build_model(checkpoint.shape, seed=0)
    checkpoint.assign(model)
    ours = _logits(model, asked.ids)
    if checkpoint.shape.head == "classifier":
        ours = tf.nn.softmax(ours[:, 0])
    # Rows that no token has: the pushed model has no logits of them.
    difference = np.abs(ours.numpy() - asked.answer)[asked.answer > NO_TOKEN]
    return float(difference.max())


def _logits(model: Decoder | Encoder, ids: np.ndarray) -> tf.Tensor:
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    return model(ids, np.ones_like(ids), positions)
