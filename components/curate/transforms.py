"""Curation in Beam, from documents as ingested to the ones worth a token.

    normalise, mask -> language, quality rules -> exact copies -> near copies -> decontaminate

Every document ends as kept or as rejected for exactly one reason, and is counted as such; the
text that normalisation takes away is counted in bytes. Elements are batches throughout.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from components.curate.account import KEPT, Outcome, Rejected, add_outcomes, count_rejected
from components.curate.boilerplate import LINES_REMOVED, RemoveBoilerplate
from components.curate.decontaminate import Decontaminate, GivesWay
from components.curate.deduplicate import (
    CANDIDATE_SCHEMA,
    Dropped,
    FindNearDuplicates,
    exact_copies,
    merge_partition,
    without,
)
from components.curate.mask import mask
from components.curate.near_duplicates import NearDuplicateSettings
from components.curate.normalise import content_key, normalise
from components.curate.verdict import judge_texts
from components.documents import SPLITS, document_batch, stable_hash

REJECTED = "rejected"
COUNTS = "counts"
MASKED = "masked"


@dataclass(frozen=True)
class CurateSettings:
    """What curation does.

    Attributes:
        thresholds: Threshold by rule setting; a rule without one is off.
        languages: ISO 639 codes to keep; empty means all, and no identification.
        min_language_score: Least probability of one of these languages, 0 to 1.
        mask: Kinds of personal data to mask (mask.KINDS).
        exact_duplicates: Whether copies go.
        near_duplicates: How near copies are found; None keeps them.
        decontaminate: Which split gives way where train and held-out text overlap.
        decontaminate_ngram_words: Length of an overlap, in words.
        benchmarks: Texts that must not occur in train.
        partitions: Parts that are deduplicated side by side; one lies in memory at a time.
        boilerplate_documents: Lines in more documents than this are removed; None removes none.
    """

    thresholds: dict[str, float]
    languages: tuple[str, ...]
    min_language_score: float
    mask: tuple[str, ...]
    exact_duplicates: Literal["drop", "keep"]
    near_duplicates: NearDuplicateSettings | None
    decontaminate: GivesWay
    decontaminate_ngram_words: int
    benchmarks: tuple[str, ...]
    partitions: int
    boilerplate_documents: int | None = None

    def to_json(self) -> str:
        """The same settings give the same text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "CurateSettings":
        """What `to_json` wrote."""
        values = json.loads(text)
        near = values["near_duplicates"]
        values["near_duplicates"] = near and NearDuplicateSettings(**near)
        for key in ("languages", "mask", "benchmarks"):
            values[key] = tuple(values[key])
        return cls(**values)


class Curate(beam.PTransform):
    """{"train": batches, "eval": batches} -> kept documents by split, rejected ones, counts.

    Outputs (a dict): "train" and "eval" (pa.RecordBatch of documents), REJECTED (lists of
    Rejected), COUNTS (((split, source, outcome), Outcome), each key once), MASKED ((kind, how
    many); boilerplate lines that were removed count here too).
    """

    def __init__(self, settings: CurateSettings):
        super().__init__()
        self._settings = settings

    def expand(self, documents: dict[str, beam.PCollection]) -> dict[str, beam.PCollection]:
        """Judges batch by batch, then deduplicates over both splits, then decontaminates."""
        settings = self._settings
        edits = []
        if settings.boilerplate_documents is not None:
            documents = documents | "Boilerplate" >> RemoveBoilerplate(
                settings.boilerplate_documents, settings.partitions
            )
            edits.append(documents[LINES_REMOVED])
        judged = [
            documents[split]
            | f"Rules[{split}]"
            >> beam.FlatMap(judge_batch, split, settings).with_outputs(REJECTED, MASKED, main=KEPT)
            for split in SPLITS
        ]
        rejected = [branch[REJECTED] for branch in judged]
        partitions = (
            [branch[KEPT] for branch in judged]
            | "Candidates" >> beam.Flatten()
            | "ByContent" >> beam.GroupByKey()
            | "Merge" >> beam.MapTuple(lambda key, groups: (key, merge_partition(groups)))
        )
        if settings.exact_duplicates == "drop":
            exact = partitions | "ExactCopies" >> beam.FlatMap(_drop_exact).with_outputs(
                REJECTED, main=KEPT
            )
            partitions = exact[KEPT]
            rejected.append(exact[REJECTED])
        if settings.near_duplicates is not None:
            found = partitions | "NearCopies" >> FindNearDuplicates(
                settings.near_duplicates, settings.partitions
            )
            near = (
                {"batch": partitions, "dropped": found}
                | "JoinNear" >> beam.CoGroupByKey()
                | "DropNear" >> beam.FlatMap(_drop_near).with_outputs(REJECTED, main=KEPT)
            )
            partitions = near[KEPT]
            rejected.append(near[REJECTED])
        by_split = partitions | "BySplit" >> beam.FlatMap(_by_split).with_outputs(*SPLITS)
        clean = {split: by_split[split] for split in SPLITS} | "Decontaminate" >> Decontaminate(
            settings.decontaminate, settings.decontaminate_ngram_words, settings.benchmarks
        )
        if REJECTED in clean:
            rejected.append(clean[REJECTED] | "Contaminated" >> beam.MapTuple(_as_rejected))
        all_rejected = rejected | "AllRejected" >> beam.Flatten()
        counts = (
            [
                *(
                    clean[split] | f"CountKept[{split}]" >> beam.FlatMap(_count_kept, split)
                    for split in SPLITS
                ),
                all_rejected | "CountRejected" >> beam.FlatMap(count_rejected),
            ]
            | "Counts" >> beam.Flatten()
            | beam.CombinePerKey(add_outcomes)
        )
        masked = (
            [*edits, *(branch[MASKED] for branch in judged)]
            | "Masked" >> beam.Flatten()
            | "SumMasked" >> beam.CombinePerKey(sum)
        )
        kept = {
            split: clean[split] | f"Documents[{split}]" >> beam.Map(_as_documents)
            for split in SPLITS
        }
        return {**kept, REJECTED: all_rejected, COUNTS: counts, MASKED: masked}


