"""Effective tokens as they were measured: what `tokenmill value` found of a run's own text."""

from __future__ import annotations

from tokenmill.contracts.ledger import MeasuredTokens, MeasuredValue
from tokenmill.contracts.value import Difference, Multiplier, read_value
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
    variant = next((v for v in mine if v.name != value.reference), mine[0] if mine else None)
    if variant is None:
        names = ", ".join(v.name for v in value.variants)
        raise TokenmillError(
            f"cost.value = {path}: none of its variants ({names}) has this configuration's "
            "[corpus], [curate], [tokenizer] and [pack]: what it measured is of other text.",
            "Measure this one: tokenmill value REFERENCE base --config FILE; or leave it out.",
        )
    reference, difference = value.reference, variant.differences.get("all")
    multiplier, note = variant.multiplier, variant.multiplier_note
    others = [v for v in value.variants if v.name != variant.name]
    if variant.name == reference and len(others) == 1 and others[0].data_fingerprint:
        # It was compared with one other text: what that is worth says what this is worth, too.
        (other,) = others
        reference, note = other.name, other.multiplier_note
        difference = _turned_difference(other.differences.get("all"))
        multiplier = _turned_multiplier(other.multiplier)
    elif variant.name == reference and not value.sources:
        note = "this text is the reference there, of several others; compare it with one: "
        note += "tokenmill value OTHER base"
    return MeasuredValue(
        study=path,
        variant=variant.name,
        reference=reference,
        proxy_params=value.proxy.params_total,
        confidence=value.confidence,
        difference=difference,
        multiplier=multiplier,
        note=note,
        sources=value.sources,
    )


def _turned_difference(found: Difference | None) -> Difference | None:
    """Return the difference of the reference less the variant."""
    if found is None:
        return None
    ends = {"mean": -found.mean, "low": -found.high, "high": -found.low}
    return found.model_copy(update=ends)


def _turned_multiplier(found: Multiplier | None) -> Multiplier | None:
    """Return what a token of the reference is worth in tokens of the variant."""
    if found is None:
        return None

    def turned(ratio: float | None) -> float | None:
        return None if ratio is None else 1 / ratio

    return Multiplier(
        value=turned(found.value),
        low=turned(found.high),
        high=turned(found.low),
        least=1 / found.most,
        most=1 / found.least,
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
