"""The Evaluator's configuration: metrics, slices and the thresholds that bless a model."""

import json

from tensorflow_model_analysis.proto import config_pb2

from components.evaluate.config import EvaluateConfig
from tokenmill.contracts.evaluation import BASELINE, CANDIDATE, SLICED_BY

METRICS_MODULE = "components.evaluate.metrics"
CLASS_METRICS_MODULE = "components.evaluate.class_metrics"
SLICES_MODULE = "components.evaluate.slices"


def make_eval_config(config: EvaluateConfig, task: str = "causal-lm") -> config_pb2.EvalConfig:
    """Return TFMA's configuration: every metric on the whole and by source, length and language.

    Args:
        config: Thresholds.
        task: What the model was trained for; causal-lm alone has bits per byte.
    """
    classifies = task == "classification"
    metrics = _class_metrics(config) if classifies else _token_metrics(config, task)
    model_specs = [config_pb2.ModelSpec(signature_name="evaluate")]
    if config.compares:
        model_specs = [
            config_pb2.ModelSpec(name=CANDIDATE, signature_name="evaluate"),
            config_pb2.ModelSpec(name=BASELINE, signature_name="evaluate", is_baseline=True),
        ]
    slices = [config_pb2.SlicingSpec(feature_keys=[key]) for key in SLICED_BY]
    return config_pb2.EvalConfig(
        model_specs=model_specs,
        slicing_specs=[config_pb2.SlicingSpec(), *slices],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(
                        class_name=class_name,
                        module=CLASS_METRICS_MODULE if classifies else METRICS_MODULE,
                        config=json.dumps({"name": name}),
                        per_slice_thresholds=limits,
                    )
                    for class_name, name, limits in metrics
                ]
            )
        ],
    )


def _class_metrics(config: EvaluateConfig) -> list[tuple[str, str, list]]:
    """List class, name and limits of a classifier's metrics."""
    overall = config_pb2.SlicingSpec()
    change = None
    if config.max_accuracy_decrease is not None:
        change = config_pb2.GenericChangeThreshold(
            absolute={"value": -config.max_accuracy_decrease},
            direction=config_pb2.MetricDirection.HIGHER_IS_BETTER,
        )
    error = _at_most(config.max_calibration_error, overall)
    return [
        ("Accuracy", "accuracy", _at_least(config.min_accuracy, overall, change)),
        ("MacroF1", "macro_f1", _at_least(config.min_macro_f1, overall)),
        ("Auc", "auc", []),
        ("LogLoss", "log_loss", []),
        ("CalibrationError", "calibration_error", error),
        ("EvaluatedDocuments", "evaluated_documents", _at_least(1, overall)),
    ]


def _token_metrics(config: EvaluateConfig, task: str) -> list[tuple[str, str, list]]:
    """List class, name and limits of a token model's metrics."""
    overall = config_pb2.SlicingSpec()
    sources = config_pb2.SlicingSpec(feature_keys=["source"])
    increase = config.max_bits_per_byte_increase
    bits_per_byte = [
        *_at_most(config.max_bits_per_byte, overall, _change(increase)),
        *_at_most(config.max_source_bits_per_byte, sources),
    ]
    causal = task == "causal-lm"
    prefix = "" if causal else "masked_"
    metrics = [
        ("Perplexity", f"{prefix}perplexity", _at_most(config.max_perplexity, overall)),
        (
            "TokenAccuracy",
            f"{prefix}token_accuracy",
            _at_least(config.min_token_accuracy, overall),
        ),
        ("TokenAccuracyTop5", f"{prefix}token_accuracy_top5", []),
        (
            "CalibrationError",
            "calibration_error",
            _at_most(config.max_calibration_error, overall),
        ),
        # Short texts may have no hidden token; a model that nothing was asked of is not good.
        ("EvaluatedTokens", "evaluated_tokens", [] if causal else _at_least(1, overall)),
        ("EvaluatedDocuments", "evaluated_documents", []),
    ]
    if causal:
        metrics.insert(0, ("BitsPerByte", "bits_per_byte", bits_per_byte))
    return metrics


def _at_most(value: float | None, where: config_pb2.SlicingSpec, change=None) -> list:
    if value is None:
        return []
    bound = config_pb2.GenericValueThreshold(upper_bound={"value": value})
    return [_limit(where, value_threshold=bound, change_threshold=change)]


def _at_least(value: float | None, where: config_pb2.SlicingSpec, change=None) -> list:
    if value is None and change is None:
        return []
    bound = None
    if value is not None:
        bound = config_pb2.GenericValueThreshold(lower_bound={"value": value})
    return [_limit(where, value_threshold=bound, change_threshold=change)]


def _change(increase: float | None):
    if increase is None:
        return None
    return config_pb2.GenericChangeThreshold(
        absolute={"value": increase}, direction=config_pb2.MetricDirection.LOWER_IS_BETTER
    )


def _limit(where: config_pb2.SlicingSpec, **thresholds) -> config_pb2.PerSliceMetricThreshold:
    limit = config_pb2.MetricThreshold(**{k: v for k, v in thresholds.items() if v is not None})
    return config_pb2.PerSliceMetricThreshold(slicing_specs=[where], threshold=limit)
