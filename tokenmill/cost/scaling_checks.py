"""Whether a ladder can be fitted, and whether the fit holds: in words where it does not.

A number that a fit cannot bear is not given. What is asked, in the order of the ladder: has each
training learned something, are there enough of them to tell the constants apart, do more tokens
lower the loss, are the residuals of the size of the noise, and does a fit of the smaller runs
predict the larger ones (backtest)?
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tokenmill.cost.scaling_fit import (
    BatchSizes,
    Estimate,
    ScalingFit,
    ScalingPoint,
    fit_scaling,
)
from tokenmill.number_format import approximate, decimal, with_letter

MIN_POINTS, MIN_SIZES, MIN_TOKEN_COUNTS = 8, 3, 3
MIN_SPAN = 3.0
"""Factor between the smallest and the largest N, and D: within less an exponent is a guess."""
MAX_NOISE = 0.02
"""Residuals of more than this share of the loss: the form does not describe these runs."""
MAX_MISS = 0.05
"""Share of the loss by which a backtest may miss before the form is given up."""
MAX_DISTANCE = math.log(1000)
"""Of a prediction: ln of its compute over that of the largest point."""
MAX_WIDTH = 2.0
"""Factor between the ends of a prediction's interval: a wider one says nothing."""
LEAST_LEARNED = 0.1
"""Share of the unigram loss that a point has to lie below it: before, no law of powers holds."""
# Of the largest compute, what a fit of the smaller points may have.
_CUTS = (0.5, 0.25)
_BACKTEST_REPLICATES = 60
# Rises from less to more tokens within a trunk beyond so many standard deviations are no noise.
_RISE_DEVIATIONS = 3.0
_RISE_NOISE = 0.003


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """A prediction of a run that the fit was not given.

    Attributes:
        point: The run.
        largest_compute: FLOPs of the largest point of that fit, by 6 N D.
        predicted: What the fit of smaller runs said.
    """

    point: ScalingPoint
    largest_compute: float
    predicted: Estimate

    @property
    def missed(self) -> float:
        """Log of measured over predicted: about a share of the loss."""
        return math.log(self.point.loss / self.predicted.value)

    @property
    def is_within(self) -> bool:
        """Whether the measured loss lies in the interval."""
        return self.predicted.low <= self.point.loss <= self.predicted.high


@dataclass(frozen=True, kw_only=True)
class CheckedFit:
    """A fit that was looked at.

    Attributes:
        fit: None where the points do not bear one, or where it does not hold.
        problems: Why there is none; sentences.
        cautions: What weakens it; sentences.
        backtests: Larger runs predicted from smaller ones.
        used: The points of the fit.
        left_out: Points that had not learned enough, each with the reason.
    """

    fit: ScalingFit | None
    problems: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    backtests: tuple[Backtest, ...] = ()
    used: tuple[ScalingPoint, ...] = ()
    left_out: tuple[tuple[ScalingPoint, str], ...] = ()


def checked_fit(
    points: Sequence[ScalingPoint],
    *,
    unigram_loss: float,
    seed: int = 0,
    batches: BatchSizes | None = None,
) -> CheckedFit:
    """Fit the points that can be fitted, if they bear it.

    Args:
        points: The trainings.
        unigram_loss: What predicting by the tokens' frequencies costs, in the points' unit.
        seed: Of the points that are drawn anew.
        batches: Makes tokens of all batch sizes comparable; None where all are alike.
    """
    used, left_out = [], []
    for point in points:
        if reason := _why_left_out(point, unigram_loss):
            left_out.append((point, reason))
        else:
            used.append(point)
    problems = why_no_fit(used)
    if problems:
        return CheckedFit(
            fit=None, problems=tuple(problems), used=tuple(used), left_out=tuple(left_out)
        )
    backtests = backtest(used, seed, batches)
    fit = fit_scaling(used, seed=seed, missed=_missed(backtests), batches=batches)
    problems = [*_why_it_does_not_hold(fit, backtests), *_rises(used)]
    return CheckedFit(
        fit=None if problems else fit,
        problems=tuple(problems),
        cautions=tuple(_cautions(fit, backtests, left_out)),
        backtests=tuple(test for test, _ in backtests),
        used=tuple(used),
        left_out=tuple(left_out),
    )


