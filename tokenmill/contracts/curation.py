"""What curation leaves for others: curation.json, and a record of each document that it dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field

from tokenmill.contracts.base import Document, Part, key, read_document, write_document
from tokenmill.contracts.ingest import Amount
from tokenmill.files import list_files
from tokenmill.records.document_metadata import decode_metadata, encode_metadata
from tokenmill.records.tfrecord import read_tfrecords, write_tfrecords

CURATION_NAME = "curation.json"

# Characters of a dropped document's text, and of what it shares, that stay in its record.
_EXCERPT_CHARACTERS = 200


class KeptAmount(Amount):
    """The documents that stay; `bytes` are those after normalization."""

    raw_bytes: int = key("Bytes of their text before normalization.", ge=0)


class SourceCuration(Part):
    """What became of the documents of one source, or of all: in = kept + dropped."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True)
    arrived: Amount = Field(alias="in", description="Documents that arrived, before normalization.")
    kept: KeptAmount
    removed_line_bytes: int = key(
        "Bytes of the lines that were removed from kept documents (without indentation and line "
        "feeds).",
        ge=0,
    )
    dropped: dict[str, Amount] = key("Documents dropped, by reason; bytes before normalization.")


class SplitCuration(Part):
    """What became of the documents of one split."""

    by_source: dict[str, SourceCuration] = key("The counts of each source.")


class RemovedLines(Part):
    """Lines that were removed for one reason, also from documents that were dropped later."""

    lines: int = key("Lines.", ge=0)
    bytes: int = key("Their bytes.", ge=0)


class LanguageCuration(Part):
    """The documents of one language, and those of them that the quality rules dropped."""

    documents: int = key("Documents that arrived.", ge=0)
    dropped: dict[str, int] = key("Documents that a rule dropped, by reason.")


class SourceQuality(Part):
    """How a scorer of quality judged the documents of one source, those that no rule drops."""

    documents: int = key("Documents that were scored.", ge=0)
    histogram: list[int] = key("Documents by twentieth of the score, from 0 to 1.")
    threshold: float | None = key(
        "The least score of which curate.quality.top_share keeps documents of this source; null "
        "where it keeps all."
    )


class BenchmarkGuard(Part):
    """How many benchmark texts are kept out of train, and how."""

    texts: int = key("Benchmark texts.", ge=0)
    by_ngrams: int = key("Those of n words and more, guarded by each run of n words.", ge=0)
    as_a_whole: int = key("Shorter ones, guarded by the whole of their words.", ge=0)
    too_short: int = key("Not guarded: fewer than five words.", ge=0)
    too_common: int = key("Not guarded: short, and in many documents of train.", ge=0)
    documents: int = key(
        "Documents of train that have one, and were dropped for it.", default=0, ge=0
    )


class Curation(Document):
    """curation.json: what was kept, dropped, masked and removed."""

    total: SourceCuration
    splits: dict[str, SplitCuration]
    masked: dict[str, int] = key("Pieces of personal data that were masked, by kind.")
    removed_lines: dict[str, RemovedLines] = key("Lines that were removed, by reason.")
    languages: dict[str, LanguageCuration] = key("Documents by language (ISO 639; und: not known).")
    not_judged: dict[str, dict[str, int]] = key(
        "Documents that a rule has no measure for and let pass, by reason and language."
    )
    benchmarks: BenchmarkGuard | None = key("None if there are no benchmark texts.")
    remarks: list[str] = key("Sentences about what a person would not expect of this curation.")
    quality: dict[str, SourceQuality] = key(
        "How documents scored, by source; empty without [curate.quality].", default={}
    )

    def dropped_by_reason(
        self, source: str | None = None, split: str | None = None
    ) -> dict[str, Amount]:
        """Add up what was dropped, by reason, of all sources and splits or of one."""
        totals: dict[str, Amount] = {}
        for split_name, counts in self.splits.items():
            for source_name, account in counts.by_source.items():
                if source in (None, source_name) and split in (None, split_name):
                    for reason, amount in account.dropped.items():
                        total = totals.setdefault(reason, Amount(documents=0, bytes=0))
                        total.add(amount.documents, amount.bytes)
        return dict(sorted(totals.items()))


def read_curation(dropped_uri: str) -> Curation:
    """Read curation.json of an artifact of dropped documents."""
    return read_document(os.path.join(dropped_uri, CURATION_NAME), Curation)


def write_curation(dropped_uri: str, curation: Curation) -> None:
    """Write curation.json into an artifact of dropped documents."""
    write_document(os.path.join(dropped_uri, CURATION_NAME), curation)


class DroppedDocument(NamedTuple):
    """A document that was dropped, and why.

    Attributes:
        split: Where it was: train or eval.
        doc_id: Its id.
        source: Where it came from.
        excerpt: Its text, or the beginning of it.
        raw_bytes: Bytes of its text before normalization.
        reason: The drop reason.
        value: What was measured.
        threshold: What it was held against.
        kept_copy: Id of the copy that stays, or of who has the same run of words: a document, or
            "benchmark text N" (from 1, over all benchmark files); empty if there is none.
        language: ISO 639 code; und where it is not known.
        shared: The beginning of the run of words that a contaminated document shares.
        metadata: Title, url, date, license (tokenmill/records/document_metadata.py).
        matched: What of it is on a list for which it was dropped: a word, a URL, a license.
    """

    split: str
    doc_id: bytes
    source: bytes
    excerpt: str
    raw_bytes: int
    reason: str
    value: float
    threshold: float
    kept_copy: bytes
    language: str = ""
    shared: str = ""
    metadata: bytes = b""
    matched: str = ""

    def shortened(self) -> DroppedDocument:
        """Return the same with the beginning of the texts only."""
        return self._replace(
            excerpt=self.excerpt[:_EXCERPT_CHARACTERS],
            shared=self.shared[:_EXCERPT_CHARACTERS],
            matched=self.matched[:_EXCERPT_CHARACTERS],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields, ids and source as text, metadata as an object."""
        texts = {name: getattr(self, name).decode() for name in ("doc_id", "source", "kept_copy")}
        return {**self._asdict(), **texts, "metadata": decode_metadata(self.metadata)}

    def to_line(self) -> bytes:
        """Return the record as it is stored."""
        return json.dumps(self.to_json(), ensure_ascii=False, sort_keys=True).encode()


def read_dropped(dropped_uri: str) -> Iterator[DroppedDocument]:
    """Yield the records of all dropped documents, by shard and id."""
    for path in list_dropped_shards(dropped_uri):
        yield from read_dropped_shard(path)


def list_dropped_shards(dropped_uri: str) -> list[str]:
    """List the files of records, in order."""
    return list_files(dropped_uri, "dropped-*.gz")


def read_dropped_shard(path: str) -> Iterator[DroppedDocument]:
    """Yield the records of one shard."""
    for line in read_tfrecords(path):
        fields = json.loads(line)
        ids = {name: fields[name].encode() for name in ("doc_id", "source", "kept_copy")}
        metadata = encode_metadata(fields["metadata"])
        yield DroppedDocument(**{**fields, **ids, "metadata": metadata})


def write_dropped_shard(dropped_uri: str, shard: int, shards: int, lines: Iterable[bytes]) -> None:
    """Write one of `shards` files of records (`DroppedDocument.to_line`), sorted by id."""
    path = os.path.join(dropped_uri, f"dropped-{shard:05d}-of-{shards:05d}.gz")
    write_tfrecords(path, lines, gzip=True)
