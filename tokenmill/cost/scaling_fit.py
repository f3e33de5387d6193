"""Fit L(N, D) to a user's own small trainings, with an honest interval.

L = E + ((A/N^alpha)^(1/gamma) + (B/D^beta)^(1/gamma))^gamma, in bits per byte: with gamma = 1 the
law of Hoffmann et al. 2022, with gamma = beta that of Kaplan et al. 2020 and a floor.

The least of Huber's loss on differences of logarithms (Hoffmann et al. 2022, appendix D.2), found
by L-BFGS from a grid of starts. Two things differ from that paper, as a ladder has a dozen points
where it had 400 (docs/design/scaling_fit.md): weak priors stand in where the points say nothing of
a constant, and the interval knows of noise, of what the priors leave open, and of how far the form
itself missed runs that were left out.

No TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import t as student_t

from tokenmill.cost.flops import TRAINING_FLOPS_PER_PARAM
from tokenmill.cost.scaling import LossFit

Floats = NDArray[np.float64]
Constants = tuple[float, float, float, float, float, float]

NAMES = ("e", "a", "b", "alpha", "beta", "gamma")
"""Of the constants, in the order of a fit's replicates."""

LEVEL = 0.9
"""Coverage of an interval: nine of ten predictions should lie within theirs."""
REPLICATES = 200

# Where Huber's loss turns from a square into a line, in standard deviations of the noise: 95 % as
# efficient as least squares where the noise is normal. Hoffmann et al.'s 1e-3 is of theirs.
_HUBER = 1.345
# Noise before the points are looked at, as shares of the loss: what a trunk's seed shifts all its
# points by, and what each adds. Worth so many degrees of freedom against the points' own spread.
_TRUNK_NOISE, _POINT_NOISE, _NOISE_DEGREES = 0.005, 0.004, 3.0
# Log-normal priors: a middle and a standard deviation of the logarithm. Published exponents lie
# between 0.28 and 0.37; the prior reaches from 0.13 to 0.93 (95 %). gamma is 1 in one published
# law and about 0.1 in the other: from 0.13 to 2. E is in bits per byte: published ones are 1.69 to
# 1.82 nats for some 4.4 bytes of English; at most half of the lowest loss. The two terms at the
# middle of the points are shares of the lowest loss.
_EXPONENT_PRIOR = (0.35, 0.5)
_JOINT_PRIOR = (0.5, 0.7)
_FLOOR_PRIOR, _FLOOR_MOST_SHARE = (0.55, 0.5), 0.5
_TERM_PRIOR = (0.25, 1.5)
# What the form itself may miss, as a share of the loss for each factor of e in compute beyond the
# points, before runs that were left out have told; worth so many degrees of freedom. Predictions of
# eight times the compute were 2, 4 and 9 % off (benchmarks/ladder): 2.7 % a factor of e.
_MISFIT, _MISFIT_DEGREES = 0.02, 3.0
_REACH = 5.0  # standard deviations of a prior that the search goes
# The noise of gradients tells the critical batch size "to an order" (McCandlish et al. 2018): a
# deviation of its logarithm.
_CRITICAL_SPREAD = 1.0
_E, _A, _B, _ALPHA, _BETA, _GAMMA, _CRITICAL = range(7)


@dataclass(frozen=True, kw_only=True)
class ScalingPoint:
    """A small training that was decayed and evaluated.

    Attributes:
        params: N, parameters in matrix products.
        tokens: D, loss tokens, repeated ones discounted.
        loss: On held-out text, in bits per byte.
        trunk: Names the training whose decays share weights and rows, such as "160k seed 0".
        batch_tokens: Loss tokens a step; 0 where all trainings have the same.
    """

    params: float
    tokens: float
    loss: float
    trunk: str
    batch_tokens: float = 0.0

    @property
    def compute(self) -> float:
        """Training FLOPs by the rule 6 N D."""
        return TRAINING_FLOPS_PER_PARAM * self.params * self.tokens


@dataclass(frozen=True, kw_only=True)
class BatchSizes:
    """What makes tokens comparable that are read in batches of different sizes.

    Attributes:
        target: Loss tokens a step of the training to be predicted.
        critical: The critical batch size by the noise of gradients, loss tokens: a first guess.
    """

    target: float
    critical: float


