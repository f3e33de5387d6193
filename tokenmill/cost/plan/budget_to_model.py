"""From a budget back to a model and its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from data.catalog.chips import Chip
from tokenmill.cost.checks import check_positive
from tokenmill.cost.flops import TRAINING_FLOPS_PER_PARAM
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
    """What a budget buys.

    Attributes:
        flops: Training FLOPs.
        params: Parameters.
        tokens: Tokens.
        mfu: The utilization that was reckoned with.
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


def affordable_flops(
    *,
    budget_usd: float,
    price_usd_per_chip_hour: float,
    peak_flops_per_second: float,
    mfu: float,
    goodput: float = 1.0,
) -> float:
    """Training FLOPs that a compute budget buys.

    Args:
        budget_usd: USD for bare compute.
        price_usd_per_chip_hour: USD for one chip for one hour.
        peak_flops_per_second: Dense peak of one chip.
        mfu: Model FLOPs utilization, a fraction.
        goodput: Share of the wall time that trains.

    Returns:
        FLOPs; the inverse of ``money.estimate_cost``.
    """
    check_positive("budget_usd", budget_usd, "USD")
    check_positive("price_usd_per_chip_hour", price_usd_per_chip_hour, "USD per chip-hour")
    hours = budget_usd / price_usd_per_chip_hour
    return hours * SECONDS_PER_HOUR * peak_flops_per_second * mfu * goodput


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


def best_for_budget(
    *,
    budget_usd: float,
    price_usd_per_chip_hour: float,
    peak_flops_per_second: float,
    chip: Chip,
    mfu: float | None,
    goodput: float = 1.0,
    tokens: float | None = None,
) -> Affordable:
    """The model of least expected loss for a budget, or the largest for given tokens.

    Without an MFU the median of published runs is taken at the size that results, which in turn
    depends on it: a fixed point, found by repetition.

    Args:
        budget_usd: USD for bare compute.
        price_usd_per_chip_hour: USD for one chip for one hour.
        peak_flops_per_second: Dense peak of one chip.
        chip: The chip.
        mfu: Model FLOPs utilization; None means that of published runs.
        goodput: Share of the wall time that trains.
        tokens: Tokens to train on, if they are fixed.

    Returns:
        Model and tokens, by the rule C = 6·N·D.
    """
    params = 1e9
    used = mfu
    flops = 0.0
    for _ in range(_ROUNDS):
        used = utilization_range(chip, params, "6n").median if mfu is None else mfu
        flops = affordable_flops(
            budget_usd=budget_usd,
            price_usd_per_chip_hour=price_usd_per_chip_hour,
            peak_flops_per_second=peak_flops_per_second,
            mfu=used,
            goodput=goodput,
        )
        before = params
        if tokens is None:
            params, _ = optimal_params_and_tokens(flops)
        else:
            params = flops / (TRAINING_FLOPS_PER_PARAM * tokens)
        if params == before:
            break
    assert used is not None
    if tokens is None:
        best = flops / (TRAINING_FLOPS_PER_PARAM * params)
        return _bought(flops, params, best, used, "least expected loss")
    return _bought(flops, params, tokens, used, "model for these tokens")


def tokens_for_budget(
    *,
    budget_usd: float,
    price_usd_per_chip_hour: float,
    peak_flops_per_second: float,
    chip: Chip,
    mfu: float | None,
    goodput: float = 1.0,
    params: float,
    flops_per_token: float,
    flops_basis: FlopsBasis,
) -> Affordable:
    """How many tokens a budget buys for a given model.

    Args:
        budget_usd: USD for bare compute.
        price_usd_per_chip_hour: USD for one chip for one hour.
        peak_flops_per_second: Dense peak of one chip.
        chip: The chip.
        mfu: Model FLOPs utilization; None means that of published runs.
        goodput: Share of the wall time that trains.
        params: N, parameters that each token passes.
        flops_per_token: Training FLOPs per token of the model.
        flops_basis: How these were counted.

    Returns:
        Model and tokens.
    """
    used = utilization_range(chip, params, flops_basis).median if mfu is None else mfu
    flops = affordable_flops(
        budget_usd=budget_usd,
        price_usd_per_chip_hour=price_usd_per_chip_hour,
        peak_flops_per_second=peak_flops_per_second,
        mfu=used,
        goodput=goodput,
    )
    return _bought(flops, params, flops / flops_per_token, used, "tokens for this model")
