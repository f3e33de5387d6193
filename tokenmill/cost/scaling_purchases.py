"""What money buys by a fit: the best model and tokens for a sum, and the next purchase that pays.

A training of N parameters on D tokens costs `usd_per_flop` times 6 N D times `overhead`, what the
exact count of products has over that rule. Tokens beyond the text that there is are repetitions,
discounted as Muennighoff et al. 2023 have it (tokenmill/cost/scaling.py). Intervals come from the
fit's replicates: each one is a world, and a gain is a difference within one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar

from tokenmill.cost.checks import check_positive
from tokenmill.cost.flops import TRAINING_FLOPS_PER_PARAM
from tokenmill.cost.scaling import repetition_discounted_tokens
from tokenmill.cost.scaling_fit import LEVEL, Estimate, Floats, ScalingFit, losses_of

PurchaseName = Literal["larger model", "more epochs", "more text"]

MOST_EPOCHS = 40.0
"""Passes over one text that a best plan may have; Muennighoff et al. measured up to 44."""
# How far the search goes from the size whose tokens equal 20 a parameter, as a factor.
_REACH = 1e4


@dataclass(frozen=True, kw_only=True)
class Text:
    """The text that a training reads.

    Attributes:
        unique_tokens: Loss tokens of one pass.
        bytes_per_token: Bytes of text a token.
        usd_per_byte: Preparing it, USD a byte (ingest to rows, both splits).
    """

    unique_tokens: float
    bytes_per_token: float
    usd_per_byte: float


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What training costs.

    Attributes:
        usd_per_flop: USD, at the run's price and the speed of its chips.
        overhead: FLOPs of a training over 6 N D.
    """

    usd_per_flop: float
    overhead: float

    def usd(self, params: float, tokens: float) -> float:
        """Return what a training costs; tokens count as often as they are read."""
        flops = TRAINING_FLOPS_PER_PARAM * params * tokens * self.overhead
        return self.usd_per_flop * flops

    def tokens(self, params: float, usd: float) -> float:
        """Return how many tokens a model of this size can read for a sum."""
        return usd / self.usd(params, 1.0)


@dataclass(frozen=True, kw_only=True)
class BestPlan:
    """The least loss for a sum of money.

    Attributes:
        usd: The sum.
        params: N, parameters in matrix products.
        tokens: Tokens that are read.
        epochs: Passes over the text that there is.
        loss: What is expected of it.
        params_low: N of the smallest of the replicates' best plans (`LEVEL` of them lie between).
        params_high: N of the largest.
    """

    usd: float
    params: float
    tokens: float
    epochs: float
    loss: Estimate
    params_low: float
    params_high: float


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """One thing to double.

    Attributes:
        name: What.
        params: N with it.
        tokens: Tokens read with it.
        unique_tokens: Of the text with it.
        usd: What it adds to the bill: compute, and preparing more text, but not its price.
        gain: By how much the loss falls.
        gain_per_usd: The same for a dollar.
        wins: Share of the replicates in which no other gains more for a dollar.
    """

    name: PurchaseName
    params: float
    tokens: float
    unique_tokens: float
    usd: float
    gain: Estimate
    gain_per_usd: float
    wins: float


