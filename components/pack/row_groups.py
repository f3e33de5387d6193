"""Groups of a shard's documents that share rows: all, or those of a source, or of its bucket."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from components.pack.job import PackJob
from components.pack.quality_buckets import SourceBuckets, bucket_numbers


class RowGroups(NamedTuple):
    """Documents by what weighs their rows.

    Attributes:
        keys: Source and bucket of each group, ascending; the bucket is 0 without buckets.
        of_document: Group of each document, int64 [documents].
        has_buckets: Whether quality weighs.
    """

    keys: list[tuple[str, int]]
    of_document: np.ndarray
    has_buckets: bool

    def rows_by_source(self, rows: Sequence[int]) -> list[tuple[str, int]]:
        """Return source and number of rows, in the order of rows.

        Args:
            rows: Rows of each group.
        """
        by_source: dict[str, int] = {}
        for (source, _), count in zip(self.keys, rows, strict=True):
            by_source[source] = by_source.get(source, 0) + count
        return list(by_source.items())

    def rows_by_bucket(self, rows: Sequence[int]) -> list[tuple[str, int, int]]:
        """Return source, bucket and number of rows, likewise."""
        return [(*key, count) for key, count in zip(self.keys, rows, strict=True)]


def row_groups(
    sources: Sequence[str],
    scores: np.ndarray,
    settings: PackJob,
    buckets: SourceBuckets | None,
) -> RowGroups | None:
    """Group a shard's documents; None where all share rows.

    Args:
        sources: Source of each.
        scores: Learned quality of each.
        settings: How to pack.
        buckets: Of each source; None without quality_weighting.
    """
    if buckets is None and not settings.source_weights:
        return None
    numbers = np.zeros(len(sources), np.int64)
    if buckets is not None:
        numbers = bucket_numbers(sources, scores, buckets)
    pairs = list(zip(sources, numbers.tolist(), strict=True))
    keys = sorted(set(pairs))
    index = {key: i for i, key in enumerate(keys)}
    return RowGroups(keys, np.array([index[p] for p in pairs], np.int64), buckets is not None)
