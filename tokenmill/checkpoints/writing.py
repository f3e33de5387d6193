"""A model of ours as a Hugging Face checkpoint: config.json and *.safetensors.

A shape is written as the first family from whose settings the very same shape is read again, so
nothing is exported that says less or other than the model computes.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors.numpy

from tokenmill.checkpoints.checkpoint import FAMILIES
from tokenmill.checkpoints.family import Family, Source
from tokenmill.checkpoints.settings import CONFIG_NAME, Settings
from tokenmill.checkpoints.tensor_files import INDEX_NAME, WEIGHTS_NAME
from tokenmill.errors import TokenmillError
from tokenmill.files import write_bytes, write_json
from tokenmill.model.shape import ModelShape

_SHARD_BYTES = 2_000_000_000
# Beside the backbone.
_COMPARED_APART = ("head", "causal", "tie_embeddings", "classes", "sequence_length")

ReadVariable = Callable[[str], np.ndarray]
"""From a variable's path below the model, such as layer0/mlp/up/kernel, to its values."""


class Form(NamedTuple):
    """How a shape is written.

    Attributes:
        family: The family that expresses it.
        architecture: transformers' class.
        settings: Of config.json.
    """

    family: Family
    architecture: str
    settings: dict[str, Any]


def find_form(shape: ModelShape) -> Form:
    """Find the family that can express a shape.

    Raises:
        TokenmillError: None can; names what each lacks.
    """
    form, lacking = _search_form(shape)
    if form is not None:
        return form
    listed = "; ".join(f"{name} cannot express {what}" for name, what in lacking.items())
    raise TokenmillError(
        f"transformers has no class for a model of this shape: {listed}.",
        "Train a model of such a family: docs/models.md lists their [model] keys.",
    )


def why_no_form(shape: ModelShape) -> str:
    """Say what the family that is nearest to a shape cannot express; empty if one expresses all."""
    form, lacking = _search_form(shape)
    if form is not None:
        return ""
    # A family that cannot even read its own settings of the shape is further off than any other.
    near = [item for item in lacking.items() if item[1].values]
    if not near:
        return "no family has such a model"
    name, lack = min(near, key=lambda item: len(item[1].values))
    return f"{name}, the nearest family, cannot express {lack}"


class _Lack(NamedTuple):
    """What a family cannot express of a shape: values by key, or why it says nothing at all."""

    values: dict[str, Any]
    error: str = ""

    def __str__(self) -> str:
        return self.error or ", ".join(f"{name} = {value}" for name, value in self.values.items())


def _search_form(shape: ModelShape) -> tuple[Form | None, dict[str, _Lack]]:
    """Return how a shape is written, or None and what each family lacks, by its name."""
    lacking = {}
    for family in FAMILIES.values():
        classes = [name for name, head in family.heads.items() if head == shape.head]
        if not classes:
            lacking[family.name] = _Lack({}, f"head = {shape.head}")
            continue
        settings = family.write_settings(shape)
        lack = _lack(family, settings, shape)
        if not lack.values and not lack.error:
            return Form(family, classes[0], settings), {}
        lacking[family.name] = lack
    return None, lacking


def write_checkpoint(
    directory: str,
    shape: ModelShape,
    read: ReadVariable,
    dtype: str,
    more: Mapping[str, Any] | None = None,
    form: Form | None = None,
) -> list[str]:
    """Write config.json and the weights, some 2 GB a file; a file's tensors are held at a time.

    Args:
        directory: Where to; it is there.
        shape: The model's shape.
        read: Reads a variable of the model.
        dtype: What the weights are stored in: float32, float16 or bfloat16.
        more: Further settings of config.json, such as ids of control tokens.
        form: What `find_form` returned, where it is known.

    Returns:
        Names of the files.

    Raises:
        TokenmillError: transformers has no class for the shape.
    """
    form = form or find_form(shape)
    family = form.family
    sources = {p: s for p, s in family.sources(shape) if s.head in ("", shape.head)}
    settings = {
        "architectures": [form.architecture],
        "model_type": family.name,
        **form.settings,
        "dtype": dtype,
        **(more or {}),
    }
    write_json(os.path.join(directory, CONFIG_NAME), settings)
    shards = list(_shards(sources, dtype))
    names = [WEIGHTS_NAME]
    if len(shards) > 1:
        names = [
            f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
        ]
    places, total = {}, 0
    for name, paths in zip(names, shards, strict=True):
        tensors = {}
        for path in paths:
            for tensor, values in sources[path].laid_out_there(read(path)).items():
                full_name = family.full_name(tensor, sources[path].head)
                tensors[full_name] = values.astype(_numpy_dtype(dtype), copy=False)
        places.update(dict.fromkeys(tensors, name))
        total += sum(values.nbytes for values in tensors.values())
        content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
        write_bytes(os.path.join(directory, name), content)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_json(os.path.join(directory, INDEX_NAME), index)
        names = [*names, INDEX_NAME]
    return [CONFIG_NAME, *names]


def _lack(family: Family, settings: Mapping[str, Any], shape: ModelShape) -> _Lack:
    """Return what a family reads otherwise from its settings than the shape has."""
    try:
        read = family.read_shape(Settings(CONFIG_NAME, settings), shape.head)
    except (TokenmillError, ValueError) as error:
        return _Lack({}, str(error))
    ours, theirs = _compared(shape), _compared(read)
    odd = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return _Lack({name: ours.get(name) for name in odd})


def _compared(shape: ModelShape) -> dict[str, Any]:
    return {**shape.backbone(), **{name: getattr(shape, name) for name in _COMPARED_APART}}


def _shards(sources: Mapping[str, Source], dtype: str) -> Iterator[list[str]]:
    """Group the variables' paths by the file that they go to."""
    paths: list[str] = []
    size = 0
    width = _numpy_dtype(dtype).itemsize
    for path, source in sources.items():
        own = sum(math.prod(shape) for shape in source.shapes.values()) * width
        if paths and size + own > _SHARD_BYTES:
            yield paths
            paths, size = [], 0
        paths.append(path)
        size += own
    yield paths


def _numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
