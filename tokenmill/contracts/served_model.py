"""model.json beside a SavedModel: what a server has to know of it before it loads it."""

from __future__ import annotations

import os
from typing import Any, Literal

from tokenmill.contracts.base import Document, Part, key, read_document, write_document
from tokenmill.model.shape import ModelShape

SERVED_MODEL_NAME = "model.json"

Quantization = Literal["float32", "float16", "bfloat16", "int8"]
"""How a SavedModel stores its weights."""


GENERATE_OPTIONS: dict[str, tuple[Any, type]] = {
    "max_new_tokens": (16, int),
    "temperature": (0.0, float),
    "top_k": (0, int),
    "top_p": (1.0, float),
    "seed": (0, int),
    "truncate_prompt": (False, bool),
}
"""What a request for `generate` or `generate_ids` may leave out: the default, and the type (int32,
float32 or bool). TensorFlow Serving fills it in from the SignatureDef, for one text."""


class Pooling(Part):
    """How the vectors of a text's tokens become one, as a sentence-transformers model says it."""

    mode: Literal["mean", "cls"] = key(
        "mean of all tokens, [CLS] and [SEP] included; or cls, the first token's."
    )
    normalized: bool = key("Whether the vector is divided by its length.")
    max_tokens: int = key(
        "Tokens of a text that are read, [CLS] and [SEP] included, or as many as the context holds "
        "if that is less.",
        gt=0,
    )


class ServedModel(Document):
    """model.json: what was exported."""

    model_shape: ModelShape = key("Sizes and options of the model.")
    parameters: int = key("Trainable parameters.", gt=0)
    quantization: Quantization = key("How the weights are stored.")
    label_names: list[str] | None = key("The classes of a classifier, in order.", default=None)
    pooling: Pooling | None = key(
        "What embed computes, from model.base_model; null: the mean over all rows of a text.",
        default=None,
    )


def read_served_model(saved_model: str) -> ServedModel:
    """Read model.json of a SavedModel's directory."""
    return read_document(os.path.join(saved_model, "assets.extra", SERVED_MODEL_NAME), ServedModel)


def write_served_model(saved_model: str, described: ServedModel) -> None:
    """Write model.json into a SavedModel's directory."""
    write_document(os.path.join(saved_model, "assets.extra", SERVED_MODEL_NAME), described)