def judge_batch(batch: pa.RecordBatch, split: str, settings: CurateSettings) -> Iterator[Any]:
    """Normalises and judges a batch; what passes goes on in parts by a hash of the content."""
    doc_ids, sources, raw, raw_bytes = (batch.column(i).to_pylist() for i in range(4))
    texts = [normalise(text.decode()) for text in raw]
    if settings.mask:
        texts, masked = _mask_all(texts, settings.mask)
        for item in masked.items():
            yield beam.pvalue.TaggedOutput(MASKED, item)
    verdicts = judge_texts(texts, settings)
    rejected = [
        Rejected(split, doc_ids[i], sources[i], texts[i], raw_bytes[i], *verdicts[i], b"")
        for i in sorted(verdicts)
    ]
    if rejected:
        yield beam.pvalue.TaggedOutput(REJECTED, [r.shortened() for r in rejected])
    partitions: dict[int, list[int]] = {}
    encoded = [text.encode() for text in texts]
    for i, text in enumerate(encoded):
        if i not in verdicts:
            key = stable_hash(content_key(text)) % settings.partitions
            partitions.setdefault(key, []).append(i)
    for key, places in partitions.items():
        columns = (
            [split == "train"] * len(places),
            [doc_ids[i] for i in places],
            [sources[i] for i in places],
            [encoded[i] for i in places],
            [raw_bytes[i] for i in places],
        )
        arrays = [pa.array(c, f.type) for c, f in zip(columns, CANDIDATE_SCHEMA, strict=True)]
        yield key, pa.RecordBatch.from_arrays(arrays, schema=CANDIDATE_SCHEMA)


def _mask_all(texts: list[str], kinds: Iterable[str]) -> tuple[list[str], dict[str, int]]:
    totals: dict[str, int] = {}
    masked = []
    for text in texts:
        text, counts = mask(text, kinds)
        masked.append(text)
        for kind, count in counts.items():
            totals[kind] = totals.get(kind, 0) + count
    return masked, totals


def _drop_exact(item: tuple[int, pa.RecordBatch]) -> Iterator[Any]:
    key, batch = item
    dropped = exact_copies(batch)
    if dropped:
        yield beam.pvalue.TaggedOutput(REJECTED, _as_rejected(batch, dropped))
    yield key, without(batch, dropped)


def _drop_near(item: tuple[int, dict[str, Any]]) -> Iterator[Any]:
    key, joined = item
    dropped = [d for group in joined["dropped"] for d in group]
    for batch in joined["batch"]:
        if dropped:
            yield beam.pvalue.TaggedOutput(REJECTED, _as_rejected(batch, dropped))
        yield key, without(batch, dropped)


def _as_rejected(batch: pa.RecordBatch, dropped: list[Dropped]) -> list[Rejected]:
    rows = batch.take(pa.array([d.place for d in dropped], pa.int64())).to_pylist()
    return [
        Rejected(
            "train" if row["is_train"] else "eval",
            row["doc_id"],
            row["source"],
            row["text"].decode(),
            row["raw_bytes"],
            *d[1:],
        ).shortened()
        for row, d in zip(rows, dropped, strict=True)
    ]


def _by_split(item: tuple[int, pa.RecordBatch]) -> Iterator[beam.pvalue.TaggedOutput]:
    batch = item[1]
    for split in SPLITS:
        is_train = batch.column(0)
        mine = batch.filter(is_train if split == "train" else pc.invert(is_train))
        if mine.num_rows:
            yield beam.pvalue.TaggedOutput(split, mine)


def _as_documents(batch: pa.RecordBatch) -> pa.RecordBatch:
    return document_batch(*(batch.column(i).to_pylist() for i in (1, 2, 3)))


def _count_kept(
    batch: pa.RecordBatch, split: str
) -> Iterator[tuple[tuple[str, str, str], Outcome]]:
    by_source: dict[bytes, list[int]] = {}
    columns = (batch.column(i).to_pylist() for i in (2, 3, 4))
    for source, text, raw_bytes in zip(*columns, strict=True):
        totals = by_source.setdefault(source, [0, 0, 0])
        totals[0] += 1
        totals[1] += raw_bytes
        totals[2] += len(text)
    for source, totals in by_source.items():
        yield (split, source.decode(), KEPT), Outcome(*totals)
