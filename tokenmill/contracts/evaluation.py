"""Files of TFMA's Evaluator: metrics of each slice, and whether the model is blessed."""

import math
import os
from typing import Any

import tensorflow_model_analysis as tfma

from tokenmill.contracts.base import Document, key, read_document, write_document
from tokenmill.contracts.benchmark import BenchmarkTaskResult
from tokenmill.contracts.cost_report import (
    CalibrationBin,
    EvaluationSummary,
    Forgetting,
    Metrics,
)
from tokenmill.text.language import language_label

BASELINE_CHECK_NAME = "baseline_check.json"

SOURCE, LENGTH, LANGUAGE = "source", "length", "language"
SLICED_BY = (SOURCE, LENGTH, LANGUAGE)
CANDIDATE, BASELINE = "candidate", "baseline"
"""Names of the two models in the evaluation: the new one, and the last blessed one."""


BINS = "_bins"
"""After the name of the calibration error: its sums by bin of confidence."""
CALIBRATION_SUMS = ("calibration_count", "calibration_confidence", "calibration_correct")
"""Rows of those sums, [3, bins], by the outputs of the signature that they add up."""
_CALIBRATION_ERROR = "calibration_error"

Slice = tuple[str, str]
WHOLE: Slice = ("", "")

FEW_DOCUMENTS = 30
"""Below, the numbers of a slice may turn on a single document."""


class BaselineCheck(Document):
    """baseline_check.json: whether the model is better than none at all."""

    baseline: dict[str, float] = key(
        "What frequencies of tokens or classes reach, by measure; empty if nothing was held out."
    )
    failures: list[str] = key("A sentence for each comparison that the model did not win.")
    forgetting: Forgetting | None = key(
        "The base model and this one on a general text; null where none was given.", default=None
    )
    benchmarks: dict[str, BenchmarkTaskResult] = key(
        "Benchmark tasks (evaluate.benchmarks), by name; empty where none were asked for.",
        default={},
    )


def write_baseline_check(evaluation_uri: str, check: BaselineCheck) -> None:
    """Write baseline_check.json into a ModelEvaluation artifact."""
    write_document(os.path.join(evaluation_uri, BASELINE_CHECK_NAME), check)


def read_baseline_check(evaluation_uri: str) -> BaselineCheck:
    """Read baseline_check.json of a ModelEvaluation artifact."""
    return read_document(os.path.join(evaluation_uri, BASELINE_CHECK_NAME), BaselineCheck)


def read_metrics(evaluation_uri: str) -> dict[Slice, Metrics]:
    """Read the metrics by slice (feature, value); `WHOLE` is all documents of the split."""
    result = _load(evaluation_uri)
    by_slice: dict[Slice, Metrics] = {WHOLE: {}}
    for slice_key, outputs in result.slicing_metrics:
        feature, value = slice_key[0] if slice_key else WHOLE
        by_slice[feature, str(value)] = {
            metric: found
            for metric, number in outputs[""][""].items()
            # What is not finite comes as a string: a confidence interval of one document.
            if isinstance(found := number.get("doubleValue"), float) and math.isfinite(found)
        }
    return by_slice


def read_calibration_bins(evaluation_uri: str) -> list[CalibrationBin]:
    """Read the bins of confidence of all documents; none where nothing was guessed in them."""
    for slice_key, outputs in _load(evaluation_uri).slicing_metrics:
        sums = outputs[""][""].get(_CALIBRATION_ERROR + BINS, {}).get("arrayValue")
        if slice_key or sums is None:
            continue
        rows, bins = sums["shape"]
        values = sums["float64Values"]
        count, confidence, correct = (values[i * bins : (i + 1) * bins] for i in range(rows))
        return [
            CalibrationBin(
                low=i / bins,
                high=(i + 1) / bins,
                count=round(count[i]),
                confidence=confidence[i] / count[i],
                accuracy=correct[i] / count[i],
            )
            for i in range(bins)
            if count[i]
        ]
    return []


def _load(evaluation_uri: str) -> Any:
    result = tfma.load_eval_result(evaluation_uri)
    if len(result.config.model_specs) > 1:  # beside a baseline, the models have names
        result = tfma.load_eval_result(evaluation_uri, model_name=CANDIDATE)
    return result


def read_failures(evaluation_uri: str) -> list[str]:
    """Read a sentence for each threshold that the model missed."""
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


def summarize(evaluation_uri: str) -> EvaluationSummary:
    """Read the metrics of the whole and of each slice, and the thresholds that were missed."""
    metrics = read_metrics(evaluation_uri)
    check = read_baseline_check(evaluation_uri)

    def by(feature: str) -> dict[str, Metrics]:
        return {value: metrics[at, value] for at, value in sorted(metrics) if at == feature}

    return EvaluationSummary(
        total=metrics[WHOLE],
        by_source=by(SOURCE),
        by_length=by(LENGTH),
        by_language=by(LANGUAGE),
        failures=[*read_failures(evaluation_uri), *check.failures],
        forgetting=check.forgetting,
        calibration=read_calibration_bins(evaluation_uri),
        benchmarks=check.benchmarks,
        few_documents=[
            f"{feature} {language_label(value) if feature == LANGUAGE else value}"
            for feature, value in sorted(metrics)
            if feature and metrics[feature, value].get("evaluated_documents", 0) < FEW_DOCUMENTS
        ],
    )
