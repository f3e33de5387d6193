"""TFMA metrics over the `evaluate` signature's per-document sums.

Each is a quotient of sums over documents, so that a long document weighs as much as it has
tokens; averages of averages never arise.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

# Registers the SentencePiece ops before a worker loads the model.
import tensorflow_text  # noqa: F401
from tensorflow_model_analysis.metrics import metric_types

Formula = Callable[[float, float], float]


def bits_per_byte(nll_sum: float, byte_count: float) -> float:
    """Negative log-likelihood in bits over bytes of text: comparable across tokenisers."""
    return nll_sum / math.log(2) / byte_count if byte_count else math.nan


def perplexity(nll_sum: float, token_count: float) -> float:
    """Exp of the mean negative log-likelihood (nats) a target."""
    return math.exp(min(nll_sum / token_count, 700.0)) if token_count else math.nan


def ratio(numerator: float, denominator: float) -> float:
    """Numerator / denominator; NaN if there is nothing to divide by."""
    return numerator / denominator if denominator else math.nan


class _SumsCombiner(beam.CombineFn):
    """Sums two outputs of the model over documents, then applies a formula to the sums."""

    def __init__(self, key: Any, outputs: tuple[str, str], formula: Formula):
        self._key, self._outputs, self._formula = key, outputs, formula

    def create_accumulator(self) -> tuple[float, float]:
        return 0.0, 0.0

    def add_input(self, sums: tuple[float, float], element: Any) -> tuple[float, float]:
        predictions = element.get_predictions()
        a, b = (float(np.sum(np.asarray(predictions[name], np.float64))) for name in self._outputs)
        return sums[0] + a, sums[1] + b

    def merge_accumulators(self, parts: Iterable[tuple[float, float]]) -> tuple[float, float]:
        total = (0.0, 0.0)
        for part in parts:
            total = (total[0] + part[0], total[1] + part[1])
        return total

    def extract_output(self, sums: tuple[float, float]) -> dict[Any, float]:
        return {self._key: self._formula(*sums)}


def _metric(name: str, outputs: tuple[str, str], formula: Formula):
    def computations(
        name: str = name, model_name: str = "", output_name: str = "", **_: Any
    ) -> list[tfma.metrics.MetricComputation]:
        key = tfma.metrics.MetricKey(name=name, model_name=model_name, output_name=output_name)
        return [
            tfma.metrics.MetricComputation(
                keys=[key], preprocessors=None, combiner=_SumsCombiner(key, outputs, formula)
            )
        ]

    return computations


class BitsPerByte(tfma.metrics.Metric):
    """Bits per byte of held-out text, document ends included."""

    def __init__(self, name: str = "bits_per_byte", **kwargs: Any):
        computations = _metric(name, ("nll_sum", "byte_count"), bits_per_byte)
        super().__init__(computations, name=name, **kwargs)


class Perplexity(tfma.metrics.Metric):
    """Perplexity per token of held-out text; comparable with the same tokeniser only."""

    def __init__(self, name: str = "perplexity", **kwargs: Any):
        computations = _metric(name, ("nll_sum", "token_count"), perplexity)
        super().__init__(computations, name=name, **kwargs)


class TokenAccuracy(tfma.metrics.Metric):
    """Share of targets that the likeliest token hits."""

    def __init__(self, name: str = "token_accuracy", **kwargs: Any):
        computations = _metric(name, ("correct_count", "token_count"), ratio)
        super().__init__(computations, name=name, **kwargs)


def _first(first: float, _: float) -> float:
    return first


class EvaluatedTokens(tfma.metrics.Metric):
    """Targets that were evaluated."""

    def __init__(self, name: str = "evaluated_tokens", **kwargs: Any):
        computations = _metric(name, ("token_count", "byte_count"), _first)
        super().__init__(computations, name=name, **kwargs)


for _class in (BitsPerByte, Perplexity, TokenAccuracy, EvaluatedTokens):
    metric_types.register_metric(_class)
