"""Adapters of LoRA as PEFT keeps them: adapter_config.json and adapter_model.safetensors.

Modules have the names that transformers gives them where it has a class for the shape, so that PEFT
loads them beside the same base model. For another shape they have ours, such as layer0.attention.q.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
import tensorflow as tf
from keras import ops

from tokenmill.checkpoints.family import Family, Source
from tokenmill.checkpoints.writing import find_form
from tokenmill.errors import TokenmillError
from tokenmill.files import write_bytes, write_json
from tokenmill.model.adapter import Adapter
from tokenmill.model.backbone import Backbone
from tokenmill.model.lora import LoraTarget, linear_layers, trains_head
from tokenmill.model.shape import ModelShape

ADAPTER_DIRECTORY = "adapter"
"""Beside a SavedModel's other files in assets.extra."""

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # what PEFT wraps a model in
_PATHS: dict[LoraTarget, str] = {
    "q": "attention/qkv",
    "k": "attention/qkv",
    "v": "attention/qkv",
    "o": "attention/output_projection",
    "gate": "mlp/gate",
    "up": "mlp/up",
    "down": "mlp/down",
}
_TASKS = {"lm": "CAUSAL_LM", "mlm": None, "classifier": "SEQ_CLS"}


class _Pair(NamedTuple):
    """A module's lora_A.weight [rank, M] and lora_B.weight [O, rank], as torch keeps them."""

    a_RM: np.ndarray
    b_OR: np.ndarray


def write_adapter(model: Backbone, directory: str, base_model: str | None) -> None:
    """Write a model's adapters, and a classifier's head, which is trained with them.

    Args:
        model: Built with LoRA.
        directory: Where both files go; it is made.
        base_model: Where the frozen weights are from, for the reader.
    """
    lora, shape = model.builder.lora, model.shape_config
    assert lora is not None, "a model without adapters"
    family = family_of(shape)
    pairs = _pairs(model, family)
    head = _head_tensors(model, family)
    tensors = {}
    for module, pair in pairs.items():
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(pair.a_RM)
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(pair.b_OR)
    tensors |= {_PREFIX + name: np.ascontiguousarray(value) for name, value in head.items()}
    suffixes = _suffixes(shape, family, set(pairs))
    # Adapters of one fused matrix are one of a multiple of the rank there.
    ranks = {s: len(pairs[module].a_RM) for s, module in suffixes.items()}
    other = {suffix: rank for suffix, rank in ranks.items() if rank != lora.rank}
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": _TASKS[shape.head],
        "base_model_name_or_path": base_model,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "rank_pattern": other,
        "alpha_pattern": {suffix: lora.scale * rank for suffix, rank in other.items()},
        "target_modules": list(suffixes),
        "modules_to_save": ["classifier", "pooler"] if head else None,
        "fan_in_fan_out": family is not None and family.name == "gpt2",  # Conv1D is [in, out]
        "lora_dropout": lora.dropout,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    tf.io.gfile.makedirs(directory)
    content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    write_bytes(os.path.join(directory, WEIGHTS_NAME), content)
    write_json(os.path.join(directory, CONFIG_NAME), config)


def family_of(shape: ModelShape) -> Family | None:
    """Return the family of open models whose modules a shape has; None if there is none."""
    try:
        return find_form(shape).family
    except TokenmillError:
        return None


def _sources(shape: ModelShape, family: Family | None, layer: int) -> dict[str, Source | None]:
    """Return what the kernels of a layer's linear layers are in the family, by our path."""
    found = {} if family is None else dict(family.sources(shape))
    paths = dict.fromkeys(_PATHS[target] for target in linear_layers(shape))
    return {path: found.get(f"layer{layer}/{path}/kernel") for path in paths}


