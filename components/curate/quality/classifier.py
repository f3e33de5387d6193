"""Scores documents by a classifier that tokenmill trained and pushed, for those who pay for it.

An encoder reads a text some hundred times slower than the linear model does
(docs/quality.md). TensorFlow is imported only where there is such a classifier.
"""

import os
from collections.abc import Sequence

import numpy as np

from components.curate.quality.config import LABEL_SIGN, QualityConfig
from tokenmill.contracts.quality_model import (
    CLASSIFIER_NAME,
    Classifier,
    ExampleCounts,
    QualityModelDocument,
)
from tokenmill.contracts.served_model import read_served_model
from tokenmill.errors import TokenmillError
from tokenmill.files import copy_into

# Texts that are read together; those of like length, so that little of a batch is padding.
_BATCH = 32


def find_classifier(config: QualityConfig) -> Classifier:
    """Look at the classifier that a configuration names, and return which one it is.

    Raises:
        TokenmillError: It is no classifier, or has no such labels.
    """
    from tokenmill.checkpoints.base_model import weights_fingerprint

    path = config.classifier or ""
    name = f"curate.quality.classifier = {path}"
    try:
        labels = read_served_model(path).label_names
    except FileNotFoundError:
        raise TokenmillError(
            f"{name}: no model that tokenmill pushed (assets.extra/model.json is missing).",
            "Give the directory of one version, such as runs/labels/serving_model/<version>.",
        ) from None
    if labels is None:
        raise TokenmillError(
            f"{name}: it is no classifier.", "Train one with train.task = classification."
        )
    wanted = [entry.removeprefix(LABEL_SIGN) for entry in config.positive]
    if unknown := [label for label in wanted if label not in labels]:
        raise TokenmillError(
            f"curate.quality.positive: {', '.join(unknown)}: the classifier has no such label.",
            f"It has {', '.join(labels)}.",
        )
    return Classifier(path=path, fingerprint=weights_fingerprint(path), labels=wanted)


def import_classifier(config: QualityConfig, fingerprint: str, uri: str) -> QualityModelDocument:
    """Copy the classifier into a QualityModel artifact, and return its description.

    Raises:
        TokenmillError: It is not the one that the pipeline was made with.
    """
    import tensorflow as tf

    found = find_classifier(config)
    if found.fingerprint != fingerprint:
        raise TokenmillError(
            f"curate.quality.classifier = {found.path}: its weights changed since the pipeline was "
            "made.",
            "Run again.",
        )
    target = os.path.join(uri, CLASSIFIER_NAME)
    for name in tf.io.gfile.listdir(found.path):
        copy_into(os.path.join(found.path, name.rstrip("/")), target)
    return describe_classifier(config)


def describe_classifier(config: QualityConfig) -> QualityModelDocument:
    """Describe the classifier that a configuration names, as a scorer that was not measured here.

    Raises:
        TokenmillError: As for `find_classifier`.
    """
    none = ExampleCounts(documents=0, bytes=0, held_out=0)
    return QualityModelDocument(
        kind="classifier",
        classifier=find_classifier(config),
        positive=none,
        negative=none,
        left_out={},
        held_out=None,
    )


class ClassifierScorer:
    """Scores by the probability that a classifier gives to the labels that are wanted.

    Args:
        saved_model: Its directory.
        labels: The labels, whose probabilities are added up.
    """

    def __init__(self, saved_model: str, labels: Sequence[str]):
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

        self._model = tf.saved_model.load(saved_model)
        self._classify = self._model.signatures["classify"]
        self._labels = [label.encode() for label in labels]

    def score(self, texts: Sequence[bytes]) -> np.ndarray:
        """Return the score of each text, float32 [texts].

        A text is read as far as the model's context goes. Which texts share a batch may change the
        last bits.
        """
        import tensorflow as tf

        scores = np.zeros(len(texts), np.float32)
        order = np.argsort([len(text) for text in texts], kind="stable")
        for start in range(0, len(texts), _BATCH):
            some = order[start : start + _BATCH]
            outputs = self._classify(text=tf.constant([texts[i] for i in some]))
            is_wanted = np.isin(outputs["labels"].numpy()[0], self._labels)
            scores[some] = outputs["probabilities"].numpy()[:, is_wanted].sum(axis=1)
        return np.clip(scores, 0, 1)
