"""The Transformers that tokenmill trains: layers, backbone, decoder, encoder, losses.

`build_model` and `loss_sums` are all that a training loop needs: every task is a matter of the
shape's head and of which targets of a batch count.
"""

from typing import Any

import numpy as np

from tokenmill.model.decoder import Decoder
from tokenmill.model.encoder import Encoder
from tokenmill.model.lora import LoraConfig
from tokenmill.model.losses import LossSums, dropout_seed, loss_sums
from tokenmill.model.shape import ModelShape

__all__ = [
    "Decoder",
    "Encoder",
    "LossSums",
    "build_model",
    "dropout_seed",
    "loss_sums",
    "merge_adapters",
]


def build_model(
    shape: ModelShape,
    seed: int,
    precision: str = "float32",
    dropout: float = 0.0,
    rematerialize: bool = False,
    lora: LoraConfig | None = None,
    spread: Any = None,
) -> Decoder | Encoder:
    """Build a decoder if the shape is causal, else an encoder with the shape's head.

    Args:
        shape: Sizes and options.
        seed: Seed of the initial weights.
        precision: A Keras dtype policy: float32, bfloat16, mixed_bfloat16 or mixed_float16.
        dropout: Dropout rate; used in the steps that give a dropout seed.
        rematerialize: Keep only each layer's input for the backward pass.
        lora: Adapters to train beside frozen weights; None trains all weights.
        spread: Experts of which a part is here, as for `Builder`; None where all are.
    """
    kind = Decoder if shape.causal else Encoder
    return kind(shape, seed, precision, dropout, rematerialize, lora, spread)


def merge_adapters(model: Decoder | Encoder) -> Decoder | Encoder:
    """Return a model without adapters that computes the same: each adapter in its matrix.

    A model without adapters is returned as it is. The new one stores float32, whatever the
    precision of the frozen weights was: rounding a sum to 16 bits would lose most of the adapter.

    Args:
        model: Trained with LoRA, or not.
    """
    lora, shape = model.builder.lora, model.shape_config
    if lora is None:
        return model
    merged = build_model(shape, 0, model.builder.dtype.name)
    values = {variable.path: variable for variable in model.base_variables}
    for variable in merged.variables:
        variable.assign(values[variable.path])
    width, kv = shape.attention_width, shape.kv_dim
    first_column = {"q": 0, "k": width, "v": width + kv}  # of the fused matrix
    for block, adapted in zip(merged.blocks, model.blocks, strict=True):
        qkv = np.array(block.attention.qkv.kernel)
        for target, adapter in adapted.attention.adapters.items():
            if target in first_column:
                start, added = first_column[target], adapter.matrix()
                qkv[:, start : start + added.shape[1]] += added
        block.attention.qkv.kernel.assign(qkv)
        matrices = {
            "o": block.attention.output_projection,
            # Experts have no such layers, and no adapters.
            **{name: getattr(block.mlp, name, None) for name in ("gate", "up", "down")},
        }
        for target, adapter in {**adapted.attention.adapters, **adapted.mlp.adapters}.items():
            if target in matrices:
                matrices[target].kernel.assign_add(adapter.matrix())
    return merged
