"""Trains the linear scorer, and measures what its scores tell of held-out examples."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from components.curate.quality.examples import ExampleSet
from components.curate.quality.features import BUCKET_BITS, NGRAM_BYTES, ngram_shares
from components.curate.quality.scorer import LinearScorer, Scorer
from tokenmill.contracts.quality_model import (
    SCORE_BINS,
    HeldOutQuality,
    LinearModel,
    PrecisionPoint,
    QualityModelDocument,
)

RECALLS = (0.5, 0.8, 0.9, 0.95, 0.99)

# Inverse strength of the regularization. Shares of n-grams are thousandths, so weights are large.
# A hundredth of it costs up to 0.06 of the ROC AUC, a hundred times as much changes it by 0.015 at
# most (benchmarks/curation/learned_quality.py).
_INVERSE_REGULARIZATION = 3000.0
_LARGEST = np.iinfo(np.int16).max


def train_linear(texts: Sequence[bytes], is_positive: np.ndarray) -> LinearScorer:
    """Train a scorer: logistic regression on the shares of n-grams, both classes weighing the same.

    Args:
        texts: Normalized; the order matters to the last bits.
        is_positive: bool [texts]; both classes have to be there.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second, and few need it

    found = [ngram_shares(text) for text in texts]
    columns = np.concatenate([places for places, _ in found])
    shares = np.concatenate([values for _, values in found])
    first = np.concatenate(([0], np.cumsum([len(places) for places, _ in found])))
    shape = (len(texts), len(NGRAM_BYTES) << BUCKET_BITS)
    regression = LogisticRegression(
        C=_INVERSE_REGULARIZATION,
        solver="liblinear",  # one thread, seeded: the same bits on every machine
        class_weight="balanced",
        tol=1e-3,
        random_state=0,
    ).fit(sparse.csr_matrix((shares, columns, first), shape), is_positive)
    coefficients = regression.coef_.reshape(len(NGRAM_BYTES), -1)
    scale = float(np.abs(coefficients).max() / _LARGEST) or 1.0
    weights = np.rint(coefficients / scale).astype(np.int16)
    model = LinearModel(
        ngram_bytes=list(NGRAM_BYTES),
        bucket_bits=BUCKET_BITS,
        scale=scale,
        bias=float(regression.intercept_[0]),
    )
    return LinearScorer(model, weights)


def train_on(examples: ExampleSet) -> tuple[QualityModelDocument, LinearScorer]:
    """Train a scorer on examples, and describe it by those that are held out."""
    scorer = train_linear(*examples.part(held_out=False))
    document = QualityModelDocument(
        kind="linear",
        linear=scorer.model,
        positive=examples.counts(True),
        negative=examples.counts(False),
        left_out=examples.left_out,
        held_out=measure(scorer, *examples.part(held_out=True)),
    )
    return document, scorer


def measure(scorer: Scorer, texts: Sequence[bytes], is_positive: np.ndarray) -> HeldOutQuality:
    """Measure how well a scorer tells examples apart that it was not trained on.

    Args:
        scorer: The scorer.
        texts: Held-out examples, normalized.
        is_positive: bool [texts]; both classes have to be there.
    """
    from sklearn.metrics import roc_auc_score

    scores = scorer.score(texts).astype(np.float64)
    positive, negative = np.sort(scores[is_positive]), np.sort(scores[~is_positive])
    points = []
    for recall in RECALLS:
        # The highest threshold that this share of the positive examples reaches.
        place = len(positive) - max(1, int(np.ceil(recall * len(positive) - 1e-9)))
        points.append(precision_at(positive, negative, float(positive[place])))
    return HeldOutQuality(
        roc_auc=float(roc_auc_score(is_positive, scores)),
        points=points,
        positive_histogram=histogram(positive),
        negative_histogram=histogram(negative),
    )


def precision_at(positive: np.ndarray, negative: np.ndarray, threshold: float) -> PrecisionPoint:
    """Return recall and precision at a threshold, both classes weighing the same.

    Args:
        positive: Scores of the positive examples, ascending.
        negative: Scores of the negative ones, ascending.
        threshold: What scores as much is kept.
    """
    kept = [
        1 - np.searchsorted(scores, threshold, side="left") / len(scores)
        for scores in (positive, negative)
    ]
    precision = kept[0] / (kept[0] + kept[1]) if kept[0] else 1.0
    return PrecisionPoint(recall=float(kept[0]), precision=float(precision), threshold=threshold)


def histogram(scores: np.ndarray) -> list[int]:
    """Count scores by twentieth, from 0 to 1."""
    return np.histogram(scores, bins=SCORE_BINS, range=(0.0, 1.0))[0].tolist()