def best_plan(fit: ScalingFit, usd: float, compute: Compute, text: Text) -> BestPlan:
    """Return the model and tokens that a sum of money trains best on this text.

    Args:
        fit: Of this text.
        usd: Of compute.
        compute: What training costs.
        text: What there is.
    """
    check_positive("usd", usd, "USD")
    params = _best_params(fit.best_constants, usd, compute, text)
    sizes = [_best_params(each, usd, compute, text) for each in fit.constants]
    low, high = np.quantile(sizes, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    tokens = compute.tokens(params, usd)
    epochs = tokens / text.unique_tokens
    return BestPlan(
        usd=usd,
        params=params,
        tokens=tokens,
        epochs=epochs,
        loss=fit.predict(params, _worth(tokens, text.unique_tokens)),
        params_low=float(low),
        params_high=float(high),
    )


def purchases(
    fit: ScalingFit, params: float, tokens: float, compute: Compute, text: Text
) -> list[Purchase]:
    """Compare doubling the model, the epochs and the text of a plan, the best for its money first.

    Args:
        fit: Of this text.
        params: N of the plan.
        tokens: That it reads, repetitions counted.
        compute: What training costs.
        text: What there is; more text is of the same kind, and read as often.
    """
    now = fit.losses(params, _worth(tokens, text.unique_tokens))
    best_now = fit.predict(params, _worth(tokens, text.unique_tokens)).value
    base = compute.usd(params, tokens)
    options: dict[PurchaseName, tuple[float, float, float, float]] = {
        "larger model": (2 * params, tokens, text.unique_tokens, 0.0),
        "more epochs": (params, 2 * tokens, text.unique_tokens, 0.0),
        "more text": (
            params,
            2 * tokens,
            2 * text.unique_tokens,
            text.unique_tokens * text.bytes_per_token * text.usd_per_byte,
        ),
    }
    made: list[tuple[PurchaseName, tuple[float, float, float], float, Floats, float]] = []
    for name, (new_params, new_tokens, unique, preparing) in options.items():
        usd = compute.usd(new_params, new_tokens) - base + preparing
        worth = _worth(new_tokens, unique)
        gains = now - fit.losses(new_params, worth)
        gain = best_now - fit.predict(new_params, worth).value
        made.append((name, (new_params, new_tokens, unique), usd, gains, gain))
    rates = np.stack([gains / usd for _, _, usd, gains, _ in made])
    winners = rates.argmax(axis=0)
    found = [
        Purchase(
            name=name,
            params=plan[0],
            tokens=plan[1],
            unique_tokens=plan[2],
            usd=usd,
            gain=_around(gain, gains),
            gain_per_usd=gain / usd,
            wins=float(np.mean(winners == i)),
        )
        for i, (name, plan, usd, gains, gain) in enumerate(made)
    ]
    return sorted(found, key=lambda each: -each.gain_per_usd)


def worthwhile_text_price(found: list[Purchase], text: Text) -> float | None:
    """Return up to what price a byte of new text pays more than the best other purchase.

    Args:
        found: Of `purchases`.
        text: What there is.

    Returns:
        USD a byte beyond preparing it; None where text pays less even for nothing, or where no
        other purchase lowers the loss.
    """
    more = next(each for each in found if each.name == "more text")
    other = max(each.gain_per_usd for each in found if each.name != "more text")
    if other <= 0:
        return None
    left = more.gain.value / other - more.usd
    bought = (more.unique_tokens - text.unique_tokens) * text.bytes_per_token
    return left / bought if left > 0 else None


def _around(value: float, worlds: Floats) -> Estimate:
    low, high = np.quantile(worlds, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(value=value, low=min(value, float(low)), high=max(value, float(high)))


def _worth(tokens: float, unique: float) -> float:
    """Return what tokens are worth that are read again and again."""
    return repetition_discounted_tokens(unique, tokens / unique)


def _best_params(constants: Floats, usd: float, compute: Compute, text: Text) -> float:
    products = usd / compute.usd(1.0, 1.0)  # N x D
    # Beyond MOST_EPOCHS a smaller model would read the same text more often than was measured.
    least = math.log(products / (MOST_EPOCHS * text.unique_tokens))
    middle = math.log(products / 20) / 2
    low, high = max(least, middle - math.log(_REACH)), middle + math.log(_REACH)
    high = max(high, low + 1.0)

    def loss(log_params: float) -> float:
        params = math.exp(log_params)
        worth = _worth(products / params, text.unique_tokens)
        return float(losses_of(constants, params, worth))

    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return math.exp(float(found.x))