def _modules(shape: ModelShape, family: Family | None, layer: int) -> dict[LoraTarget, str]:
    """Return the module of each linear layer of a layer; of those that are one matrix, the same."""
    modules: dict[LoraTarget, str] = {}
    for path, source in _sources(shape, family, layer).items():
        targets = [target for target in linear_layers(shape) if _PATHS[target] == path]
        names = [f"layer{layer}.{path.split('/')[0]}.{target}" for target in targets]
        if family is not None and source is not None:
            names = [family.full_name(name, "") for name in source.shapes]
            names = [name.removesuffix(".weight") for name in names]
            names = names if len(names) == len(targets) else names * len(targets)
        modules |= dict(zip(targets, names, strict=True))
    return modules


def _pairs(model: Backbone, family: Family | None) -> dict[str, _Pair]:
    """Return the matrices by module, in the order of the layers."""
    shape, pairs = model.shape_config, {}
    for i, block in enumerate(model.blocks):
        modules, sources = _modules(shape, family, i), _sources(shape, family, i)
        adapters: Mapping[LoraTarget, Adapter] = {**block.attention.adapters, **block.mlp.adapters}
        for module in dict.fromkeys(modules[target] for target in adapters):
            whole = [target for target in modules if modules[target] == module]
            a_MR, b_RO = _joined(shape, whole, adapters)
            source = sources[_PATHS[whole[0]]]
            if len(whole) > 1 and source is not None:  # its outputs may stand in another order
                (b_there,) = source.laid_out_there(b_RO).values()
                b_RO = b_there.T if source.transposed else b_there
            pairs[module] = _Pair(a_MR.T, b_RO.T)
    return pairs


def _joined(
    shape: ModelShape, whole: Sequence[LoraTarget], adapters: Mapping[LoraTarget, Adapter]
) -> tuple[np.ndarray, np.ndarray]:
    """Return A [M, R] and B [R, O] of linear layers beside each other as of one.

    R is the sum of the ranks: each part of B is 0 but for the outputs of its own layer.
    """
    pairs = {
        target: [np.asarray(ops.convert_to_numpy(x), np.float32) for x in (a.a_MR, a.b_RO)]
        for target, a in adapters.items()
        if target in whole
    }
    a_MR = np.hstack([a for a, _ in pairs.values()])
    widths = [linear_layers(shape)[target][1] for target in whole]
    b_RO = np.zeros((a_MR.shape[1], sum(widths)), np.float32)
    row = column = 0
    for target, width in zip(whole, widths, strict=True):
        if target in pairs:
            b = pairs[target][1]
            b_RO[row : row + len(b), column : column + width] = b
            row += len(b)
        column += width
    return a_MR, b_RO


def _suffixes(shape: ModelShape, family: Family | None, adapted: set[str]) -> dict[str, str]:
    """Return what tells PEFT which modules are adapted, each with one of these modules.

    The name below a layer, or the whole name where that would hit a module without an adapter too.
    """
    layers = [_modules(shape, family, i) for i in range(shape.layers)]
    all_modules = {module for modules in layers for module in modules.values()}
    suffixes: dict[str, str] = {}
    for target, first in layers[0].items():
        if first not in adapted:
            continue
        suffix = re.sub(r"^\D*0\.", "", first)
        hit = {m for m in all_modules if m.endswith(f".{suffix}")}
        modules = [modules[target] for modules in layers]
        suffixes |= {suffix: first} if hit <= adapted else {m: m for m in modules}
    return suffixes


def _head_tensors(model: Backbone, family: Family | None) -> dict[str, np.ndarray]:
    """Return the tensors of a classifier's head by name; none without one."""
    shape = model.shape_config
    if not trains_head(shape):
        return {}
    values = {v.path.split("/", 1)[1]: ops.convert_to_numpy(v) for v in model.base_variables}
    head = {p: v for p, v in values.items() if p.startswith(("pooler/", "classifier/"))}
    if family is None:
        return {path.replace("/", "."): value for path, value in head.items()}
    return {
        family.full_name(name, source.head): value.astype(np.float32)
        for path, source in family.sources(shape)
        if path in head
        for name, value in source.laid_out_there(head[path]).items()
    }
