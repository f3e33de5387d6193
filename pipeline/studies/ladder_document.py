"""From the small trainings of a ladder to ladder.json: points, fit, prediction, purchases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.studies.ladder_plan import DECAY_FRACTION, Target, Trunk
from pipeline.studies.proxy_runs import ProxyOutcome, ProxyResult
from tokenmill.contracts.ladder import (
    LADDER_SCHEMA,
    CriticalBatch,
    Interval,
    Ladder,
    LadderBacktest,
    LadderBestPlan,
    LadderHeldOut,
    LadderPoint,
    LadderPrediction,
    LadderPurchase,
    LadderSpending,
    LadderText,
    RateCheck,
    TrunkPurpose,
)
from tokenmill.cost.flops import TRAINING_FLOPS_PER_PARAM
from tokenmill.cost.ladder_fit import fit_document, interval, published_laws
from tokenmill.cost.scaling import repetition_discounted_tokens
from tokenmill.cost.scaling_checks import CheckedFit, checked_fit, predict_or_say
from tokenmill.cost.scaling_fit import LEVEL, BatchSizes, ScalingFit, ScalingPoint
from tokenmill.cost.scaling_purchases import (
    Compute,
    Text,
    best_plan,
    purchases,
    worthwhile_text_price,
)
from tokenmill.number_format import with_letter

FITTED: tuple[TrunkPurpose, ...] = ("ladder", "other seed", "larger batch")
"""Purposes of the trunks whose points are fitted."""

# Differences of loss between rates below so many deviations of the noise are no difference.
_RATE_DEVIATIONS = 2.0
# Deviation of a training's loss from one seed to another, a share. Not the fit's, which holds what
# the form misses, too.
_USUAL_NOISE = 0.006
_BYTES_PER_MEGABYTE = 1e6
# Times the critical batch size, from where on a smaller batch is advised.
_LARGE_BATCH = 1.0


@dataclass(frozen=True)
class TrunkOutcome:
    """A trunk and what it left; None where it diverged."""

    trunk: Trunk
    outcome: ProxyOutcome | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that a ladder's document is made of.

    Attributes:
        target: The training that is to be predicted.
        seed: Of the run.
        outcomes: The trunks.
        spending: What they were given, and what they took.
        compute: What the configured training costs.
        unigram_bits_per_byte: Of the frequencies of tokens.
        held_out_documents: That losses are of.
        held_out_bytes: Of them.
        train_bytes: Text of one pass.
        prepare_seconds: Of the steps up to the rows.
        prepare_usd: Their cost.
        seconds_per_flop: Of the configured training.
    """

    target: Target
    seed: int
    outcomes: Sequence[TrunkOutcome]
    spending: LadderSpending
    compute: Compute
    unigram_bits_per_byte: float
    held_out_documents: int
    held_out_bytes: int
    train_bytes: int
    prepare_seconds: float
    prepare_usd: float
    seconds_per_flop: float

    @property
    def text(self) -> Text:
        """The text, as purchases see it."""
        return Text(
            unique_tokens=self.target.unique_tokens,
            bytes_per_token=self.train_bytes / self.target.unique_tokens,
            usd_per_byte=self.prepare_usd / self.train_bytes,
        )


def _schedule_caution(target: Target) -> list[str]:
    train, found = target.train, []
    if train.schedule != "wsd":
        found.append(
            "The small trainings hold their learning rate and let it fall in the last "
            f"{DECAY_FRACTION:.0%} (wsd). train.schedule = {train.schedule!r} lets it fall from "
            "the beginning, and comes out worse than predicted where the rate is not high enough "
            "for that. For what is predicted: train.schedule=wsd, "
            f"train.decay_fraction={DECAY_FRACTION:g}."
        )
    elif train.decay_fraction != DECAY_FRACTION:
        found.append(
            f"In the small trainings the learning rate falls in the last {DECAY_FRACTION:.0%}; "
            f"train.decay_fraction = {train.decay_fraction:g}. For what is predicted: "
            f"train.decay_fraction={DECAY_FRACTION:g}."
        )
    rows = train.global_batch_size * target.tokens_per_row
    steps = max(1, round(target.tokens / rows))
    suited = train.suited_warmup_steps(steps, steps)
    if train.warmup_steps(steps) < suited:
        found.append(
            f"train.warmup_fraction = {train.warmup_fraction:g} is a warm-up of "
            f"{train.warmup_steps(steps)} steps. The small trainings take {suited} of {steps}, as "
            "Adam's second moment does, and come out better. For what is predicted leave it out."
        )
    return found