def why_no_fit(points: Sequence[ScalingPoint]) -> list[str]:
    """Say what is missing for a fit; nothing where there is enough."""
    sizes, counts = {point.params for point in points}, defaultdict(set)
    for point in points:
        counts[point.trunk].add(point.tokens)
    most = max(map(len, counts.values()), default=0)
    missing = []
    if len(points) < MIN_POINTS:
        missing.append(
            f"{len(points)} points are too few for six constants: at least {MIN_POINTS}."
        )
    if len(sizes) < MIN_SIZES:
        missing.append(
            f"{len(sizes)} sizes of model are too few to see what size does: at least {MIN_SIZES}."
        )
    if most < MIN_TOKEN_COUNTS:
        missing.append(
            f"No training was looked at after {MIN_TOKEN_COUNTS} counts of tokens: what tokens do "
            "cannot be seen."
        )
    if missing:
        return missing
    for name, values in (("parameters", sizes), ("tokens", {point.tokens for point in points})):
        span = max(values) / min(values)
        if span < MIN_SPAN:
            missing.append(
                f"From the least to the most {name} is a factor of {decimal(span, 2)}: an exponent "
                f"needs at least {MIN_SPAN:g}."
            )
    return missing


def backtest(
    points: Sequence[ScalingPoint], seed: int = 0, batches: BatchSizes | None = None
) -> list[tuple[Backtest, tuple[float, float, float]]]:
    """Predict the largest points from the smaller ones, as often as there are enough of those.

    Returns:
        Each with what `fit_scaling` takes as `missed`: what it missed by, the deviation that it
        had without a misfit, its distance.
    """
    largest = max(point.compute for point in points)
    found, seen = [], set()
    for cut in _CUTS:
        smaller = [point for point in points if point.compute <= largest * cut]
        if len(smaller) == len(points) or why_no_fit(smaller) or len(smaller) in seen:
            continue
        seen.add(len(smaller))
        fit = fit_scaling(smaller, seed=seed, replicates=_BACKTEST_REPLICATES, batches=batches)
        for point in points:
            if point.compute <= largest * cut:
                continue
            params, tokens = point.params, fit.comparable_tokens(point)
            predicted = fit.predict(params, tokens)
            logs = [math.log(loss) for loss in fit.losses(params, tokens)]
            middle = sum(logs) / len(logs)
            spread = math.sqrt(sum((log - middle) ** 2 for log in logs) / len(logs))
            test = Backtest(point=point, largest_compute=fit.largest_compute, predicted=predicted)
            deviation = math.hypot(spread, fit.noise)
            # By tokens as they were read: how far a run lies beyond others is a matter of compute.
            distance = fit.distance(params, point.tokens)
            found.append((test, (test.missed, deviation, distance)))
    return found


def _missed(
    backtests: Sequence[tuple[Backtest, tuple[float, float, float]]],
) -> list[tuple[float, float, float]]:
    """Return one miss a trunk and fit: decays of one training miss alike, and count once."""
    farthest: dict[tuple[str, float], tuple[float, float, float]] = {}
    for test, miss in backtests:
        key = (test.point.trunk, test.largest_compute)
        if key not in farthest or miss[2] > farthest[key][2]:
            farthest[key] = miss
    return list(farthest.values())


def why_too_far(fit: ScalingFit, params: float, tokens: float) -> str:
    """Say why a training lies too far from the points to be predicted; empty if it does not."""
    distance = fit.distance(params, tokens)
    if distance <= MAX_DISTANCE:
        return ""
    return (
        f"{with_letter(params, 3)} parameters and {with_letter(tokens, 3)} tokens are "
        f"{approximate(math.exp(distance), 2)} times the compute of the largest point: no fit of "
        f"so small runs reaches farther than {math.exp(MAX_DISTANCE):,.0f} times. Spend more on "
        "the ladder."
    )


