"""Effective tokens as they were measured: what `tokenmill value` found of a run's own text."""

from __future__ import annotations

from tokenmill.contracts.ledger import MeasuredTokens, MeasuredValue
from tokenmill.contracts.value import read_value
from tokenmill.errors import TokenmillError


def find_measured(path: str, data_fingerprint: str) -> MeasuredValue:
    """Find what a study says of a configuration.

    Args:
        path: Its value.json (cost.value).
        data_fingerprint: Of the configuration's sections that decide what is trained on.

    Raises:
        TokenmillError: The file is missing or no value.json, or this text is none of its variants.
    """
    try:
        value = read_value(path)
    except OSError as error:
        raise TokenmillError(
            f"cost.value = {path}: {error.strerror}.",
            "Give the value.json that `tokenmill value` named at its end, or leave it out.",
        ) from None
    mine = [v for v in value.variants if v.data_fingerprint == data_fingerprint]
    # Where the configuration was given another name, too, what it was compared with counts.
    variant = next((v for v in mine if v.name != value.reference), mine[0] if mine else None)
    if variant is None:
        names = ", ".join(v.name for v in value.variants)
        raise TokenmillError(
            f"cost.value = {path}: none of its variants ({names}) has this configuration's "
            "[corpus], [curate], [tokenizer] and [pack]: what it measured is of other text.",
            "Measure this one: tokenmill value REFERENCE base --config FILE; or leave it out.",
        )
    return MeasuredValue(
        study=path,
        variant=variant.name,
        reference=value.reference,
        proxy_params=value.proxy.params_total,
        confidence=value.confidence,
        difference=variant.differences.get("all"),
        multiplier=variant.multiplier,
        note=variant.multiplier_note,
        sources=value.sources,
    )


def measured_tokens(
    measured: MeasuredValue, effective_tokens: float, compute_usd: float
) -> MeasuredTokens:
    """Translate what was measured into this training's tokens and money.

    Args:
        measured: What the study says.
        effective_tokens: Of the training, by definition.
        compute_usd: What it costs.
    """
    ratio = measured.multiplier
    value, low, high = (None,) * 3 if ratio is None else (ratio.value, ratio.low, ratio.high)
    return MeasuredTokens(
        **dict(measured),
        effective_tokens=_times(value, effective_tokens),
        effective_tokens_low=_times(low, effective_tokens),
        effective_tokens_high=_times(high, effective_tokens),
        saved_usd=_times(value, compute_usd, less=compute_usd),
        saved_usd_low=_times(low, compute_usd, less=compute_usd),
        saved_usd_high=_times(high, compute_usd, less=compute_usd),
    )


def _times(ratio: float | None, amount: float, less: float = 0.0) -> float | None:
    return None if ratio is None else ratio * amount - less
