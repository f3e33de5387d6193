"""TFMA metrics over the `evaluate` signature's per-document sums.

Each is a quotient of sums over documents, so that a long document weighs as much as it has
tokens; averages of averages never arise. The 95 % confidence intervals take documents, not tokens,
as what was drawn at random, since the tokens of a document go together (Miller 2024, "Adding Error
Bars to Evals", section 2.2; the quotient's variance by linearisation: Cochran 1977, "Sampling
Techniques", eq. 6.13). TFMA's own intervals draw random numbers that cannot be seeded.
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

LOW, HIGH = "_ci95_low", "_ci95_high"

NORMAL_QUANTILE_95 = 1.959964


def bits(nats_per_byte: float) -> float:
    """Convert nats to bits; per byte they compare across tokenizers."""
    return nats_per_byte / math.log(2)


def perplexity(nats_per_token: float) -> float:
    """Return exp of the mean negative log-likelihood a target; finite however bad the model is."""
    return math.exp(min(nats_per_token, 700.0))


def share(quotient: float) -> float:
    """Return the quotient as it is."""
    return quotient


def computation_of(
    combiner: Callable[[Any], beam.CombineFn], suffixes: tuple[str, ...] = ("",)
) -> Callable[..., list[tfma.metrics.MetricComputation]]:
    """Return a metric's computations from a combiner made for its key.

    TFMA calls by argument names.
    """

    def computations(
        name: str, model_names: list[str] | None = None, example_weighted: bool | None = None
    ) -> list[tfma.metrics.MetricComputation]:
        made = []
        for model_name in model_names or [""]:
            key = tfma.metrics.MetricKey(
                name=name, model_name=model_name, example_weighted=example_weighted
            )
            made.append(
                tfma.metrics.MetricComputation(
                    keys=[key._replace(name=name + suffix) for suffix in suffixes],
                    preprocessors=None,
                    combiner=combiner(key),
                )
            )
        return made

    return computations


def predictions_of(key: Any, element: Any) -> Any:
    """Return the outputs of the key's model; beside a baseline each model has its own."""
    predictions = element.get_predictions()
    return predictions[key.model_name] if key.model_name else predictions


