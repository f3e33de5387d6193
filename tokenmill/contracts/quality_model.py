"""What the QualityTrainer leaves: quality_model.json, and the weights of a linear scorer."""

from __future__ import annotations

import io
import os
from typing import Literal

import numpy as np

from tokenmill.contracts.base import Document, Part, key, read_document, write_document
from tokenmill.files import AtomicFile, open_file

MODEL_NAME = "quality_model.json"
WEIGHTS_NAME = "weights.npy"
NOT_SCORED = np.float32(-1.0)
"""The score of a document that has none, while it is curated."""
SCORE_BINS = 20
"""Of the histograms of scores, from 0 to 1."""
CLASSIFIER_NAME = "classifier"
"""Directory of an imported classifier: a copy of the version that was pushed."""


class ExampleCounts(Part):
    """The examples of one class."""

    documents: int = key("Examples that the scorer was trained and measured on.", ge=0)
    bytes: int = key("Their bytes, the beginning of long ones alone.", ge=0)
    held_out: int = key("Those of them that it was measured on, and not trained.", ge=0)


class PrecisionPoint(Part):
    """What a threshold keeps of the held-out examples."""

    recall: float = key("Share of the positive examples that score at least the threshold.")
    precision: float = key(
        "Share of positive ones among what scores so, were there as many negative examples."
    )
    threshold: float = key("The threshold, from 0 to 1.")


class HeldOutQuality(Part):
    """How well the scores tell held-out examples apart."""

    roc_auc: float = key(
        "Probability that a positive example scores higher than a negative one (Fawcett 2006)."
    )
    points: list[PrecisionPoint] = key("By recall, ascending.")
    positive_histogram: list[int] = key("Positive examples by twentieth of the score, from 0 to 1.")
    negative_histogram: list[int] = key("Negative examples, likewise.")


class LinearModel(Part):
    """A linear model of hashed byte n-grams (components/curate/quality/features.py).

    The score is 1 / (1 + exp(-(bias + scale x mean weight of the n-grams))).
    """

    ngram_bytes: list[int] = key("Lengths of the n-grams; a row of weights.npy each.")
    bucket_bits: int = key("Binary logarithm of the length of a row.", gt=0)
    scale: float = key("What a weight of 1 adds.")
    bias: float = key("What a text without n-grams has.")


class Classifier(Part):
    """A classifier that tokenmill trained and pushed."""

    path: str = key("Where it was.")
    fingerprint: str = key("Hash of its files.")
    labels: list[str] = key("Labels whose probabilities add up to the score.")


class QualityModelDocument(Document):
    """quality_model.json: a scorer of documents, and what it was found to be worth."""

    kind: Literal["linear", "classifier"] = key("What gives the score.")
    linear: LinearModel | None = key("Of a linear model; null for a classifier.", default=None)
    classifier: Classifier | None = key("Of a classifier; null for a linear model.", default=None)
    positive: ExampleCounts = key("Examples of what is wanted.")
    negative: ExampleCounts = key("Examples of what is not.")
    left_out: dict[str, int] = key(
        "Examples that were not looked at, by reason: held_out_text and benchmark_text (they share "
        "words with evaluation text), copy, in_both (positive and negative)."
    )
    held_out: HeldOutQuality | None = key("Null where no examples were given.")

    @property
    def classifier_labels(self) -> list[str]:
        """Return the labels of a classifier that are wanted; none of a linear model."""
        return [] if self.classifier is None else self.classifier.labels


def point_of_recall(quality: HeldOutQuality, recall: float) -> PrecisionPoint:
    """Return the point of the least recall that is at least as large."""
    return next(point for point in quality.points if point.recall >= recall - 1e-9)


def read_quality_model(uri: str) -> QualityModelDocument:
    """Read the description of a QualityModel artifact."""
    return read_document(os.path.join(uri, MODEL_NAME), QualityModelDocument)


def read_weights(uri: str) -> np.ndarray:
    """Read the weights of a linear model, int16 [lengths, places]."""
    with open_file(os.path.join(uri, WEIGHTS_NAME)) as file:
        return np.load(io.BytesIO(file.read()))


def write_quality_model(
    uri: str, document: QualityModelDocument, weights: np.ndarray | None
) -> None:
    """Write a QualityModel artifact; weights are those of a linear model."""
    if weights is not None:
        with AtomicFile(os.path.join(uri, WEIGHTS_NAME)) as out:
            np.save(out, weights)
    write_document(os.path.join(uri, MODEL_NAME), document)