def worth_of_tokens(batch: Any, target: float, critical: float) -> Any:
    """Return how many tokens at the target's batch size one at another batch size is worth.

    A training needs 1 + B/C times the tokens that it would need one by one, B being the tokens of
    its batch and C the critical batch size (McCandlish et al. 2018, sec. 2.3; Kaplan et al. 2020,
    sec. 5.1).

    Args:
        batch: Loss tokens a step, a number or an array.
        target: The same of the target.
        critical: The critical batch size, loss tokens.
    """
    return (1 + target / critical) / (1 + batch / critical)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval; the interval covers it in `LEVEL` of the cases."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ScalingFit:
    """A fit, and everything that its predictions need.

    Attributes:
        best: The constants.
        replicates: As many fits as it took to points drawn anew, [R, 6]: E, A, B, alpha, beta,
            gamma.
        trunk_noise: Standard deviation that all points of a training share, a share of the loss.
        point_noise: The same of each point.
        degrees: Degrees of freedom that the noise is known by.
        misfit: Standard deviation of what the form misses, a share of the loss for each factor of
            e in compute beyond the points.
        misfit_degrees: Degrees of freedom that it is known by.
        largest_compute: FLOPs of the largest point, by 6 N D.
        residuals: Of each point in the order given: log of measured over fitted.
        target_batch: Loss tokens a step of the training to be predicted; 0 if batches are alike.
        critical_batch: The critical batch size that the points bear out; None if they are alike.
    """

    best: LossFit
    replicates: tuple[Constants, ...]
    trunk_noise: float
    point_noise: float
    degrees: float
    misfit: float
    misfit_degrees: float
    largest_compute: float
    residuals: tuple[float, ...]
    target_batch: float = 0.0
    critical_batch: Estimate | None = None

    def comparable_tokens(self, point: ScalingPoint) -> float:
        """Return a point's tokens as so many at the target's batch size."""
        if self.critical_batch is None:
            return point.tokens
        critical = self.critical_batch.value
        return point.tokens * worth_of_tokens(point.batch_tokens, self.target_batch, critical)

    @cached_property
    def constants(self) -> Floats:
        """Replicates as an array, [R, 6]."""
        return np.array(self.replicates, dtype=np.float64)

    @property
    def best_constants(self) -> Floats:
        """The constants as an array, [6]."""
        return np.array([getattr(self.best, name) for name in NAMES])

    @property
    def mean_residual(self) -> float:
        """Root of the mean square of the residuals, a share of the loss."""
        return math.sqrt(sum(each**2 for each in self.residuals) / len(self.residuals))

    @property
    def noise(self) -> float:
        """Standard deviation of one point of a training of its own, a share of the loss."""
        return math.hypot(self.trunk_noise, self.point_noise)

    def interval_of_constant(self, name: str) -> tuple[float, float]:
        """Return the interval of e, a, b, alpha, beta or gamma."""
        column = self.constants[:, NAMES.index(name)]
        low, high = np.quantile(column, _tails())
        return float(low), float(high)

    def losses(self, params: float, tokens: float) -> Floats:
        """Return the loss by each replicate, [R]."""
        return losses_of(self.constants, params, tokens)

    def distance(self, params: float, tokens: float) -> float:
        """Return how far a training lies beyond the points: ln of its compute over the largest."""
        compute = TRAINING_FLOPS_PER_PARAM * params * tokens
        return max(0.0, math.log(compute / self.largest_compute))

    def predict(self, params: float, tokens: float) -> Estimate:
        """Predict a training that is still to be done.

        Args:
            params: N, parameters in matrix products.
            tokens: D, loss tokens, repeated ones discounted.

        Returns:
            The loss, and an interval of three parts that do not depend on each other: what the
            points leave open of the constants, the noise of one more training, and what the form
            misses beyond them.
        """
        value = float(losses_of(self.best_constants, params, tokens))
        logs = np.log(self.losses(params, tokens) / value)
        far = self.misfit * self.distance(params, tokens)
        low, high = np.quantile(logs, _tails())
        # Each side's own width: far beyond the points the constants' spread is skewed.
        noise, missed = (
            _quantile(degrees) * deviation
            for degrees, deviation in (
                (self.degrees, self.noise),
                (self.misfit_degrees, far),
            )
        )
        return Estimate(
            value=value,
            low=value * math.exp(-math.sqrt(min(low, 0.0) ** 2 + noise**2 + missed**2)),
            high=value * math.exp(math.sqrt(max(high, 0.0) ** 2 + noise**2 + missed**2)),
        )


