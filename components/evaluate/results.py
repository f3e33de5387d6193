"""Reads what TFMA's Evaluator wrote, as plain dictionaries."""

import math
from typing import Any

import tensorflow_model_analysis as tfma


def read_metrics(evaluation_uri: str) -> dict[str, dict[str, float]]:
    """Metrics by slice: "" is all held-out documents, otherwise the source's name."""
    result = tfma.load_eval_result(evaluation_uri)
    by_slice: dict[str, dict[str, float]] = {}
    for slice_key, outputs in result.slicing_metrics:
        name = "/".join(str(value) for _, value in slice_key)
        metrics = outputs[""][""]
        by_slice[name] = {
            metric: value["doubleValue"]
            for metric, value in metrics.items()
            if "doubleValue" in value
        }
    return by_slice


def read_failures(evaluation_uri: str) -> list[str]:
    """One sentence for each threshold that the model missed; empty if it is blessed."""
    validation = tfma.load_validation_result(evaluation_uri)
    lines = []
    for by_slice in validation.metric_validations_per_slice:
        for failure in by_slice.failures:
            value = failure.metric_value.double_value.value
            threshold = failure.metric_threshold.value_threshold
            wanted = []
            if threshold.HasField("upper_bound"):
                wanted.append(f"at most {threshold.upper_bound.value:g}")
            if threshold.HasField("lower_bound"):
                wanted.append(f"at least {threshold.lower_bound.value:g}")
            shown = "not a number" if math.isnan(value) else f"{value:.4g}"
            lines.append(f"{failure.metric_key.name} is {shown}, wanted {' and '.join(wanted)}")
    return lines


def summarise(evaluation_uri: str) -> dict[str, Any]:
    """Metrics of the whole and by source, and what kept the model from being blessed."""
    metrics = read_metrics(evaluation_uri)
    return {
        "total": metrics.pop(""),
        "by_source": dict(sorted(metrics.items())),
        "failures": read_failures(evaluation_uri),
    }
