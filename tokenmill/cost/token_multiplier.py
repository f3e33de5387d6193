"""How many raw tokens one token of a variant is worth: the ratio of tokens for equal loss.

The reference's loss falls with its tokens along L(D) = E + B / D^beta (Hoffmann et al. 2022, at a
fixed size of the model). A variant that is better by d bits per byte has done what the reference
needs more tokens for; how many more, its curve says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenmill.cost.paired_comparison import PairedDifference

LEAST_COUNTS = 3
"""Token counts that a curve of three constants needs."""

_BETAS = np.geomspace(0.02, 3.0, 400)
_RESAMPLES = 200
# Beyond this the points are not on such a curve; of the loss. Noise of seeds is allowed on top.
_MOST_RESIDUAL = 0.005
# Loss of precision of a logarithm: a variant that is the reference is at its last point.
_SLACK = 1 + 1e-9


@dataclass(frozen=True)
class LossCurve:
    """L(D) = e + b / D^beta, in bits per byte; it is used between its first and last point only.

    Attributes:
        e: Loss that no number of tokens avoids at this size, bits per byte.
        b: Factor of the term in tokens.
        beta: Its exponent.
        least_tokens: Tokens of the first point.
        most_tokens: Tokens of the last.
    """

    e: float
    b: float
    beta: float
    least_tokens: float
    most_tokens: float

    def loss(self, tokens: float) -> float:
        """Return the loss after so many tokens, bits per byte."""
        return self.e + self.b / float(tokens) ** self.beta

    def tokens_for(self, loss: float) -> float:
        """Return the tokens after which the loss is this; infinite if it never is."""
        if loss <= self.e:
            return math.inf
        return float((self.b / (loss - self.e)) ** (1 / self.beta))


class NoCurveError(ValueError):
    """The reference's losses do not lie on a curve; the message says in words why."""


@dataclass(frozen=True)
class ReferenceCurve:
    """The reference's curve, and what it might have been with other seeds and documents.

    Attributes:
        curve: Through the means of all seeds.
        resampled: Curves of bootstrap samples.
    """

    curve: LossCurve
    resampled: tuple[LossCurve, ...]


@dataclass(frozen=True)
class TokenMultiplier:
    """What a token of a variant is worth, in tokens of the reference.

    Attributes:
        value: The ratio; None outside of what the reference's tokens can tell.
        low: Lower end of its interval: at most `most`; None where it is below `least`.
        high: Upper end: at least `least`; None where it is above `most`.
        least: Least ratio that the reference's tokens can tell.
        most: The greatest.
    """

    value: float | None
    low: float | None
    high: float | None
    least: float
    most: float


def fit_loss_curve(tokens: Sequence[float], losses: Sequence[float]) -> LossCurve:
    """Fit L(D) = E + B / D^beta by least squares, with E and B of zero or more.

    Args:
        tokens: D of each point, rising.
        losses: Bits per byte of each.
    """
    d, y = np.asarray(tokens, np.float64), np.asarray(losses, np.float64)
    # Of the first count, so that b is the loss's part there, whatever beta is.
    x = (d[0] / d)[None, :] ** _BETAS[:, None]
    x_mean, y_mean = x.mean(axis=1, keepdims=True), y.mean()
    b = ((x - x_mean) * (y - y_mean)).sum(axis=1) / ((x - x_mean) ** 2).sum(axis=1)
    b = np.maximum(b, 0.0)
    e = y_mean - b * x_mean[:, 0]
    # Where E would be below zero, the best curve with E = 0.
    through_zero = (x @ y) / (x * x).sum(axis=1)
    b, e = np.where(e < 0, through_zero, b), np.maximum(e, 0.0)
    errors = ((e[:, None] + b[:, None] * x - y) ** 2).sum(axis=1)
    best = int(np.argmin(errors))
    beta = float(_BETAS[best])
    return LossCurve(float(e[best]), float(b[best] * d[0] ** beta), beta, float(d[0]), float(d[-1]))