def fit_scaling(
    points: Sequence[ScalingPoint],
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
    missed: Sequence[tuple[float, float, float]] = (),
    batches: BatchSizes | None = None,
) -> ScalingFit:
    """Fit the constants and what they leave open.

    Args:
        points: At least as many as `scaling_checks.why_no_fit` asks for.
        seed: Of the points that are drawn anew.
        replicates: How many fits to such points; more cost time and say little more.
        missed: Of each prediction of runs that were left out: what it missed (log of measured
            over predicted), the standard deviation it had without a misfit, and its distance.
        batches: Makes tokens of all batch sizes comparable; None where all are alike.

    Returns:
        The fit, in tokens at the target's batch size; the same points give the same one.
    """
    problem = _Problem(points, batches)
    best = problem.solve(problem.starts(), problem.logs, problem.middle)
    residuals = problem.logs - problem.log_losses(best)
    scale, degrees = problem.noise_scale(best, residuals)
    problem = _Problem(points, batches, scale)
    best = problem.solve([best, *problem.starts()], problem.logs, problem.middle)
    residuals = problem.logs - problem.log_losses(best)
    scale, degrees = problem.noise_scale(best, residuals, scale)
    drawn = problem.draw(best, np.random.default_rng(seed), replicates, scale, degrees)
    misfit, misfit_degrees = _misfit(missed)
    return ScalingFit(
        best=LossFit(
            **dict(zip(NAMES, problem.constants(best), strict=True)),
            source="this text's own ladder of small trainings",
        ),
        replicates=tuple(problem.constants(each) for each in drawn),
        trunk_noise=_TRUNK_NOISE * scale,
        point_noise=_POINT_NOISE * scale,
        degrees=degrees,
        misfit=misfit,
        misfit_degrees=misfit_degrees,
        largest_compute=max(point.compute for point in points),
        residuals=tuple(residuals.tolist()),
        **problem.critical_batch(best, drawn),
    )


