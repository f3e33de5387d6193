"""The Evaluator's configuration: metrics, slices and the thresholds that bless a model."""

import tensorflow_model_analysis as tfma

METRICS_MODULE = "components.evaluate.metrics"


def make_eval_config(
    max_bits_per_byte: float,
    max_perplexity: float | None,
    min_token_accuracy: float | None,
) -> tfma.EvalConfig:
    """Thresholds apply to the held-out documents as a whole; every source is reported too.

    Args:
        max_bits_per_byte: A model above it is not blessed.
        max_perplexity: Likewise; None sets no limit.
        min_token_accuracy: A model below it (0 to 1) is not blessed; None sets no limit.
    """
    overall = tfma.SlicingSpec()

    def threshold(lower: float | None = None, upper: float | None = None):
        if lower is None and upper is None:
            return []
        bounds = {}
        if lower is not None:
            bounds["lower_bound"] = {"value": lower}
        if upper is not None:
            bounds["upper_bound"] = {"value": upper}
        limit = tfma.MetricThreshold(value_threshold=tfma.GenericValueThreshold(**bounds))
        return [tfma.PerSliceMetricThreshold(slicing_specs=[overall], threshold=limit)]

    metrics = {
        "BitsPerByte": threshold(upper=max_bits_per_byte),
        "Perplexity": threshold(upper=max_perplexity),
        "TokenAccuracy": threshold(lower=min_token_accuracy),
        "EvaluatedTokens": [],
    }
    return tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(signature_name="evaluate")],
        slicing_specs=[overall, tfma.SlicingSpec(feature_keys=["source"])],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(
                        class_name=name, module=METRICS_MODULE, per_slice_thresholds=limits
                    )
                    for name, limits in metrics.items()
                ]
            )
        ],
    )