def fit_reference(
    tokens: Sequence[float],
    losses: np.ndarray,
    document_bytes: np.ndarray,
    seed: int = 0,
) -> ReferenceCurve:
    """Fit the reference's curve, and those of bootstrap samples of seeds and documents.

    Args:
        tokens: Loss tokens of each count that the reference was evaluated at, rising.
        losses: Negative log-likelihoods, nats, float [seeds, counts, documents].
        document_bytes: UTF-8 bytes of each document, int [documents].
        seed: Of the resampling.

    Raises:
        NoCurveError: The points are too few, do not fall, or lie on no such curve.
    """
    seeds, counts, documents = losses.shape
    if counts < LEAST_COUNTS:
        raise NoCurveError(
            f"the reference was evaluated after {counts} numbers of tokens, and a curve needs "
            f"{LEAST_COUNTS}"
        )
    size = np.asarray(document_bytes, np.float64)
    by_seed = losses.sum(axis=2) / size.sum() / math.log(2)
    means = by_seed.mean(axis=0)
    if (np.diff(means) >= 0).any():
        raise NoCurveError("the reference's loss does not fall from one token count to the next")
    curve = fit_loss_curve(tokens, means.tolist())
    noise = by_seed.std(axis=0, ddof=1) / math.sqrt(seeds) if seeds > 1 else np.zeros(counts)
    for count, mean, error in zip(tokens, means.tolist(), noise.tolist(), strict=True):
        if abs(curve.loss(count) - mean) > _MOST_RESIDUAL * mean + 2 * error:
            raise NoCurveError(
                f"the reference's loss after {count:,.0f} tokens is {mean:.3f} bits per byte, and "
                f"a curve through all its points has {curve.loss(count):.3f} there"
            )
    random, resampled = np.random.default_rng(seed), []
    for _ in range(_RESAMPLES):
        drawn = random.integers(seeds, size=seeds)
        weights = np.bincount(random.integers(documents, size=documents), minlength=documents)
        sample = (losses[drawn].mean(axis=0) @ weights) / (size @ weights) / math.log(2)
        resampled.append(fit_loss_curve(tokens, sample.tolist()))
    return ReferenceCurve(curve, tuple(resampled))


def token_multiplier(
    reference: ReferenceCurve,
    difference: PairedDifference,
    reference_tokens: float,
    variant_tokens: float,
    confidence: float = 0.95,
) -> TokenMultiplier:
    """Translate a difference in loss into a ratio of tokens.

    The interval is that of the paired difference, read on the curve, so it leaves out 1 when the
    verdict is clear and holds under the same looks. The curve is not known either: each end is
    moved outward to where the bootstrap's curves put it.

    Args:
        reference: The reference's curve.
        difference: The variant less the reference after `reference_tokens`.
        reference_tokens: Loss tokens that the reference had read when they were compared.
        variant_tokens: Loss tokens that the variant had read then.
        confidence: How many of the bootstrap's curves an end goes by.
    """
    curve = reference.curve
    tail = (1 - confidence) / 2

    def tokens_for(of: LossCurve, bits: float) -> float:
        return of.tokens_for(of.loss(reference_tokens) + bits)

    def end(bits: float, quantile: float) -> float:
        # Infinite tokens have a rank like any others, but no mean with their neighbor.
        found = sorted(tokens_for(each, bits) for each in reference.resampled)
        place = quantile * (len(found) - 1)
        return found[math.floor(place) if quantile < 0.5 else math.ceil(place)]

    # A greater loss is worth fewer tokens: the upper end of one is the lower end of the other.
    value = tokens_for(curve, difference.mean)
    low = min(end(difference.high, tail), tokens_for(curve, difference.high))
    high = max(end(difference.low, 1 - tail), tokens_for(curve, difference.low))

    above, below = curve.most_tokens * _SLACK, curve.least_tokens / _SLACK
    return TokenMultiplier(
        value / variant_tokens if below <= value <= above else None,
        min(low, curve.most_tokens) / variant_tokens if low >= below else None,
        max(high, curve.least_tokens) / variant_tokens if high <= above else None,
        curve.least_tokens / variant_tokens,
        curve.most_tokens / variant_tokens,
    )
