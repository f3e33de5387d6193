"""TFMA metrics of a classifier, over what the `evaluate` signature says of each document.

A document without a label that the model knows counts nowhere (`example_count` is 0). TFMA's own
F1 and AUC would need a label of every document, find AUC from probabilities rounded to thresholds,
and have no interval that can be seeded; those here are exact, and their 95 % intervals formulas.
"""

import math
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types

from components.evaluate.metrics import (
    HIGH,
    LOW,
    CalibrationError,
    computation_of,
    count_of,
    half_width_95,
    predictions_of,
    quotient_of,
)

__all__ = ["Accuracy", "Auc", "CalibrationError", "EvaluatedDocuments", "LogLoss", "MacroF1"]

F1_OF = "f1_of_"
"""Before the label's name: the F1 of one class."""


class Accuracy(tfma.metrics.Metric):
    """Share of documents whose likeliest class is their label."""

    def __init__(self, name: str = "accuracy", **kwargs: Any):
        outputs = ("correct_count", "example_count")
        super().__init__(quotient_of(outputs, of_trials=True), name=name, **kwargs)


class LogLoss(tfma.metrics.Metric):
    """Mean negative log-likelihood of the label, nats a document."""

    def __init__(self, name: str = "log_loss", **kwargs: Any):
        super().__init__(quotient_of(("nll_sum", "example_count")), name=name, **kwargs)


class EvaluatedDocuments(tfma.metrics.Metric):
    """Documents with a label that the model knows."""

    def __init__(self, name: str = "evaluated_documents", **kwargs: Any):
        super().__init__(count_of("example_count", documents=False), name=name, **kwargs)


def _counted(key: Any, element: Any, *names: str) -> list[np.ndarray]:
    """Return outputs of an element's documents that have a label, each [documents, ..]."""
    predictions = predictions_of(key, element)
    used = np.asarray(predictions["example_count"]).ravel() > 0
    if not used.any():
        return [np.zeros((0, 1)) for _ in names]
    return [np.asarray(predictions[name]).reshape(len(used), -1)[used] for name in names]


