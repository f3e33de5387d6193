"""TFMA metrics over the `evaluate` signature's per-document sums.

Each is a quotient of sums over documents, so that a long document weighs as much as it has
tokens; averages of averages never arise. The 95 % confidence intervals take documents, not tokens,
as what was drawn at random, since the tokens of a document go together (Miller 2024, "Adding Error
Bars to Evals", section 2.2; the quotient's variance by linearisation: Cochran 1977, "Sampling
Techniques", eq. 6.13), with Student's t for as many documents as their unequal lengths are worth
(Kish 1965, "Survey Sampling": the squared sum of the weights over the sum of their squares).
Documents that do not differ at all say nothing of the spread: no interval. TFMA's own intervals
draw random numbers that cannot be seeded.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

# Registers the SentencePiece ops before a worker loads the model.
import tensorflow_text  # noqa: F401
from scipy.special import stdtrit
from tensorflow_model_analysis.metrics import metric_types

from tokenmill.contracts.evaluation import BINS, CALIBRATION_SUMS
from tokenmill.export.scoring import CALIBRATION_BINS

LOW, HIGH = "_ci95_low", "_ci95_high"

_NORMAL_QUANTILE_95 = 1.959964
# Below, one document outweighs all others.
_FEWEST_DOCUMENTS = 1.5


def half_width_95(variance: float, documents: float) -> float:
    """Return half the width of a mean's 95 % interval by Student's t; not a number without spread.

    Args:
        variance: Of the mean, estimated from the documents.
        documents: How many there are, or what they are worth.
    """
    if documents < _FEWEST_DOCUMENTS or not variance > 0:
        return math.nan
    return float(stdtrit(documents - 1, 0.975)) * math.sqrt(variance)


def wilson_interval(hits: float, trials: float) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), which also holds at no or all hits."""
    share, z2 = hits / trials, _NORMAL_QUANTILE_95**2
    middle = (share + z2 / 2 / trials) / (1 + z2 / trials)
    half = math.sqrt(z2 * (share * (1 - share) / trials + z2 / 4 / trials**2)) / (1 + z2 / trials)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def bits(nats_per_byte: float) -> float:
    """Convert nats to bits; per byte they compare across tokenizers."""
    return max(nats_per_byte, 0.0) / math.log(2)


def perplexity(nats_per_token: float) -> float:
    """Return exp of the mean negative log-likelihood a target; finite however bad the model is."""
    return math.exp(min(max(nats_per_token, 0.0), 700.0))


def not_negative(quotient: float) -> float:
    """Return the quotient; the lower bound of a wide interval is no less than nothing."""
    return max(quotient, 0.0)


def fraction(quotient: float) -> float:
    """Return a quotient and the bounds of its interval, all between 0 and 1."""
    return min(max(quotient, 0.0), 1.0)


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

    The accumulator is float64 [5]: the sums of a, b, a*a, b*b and a*b.
    """

    def __init__(
        self,
        key: Any,
        outputs: tuple[str, str],
        scale: Callable[[float], float],
        of_trials: bool,
    ):
        self._key, self._outputs, self._scale, self._of_trials = key, outputs, scale, of_trials

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(5)

    def add_input(self, sums: np.ndarray, element: Any) -> np.ndarray:
        predictions = predictions_of(self._key, element)
        a, b = (np.asarray(predictions[name], np.float64).ravel() for name in self._outputs)
        return sums + np.array([a.sum(), b.sum(), a @ a, b @ b, a @ b])

    def merge_accumulators(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        return sum(parts, start=np.zeros(5))

    def extract_output(self, sums: np.ndarray) -> dict[Any, float]:
        a, b, aa, bb, ab = sums.tolist()
        low = quotient = high = math.nan
        if b:
            quotient = a / b
            documents = b**2 / bb
            residuals = aa - 2 * quotient * ab + quotient**2 * bb
            unbiased = documents / max(documents - 1, _FEWEST_DOCUMENTS - 1)
            spread = half_width_95(residuals / b**2 * unbiased, documents)
            low, high = quotient - spread, quotient + spread
            if self._of_trials:
                low, high = wilson_interval(a, b)
        return {
            self._key._replace(name=self._key.name + suffix): (
                math.nan if math.isnan(value) else self._scale(value)
            )
            for suffix, value in (("", quotient), (LOW, low), (HIGH, high))
        }


def quotient_of(
    outputs: tuple[str, str],
    scale: Callable[[float], float] = not_negative,
    of_trials: bool = False,
):
    """Return computations of one output's sum over another's, and of its interval.

    Args:
        outputs: The two, of the `evaluate` signature.
        scale: Applied to the quotient and its bounds.
        of_trials: The second counts trials and the first hits, at most one a document.
    """
    return computation_of(lambda key: _Quotient(key, outputs, scale, of_trials), ("", LOW, HIGH))


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
        super().__init__(
            quotient_of(("correct_count", "token_count"), fraction), name=name, **kwargs
        )


class TokenAccuracyTop5(tfma.metrics.Metric):
    """Share of targets among the five likeliest tokens."""

    def __init__(self, name: str = "token_accuracy_top5", **kwargs: Any):
        super().__init__(quotient_of(("top5_count", "token_count"), fraction), name=name, **kwargs)


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
    """Expected calibration error from sums by confidence bin, and those sums.

    The accumulator is float64 [3, bins]: the rows of `CALIBRATION_SUMS`.
    """

    def __init__(self, key: Any):
        self._key = key

    def create_accumulator(self) -> Any:
        return 0.0

    def add_input(self, sums: Any, element: Any) -> Any:
        predictions = predictions_of(self._key, element)
        return sums + np.stack(
            [
                np.atleast_2d(np.asarray(predictions[name], np.float64)).sum(axis=0)
                for name in CALIBRATION_SUMS
            ]
        )

    def merge_accumulators(self, parts: Iterable[Any]) -> Any:
        return sum(parts, start=0.0)

    def extract_output(self, sums: Any) -> dict[Any, Any]:
        if np.ndim(sums) == 0:
            sums = np.zeros((len(CALIBRATION_SUMS), CALIBRATION_BINS))
        count, confidence, correct = sums
        tokens = count.sum()
        error = float(np.abs(confidence - correct).sum() / tokens) if tokens else math.nan
        return {self._key: error, self._key._replace(name=self._key.name + BINS): sums}


class CalibrationError(tfma.metrics.Metric):
    """Expected calibration error of the likeliest token (Guo et al. 2017, eq. 3), 0 to 1.

    Tokens fall into bins by the probability that the model gives its first guess; the error is
    the mean difference, weighted by tokens, between that probability and the share of hits. The
    sums of each bin stand beside it, under the metric's name and `BINS`.
    """

    def __init__(self, name: str = "calibration_error", **kwargs: Any):
        super().__init__(computation_of(_CalibrationError, ("", BINS)), name=name, **kwargs)


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