class _Quotient(beam.CombineFn):
    """Sum of one output over the sum of another, with its confidence interval.

    The accumulator is float64 [6]: documents, and the sums of a, b, a*a, b*b and a*b.
    """

    def __init__(self, key: Any, outputs: tuple[str, str], scale: Callable[[float], float]):
        self._key, self._outputs, self._scale = key, outputs, scale

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(6)

    def add_input(self, sums: np.ndarray, element: Any) -> np.ndarray:
        predictions = predictions_of(self._key, element)
        a, b = (np.asarray(predictions[name], np.float64).ravel() for name in self._outputs)
        return sums + np.array([len(a), a.sum(), b.sum(), a @ a, b @ b, a @ b])

    def merge_accumulators(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        return sum(parts, start=np.zeros(6))

    def extract_output(self, sums: np.ndarray) -> dict[Any, float]:
        documents, a, b, aa, bb, ab = sums.tolist()
        quotient = a / b if b else math.nan
        values = {self._key: self._scale(quotient) if b else math.nan}
        half_width = math.nan
        if b and documents > 1:
            residuals = max(aa - 2 * quotient * ab + quotient**2 * bb, 0.0)
            error = math.sqrt(residuals * documents / (documents - 1)) / b
            half_width = NORMAL_QUANTILE_95 * error
        for suffix, sign in ((LOW, -1), (HIGH, 1)):
            key = self._key._replace(name=self._key.name + suffix)
            bound = quotient + sign * half_width
            values[key] = math.nan if math.isnan(bound) else self._scale(bound)
        return values


def quotient_of(outputs: tuple[str, str], scale: Callable[[float], float] = share):
    """Return computations of one output's sum over another's, and of its interval."""
    return computation_of(lambda key: _Quotient(key, outputs, scale), ("", LOW, HIGH))


class BitsPerByte(tfma.metrics.Metric):
    """Bits per byte of held-out text, document ends included."""

    def __init__(self, name: str = "bits_per_byte", **kwargs: Any):
        super().__init__(quotient_of(("nll_sum", "byte_count"), bits), name=name, **kwargs)


class Perplexity(tfma.metrics.Metric):
    """Perplexity per token of held-out text; comparable with the same tokenizer only."""

    def __init__(self, name: str = "perplexity", **kwargs: Any):
        super().__init__(quotient_of(("nll_sum", "token_count"), perplexity), name=name, **kwargs)


class TokenAccuracy(tfma.metrics.Metric):
    """Share of targets that the likeliest token hits."""

    def __init__(self, name: str = "token_accuracy", **kwargs: Any):
        super().__init__(quotient_of(("correct_count", "token_count")), name=name, **kwargs)


class TokenAccuracyTop5(tfma.metrics.Metric):
    """Share of targets among the five likeliest tokens."""

    def __init__(self, name: str = "token_accuracy_top5", **kwargs: Any):
        super().__init__(quotient_of(("top5_count", "token_count")), name=name, **kwargs)


class _Count(beam.CombineFn):
    """Sum of one output, or, without a name, the number of documents."""

    def __init__(self, key: Any, output: str, documents: bool):
        self._key, self._output, self._documents = key, output, documents

    def create_accumulator(self) -> float:
        return 0.0

    def add_input(self, total: float, element: Any) -> float:
        values = np.asarray(predictions_of(self._key, element)[self._output], np.float64)
        return total + (values.size if self._documents else float(values.sum()))

    def merge_accumulators(self, parts: Iterable[float]) -> float:
        return sum(parts)

    def extract_output(self, total: float) -> dict[Any, float]:
        return {self._key: total}


def count_of(output: str, documents: bool):
    """Return computations of an output's sum, or of how many documents have it."""
    return computation_of(lambda key: _Count(key, output, documents))


class EvaluatedTokens(tfma.metrics.Metric):
    """Targets that were evaluated."""

    def __init__(self, name: str = "evaluated_tokens", **kwargs: Any):
        super().__init__(count_of("token_count", documents=False), name=name, **kwargs)


class EvaluatedDocuments(tfma.metrics.Metric):
    """Documents that were evaluated."""

    def __init__(self, name: str = "evaluated_documents", **kwargs: Any):
        super().__init__(count_of("token_count", documents=True), name=name, **kwargs)


class _CalibrationError(beam.CombineFn):
    """Expected calibration error from sums by confidence bin, float64 [2, bins]."""

    def __init__(self, key: Any):
        self._key = key

    def create_accumulator(self) -> Any:
        return 0.0

    def add_input(self, sums: Any, element: Any) -> Any:
        predictions = predictions_of(self._key, element)
        confidence, correct, count = (
            np.atleast_2d(np.asarray(predictions[f"calibration_{name}"], np.float64)).sum(axis=0)
            for name in ("confidence", "correct", "count")
        )
        return sums + np.stack([confidence - correct, count])

    def merge_accumulators(self, parts: Iterable[Any]) -> Any:
        return sum(parts, start=0.0)

    def extract_output(self, sums: Any) -> dict[Any, float]:
        if np.ndim(sums) == 0 or not sums[1].sum():
            return {self._key: math.nan}
        return {self._key: float(np.abs(sums[0]).sum() / sums[1].sum())}


class CalibrationError(tfma.metrics.Metric):
    """Expected calibration error of the likeliest token (Guo et al. 2017, eq. 3), 0 to 1.

    Tokens fall into bins by the probability that the model gives its first guess; the error is
    the mean difference, weighted by tokens, between that probability and the share of hits.
    """

    def __init__(self, name: str = "calibration_error", **kwargs: Any):
        super().__init__(computation_of(_CalibrationError), name=name, **kwargs)


for _class in (
    BitsPerByte,
    Perplexity,
    TokenAccuracy,
    TokenAccuracyTop5,
    EvaluatedTokens,
    EvaluatedDocuments,
    CalibrationError,
):
    metric_types.register_metric(_class)
