"""What thresholds of the score would keep of a sample: for `tokenmill curate preview`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.curate.quality.config import QualityConfig
from components.curate.quality.selection import top_share_threshold
from tokenmill.contracts.quality_model import SCORE_BINS, HeldOutQuality, QualityModelDocument

_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def view_scores(
    document: QualityModelDocument,
    config: QualityConfig,
    scores: np.ndarray,
    sizes: np.ndarray,
    sources: Sequence[str],
) -> dict[str, Any]:
    """Return the histogram of a sample's scores, and what thresholds keep.

    Args:
        document: Of the scorer.
        config: The thresholds that are set.
        scores: float32 [documents], NOT_SCORED of those that something else drops.
        sizes: Bytes of each document.
        sources: Of each document.
    """
    scored = scores >= 0
    scores, sizes = scores[scored], sizes[scored]
    names = np.array(list(sources), object)[scored]
    stays = scores >= np.float32(config.min_score or 0.0)
    bins = np.minimum(SCORE_BINS - 1, (scores * SCORE_BINS).astype(np.int64))
    thresholds = sorted({*_THRESHOLDS, *([config.min_score] if config.min_score else [])})
    return {
        "kind": document.kind,
        "positive": document.positive.to_json(),
        "negative": document.negative.to_json(),
        "left_out": document.left_out,
        "roc_auc": None if document.held_out is None else document.held_out.roc_auc,
        "scored": {"documents": len(scores), "bytes": int(sizes.sum())},
        "histogram": {
            "documents": np.bincount(bins, minlength=SCORE_BINS).tolist(),
            "bytes": np.bincount(bins, sizes, SCORE_BINS).astype(np.int64).tolist(),
        },
        "thresholds": [
            {
                "threshold": threshold,
                "is_set": threshold == config.min_score,
                **_kept(scores >= np.float32(threshold), sizes),
                **_of_examples(document.held_out, threshold),
            }
            for threshold in thresholds
        ],
        "top_shares": {
            source: _top_share(scores[mine], sizes[mine], share)
            for source in sorted(set(names[stays].tolist()))
            if (share := config.share_of(source)) < 1
            and len(mine := np.flatnonzero(stays & (names == source)))
        },
    }


def _kept(kept: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    """Return the shares of documents and bytes that stay; 0 of none."""
    return {
        "documents": float(kept.sum() / max(1, len(kept))),
        "bytes": float(sizes[kept].sum() / max(1, sizes.sum())),
    }


def _top_share(scores: np.ndarray, sizes: np.ndarray, share: float) -> dict[str, float]:
    threshold = top_share_threshold(scores, sizes, share)
    return {
        "share": share,
        "threshold": threshold,
        **_kept(scores >= np.float32(threshold), sizes),
    }


def _of_examples(held_out: HeldOutQuality | None, threshold: float) -> dict[str, float | None]:
    """Return recall and precision on held-out examples; None between two bins of a histogram."""
    place = round(threshold * SCORE_BINS)
    if held_out is None or abs(place - threshold * SCORE_BINS) > 1e-9:
        return {"recall": None, "precision": None}
    recall, others = (
        sum(counts[place:]) / sum(counts)
        for counts in (held_out.positive_histogram, held_out.negative_histogram)
    )
    precision = recall / (recall + others) if recall else None
    return {"recall": recall, "precision": precision}