def ladder_document(measured: Measured) -> Ladder:
    """Fit the points and work out what follows."""
    unique = measured.target.unique_tokens
    fitted = [each for each in measured.outcomes if each.trunk.purpose in FITTED]
    pairs = [
        (each.trunk, result, scaling_point(each.trunk, result, measured.target))
        for each in fitted
        if each.outcome is not None
        for result in each.outcome.results
    ]
    checked = checked_fit(
        [point for *_, point in pairs],
        unigram_loss=measured.unigram_bits_per_byte,
        seed=measured.seed,
        batches=_batch_sizes(measured),
    )
    rates = _rate_check(measured)
    cautions = [*_schedule_caution(measured.target), *checked.cautions]
    cautions += [rates[1]] if rates and rates[1] else []
    prediction = _prediction(measured, checked.fit)
    return Ladder(
        schema=LADDER_SCHEMA,
        level=LEVEL,
        text=LadderText(
            unique_tokens=unique,
            bytes_per_token=measured.text.bytes_per_token,
            train_bytes=measured.train_bytes,
            prepare_seconds=measured.prepare_seconds,
            prepare_usd=measured.prepare_usd,
        ),
        held_out=LadderHeldOut(
            documents=measured.held_out_documents,
            bytes=measured.held_out_bytes,
            unigram_bits_per_byte=measured.unigram_bits_per_byte,
        ),
        spending=measured.spending,
        vocab_size=measured.target.shape.vocab_size,
        usd_per_flop=measured.compute.usd_per_flop,
        flops_overhead=measured.compute.overhead,
        points=[*_points(pairs, checked, measured.seed), *_rate_points(measured, checked.fit)],
        fit=None if checked.fit is None else fit_document(checked.fit),
        problems=list(checked.problems),
        cautions=cautions,
        backtests=[
            LadderBacktest(
                params=test.point.params,
                tokens=test.point.tokens,
                times_compute=test.point.compute / test.largest_compute,
                predicted=interval(test.predicted),
                measured=test.point.loss,
            )
            for test in checked.backtests
        ],
        rate_check=rates[0] if rates else None,
        critical_batch=_critical_batch(measured, checked.fit),
        prediction=prediction,
        **_bought(measured, checked.fit, prediction),
        published=published_laws(
            measured.target.shape.params_active,
            prediction.effective_tokens,
            measured.text.bytes_per_token,
            measured.target.shape.is_sparse,
        ),
    )


def scaling_point(trunk: Trunk, result: ProxyResult, target: Target) -> ScalingPoint:
    """Return a decayed model as a point of a fit."""
    epochs = result.loss_tokens / target.unique_tokens
    return ScalingPoint(
        params=trunk.shape.params_in_products,
        tokens=repetition_discounted_tokens(target.unique_tokens, epochs),
        loss=result.bits_per_byte(),
        trunk=trunk.name,
        batch_tokens=trunk.train.global_batch_size * target.tokens_per_row,
    )


def _batch_sizes(measured: Measured) -> BatchSizes | None:
    """Return the target's batch and the critical one by the noise of all trunks' gradients.

    It grows while a model learns, and is a geometric mean of the trunks'. None where no noise could
    be told: the batch sizes then count as alike.
    """
    told = [
        each.outcome.noise.tokens
        for each in measured.outcomes
        if each.outcome is not None and each.outcome.noise
    ]
    if not told:
        return None
    target = measured.target
    return BatchSizes(
        target=target.train.global_batch_size * target.tokens_per_row,
        critical=math.exp(sum(map(math.log, told)) / len(told)),
    )


