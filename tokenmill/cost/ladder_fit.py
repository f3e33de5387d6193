"""The fit of a ladder.json: from the fit to the document, back, and applied to a plan."""

from __future__ import annotations

import math
from typing import Literal

from tokenmill.contracts.ladder import (
    Constants,
    Interval,
    LadderFit,
    LadderLaw,
    LadderLoss,
    PublishedLaw,
)
from tokenmill.cost.flops import TRAINING_FLOPS_PER_PARAM
from tokenmill.cost.scaling import (
    BESIROGLU_2024,
    HOFFMANN_2022,
    SPARSE_NOTE,
    LossFit,
    expected_loss,
)
from tokenmill.cost.scaling_checks import predict_or_say
from tokenmill.cost.scaling_fit import Estimate, ScalingFit

Constant = Literal["e", "a", "b", "alpha", "beta", "gamma"]


def interval(estimate: Estimate) -> Interval:
    """Return an estimate as documents have it."""
    return Interval(value=estimate.value, low=estimate.low, high=estimate.high)


def fit_document(fit: ScalingFit) -> LadderFit:
    """Return a fit as ladder.json has it."""

    def constant(name: Constant) -> Interval:
        low, high = fit.interval_of_constant(name)
        value = getattr(fit.best, name)
        return Interval(value=value, low=min(low, value), high=max(high, value))

    return LadderFit(
        constants=Constants(
            e=constant("e"),
            a=constant("a"),
            b=constant("b"),
            alpha=constant("alpha"),
            beta=constant("beta"),
            gamma=constant("gamma"),
        ),
        replicates=list(fit.replicates),
        trunk_noise=fit.trunk_noise,
        point_noise=fit.point_noise,
        degrees=fit.degrees,
        misfit=fit.misfit,
        misfit_degrees=fit.misfit_degrees,
        largest_compute=fit.largest_compute,
        target_batch=fit.target_batch,
        critical_batch=None if fit.critical_batch is None else interval(fit.critical_batch),
    )


def fit_of(found: LadderFit) -> ScalingFit:
    """Return the fit that predicts, as it was before it was written."""
    constants, critical = found.constants, found.critical_batch
    return ScalingFit(
        best=LossFit(
            e=constants.e.value,
            a=constants.a.value,
            b=constants.b.value,
            alpha=constants.alpha.value,
            beta=constants.beta.value,
            gamma=constants.gamma.value,
            source="this text's own ladder of small trainings",
        ),
        replicates=tuple(found.replicates),
        trunk_noise=found.trunk_noise,
        point_noise=found.point_noise,
        degrees=found.degrees,
        misfit=found.misfit,
        misfit_degrees=found.misfit_degrees,
        largest_compute=found.largest_compute,
        residuals=(),
        target_batch=found.target_batch,
        critical_batch=None if critical is None else Estimate(**critical.model_dump()),
    )


def why_no_ladder(head: str, is_adapted: bool) -> str:
    """Say why no ladder can predict a training; empty if one can.

    Args:
        head: Of the model's shape.
        is_adapted: Whether it goes on from a base model.
    """
    if head != "lm":
        return "A ladder is of causal-lm, whose loss is in bits per byte."
    if is_adapted:
        return "A ladder is of training from random weights, not from a base model."
    return ""


def expected_by_ladder(
    law: LadderLaw,
    *,
    params: float,
    params_active: float,
    effective_tokens: float,
    vocab_size: int,
    sparse: bool = False,
    why_not: str = "",
) -> LadderLoss:
    """Predict a training by a ladder's law.

    Args:
        law: Of the ladder.
        params: N, parameters in matrix products.
        params_active: Parameters that a token passes, for the published laws.
        effective_tokens: Loss tokens, discounted for repetition.
        vocab_size: Of the training.
        sparse: Whether the model is a mixture of experts.
        why_not: Why no ladder can predict it; empty if one can.
    """
    tokens = max(effective_tokens, 1.0)
    fit = None if law.fit is None else fit_of(law.fit)
    predicted, words = None, why_not
    if fit is None:
        words = " ".join(["The ladder has no fit.", *law.problems])
    elif vocab_size != law.vocab_size:
        words = (
            f"The ladder's vocabulary has {law.vocab_size:,} tokens, this one {vocab_size:,}: "
            "tokens of another size are no guide. Train a ladder with this vocabulary."
        )
    elif sparse != law.sparse:
        kinds = ("a dense model", "a mixture of experts")
        words = (
            f"The ladder is of {kinds[law.sparse]} in small, this is {kinds[sparse]}: one says "
            "nothing of the other. Train a ladder of this configuration."
        )
    elif not words:
        predicted, words = predict_or_say(fit, params, tokens)
    return LadderLoss(
        file=law.file,
        level=law.level,
        params=params,
        times_compute=(
            None
            if fit is None
            else TRAINING_FLOPS_PER_PARAM * params * tokens / fit.largest_compute
        ),
        bits_per_byte=predicted and interval(predicted),
        words=words,
        constants=None if law.fit is None else law.fit.constants,
        published=published_laws(params_active, tokens, law.bytes_per_token, sparse),
    )


def published_laws(
    params_active: float, effective_tokens: float, bytes_per_token: float, sparse: bool = False
) -> list[PublishedLaw]:
    """Return published laws with what they say of a training, the corrected one first.

    Args:
        params_active: Parameters that a token passes: all, but in a mixture of experts.
        effective_tokens: Loss tokens, discounted for repetition.
        bytes_per_token: Of this text; theirs have another vocabulary and other data.
        sparse: Whether the model is a mixture of experts.
    """
    laws = []
    for law in (BESIROGLU_2024, HOFFMANN_2022):
        nats = expected_loss(params_active, effective_tokens, law)
        laws.append(
            PublishedLaw(
                source=law.source,
                e=law.e,
                a=law.a,
                b=law.b,
                alpha=law.alpha,
                beta=law.beta,
                gamma=law.gamma,
                note=SPARSE_NOTE if sparse else "",
                nats_per_token=nats,
                bits_per_byte=nats / math.log(2) / bytes_per_token,
            )
        )
    return laws
