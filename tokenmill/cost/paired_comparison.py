"""Compare two ways to prepare text by paired small trainings, without significance by peeking.

Each seed trains both: the same initial weights, the same number of tokens, the same held-out
documents. What is compared is the difference of each pair, so that what a seed or a hard document
does to both cancels. docs/design/paired_comparison.md says in plain words what is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tokenmill.contracts.value import Verdict

CONFIDENCE = 0.95
"""Of an interval, over all looks of a study together."""
LEAST_SEEDS = 3
"""Before the first look: of two differences a variance says nearly nothing."""


@dataclass(frozen=True)
class PairedDifference:
    """A variant less its reference on a set of held-out documents, in bits per byte.

    Attributes:
        mean: The difference; below 0 the variant is better.
        low: Lower end of its interval.
        high: Upper end.
        seeds: Pairs of trainings.
        documents: Held-out documents.
        seed_error: Standard error of the mean from seed to seed, bits per byte.
        document_error: Standard error from document to document, bits per byte.
    """

    mean: float
    low: float
    high: float
    seeds: int
    documents: int
    seed_error: float
    document_error: float

    def verdict(self, margin: float) -> Verdict:
        """Say what the interval allows to say.

        Args:
            margin: The largest difference that counts as none, bits per byte.

        Returns:
            equal if the whole interval is within the margin, else better or worse if it leaves out
            0, else undecided.
        """
        if -margin <= self.low and self.high <= margin:
            return "equal"
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "undecided"


def planned_looks(most_seeds: int) -> tuple[int, ...]:
    """Choose after how many seeds a study looks at its results: at most three times.

    The number of looks is fixed before the first, as each of them spends its share of the level.

    Args:
        most_seeds: Seeds that the study has at most.

    Returns:
        Counts of seeds, rising, the last of them `most_seeds`; one look where seeds are few.

    Raises:
        ValueError: There are fewer than `LEAST_SEEDS`.
    """
    if most_seeds < LEAST_SEEDS:
        raise ValueError(f"most_seeds = {most_seeds}: expected at least {LEAST_SEEDS}")
    middle = round(math.sqrt(LEAST_SEEDS * most_seeds))
    return tuple(sorted({LEAST_SEEDS, middle, most_seeds}))


def confidence_of_look(looks: int, confidence: float = CONFIDENCE) -> float:
    """Return the confidence of the interval at one look of several (Bonferroni).

    Args:
        looks: How often the study may look at most.
        confidence: Of all looks together: that no interval that was looked at misses the truth.
    """
    return 1 - (1 - confidence) / looks


def paired_difference(
    reference: Sequence[np.ndarray],
    variant: Sequence[np.ndarray],
    document_bytes: np.ndarray,
    confidence: float = CONFIDENCE,
    strata: np.ndarray | None = None,
) -> PairedDifference:
    """Estimate the difference of two trainings' bits per byte, with an interval.

    Seeds and documents both vary. From seed to seed the differences are independent, so that
    their mean has a t interval of seeds - 1 degrees of freedom; documents are clusters of bytes,
    and the difference's standard error among them is that of a ratio (Cochran 1977, eq. 6.13).
    The two half-widths are joined by their squares (Zou and Donner 2008, MOVER), which, unlike
    summed variances with one number of degrees of freedom, stays honest with three seeds.

    Where documents are of several sources, each source's share of the held-out text is given and
    not drawn: what varies is which documents of a source there are (stratified, Cochran 1977, sec.
    6.10). A variant that is worse in one language alone is clearly worse on a text of four.

    Args:
        reference: Negative log-likelihood of each document by seed, nats, float [documents].
        variant: The same of the variant, in the same order of seeds.
        document_bytes: UTF-8 bytes of each document, int [documents].
        confidence: Of the interval.
        strata: Number of each document's source, int [documents]; None for one.

    Raises:
        ValueError: Seeds or documents are fewer than two, or do not match.
    """
    if len(reference) != len(variant) or len(reference) < 2:
        raise ValueError(
            f"{len(reference)} and {len(variant)} seeds: expected as many of both, at least 2"
        )
    size = np.asarray(document_bytes, np.float64)
    if len(size) < 2:
        raise ValueError(f"{len(size)} documents: expected at least 2")
    # [seeds, documents], bits
    bits = (np.stack(variant) - np.stack(reference)) / math.log(2)
    seeds, documents = bits.shape
    by_seed = bits.sum(axis=1) / size.sum()
    mean = float(by_seed.mean())
    seed_error = float(by_seed.std(ddof=1)) / math.sqrt(seeds)
    of_document = bits.mean(axis=0)
    variance, groups = 0.0, _strata(strata, documents)
    for mine in groups:
        count, ratio = len(mine), of_document[mine].sum() / size[mine].sum()
        residuals = of_document[mine] - ratio * size[mine]
        variance += count / (count - 1) * float(residuals @ residuals)
    document_error = math.sqrt(variance) / float(size.sum())
    tail = (1 + confidence) / 2
    half = math.hypot(
        float(stats.t.ppf(tail, seeds - 1)) * seed_error,
        float(stats.t.ppf(tail, documents - len(groups))) * document_error,
    )
    return PairedDifference(
        mean, mean - half, mean + half, seeds, documents, seed_error, document_error
    )


def _strata(strata: np.ndarray | None, documents: int) -> list[np.ndarray]:
    """Return the places of each stratum's documents; single documents share one stratum."""
    everything = np.arange(documents)
    if strata is None:
        return [everything]
    groups = [np.flatnonzero(strata == number) for number in np.unique(strata)]
    large = [group for group in groups if len(group) > 1]
    single = [group for group in groups if len(group) == 1]
    if len(single) == 1 and large:  # no variance of its own: it goes to the smallest
        large.sort(key=len, reverse=True)
        large[-1] = np.concatenate([large[-1], *single])
    elif single:
        large.append(np.concatenate(single))
    return large
