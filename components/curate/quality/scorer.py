"""Scores documents with what the QualityTrainer left."""

import functools
import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from components.curate.quality.classifier import ClassifierScorer
from components.curate.quality.features import mean_weights
from tokenmill.contracts.quality_model import (
    CLASSIFIER_NAME,
    LinearModel,
    read_quality_model,
    read_weights,
)


class Scorer(Protocol):
    """Gives a text a score from 0, what is not wanted, to 1."""

    def score(self, texts: Sequence[bytes]) -> np.ndarray:
        """Return the score of each normalized text, float32 [texts]."""


class LinearScorer:
    """Scores by a linear model of hashed byte n-grams.

    Args:
        model: Its description.
        weights: int16 [lengths, places].
    """

    def __init__(self, model: LinearModel, weights: np.ndarray):
        self.model, self.weights = model, weights

    def score(self, texts: Sequence[bytes]) -> np.ndarray:
        """Return the score of each text, float32 [texts]; the same whatever the batch."""
        logits = self.model.bias + self.model.scale * mean_weights(texts, self.weights)
        return (1 / (1 + np.exp(-logits))).astype(np.float32)


@functools.lru_cache(maxsize=2)
def read_scorer(uri: str) -> Scorer:
    """Read the scorer of a QualityModel artifact; a process keeps it."""
    document = read_quality_model(uri)
    if document.classifier is not None:
        directory = os.path.join(uri, CLASSIFIER_NAME)
        return ClassifierScorer(directory, document.classifier_labels)
    assert document.linear is not None
    return LinearScorer(document.linear, read_weights(uri))
