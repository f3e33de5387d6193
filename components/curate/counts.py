"""Counts of curation: what was kept, what was dropped, and why; samples of what was dropped."""

import heapq
from collections.abc import Iterable
from typing import NamedTuple

from tokenmill.contracts.curation import (
    BenchmarkGuard,
    Curation,
    DroppedDocument,
    KeptAmount,
    LanguageCuration,
    RemovedLines,
    SourceCuration,
    SourceQuality,
    SplitCuration,
    write_curation,
)
from tokenmill.contracts.ingest import Amount
from tokenmill.contracts.quality_model import SCORE_BINS
from tokenmill.records.keys import stable_hash
from tokenmill.records.splits import SPLITS

KEPT = "kept"
CONTAMINATED = "contaminated"
COUNTS = "counts"
MASKED = "masked"
REMOVED_LINES = "removed_lines"
QUALITY_THRESHOLDS = "quality_thresholds"
TALLIES = "tallies"

# What tallies count: the first of each key, with what follows it.
LANGUAGE = "language"  # documents of (language)
LANGUAGE_DROPPED = "language_dropped"  # documents that a rule dropped of (language, reason)
NOT_JUDGED = "not_judged"  # documents by (reason, language)
QUALITY = "quality"  # scored documents by (source, twentieth of the score)
BENCHMARKS = "benchmarks"  # benchmark texts by (how they are guarded)


def samples_by_reason(
    records: Iterable[DroppedDocument],
    reason: str | None,
    source: str | None,
    limit: int,
    language: str | None = None,
) -> dict[str, list[DroppedDocument]]:
    """Choose up to `limit` records of each reason (or of one, of one source, language) by a hash.

    Those with the least hash of their id come first, whatever the order of the records.
    """
    least: dict[str, list[tuple[int, int, DroppedDocument]]] = {}
    for number, record in enumerate(records):
        if (
            reason in (None, record.reason)
            and source in (None, record.source.decode())
            and language in (None, record.language)
        ):
            heap = least.setdefault(record.reason, [])
            item = (-stable_hash(record.doc_id), -number, record)
            if len(heap) < limit:
                heapq.heappush(heap, item)
            else:
                heapq.heappushpop(heap, item)
    return {
        reason: [record for *_, record in sorted(heap, key=lambda item: item[:2], reverse=True)]
        for reason, heap in sorted(least.items())
    }


class OutcomeCounts(NamedTuple):
    """Documents and bytes of one (split, source, outcome); outcome is KEPT or a drop reason.

    Attributes:
        documents: How many.
        raw_bytes: Bytes as they came in.
        kept_bytes: Bytes of what is kept; 0 for a drop reason.
        removed_bytes: Bytes of the lines that were removed from what is kept, else 0.
    """

    documents: int
    raw_bytes: int
    kept_bytes: int
    removed_bytes: int


def add_outcomes(outcomes: Iterable[OutcomeCounts]) -> OutcomeCounts:
    """Return the sum of outcomes, field by field."""
    totals = [0, 0, 0, 0]
    for outcome in outcomes:
        for i, value in enumerate(outcome):
            totals[i] += value
    return OutcomeCounts(*totals)


def summarize(
    counts: Iterable[tuple[tuple[str, str, str], OutcomeCounts]],
    masked: Iterable[tuple[str, int]] = (),
    removed_lines: Iterable[tuple[str, tuple[int, int]]] = (),
    tallies: Iterable[tuple[tuple[str, ...], int]] = (),
    quality_thresholds: Iterable[tuple[str, float]] = (),
) -> Curation:
    """Arrange the counts as curation.json: by split, source and reason, and in all.

    Args:
        counts: Outcomes by (split, source, outcome).
        masked: How many of each kind were masked.
        removed_lines: (reason, (lines, bytes)), over all documents, also those that are dropped.
        tallies: Other counts, by LANGUAGE, LANGUAGE_DROPPED, NOT_JUDGED, QUALITY and BENCHMARKS.
        quality_thresholds: The least score that stays, by source.
    """
    tallied = dict(sorted(tallies))
    splits = {split: SplitCuration(by_source={}) for split in SPLITS}
    total = _nothing()
    for (split, source, outcome), numbers in sorted(counts):
        for account in (total, splits[split].by_source.setdefault(source, _nothing())):
            account.arrived.add(numbers.documents, numbers.raw_bytes)
            if outcome == KEPT:
                account.kept.add(numbers.documents, numbers.kept_bytes)
                account.kept.raw_bytes += numbers.raw_bytes
                account.removed_line_bytes += numbers.removed_bytes
            else:
                dropped = account.dropped.setdefault(outcome, Amount(documents=0, bytes=0))
                dropped.add(numbers.documents, numbers.raw_bytes)
    return Curation(
        total=total,
        splits=splits,
        masked=dict(sorted(masked)),
        removed_lines={
            reason: RemovedLines(lines=lines, bytes=size)
            for reason, (lines, size) in sorted(removed_lines)
        },
        languages={
            language: LanguageCuration(
                documents=documents,
                dropped=_below(tallied, LANGUAGE_DROPPED, language),
            )
            for language, documents in _below(tallied, LANGUAGE).items()
        },
        not_judged={
            reason: _below(tallied, NOT_JUDGED, reason)
            for reason in sorted({key[1] for key in tallied if key[0] == NOT_JUDGED})
        },
        benchmarks=BenchmarkGuard(**guarded) if (guarded := _below(tallied, BENCHMARKS)) else None,
        remarks=[],
        **_quality(tallied, dict(quality_thresholds)),
    )


def _quality(
    tallied: dict[tuple[str, ...], int], thresholds: dict[str, float]
) -> dict[str, dict[str, SourceQuality]]:
    """Return how documents scored, by source; nothing where none was scored."""
    sources = sorted({key[1] for key in tallied if key[0] == QUALITY})
    by_source = {}
    for source in sources:
        found = _below(tallied, QUALITY, source)
        histogram = [found.get(str(twentieth), 0) for twentieth in range(SCORE_BINS)]
        by_source[source] = SourceQuality(
            documents=sum(histogram), histogram=histogram, threshold=thresholds.get(source)
        )
    return {"quality": by_source} if by_source else {}


def _below(tallied: dict[tuple[str, ...], int], *prefix: str) -> dict[str, int]:
    """Return the counts whose key is the prefix and one name more, by this name."""
    return {key[-1]: count for key, count in tallied.items() if key[:-1] == prefix}


def write_report(
    counts: Iterable[tuple[tuple[str, str, str], OutcomeCounts]],
    masked: Iterable[tuple[str, int]],
    removed_lines: Iterable[tuple[str, tuple[int, int]]],
    tallies: Iterable[tuple[tuple[str, ...], int]],
    quality_thresholds: Iterable[tuple[str, float]],
    dropped_uri: str,
) -> None:
    """Write curation.json from the counts."""
    summary = summarize(counts, masked, removed_lines, tallies, quality_thresholds)
    write_curation(dropped_uri, summary)


def _nothing() -> SourceCuration:
    return SourceCuration(
        arrived=Amount(documents=0, bytes=0),
        kept=KeptAmount(documents=0, bytes=0, raw_bytes=0),
        removed_line_bytes=0,
        dropped={},
    )
