"""The model of a plan: a known shape, or a typical one for a number of parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tokenmill.cost.flops import (
    Recompute,
    TokenFlops,
    flops_per_token,
    flops_per_token_6n,
    flops_per_token_palm,
)
from tokenmill.cost.memory import MemoryEstimate, Precision, estimate_memory
from tokenmill.cost.sharding import DENSE, Experts
from tokenmill.cost.utilization import FlopsBasis
from tokenmill.model.lora import LoraConfig, head_params, trained_params_by_part
from tokenmill.model.shape import ModelShape
from tokenmill.model.typical_shape import typical_shape


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """A model to be trained.

    Attributes:
        shape: The shape; where only the number of parameters is known, a typical one.
        params_total: All parameters.
        params_active: Parameters that one token passes.
        shape_assumed: Whether the shape is a guess, so that the exact count is an approximation.
        lora: Adapters that are trained beside frozen weights; None where all is trained.
    """

    shape: ModelShape
    params_total: float
    params_active: float
    shape_assumed: bool = False
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        if self.lora is None:
            return
        self.lora.adapted(self.shape)  # raises for a target that it does not have
        if value := getattr(self.shape, "encoder_layers", 0):
            raise ValueError(
                f"train.lora_rank = {self.lora.rank}: adapters are not counted for "
                f"model.encoder_layers = {value}; leave one of them out"
            )

    @classmethod
    def of_shape(cls, shape: ModelShape, lora: LoraConfig | None = None) -> PlannedModel:
        """Return the model of a known shape, trained whole or by adapters."""
        return cls(
            shape=shape,
            params_total=shape.params_total,
            params_active=shape.params_active,
            lora=lora,
        )

    @classmethod
    def of_params(
        cls,
        params: float,
        active: float | None = None,
        sequence_length: int | None = None,
        lora: LoraConfig | None = None,
    ) -> PlannedModel:
        """Return a model of which only the number of parameters is known.

        Args:
            params: All parameters.
            active: Parameters that one token passes, if fewer.
            sequence_length: Tokens in a sequence, if known.
            lora: Adapters that are trained; None where all is trained.
        """
        active = params if active is None else active
        guess = typical_shape(active)
        if sequence_length is not None:
            guess = replace(guess, sequence_length=sequence_length)
        return cls(
            shape=guess, params_total=params, params_active=active, shape_assumed=True, lora=lora
        )

    @property
    def is_sparse(self) -> bool:
        """Whether a token passes a part of the parameters only."""
        return self.params_active < self.params_total

    @property
    def experts(self) -> Experts:
        """What can be spread of the layers' experts.

        Nothing where only counts are known (a guess at the shape is dense) or adapters are trained.
        """
        return DENSE if self.shape_assumed else Experts.of(self.shape, self.lora)

    @property
    def params_trained(self) -> float:
        """Parameters that training changes."""
        if self.lora is None:
            return self.params_total
        return sum(trained_params_by_part(self.shape, self.lora).values())

    @property
    def _in_rule(self) -> tuple[float, float]:
        """N of 6·N, and the frozen parameters among them."""
        if self.lora is None:
            return self.params_active, 0.0
        adapters = self.lora.params(self.shape)
        return self.params_active + adapters, self.params_active - head_params(self.shape)

    @property
    def flops_per_token_6n(self) -> float:
        """6·N, N being all parameters that a token passes; 4·N of frozen ones."""
        return flops_per_token_6n(*self._in_rule)

    @property
    def flops_per_token_exact(self) -> float:
        """All matrix products; for an assumed shape 6·N + 12·L·T·d (PaLM, appendix B)."""
        if not self.shape_assumed:
            return flops_per_token(self.shape, lora=self.lora).training
        params, frozen = self._in_rule
        return flops_per_token_palm(
            params=params,
            frozen=frozen,
            layers=self.shape.layers,
            heads=self.shape.heads,
            head_dim=self.shape.head_width,
            sequence_length=self.shape.sequence_length,
        )

    def basis(self, chosen: FlopsBasis | None = None) -> FlopsBasis:
        """Return which FLOPs hours are made of: unless chosen, exact ones for a known shape."""
        return chosen or ("6n" if self.shape_assumed else "exact")

    def flops_per_token(self, basis: FlopsBasis) -> float:
        """Return the training FLOPs per token, counted by a basis."""
        return self.flops_per_token_6n if basis == "6n" else self.flops_per_token_exact

    def hardware_share(self, recompute: Recompute) -> float:
        """Return hardware FLOPs (recomputation too) over model FLOPs, by the shape's own count."""
        count: TokenFlops = flops_per_token(self.shape, recompute=recompute, lora=self.lora)
        return count.training_hardware / count.training

    def memory(
        self,
        sequences: int,
        precision: Precision,
        recompute: Recompute,
        dropout: bool,
        parallelism: int = 1,
        on_cpu: bool = False,
    ) -> MemoryEstimate:
        """Count the bytes on one chip in data parallelism, weights by the true parameter count.

        Arguments as for `estimate_memory`.
        """
        estimate = estimate_memory(
            self.shape,
            batch_per_device=sequences,
            precision=precision,
            recompute=recompute,
            dropout=dropout,
            parallelism=parallelism,
            on_cpu=on_cpu,
            lora=self.lora,
        )
        if not self.shape_assumed:
            return estimate
        factor = self.params_total / self.shape.params_total
        if self.lora is not None:  # what is trained is of the shape
            return replace(
                estimate,
                frozen_weights=int(estimate.frozen_weights * factor),
                compute_copy=int(estimate.compute_copy * factor),
            )
        return replace(
            estimate,
            weights=int(estimate.weights * factor),
            compute_copy=int(estimate.compute_copy * factor),
            gradients=int(estimate.gradients * factor),
            optimizer=int(estimate.optimizer * factor),
        )