class _Problem:
    """The points as arrays, with priors and noise.

    theta: logs of E, of the terms A/N^alpha and B/D^beta at the middle of the points, of alpha, of
    beta and of gamma, and where batches differ of the critical batch size. So the unknowns hardly
    depend on each other, and every value is one that can be.
    """

    def __init__(
        self, points: Sequence[ScalingPoint], batches: BatchSizes | None, scale: float = 1.0
    ):
        self.logs = np.log([point.loss for point in points])
        log_params = np.log([point.params for point in points])
        log_tokens = np.log([point.tokens for point in points])
        self.batches = batches
        self.batch = np.array([point.batch_tokens for point in points])
        # The middle of the range, so that more points at one end do not move it.
        self.params_0 = float(log_params.max() + log_params.min()) / 2
        self.tokens_0 = float(log_tokens.max() + log_tokens.min()) / 2
        self.n, self.d = log_params - self.params_0, log_tokens - self.tokens_0
        lowest = float(self.logs.min())
        floor, floor_spread = _FLOOR_PRIOR
        floor = min(floor / math.exp(lowest), _FLOOR_MOST_SHARE)
        terms, exponents = [_TERM_PRIOR] * 2, [_EXPONENT_PRIOR] * 2
        priors = [(floor, floor_spread), *terms, *exponents, _JOINT_PRIOR]
        shift = np.array([lowest, lowest, lowest, 0.0, 0.0, 0.0])
        self.middle = np.log([middle for middle, _ in priors]) + shift
        self.spread = np.array([spread for _, spread in priors])
        if batches is not None:
            self.middle = np.append(self.middle, math.log(batches.critical))
            self.spread = np.append(self.spread, _CRITICAL_SPREAD)
        trunks = np.array([point.trunk for point in points])
        same = (trunks[:, None] == trunks[None, :]).astype(np.float64)
        covariance = _TRUNK_NOISE**2 * same + _POINT_NOISE**2 * np.eye(len(points))
        self.factor = np.linalg.cholesky(covariance)  # of noise at scale 1
        self.whiten = np.linalg.inv(self.factor) / scale

    def starts(self) -> list[Floats]:
        """Return a grid around the middle of the priors."""
        rest = [0.0] * (len(self.middle) - _GAMMA)
        return [
            self.middle + self.spread * np.array([e, 0.0, 0.0, alpha, beta, *rest])
            for e in (-1.0, 0.5)
            for alpha in (-1.0, 1.0)
            for beta in (-1.0, 1.0)
        ]

    def _terms(self, theta: Floats) -> Floats:
        """Return the logs of A/N^alpha and of B/D^beta at each point, [2, points]."""
        terms = np.empty((2, len(self.n)))
        terms[0] = theta[_A] - math.exp(theta[_ALPHA]) * self.n
        terms[1] = theta[_B] - math.exp(theta[_BETA]) * (self.d + self._log_worth(theta))
        return terms

    def _log_worth(self, theta: Floats) -> Floats | float:
        """Return the log of what a token of each point is worth at the target's batch size."""
        if self.batches is None:
            return 0.0
        critical = math.exp(theta[_CRITICAL])
        worth: Floats = np.log(worth_of_tokens(self.batch, self.batches.target, critical))
        return worth

    def _worth_slopes(self, theta: Floats) -> Floats:
        """Return the derivatives of `_log_worth` by the log of the critical batch size."""
        assert self.batches is not None
        critical = math.exp(theta[_CRITICAL])
        of_target = self.batches.target / (critical + self.batches.target)
        slopes: Floats = self.batch / (critical + self.batch) - of_target
        return slopes

    def log_losses(self, theta: Floats) -> Floats:
        """Return the log of the fitted loss at each point."""
        joint = _joined(self._terms(theta), math.exp(theta[_GAMMA]))
        return np.asarray(np.logaddexp(theta[_E], joint), dtype=np.float64)

    def _with_slopes(self, theta: Floats) -> tuple[Floats, Floats]:
        """Return log losses, and their derivatives by theta, [points, len(theta)]."""
        terms, gamma = self._terms(theta), math.exp(theta[_GAMMA])
        joint = _joined(terms, gamma)
        logs = np.logaddexp(theta[_E], joint)
        share = np.exp(joint - logs)  # of the loss, all but E
        a, b = share * np.exp((terms - joint) / gamma)
        alpha, beta = math.exp(theta[_ALPHA]), math.exp(theta[_BETA])
        slopes = [1 - share, a, b]
        slopes += [-a * alpha * self.n, -b * beta * (self.d + self._log_worth(theta))]
        slopes.append(share * joint - a * terms[0] - b * terms[1])
        if self.batches is not None:
            slopes.append(-b * beta * self._worth_slopes(theta))
        return logs, np.stack(slopes, axis=1)

    def solve(self, starts: Sequence[Floats], logs: Floats, middle: Floats) -> Floats:
        """Return the theta of least loss.

        Args:
            starts: Where to start from; the best end counts.
            logs: Log of the measured losses.
            middle: Of the priors.
        """

        def loss(theta: Floats) -> tuple[float, Floats]:
            fitted, slopes = self._with_slopes(theta)
            off = self.whiten @ (fitted - logs)
            inside = np.abs(off) <= _HUBER
            value = np.where(inside, off**2 / 2, _HUBER * (np.abs(off) - _HUBER / 2)).sum()
            pull = (theta - middle) / self.spread
            gradient = (self.whiten @ slopes).T @ np.clip(off, -_HUBER, _HUBER)
            return float(value + pull @ pull / 2), gradient + pull / self.spread

        reach = _REACH * self.spread
        bounds = list(zip(self.middle - reach, self.middle + reach, strict=True))
        found: list[Any] = [
            minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts
        ]
        return np.asarray(min(found, key=lambda each: each.fun).x, dtype=np.float64)

    def noise_scale(
        self, theta: Floats, residuals: Floats, scale: float = 1.0
    ) -> tuple[float, float]:
        """Return by what the assumed noise has to be multiplied, and its degrees of freedom.

        Args:
            theta: The fit.
            residuals: Of the points.
            scale: The one that the fit was weighted by.
        """
        _, slopes = self._with_slopes(theta)
        slopes = self.whiten @ slopes
        squared = slopes.T @ slopes
        used = float(np.trace(np.linalg.solve(squared + np.diag(self.spread**-2.0), squared)))
        off = self.whiten @ residuals * scale
        free = max(0.0, len(residuals) - used)
        degrees = _NOISE_DEGREES + free
        # An outlier counts as Huber's loss has it, or it would widen everything.
        squares = float(np.minimum(off**2, (3 * scale) ** 2).sum())
        return math.sqrt((_NOISE_DEGREES + squares) / degrees), degrees

    def draw(
        self, best: Floats, random: np.random.Generator, count: int, scale: float, degrees: float
    ) -> list[Floats]:
        """Return fits to points that are drawn anew from the best fit.

        Noise is drawn by training and by point, and its size, too; so are the middles of the
        priors: a constant that the points say nothing of keeps the spread of its prior, where
        fits that all start from one middle would agree about it.
        """
        fitted = self.log_losses(best)
        drawn = []
        for _ in range(count):
            size = scale * math.sqrt(degrees / random.chisquare(degrees))
            logs = fitted + size * (self.factor @ random.standard_normal(len(fitted)))
            # Around the best fit, so that what the points say is not pulled to the middle twice.
            middle = best + self.spread * random.standard_normal(len(best))
            drawn.append(self.solve([best], logs, middle))
        return drawn

    def critical_batch(self, best: Floats, drawn: Sequence[Floats]) -> dict[str, Any]:
        """Return target_batch and critical_batch of a fit; nothing where batches are alike."""
        if self.batches is None:
            return {}
        low, high = np.exp(np.quantile([theta[_CRITICAL] for theta in drawn], _tails()))
        value = math.exp(best[_CRITICAL])
        estimate = Estimate(value=value, low=min(float(low), value), high=max(float(high), value))
        return {"target_batch": self.batches.target, "critical_batch": estimate}

    def constants(self, theta: Floats) -> Constants:
        """Return E, A, B, alpha, beta, gamma."""
        alpha, beta = math.exp(theta[_ALPHA]), math.exp(theta[_BETA])
        return (
            math.exp(theta[_E]),
            math.exp(theta[_A] + alpha * self.params_0),
            math.exp(theta[_B] + beta * self.tokens_0),
            alpha,
            beta,
            math.exp(theta[_GAMMA]),
        )


