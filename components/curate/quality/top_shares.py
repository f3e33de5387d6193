"""Keeps the best-scored share of each source: two looks at the scores of the staged documents.

The threshold of a source is that of its training documents that are no copies, and holds for its
held-out documents, too. A worker holds the scores and sizes of one source, 12 bytes a document.
"""

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np

from components.curate.counts import QUALITY_THRESHOLDS
from components.curate.deduplicate import NO_COPY, DroppedGroup, dropped_mask
from components.curate.quality.config import QualityConfig
from components.curate.quality.selection import LOW_QUALITY, top_share_threshold
from tokenmill.records.staging import StagedPart, Staging, read_rows, read_sources


class SelectTopShares(beam.PTransform):
    """Parts -> a dict: "dropped", [DroppedGroup] of one element; QUALITY_THRESHOLDS, by source.

    Args:
        config: Which share of which source stays.
        parts: All parts, as a side input.
        dropped: The documents that are gone already, as a side input.
    """

    def __init__(
        self,
        config: QualityConfig,
        parts: beam.pvalue.AsSideInput,
        dropped: beam.pvalue.AsSideInput,
    ):
        super().__init__()
        self._config, self._sides = config, (parts, dropped)

    def expand(self, parts: beam.PCollection) -> dict[str, beam.PCollection]:
        """Find each source's threshold, then drop what scores less."""
        thresholds = (
            parts
            | "SpreadScores" >> beam.Reshuffle()
            | "Scores" >> beam.FlatMap(_scores_by_source, self._config, *self._sides)
            | "BySource" >> beam.GroupByKey()
            | "Threshold" >> beam.Map(_threshold, self._config)
        )
        of_sources = beam.pvalue.AsDict(thresholds)
        dropped = (
            parts
            | "SpreadParts" >> beam.Reshuffle()
            | "Drop" >> beam.FlatMap(_below_threshold, *self._sides, of_sources)
            | "Together" >> beam.combiners.ToList()
        )
        return {"dropped": dropped, QUALITY_THRESHOLDS: thresholds}


def _live_by_source(
    part: StagedPart, parts: list[StagedPart], dropped: list[DroppedGroup]
) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Yield (source, number of the part's first document, places of those left, their rows)."""
    staging = Staging(parts)
    first = int(staging.first[staging.parts.index(part)])
    rows = read_rows(part)
    live = (rows["flag"] == 0) & ~dropped_mask(dropped, first, len(rows))
    for number, source in enumerate(read_sources(part)):
        places = np.flatnonzero(live & (rows["source"] == number))
        if len(places):
            yield source.decode(), first, places, rows[places]


def _scores_by_source(
    part: StagedPart, config: QualityConfig, parts: list[StagedPart], dropped: list[DroppedGroup]
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    if part.split == "train":
        for source, _, _, rows in _live_by_source(part, parts, dropped):
            if config.share_of(source) < 1:
                yield source, (rows["score"].copy(), rows["text_size"].astype(np.int64))


def _threshold(
    item: tuple[str, Iterable[tuple[np.ndarray, np.ndarray]]], config: QualityConfig
) -> tuple[str, float]:
    source, found = item
    scores, sizes = (np.concatenate(column) for column in zip(*found, strict=True))
    return source, top_share_threshold(scores, sizes, config.share_of(source))


def _below_threshold(
    part: StagedPart,
    parts: list[StagedPart],
    dropped: list[DroppedGroup],
    thresholds: dict[str, float],
) -> Iterator[DroppedGroup]:
    for source, first, places, rows in _live_by_source(part, parts, dropped):
        threshold = thresholds.get(source)
        if threshold is None:
            continue
        low = rows["score"] < np.float32(threshold)
        if low.any():
            count = int(low.sum())
            yield DroppedGroup(
                LOW_QUALITY,
                first + places[low],
                rows["score"][low].astype(np.float64),
                threshold,
                np.full(count, NO_COPY),
            )
