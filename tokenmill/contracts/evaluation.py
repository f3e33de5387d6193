"""Reads what TFMA's Evaluator wrote, as plain dictionaries."""

import math
from typing import Any

import tensorflow_model_analysis as tfma

LENGTH, LANGUAGE = "length", "language"
SLICED_BY = ("source", LENGTH, LANGUAGE)
CANDIDATE, BASELINE = "candidate", "baseline"
"""Names of the two models in the evaluation: the new one, and the last blessed one."""


Slice = tuple[str, str]
WHOLE: Slice = ("", "")


def read_metrics(evaluation_uri: str) -> dict[Slice, dict[str, float]]:
    """Metrics by slice (feature, value); `WHOLE` is all held-out documents."""
    result = tfma.load_eval_result(evaluation_uri)
    if len(result.config.model_specs) > 1:  # beside a baseline, the models have names
        result = tfma.load_eval_result(evaluation_uri, model_name=CANDIDATE)
    by_slice: dict[Slice, dict[str, float]] = {}
    for slice_key, outputs in result.slicing_metrics:
        feature, value = slice_key[0] if slice_key else WHOLE
        by_slice[feature, str(value)] = {
            metric: number["doubleValue"]
            for metric, number in outputs[""][""].items()
            if "doubleValue" in number
        }
    return by_slice


def read_failures(evaluation_uri: str) -> list[str]:
    """One sentence for each threshold that the model missed; empty if it is blessed."""
    validation = tfma.load_validation_result(evaluation_uri)
    return [
        _sentence(by_slice.slice_key, failure)
        for by_slice in validation.metric_validations_per_slice
        for failure in by_slice.failures
    ]


def _sentence(slice_key: Any, failure: Any) -> str:
    where = "".join(
        f" where {key.column} is {key.bytes_value.decode()}" for key in slice_key.single_slice_keys
    )
    name, value = failure.metric_key.name + where, failure.metric_value.double_value.value
    shown = "not a number" if math.isnan(value) else f"{value:.4g}"
    if failure.metric_key.is_diff:
        limit = failure.metric_threshold.change_threshold.absolute.value
        if limit <= 0 and name.startswith("accuracy"):
            return (
                f"{name} is {-value:.4g} below the last blessed model's, wanted at most "
                f"{-limit:g} below"
            )
        return f"{name} is {shown} above the last blessed model's, wanted at most {limit:g} above"
    threshold = failure.metric_threshold.value_threshold
    wanted, distance = "", math.nan
    if threshold.HasField("upper_bound"):
        wanted = f"at most {threshold.upper_bound.value:g}"
        distance = value - threshold.upper_bound.value
    if threshold.HasField("lower_bound") and not distance > 0:
        wanted = f"at least {threshold.lower_bound.value:g}"
        distance = threshold.lower_bound.value - value
    missed = "" if math.isnan(distance) else f", missed by {distance:.3g}"
    return f"{name} is {shown}, wanted {wanted}{missed}"


def summarize(evaluation_uri: str) -> dict[str, Any]:
    """Metrics of the whole and of each slice, and what kept the model from being blessed.

    Keys: `total`, `by_source`, `by_length`, `by_language`, `failures`.
    """
    metrics = read_metrics(evaluation_uri)
    return {
        "total": metrics[WHOLE],
        **{
            f"by_{feature}": {
                value: metrics[feature, value] for at, value in sorted(metrics) if at == feature
            }
            for feature in SLICED_BY
        },
        "failures": read_failures(evaluation_uri),
    }