def _points(
    pairs: Sequence[tuple[Trunk, ProxyResult, ScalingPoint]], checked: CheckedFit, seed: int
) -> list[LadderPoint]:
    reasons = dict(checked.left_out)
    fitted: dict[ScalingPoint, float] = {}
    if checked.fit is not None:
        for point, residual in zip(checked.used, checked.fit.residuals, strict=True):
            fitted[point] = point.loss * math.exp(-residual)
    fit = checked.fit
    return [
        _point(
            trunk,
            result,
            point.tokens,
            point.tokens if fit is None else fit.comparable_tokens(point),
            seed,
            fitted.get(point),
            reasons.get(point, ""),
        )
        for trunk, result, point in pairs
    ]


def _rate_points(measured: Measured, fit: ScalingFit | None) -> list[LadderPoint]:
    pairs = [
        (each.trunk, result, scaling_point(each.trunk, result, measured.target))
        for each in measured.outcomes
        if each.trunk.purpose not in FITTED and each.outcome is not None
        for result in each.outcome.results
    ]
    return [
        _point(
            trunk,
            result,
            point.tokens,
            point.tokens if fit is None else fit.comparable_tokens(point),
            measured.seed,
            None,
            "checks the learning rate",
        )
        for trunk, result, point in pairs
    ]


def _point(
    trunk: Trunk,
    result: ProxyResult,
    effective: float,
    comparable: float,
    seed: int,
    fitted: float | None,
    left_out: str,
) -> LadderPoint:
    return LadderPoint(
        trunk=trunk.name,
        purpose=trunk.purpose,
        layers=trunk.shape.layers,
        d_model=trunk.shape.d_model,
        params=trunk.shape.params_in_products,
        steps=result.steps,
        tokens=result.loss_tokens,
        effective_tokens=effective,
        comparable_tokens=comparable,
        batch_rows=trunk.train.global_batch_size,
        learning_rate=trunk.train.learning_rate,
        seed=seed + trunk.seed,
        flops=result.flops,
        bits_per_byte=result.bits_per_byte(),
        bits_per_byte_by_set={
            name: loss.bits_per_byte for name, loss in result.losses.items() if name != "all"
        },
        fitted_bits_per_byte=fitted,
        left_out=left_out,
    )


def _rate_check(measured: Measured) -> tuple[RateCheck, str] | None:
    """Compare half and twice the learning rate; also returns a caution, empty where all is well."""
    found = {each.trunk.purpose: each for each in measured.outcomes}
    half, twice = found.get("half the learning rate"), found.get("twice the learning rate")
    if half is None or twice is None:
        return None
    steps = half.trunk.steps[-1]
    base = next(
        (
            (each.trunk, result)
            for each in measured.outcomes
            if each.trunk.purpose == "ladder"
            and each.trunk.shape == half.trunk.shape
            and each.outcome is not None
            for result in each.outcome.results
            if result.steps == steps
        ),
        None,
    )
    if base is None or twice.trunk.steps[-1] != steps:
        return None
    trunk, result = base
    loss = result.bits_per_byte()
    others = [
        None if each.outcome is None else each.outcome.results[-1].bits_per_byte()
        for each in (half, twice)
    ]
    words, caution = _rate_words(loss, others[0], others[1])
    check = RateCheck(
        params=trunk.shape.params_in_products,
        steps=steps,
        learning_rate=trunk.train.learning_rate,
        bits_per_byte=loss,
        bits_per_byte_half=others[0],
        bits_per_byte_twice=others[1],
        words=words,
    )
    return check, caution


def _rate_words(loss: float, half: float | None, twice: float | None) -> tuple[str, str]:
    named = [("half", half), ("twice", twice)]
    gains = [(math.log(loss / other), name) for name, other in named if other is not None]
    gain, name = max(gains, default=(-math.inf, ""))
    # Of two trainings of their own; the seed is the same, so this is rather too much.
    least = _RATE_DEVIATIONS * math.sqrt(2) * _USUAL_NOISE
    if gain <= least:
        return f"neither half nor twice the rate is better beyond the noise ({least:.1%})", ""
    words = f"{name} the rate is {gain:.1%} better"
    caution = (
        f"At {name} the learning rate the smallest model has a loss {gain:.1%} lower: the rule "
        "does not hold there, and the points of small models may be too high. Change "
        "train.learning_rate likewise."
    )
    return words, caution