def _joined(terms: Floats, gamma: float) -> Floats:
    """Return the log of (exp(u)^(1/gamma) + exp(v)^(1/gamma))^gamma of two rows of logs."""
    joined: Floats = gamma * np.logaddexp(*(terms / gamma))
    return joined


def losses_of(constants: Floats, params: float, tokens: float) -> Floats:
    """Return the loss of a training by laws.

    Args:
        constants: E, A, B, alpha, beta, gamma of each, [..., 6].
        params: N.
        tokens: D.
    """
    e, a, b, alpha, beta, gamma = np.moveaxis(np.asarray(constants, dtype=np.float64), -1, 0)
    # By logarithms: (A/N^alpha)^(1/gamma) of a small gamma is beyond the range of a float.
    by_params = (np.log(a) - alpha * math.log(params)) / gamma
    by_tokens = (np.log(b) - beta * math.log(tokens)) / gamma
    losses: Floats = e + np.exp(gamma * np.logaddexp(by_params, by_tokens))
    return losses


def _misfit(missed: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Return the misfit for each factor of e, and its degrees of freedom.

    What the constants and the noise explain is taken off a miss first. One of a run that lies
    hardly beyond the others tells hardly anything of a factor of e, and weighs as little.
    """
    weights = [min(1.0, distance**2) for _, _, distance in missed]
    told = sum(
        max(0.0, miss**2 - deviation**2) / max(1.0, distance**2)
        for miss, deviation, distance in missed
    )
    degrees = _MISFIT_DEGREES + sum(weights)
    return math.sqrt((_MISFIT_DEGREES * _MISFIT**2 + told) / degrees), degrees


def _tails() -> tuple[float, float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2


def _quantile(degrees: float) -> float:
    return float(student_t.ppf((1 + LEVEL) / 2, degrees))
