"""What scores decide and what is counted of them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from components.curate.counts import QUALITY
from tokenmill.contracts.quality_model import SCORE_BINS

LOW_QUALITY = "low_quality"
"""The drop reason of a document that scores too little."""


def tally_scores(scores: np.ndarray, sources: Sequence[bytes]) -> Counter[tuple[str, ...]]:
    """Count documents by source and twentieth of their score; those without a score are not.

    Args:
        scores: float32 [documents], NOT_SCORED for none.
        sources: Of each document.
    """
    tallies: Counter[tuple[str, ...]] = Counter()
    for place in np.flatnonzero(scores >= 0).tolist():
        twentieth = min(SCORE_BINS - 1, int(scores[place] * SCORE_BINS))
        tallies[QUALITY, sources[place].decode(), str(twentieth)] += 1
    return tallies


def top_share_threshold(scores: np.ndarray, sizes: np.ndarray, share: float) -> float:
    """Return the least score of the best documents that make up a share of the bytes.

    Args:
        scores: float32 [documents], at least one.
        sizes: Bytes of each.
        share: Above 0; the document that reaches it stays, and those that score the same.
    """
    order = np.argsort(-scores, kind="stable")
    before = np.cumsum(sizes[order], dtype=np.float64) - sizes[order]
    inside = np.flatnonzero(before < share * float(sizes.sum(dtype=np.float64)))
    return float(scores[order[inside[-1] if len(inside) else 0]])