def _critical_batch(measured: Measured, fit: ScalingFit | None) -> CriticalBatch | None:
    """Return the noise of the largest training that tells it."""
    told = [
        (each.trunk, each.outcome.noise)
        for each in measured.outcomes
        if each.trunk.purpose == "ladder" and each.outcome is not None and each.outcome.noise
    ]
    if not told:
        return None
    trunk, noise = max(told, key=lambda pair: pair[0].shape.params_in_products)
    batch = measured.target.train.global_batch_size * measured.target.tokens_per_row
    fitted = None if fit is None else fit.critical_batch
    critical = noise.tokens if fitted is None else fitted.value
    return CriticalBatch(
        params=trunk.shape.params_in_products,
        tokens=noise.tokens,
        standard_error=noise.standard_error,
        fitted=None if fitted is None else interval(fitted),
        target_batch=batch,
        words=_batch_words(batch, critical),
    )


def _batch_words(batch: float, critical: float) -> str:
    """Say what a batch size costs: it needs 1 + B/C times the tokens of the smallest batches."""
    words = (
        f"with the configured {with_letter(batch, 2)} tokens a step a text is worth "
        f"{1 / (1 + batch / critical):.0%} of what it is in the smallest"
    )
    if batch > _LARGE_BATCH * critical:
        words += ": lower train.global_batch_size"
    return words


def _prediction(measured: Measured, fit: ScalingFit | None) -> LadderPrediction:
    target, compute = measured.target, measured.compute
    params, tokens = target.shape.params_in_products, target.tokens
    effective = repetition_discounted_tokens(target.unique_tokens, tokens / target.unique_tokens)
    flops = TRAINING_FLOPS_PER_PARAM * params * tokens * compute.overhead
    predicted, words = None, "there is no fit"
    if fit is not None:
        predicted, words = predict_or_say(fit, params, effective)
    return LadderPrediction(
        params=params,
        params_total=target.shape.params_total,
        params_active=target.shape.params_active,
        tokens=tokens,
        epochs=tokens / target.unique_tokens,
        effective_tokens=effective,
        flops=flops,
        usd=flops * compute.usd_per_flop,
        seconds=flops * measured.seconds_per_flop,
        times_compute=(
            None
            if fit is None
            else TRAINING_FLOPS_PER_PARAM * params * effective / fit.largest_compute
        ),
        bits_per_byte=predicted and interval(predicted),
        words=words,
    )


def _bought(
    measured: Measured, fit: ScalingFit | None, prediction: LadderPrediction
) -> dict[str, object]:
    """Return best_plan, purchases and text_usd_per_megabyte."""
    if fit is None or prediction.bits_per_byte is None or not prediction.usd:
        return {"best_plan": None, "purchases": [], "text_usd_per_megabyte": None}
    best = best_plan(fit, prediction.usd, measured.compute, measured.text)
    found = purchases(fit, prediction.params, prediction.tokens, measured.compute, measured.text)
    price = worthwhile_text_price(found, measured.text)
    return {
        "best_plan": LadderBestPlan(
            usd=best.usd,
            params=best.params,
            params_low=best.params_low,
            params_high=best.params_high,
            tokens=best.tokens,
            epochs=best.epochs,
            bits_per_byte=interval(best.loss),
        ),
        "purchases": [
            LadderPurchase(
                name=each.name,
                usd=each.usd,
                gain=Interval(value=each.gain.value, low=each.gain.low, high=each.gain.high),
                gain_per_usd=each.gain_per_usd,
                wins=each.wins,
            )
            for each in found
        ],
        "text_usd_per_megabyte": None if price is None else price * _BYTES_PER_MEGABYTE,
    }
