"""Adapters of LoRA as PEFT keeps them: adapter_config.json and adapter_model.safetensors.

Modules have the names that transformers gives them where the shape is one of Llama's (Mistral's,
Qwen's), GPT-2's or BERT's, so that PEFT loads them beside the same base model. For another shape,
of which transformers has no class, they have ours, such as layer0.attention.q.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
import tensorflow as tf
from keras import ops

from tokenmill.checkpoints.bert import BERT
from tokenmill.checkpoints.family import Family
from tokenmill.checkpoints.gpt2 import GPT2
from tokenmill.checkpoints.llama import LLAMA, QWEN2, QWEN3
from tokenmill.files import write_bytes, write_json
from tokenmill.model.adapter import Adapter
from tokenmill.model.backbone import Backbone
from tokenmill.model.lora import ATTENTION_TARGETS, linear_layers, trains_head
from tokenmill.model.shape import ModelShape

ADAPTER_DIRECTORY = "adapter"
"""Beside a SavedModel's other files in assets.extra."""

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # what PEFT wraps a model in
_VARIABLES = {"o": "attention/output_projection", **{x: f"mlp/{x}" for x in ("gate", "up", "down")}}
_FUSED = ("q", "k", "v")
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
        "fan_in_fan_out": family is GPT2,  # Conv1D's matrices are [in, out]
        "lora_dropout": 0.0,
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
    usual_heads = shape.kv_dim == shape.d_model == shape.attention_width
    if shape.positions == "rope":
        is_llama = shape.causal and shape.norm_position == "pre"
        if not is_llama or shape.norm != "rms" or shape.mlp != "swiglu":
            return None
        if shape.qk_norm:
            return None if shape.has_qkv_bias or shape.use_bias else QWEN3
        if shape.has_qkv_bias != shape.use_bias:
            return QWEN2 if shape.has_qkv_bias else None
        return LLAMA
    with_biases = shape.use_bias and shape.has_qkv_bias and not shape.qk_norm
    if shape.norm != "layer" or shape.mlp == "swiglu" or not usual_heads or not with_biases:
        return None
    if shape.causal:
        return GPT2 if shape.norm_position == "pre" and not shape.type_vocab_size else None
    return BERT if shape.norm_position == "post" and shape.type_vocab_size else None


def _modules(shape: ModelShape, family: Family | None, layer: int) -> dict[str, str]:
    """Return the module of each linear layer of a layer by target; of fused ones it is the same."""
    if family is None:
        parts = {t: "attention" if t in ATTENTION_TARGETS else "mlp" for t in linear_layers(shape)}
        return {target: f"layer{layer}.{part}.{target}" for target, part in parts.items()}
    sources = dict(family.sources(shape))

    def names(variable: str) -> list[str]:
        found = sources[f"layer{layer}/{variable}/kernel"].shapes
        return [family.prefix + name.removesuffix(".weight") for name in found]

    fused = names("attention/qkv")
    modules = dict(zip(_FUSED, fused if len(fused) == len(_FUSED) else 3 * fused, strict=True))
    there = linear_layers(shape)
    return modules | {t: names(path)[0] for t, path in _VARIABLES.items() if t in there}


def _pairs(model: Backbone, family: Family | None) -> dict[str, _Pair]:
    """Return the matrices by module, in the order of the layers."""
    shape, pairs = model.shape_config, {}
    for i, block in enumerate(model.blocks):
        modules = _modules(shape, family, i)
        adapters: Mapping[Any, Adapter] = {**block.attention.adapters, **block.mlp.adapters}
        of_module: dict[str, dict[str, _Pair]] = {}
        for target, adapter in adapters.items():
            a, b = (ops.convert_to_numpy(x) for x in (adapter.a_MR, adapter.b_RO))
            pair = _Pair(a.T.astype(np.float32), b.T.astype(np.float32))
            of_module.setdefault(modules[target], {})[target] = pair
        for module, parts in of_module.items():
            whole = [t for t in modules if modules[t] == module]
            pairs[module] = _join(shape, whole, parts)
    return pairs


def _join(shape: ModelShape, whole: list[str], parts: Mapping[str, _Pair]) -> _Pair:
    """Return one pair for a module that is several linear layers beside each other.

    Its rank is that of all together: each part of B is 0 but for the outputs of its own layer.
    """
    if len(whole) == 1:
        return parts[whole[0]]
    a_RM = np.concatenate([pair.a_RM for pair in parts.values()])
    outputs = {target: linear_layers(shape)[target][1] for target in whole}  # type: ignore[index]
    b_OR = np.zeros((sum(outputs.values()), len(a_RM)), np.float32)
    row = column = 0
    for target, count in outputs.items():
        if target in parts:
            b = parts[target].b_OR
            b_OR[row : row + count, column : column + b.shape[1]] = b
            column += b.shape[1]
        row += count
    return _Pair(a_RM, b_OR)


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
    tensors = {}
    for path, source in family.sources(shape):
        if path in head:
            (name,) = source.shapes
            inside = name.startswith("pooler")  # the classifier is beside the backbone
            value = head[path].astype(np.float32)
            tensors[f"{family.prefix if inside else ''}{name}"] = (
                value.T if source.transposed else value
            )
    return tensors
