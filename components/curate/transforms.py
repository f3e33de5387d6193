"""Curation as Beam transforms over batches of documents.

Every document ends as kept or as rejected for exactly one reason, and is counted as such; the
text that normalisation takes away is counted in bytes.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import apache_beam as beam
import pyarrow as pa

from components.curate.normalise import content_key, normalise
from components.curate.rules import EXACT_DUPLICATE, judge
from components.documents import (
    SPLITS,
    document_batch,
    stable_hash,
    write_tfrecords,
)

KEPT = "kept"
REJECTED = "rejected"
COUNTS = "counts"

# Of a rejected document, as many characters stay in the record.
_EXCERPT_CHARACTERS = 200


@dataclass(frozen=True)
class CurateSettings:
    """Thresholds by rule setting (a rule without one is off), and what to do with copies."""

    thresholds: dict[str, float]
    exact_duplicates: Literal["drop", "keep"]
    partitions: int


class Candidate(NamedTuple):
    """A document that passed the rules, on its way through deduplication."""

    split: str
    doc_id: bytes
    source: bytes
    text: bytes
    raw_bytes: int


class Rejected(NamedTuple):
    """A document that was dropped, and why."""

    split: str
    doc_id: bytes
    source: bytes
    excerpt: str
    raw_bytes: int
    reason: str
    value: float
    threshold: float
    kept_copy: bytes

    def as_json(self) -> bytes:
        """One line of the rejected-documents file."""
        record = self._asdict()
        for key in ("doc_id", "source", "kept_copy"):
            record[key] = record[key].decode()
        return json.dumps(record, ensure_ascii=False, sort_keys=True).encode()


class Outcome(NamedTuple):
    """Documents and bytes of one (split, source, outcome); outcome is KEPT or a drop reason."""

    documents: int
    raw_bytes: int
    kept_bytes: int


class Curate(beam.PTransform):
    """{"train": batches, "eval": batches} -> kept documents by split, rejected ones, counts.

    Outputs (a dict): "train" and "eval" (pa.RecordBatch), REJECTED (Rejected), COUNTS
    (((split, source, outcome), Outcome), each key once).
    """

    def __init__(self, settings: CurateSettings):
        super().__init__()
        self._settings = settings

    def expand(self, documents: dict[str, beam.PCollection]) -> dict[str, beam.PCollection]:
        """Applies the rules to each batch, then deduplicates over both splits."""
        settings = self._settings
        judged = [
            documents[split]
            | f"Rules[{split}]"
            >> beam.FlatMap(apply_rules, split, settings).with_outputs(KEPT, REJECTED)
            for split in SPLITS
        ]
        final = (
            [branch[KEPT] for branch in judged]
            | "Candidates" >> beam.Flatten()
            | "ByContent" >> beam.GroupByKey()
            | "Deduplicate"
            >> beam.FlatMap(deduplicate, settings).with_outputs(*SPLITS, REJECTED, COUNTS)
        )
        rejected = [*(branch[REJECTED] for branch in judged), final[REJECTED]] | beam.Flatten()
        counts = (
            [final[COUNTS], rejected | "CountRejected" >> beam.Map(_count_rejected)]
            | "Counts" >> beam.Flatten()
            | beam.CombinePerKey(_add_outcomes)
        )
        return {**{split: final[split] for split in SPLITS}, REJECTED: rejected, COUNTS: counts}


def apply_rules(
    batch: pa.RecordBatch, split: str, settings: CurateSettings
) -> Iterator[beam.pvalue.TaggedOutput]:
    """Normalises and judges a batch; candidates go out grouped by a partition of their content."""
    partitions: dict[int, list[Candidate]] = {}
    columns = [batch.column(i).to_pylist() for i in range(3)]
    for doc_id, source, raw in zip(*columns, strict=True):
        text = normalise(raw.decode())
        verdict = judge(text, settings.thresholds)
        if verdict is None:
            data = text.encode()
            partition = stable_hash(content_key(data)) % settings.partitions
            candidate = Candidate(split, doc_id, source, data, len(raw))
            partitions.setdefault(partition, []).append(candidate)
        else:
            excerpt = text[:_EXCERPT_CHARACTERS]
            rejected = Rejected(
                split, doc_id, source, excerpt, len(raw),
                verdict.reason, verdict.value, verdict.threshold, b"",
            )  # fmt: skip
            yield beam.pvalue.TaggedOutput(REJECTED, rejected)
    for item in partitions.items():
        yield beam.pvalue.TaggedOutput(KEPT, item)


def deduplicate(
    partition: tuple[int, Iterable[list[Candidate]]], settings: CurateSettings
) -> Iterator[beam.pvalue.TaggedOutput]:
    """Keeps one copy of each text in a partition; copies always share a partition.

    The copy that stays is an eval one if there is any (so that no eval text is trained on), and
    of several the one with the smallest doc_id: an order that no scheduling can change.
    """
    candidates = [c for group in partition[1] for c in group]
    candidates.sort(key=lambda c: (SPLITS.index(c.split) == 0, c.doc_id, c.text))
    first: dict[bytes, Candidate] = {}
    kept: list[Candidate] = []
    for candidate in candidates:
        if settings.exact_duplicates == "drop":
            winner = first.setdefault(content_key(candidate.text), candidate)
            if winner is not candidate:
                excerpt = candidate.text.decode()[:_EXCERPT_CHARACTERS]
                rejected = Rejected(
                    *candidate[:3], excerpt, candidate.raw_bytes, EXACT_DUPLICATE, 2, 1,
                    winner.doc_id,
                )  # fmt: skip
                yield beam.pvalue.TaggedOutput(REJECTED, rejected)
                continue
        kept.append(candidate)
    for split in SPLITS:
        mine = [c for c in kept if c.split == split]
        if mine:
            batch = document_batch(
                [c.doc_id for c in mine], [c.source for c in mine], [c.text for c in mine]
            )
            yield beam.pvalue.TaggedOutput(split, batch)
        for source in sorted({c.source for c in mine}):
            of_source = [c for c in mine if c.source == source]
            outcome = Outcome(
                len(of_source),
                sum(c.raw_bytes for c in of_source),
                sum(len(c.text) for c in of_source),
            )
            yield beam.pvalue.TaggedOutput(COUNTS, ((split, source.decode(), KEPT), outcome))


def _count_rejected(rejected: Rejected):
    key = (rejected.split, rejected.source.decode(), rejected.reason)
    return key, Outcome(1, rejected.raw_bytes, 0)


def _add_outcomes(outcomes: Iterable[Outcome]) -> Outcome:
    totals = [0, 0, 0]
    for outcome in outcomes:
        for i, value in enumerate(outcome):
            totals[i] += value
    return Outcome(*totals)


class WriteRejected(beam.PTransform):
    """Writes rejected documents as sorted shards of JSON records (gzipped TFRecord)."""

    def __init__(self, directory: str, shards: int):
        super().__init__()
        self._directory, self._shards = directory, shards

    def expand(self, rejected: beam.PCollection) -> beam.PCollection:
        """PCollection of Rejected -> PCollection of the records written per file."""
        directory, shards = self._directory, self._shards
        return (
            rejected
            | "Shard" >> beam.Map(lambda r, n: (stable_hash(r.doc_id) % n, r), shards)
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write_rejected, directory, shards)
        )


def _write_rejected(item: tuple[int, Iterable[Rejected]], directory: str, shards: int) -> int:
    shard, rejected = item
    lines = sorted(r.as_json() for r in rejected)
    write_tfrecords(
        os.path.join(directory, f"rejected-{shard:05d}-of-{shards:05d}.gz"), lines, gzip=True
    )
    return len(lines)


def summarise(counts: Iterable[tuple[tuple[str, str, str], Outcome]]) -> dict:
    """Counts as one JSON document: per split, per source, in = kept + dropped by reason.

    Bytes of dropped documents are as they came in; a kept document has `bytes` after
    normalisation and `raw_bytes` before.
    """
    splits: dict[str, dict] = {split: {"by_source": {}} for split in SPLITS}
    total: dict = _empty_account()
    for (split, source, outcome), numbers in sorted(counts):
        by_source = splits[split]["by_source"].setdefault(source, _empty_account())
        for account in (total, by_source):
            account["in"]["documents"] += numbers.documents
            account["in"]["bytes"] += numbers.raw_bytes
            if outcome == KEPT:
                account["kept"]["documents"] += numbers.documents
                account["kept"]["bytes"] += numbers.kept_bytes
                account["kept"]["raw_bytes"] += numbers.raw_bytes
            else:
                dropped = account["dropped"].setdefault(outcome, {"documents": 0, "bytes": 0})
                dropped["documents"] += numbers.documents
                dropped["bytes"] += numbers.raw_bytes
    return {"total": total, "splits": splits}


def _empty_account() -> dict:
    return {
        "in": {"documents": 0, "bytes": 0},
        "kept": {"documents": 0, "bytes": 0, "raw_bytes": 0},
        "dropped": {},
    }