def macro_f1(confusion: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Compute macro-averaged F1, the half width of its 95 % interval, and the F1 of each class.

    Classes that are neither label nor answer of any document have no F1 (not a number) and are
    left out of the mean. The interval is the delta method's on the multinomial counts (Takahashi
    et al. 2022, "Confidence interval for micro-averaged F1 and macro-averaged F1 scores").

    Args:
        confusion: Documents by label and answer, [classes, classes].
    """
    documents = confusion.sum()
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    there = both > 0
    if not there.any():
        return math.nan, math.nan, np.full(len(both), math.nan)
    hits = np.diag(confusion)
    f1 = np.full(len(both), math.nan)
    f1[there] = 2 * hits[there] / both[there]
    # d macro F1 / d share of a cell: each class's, where the cell is a hit, in its row or column.
    slope = np.zeros(len(both))
    slope[there] = 2 * hits[there] * documents / both[there] ** 2
    gain = np.zeros(len(both))
    gain[there] = 2 * documents / both[there]
    gradient = (np.diag(gain) - slope[:, None] - slope[None]) / there.sum()
    half_width = math.nan
    if documents > 1:
        variance = (confusion * gradient**2).sum() / documents / (documents - 1)
        half_width = half_width_95(variance, documents)
    return float(f1[there].mean()), half_width, f1


class _ConfusionF1(beam.CombineFn):
    """Counts documents by label and answer: (float64 [classes, classes], names of the classes)."""

    def __init__(self, key: Any):
        self._key = key

    def create_accumulator(self) -> tuple[Any, list[str]]:
        return 0.0, []

    def add_input(self, sums: tuple[Any, list[str]], element: Any) -> tuple[Any, list[str]]:
        labels, answers, label_names = _counted(
            self._key, element, "label_id", "predicted_id", "label_names"
        )
        if not len(labels):
            return sums
        names = [name.decode() for name in label_names[0]]
        confusion = np.zeros((len(names), len(names)))
        np.add.at(confusion, (labels[:, 0], answers[:, 0]), 1.0)
        return sums[0] + confusion, names

    def merge_accumulators(self, parts: Iterable[tuple[Any, list[str]]]) -> tuple[Any, list[str]]:
        total: Any = 0.0
        names: list[str] = []
        for confusion, its_names in parts:
            total, names = total + confusion, its_names or names
        return total, names

    def extract_output(self, sums: tuple[Any, list[str]]) -> dict[Any, float]:
        confusion, names = sums
        if not names:
            return _interval(self._key, math.nan, math.nan)
        value, half_width, f1 = macro_f1(confusion)
        of_classes = {
            self._key._replace(name=F1_OF + label): float(of_class)
            for label, of_class in zip(names, f1, strict=True)
        }
        return {**_interval(self._key, value, half_width), **of_classes}


class MacroF1(tfma.metrics.Metric):
    """Mean F1 of the classes; beside it the F1 of each class, under `f1_of_<label>`."""

    def __init__(self, name: str = "macro_f1", **kwargs: Any):
        super().__init__(computation_of(_ConfusionF1, ("", LOW, HIGH)), name=name, **kwargs)


def macro_auc(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Compute the mean ROC area of each class against the rest, and its interval's half width.

    Of two classes it is the one area there is. The area is the Mann-Whitney statistic, ties counted
    half; its variance is that of the placements (DeLong et al. 1988), averaged over classes
    document by document, since the classes' areas go together. Classes that all or no documents
    have are left out.

    Args:
        labels: int [documents].
        probabilities: [documents, classes].
    """
    classes = probabilities.shape[1]
    areas: list[float] = []
    influence = np.zeros(len(labels))
    for number in range(1 if classes == 2 else 0, classes):
        is_it = labels == number
        positives, negatives = int(is_it.sum()), int((~is_it).sum())
        if not positives or not negatives:
            continue
        scores = probabilities[:, number]
        ranks = _midranks(scores)
        above = (ranks[is_it] - _midranks(scores[is_it])) / negatives
        below = 1 - (ranks[~is_it] - _midranks(scores[~is_it])) / positives
        area = float(above.mean())
        areas.append(area)
        influence[is_it] += (above - area) / positives
        influence[~is_it] += (below - area) / negatives
    if not areas:
        return math.nan, math.nan
    documents = len(labels)
    variance = (influence**2).sum() / len(areas) ** 2 * documents / (documents - 1)
    return float(np.mean(areas)), half_width_95(variance, documents)


def _midranks(values: np.ndarray) -> np.ndarray:
    """Rank values from 1; equal ones share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


class _Auc(beam.CombineFn):
    """Keeps label and probabilities of each document: ranks are of all documents together."""

    def __init__(self, key: Any):
        self._key = key

    def create_accumulator(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return []

    def add_input(self, parts: list, element: Any) -> list:
        labels, probabilities = _counted(self._key, element, "label_id", "probabilities")
        if len(labels):
            parts.append((labels[:, 0], probabilities.astype(np.float32)))
        return parts

    def merge_accumulators(self, accumulators: Iterable[list]) -> list:
        return self.compact([part for parts in accumulators for part in parts])

    def compact(self, parts: list) -> list:
        if len(parts) < 2:
            return parts
        labels, probabilities = zip(*parts, strict=True)
        return [(np.concatenate(labels), np.concatenate(probabilities))]

    def extract_output(self, parts: list) -> dict[Any, float]:
        if not parts:
            return _interval(self._key, math.nan, math.nan)
        return _interval(self._key, *macro_auc(*self.compact(parts)[0]))


class Auc(tfma.metrics.Metric):
    """Area under the ROC curve, of each class against the rest, averaged over classes."""

    def __init__(self, name: str = "auc", **kwargs: Any):
        super().__init__(computation_of(_Auc, ("", LOW, HIGH)), name=name, **kwargs)


def _interval(key: Any, value: float, half_width: float) -> dict[Any, float]:
    """Return a value between 0 and 1 with its interval, cut off at 0 and 1."""
    low, high = (value - half_width, value + half_width)
    return {
        key: value,
        key._replace(name=key.name + LOW): low if math.isnan(low) else max(low, 0.0),
        key._replace(name=key.name + HIGH): high if math.isnan(high) else min(high, 1.0),
    }


for _class in (Accuracy, LogLoss, EvaluatedDocuments, MacroF1, Auc):
    metric_types.register_metric(_class)
