"""From a budget back to a model and its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from tokenmill.cost.checks import check_positive
from tokenmill.cost.flops import TRAINING_FLOPS_PER_PARAM
from tokenmill.cost.plan.hardware import Hardware
from tokenmill.cost.plan.planned_model import PlannedModel
from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.cost.scaling import (
    BESIROGLU_2024,
    HOFFMANN_2022,
    expected_loss,
    optimal_params_and_tokens,
)
from tokenmill.cost.utilization import FlopsBasis, utilization_range
from tokenmill.model.shape import ModelShape
from tokenmill.model.typical_shape import typical_shape

_ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class Affordable:
    """A model and its tokens that a budget buys.

    Attributes:
        flops: Training FLOPs.
        params: Parameters; of a mixture of experts those that a token passes.
        tokens: Tokens.
        mfu: The utilization that is assumed.
        loss_besiroglu: Expected loss by the corrected fit, nats per token.
        loss_hoffmann: Expected loss by the fit of 2022.
        basis: What decided model and tokens, in words.
    """

    flops: float
    params: float
    tokens: float
    mfu: float
    loss_besiroglu: float
    loss_hoffmann: float
    basis: str

    @property
    def tokens_per_param(self) -> float:
        """Tokens over parameters."""
        return self.tokens / self.params

    @property
    def shape(self) -> ModelShape:
        """A typical decoder of about this size."""
        return typical_shape(self.params)


def affordable_flops(budget_usd: float, hardware: Hardware, mfu: float) -> float:
    """Return the training FLOPs that a compute budget buys.

    Args:
        budget_usd: USD for bare compute.
        hardware: The chips and their price.
        mfu: Model FLOPs utilization, a fraction.

    Returns:
        FLOPs; the inverse of ``pricing.estimate_cost``.

    Raises:
        ValueError: If budget or price is missing or not positive.
    """
    price = hardware.price_usd_per_chip_hour or 0.0
    check_positive("budget_usd", budget_usd, "USD")
    check_positive("price_usd_per_chip_hour", price, "USD per chip-hour")
    seconds = budget_usd / price * SECONDS_PER_HOUR
    return seconds * hardware.peak_flops_per_second * mfu * hardware.goodput


def _bought(flops: float, params: float, tokens: float, mfu: float, basis: str) -> Affordable:
    return Affordable(
        flops=flops,
        params=params,
        tokens=tokens,
        mfu=mfu,
        loss_besiroglu=expected_loss(params, tokens, BESIROGLU_2024),
        loss_hoffmann=expected_loss(params, tokens, HOFFMANN_2022),
        basis=basis,
    )


def _mfu(hardware: Hardware, params: float, basis: FlopsBasis, sparse: bool = False) -> float:
    """Return the given MFU, or the median of published runs of that size."""
    if hardware.mfu is not None:
        return hardware.mfu
    return utilization_range(hardware.chip, params, basis, sparse=sparse).median


def best_for_budget(
    budget_usd: float, hardware: Hardware, tokens: float | None = None
) -> Affordable:
    """Find the model of least expected loss for a budget, or the largest for given tokens.

    Without an MFU the median of published runs is taken at the size that results, which in turn
    depends on it: a fixed point, found by repetition.

    Args:
        budget_usd: USD for bare compute.
        hardware: The chips and their price.
        tokens: Tokens to train on, if they are fixed.

    Returns:
        Model and tokens, by the rule C = 6·N·D.
    """
    params = 1e9
    flops = mfu = 0.0
    for _ in range(_ROUNDS):
        mfu = _mfu(hardware, params, "6n")
        flops = affordable_flops(budget_usd, hardware, mfu)
        before = params
        if tokens is None:
            params, _ = optimal_params_and_tokens(flops)
        else:
            params = flops / (TRAINING_FLOPS_PER_PARAM * tokens)
        if params == before:
            break
    if tokens is None:
        best = flops / (TRAINING_FLOPS_PER_PARAM * params)
        return _bought(flops, params, best, mfu, "least expected loss")
    return _bought(flops, params, tokens, mfu, "model for these tokens")


def tokens_for_budget(
    budget_usd: float, hardware: Hardware, model: PlannedModel, flops_basis: FlopsBasis | None
) -> Affordable:
    """Find how many tokens a budget buys for a given model.

    Args:
        budget_usd: USD for bare compute.
        hardware: The chips and their price.
        model: The model.
        flops_basis: Which FLOPs hours are made of; None means exact for a known shape, else 6·N.

    Returns:
        Model and tokens.
    """
    basis = model.basis(flops_basis)
    mfu = _mfu(hardware, model.params_active, basis, model.is_sparse)
    flops = affordable_flops(budget_usd, hardware, mfu)
    tokens = flops / model.flops_per_token(basis)
    what = "tokens for these active parameters" if model.is_sparse else "tokens for this model"
    return _bought(flops, model.params_active, tokens, mfu, what)