def predict_or_say(fit: ScalingFit, params: float, tokens: float) -> tuple[Estimate | None, str]:
    """Predict a training, or say why no number is given.

    Returns:
        The prediction and empty words; or None and the words, where the training lies too far from
        the points or the interval says nothing.
    """
    if words := why_too_far(fit, params, tokens):
        return None, words
    predicted = fit.predict(params, tokens)
    if predicted.high <= MAX_WIDTH * predicted.low:
        return predicted, ""
    return None, (
        f"the points leave open anything from {decimal(predicted.low, 2)} to "
        f"{decimal(predicted.high, 2)} bits per byte: they do not agree on one law, or lie too far "
        "from this training. Spend more on the ladder, or mend what it warns of."
    )


def _why_left_out(point: ScalingPoint, unigram_loss: float) -> str:
    if point.loss > (1 - LEAST_LEARNED) * unigram_loss:
        return (
            f"has learned little more than the tokens' frequencies ({point.loss:.3f} bits per "
            f"byte, unigram {unigram_loss:.3f})"
        )
    return ""


def _why_it_does_not_hold(
    fit: ScalingFit, backtests: Sequence[tuple[Backtest, tuple[float, float, float]]]
) -> list[str]:
    problems = []
    if fit.mean_residual > MAX_NOISE:
        problems.append(
            f"The points lie {fit.mean_residual:.1%} of their loss off the fit; runs that differ "
            f"in their seed alone lie some 0.5% apart, and {MAX_NOISE:.0%} is the most that is let "
            "pass: the form does not hold for them."
        )
    for test, (miss, _, _) in backtests:
        if abs(miss) > MAX_MISS and not test.is_within:
            problems.append(
                f"A fit of the smaller runs says {test.predicted.value:.3f} bits per byte for "
                f"{_named(test.point)}, which has {test.point.loss:.3f}: {abs(miss):.1%} off, and "
                "outside of the interval."
            )
            break
    return problems


def _rises(points: Sequence[ScalingPoint]) -> list[str]:
    """Say where more tokens made a loss worse, beyond chance."""
    by_trunk = defaultdict(list)
    for point in points:
        by_trunk[point.trunk].append(point)
    for trunk in sorted(by_trunk):
        ordered = sorted(by_trunk[trunk], key=lambda point: point.tokens)
        for less, more in itertools.pairwise(ordered):
            rise = math.log(more.loss / less.loss)
            if rise > _RISE_DEVIATIONS * _RISE_NOISE:
                return [
                    f"{_named(more)} has a loss {rise:.1%} above that of "
                    f"{with_letter(less.tokens, 3)} tokens: the learning rate is too high, or the "
                    "training too often over the same text."
                ]
    return []


def _cautions(
    fit: ScalingFit,
    backtests: Sequence[tuple[Backtest, tuple[float, float, float]]],
    left_out: Sequence[tuple[ScalingPoint, str]],
) -> list[str]:
    said = [f"{_named(point)} {reason}: left out of the fit." for point, reason in left_out]
    if not backtests:
        said.append(
            "Too few points to leave the largest out and predict them: how far the form carries "
            "is assumed, not measured."
        )
    outside = sum(not test.is_within for test, _ in backtests)
    if outside:
        said.append(
            f"{outside} of {len(backtests)} larger runs lie outside of what smaller ones gave: "
            "intervals are wider by it."
        )
    if fit.replicates:
        low, high = fit.interval_of_constant("e")
        if high / low > 3:
            said.append(
                "The points say little of E, the loss that no model and no data avoid: the prior "
                "decides, and predictions far beyond them are wide."
            )
    return said


def _named(point: ScalingPoint) -> str:
    return f"{with_letter(point.params, 3)} parameters at {with_letter(point.tokens, 3)} tokens"
