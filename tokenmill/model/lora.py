"""Low-rank adaptation (LoRA, Hu et al. 2021): which matrices are adapted, and what is trained.

A frozen matrix W from m to n features computes x W + scale * (x A) B, where A is [m, rank], B is
[rank, n] and scale = alpha / rank. Only A and B are trained, and the head that classification
brings with it. Standard library only, as the ledger plans with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tokenmill.model.shape import ModelShape

LoraTarget = Literal["q", "k", "v", "o", "gate", "up", "down"]
"""A linear layer: projections to query, key and value and of attention's output; those of the MLP
from d_model (gate: of swiglu only) and back."""

LORA_TARGETS: tuple[LoraTarget, ...] = get_args(LoraTarget)
ATTENTION_TARGETS: tuple[LoraTarget, ...] = ("q", "k", "v", "o")


def linear_layers(shape: ModelShape) -> dict[LoraTarget, tuple[int, int]]:
    """Return the linear layers that each layer of a model has: features in, features out.

    Those of the MLP are none where there are experts: an adapter sees all tokens.
    """
    d, width, kv, d_ff = shape.d_model, shape.attention_width, shape.kv_dim, shape.d_ff
    layers: dict[LoraTarget, tuple[int, int]] = {
        "q": (d, width),
        "k": (d, kv),
        "v": (d, kv),
        "o": (width, d),
        "gate": (d, d_ff),
        "up": (d, d_ff),
        "down": (d_ff, d),
    }
    if shape.experts > 1:
        return {name: layers[name] for name in ATTENTION_TARGETS}
    if shape.mlp != "swiglu":
        del layers["gate"]
    return layers


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The adapters of a training.

    Attributes:
        rank: Columns of A and rows of B.
        alpha: Numerator of the scale.
        targets: The linear layers that are adapted; None for all that a shape has.
        dropout: Rate at which the adapters' inputs are dropped in training.
    """

    rank: int
    alpha: float
    targets: tuple[LoraTarget, ...] | None = None
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        """What the product of A and B is multiplied by."""
        return self.alpha / self.rank

    def adapted(self, shape: ModelShape) -> dict[LoraTarget, tuple[int, int]]:
        """Return the adapted linear layers of each layer: features in, features out.

        Raises:
            ValueError: A target is none of the shape's, or no smaller than full rank.
        """
        there = linear_layers(shape)
        targets = LORA_TARGETS if self.targets is None else self.targets
        missing = [name for name in targets if name not in there]
        if missing and self.targets is not None:
            sparse = shape.experts > 1
            why = f"model.experts = {shape.experts}" if sparse else f"model.mlp = {shape.mlp!r}"
            raise ValueError(
                f"train.lora_targets: there is no {missing[0]!r} with {why}; expected some of "
                f"{', '.join(there)}"
            )
        adapted = {name: there[name] for name in LORA_TARGETS if name in targets and name in there}
        for name, features in adapted.items():
            if self.rank > min(features):
                raise ValueError(
                    f"train.lora_rank = {self.rank}: expected at most {min(features)}, since the "
                    f"matrix {name!r} is {features[0]} x {features[1]} and has no higher rank"
                )
        return adapted

    def params_by_part(self, shape: ModelShape) -> dict[str, int]:
        """Count the adapters' parameters, rank * (m + n) each, under attention and mlp."""
        parts = {"attention": 0, "mlp": 0}
        for name, (m, n) in self.adapted(shape).items():
            part = "attention" if name in ATTENTION_TARGETS else "mlp"
            parts[part] += shape.layers * self.rank * (m + n)
        return parts

    def params(self, shape: ModelShape) -> int:
        """Count the adapters' parameters; a token multiplies by each of them once."""
        return sum(self.params_by_part(shape).values())


def trains_head(shape: ModelShape) -> bool:
    """Return whether LoRA trains the head: a classifier's, which is new to the base model."""
    return shape.head == "classifier"


def head_params(shape: ModelShape) -> int:
    """Count the parameters of the head that are trained beside adapters."""
    return shape.params_by_part()["head"] if trains_head(shape) else 0


def trained_params_by_part(shape: ModelShape, lora: LoraConfig | None) -> Mapping[str, int]:
    """Count the parameters that training changes, by part.

    Without LoRA they are all of `ModelShape.params_by_part`; with it attention and mlp are their
    adapters, and head is a classifier's.
    """
    if lora is None:
        return shape.params_by_part()
    return {**lora.params_by_part(shape), "head": head_params(shape)}
