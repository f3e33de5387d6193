"""Ingest as Beam transforms: files in, sorted shards of documents by split and bad records out.

The texts are staged on disk (tokenmill/records/staging.py) as they are read; no runner holds or
shuffles them.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from components.ingest.config import CorpusConfig
from components.ingest.manifest import InputFile
from components.ingest.readers import kind_of, read_file
from components.ingest.records import Document, LeftOut
from components.ingest.unique_ids import id_keys, own_ids, rename
from tokenmill import progress
from tokenmill.contracts.ingest import BadRecord
from tokenmill.records.documents import (
    BATCH_BYTES,
    BATCH_DOCUMENTS,
    document_batch,
    encode_documents,
)
from tokenmill.records.keys import content_key, stable_hash
from tokenmill.records.splits import SPLITS, split_directory
from tokenmill.records.staged_shards import write_sorted_shard
from tokenmill.records.staging import StagedPart, Staging, StagingWriter

BAD_RECORDS = "bad_records"
COUNTS = "counts"
REPAIRED = "repaired"
RENAMED = "renamed"
LEFT_OUT = "left_out"
FORMATS = "formats"
FILES, UNREADABLE = "files", "unreadable"  # counted under (FILES, "") and (FILES, UNREADABLE)

_PARTS = "parts"

# A work item is about this much to read: many small files share a batch, a large one stands alone.
_GROUP_BYTES = 16 << 20
_GROUP_FILES = 4096  # opening a file counts, however small


def group_files(files: Iterable[InputFile]) -> Iterator[list[InputFile]]:
    """Group files, in order, into work items of about `_GROUP_BYTES`, or `_GROUP_FILES`."""
    group: list[InputFile] = []
    size = 0
    for file in files:
        full = size + file.size_bytes > _GROUP_BYTES or len(group) == _GROUP_FILES
        if group and full:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size_bytes
    if group:
        yield group


def split_of(text: bytes, eval_fraction: float) -> str:
    """Choose train or eval by a hash of the text without blanks and case.

    Copies of a document fall into the same split, wherever they come from and whatever they are
    called, so that no evaluation text is trained on under another name.
    """
    return "eval" if stable_hash(content_key(text)) < eval_fraction * 2**64 else "train"


class Ingest(beam.PTransform):
    """Reads groups of files and writes their documents as sorted shards, by split.

    Outputs (a dict): COUNTS, a PCollection of ((split, source), (documents, bytes)), and of
    ((FILES, ..), (files, bytes)), ((FORMATS, format), (documents, bytes)), ((LEFT_OUT, why),
    (records, 0)) and ((RENAMED, ""), (documents, 0)), of which there may be several for a key;
    BAD_RECORDS, one of BadRecord; REPAIRED, one of (kind, documents).

    Args:
        files: What to read.
        settings: How.
        uri: The Examples artifact.
        staging_directory: Where texts lie until they are sorted; all workers must see it. It is the
            caller's to remove.
        shards: Files a split.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        settings: CorpusConfig,
        uri: str,
        staging_directory: str,
        shards: int,
    ):
        super().__init__()
        self._groups = list(enumerate(group_files(files)))
        self._settings = settings
        self._uri, self._staging, self._shards = uri, staging_directory, shards

    def expand(self, pipeline: beam.Pipeline) -> dict[str, beam.PCollection]:
        """Read the files and write the shards; return COUNTS, BAD_RECORDS and REPAIRED."""
        read = (
            pipeline
            | "Files" >> beam.Create(self._groups)
            | "Spread" >> beam.Reshuffle()
            | "Read"
            >> beam.FlatMap(_read_group, self._settings, self._staging, self._shards).with_outputs(
                COUNTS, BAD_RECORDS, REPAIRED, main=_PARTS
            )
        )
        parts = beam.pvalue.AsSingleton(read[_PARTS] | "Parts" >> beam.combiners.ToList())
        written = (
            pipeline
            | "Shards" >> beam.Create([(split, i) for split in SPLITS for i in range(self._shards)])
            | "SpreadShards" >> beam.Reshuffle()
            | "Write" >> beam.Map(_write_shard, parts, self._uri, self._shards)
        )
        counts = (read[COUNTS], written) | "AllCounts" >> beam.Flatten()
        return {COUNTS: counts, BAD_RECORDS: read[BAD_RECORDS], REPAIRED: read[REPAIRED]}


class _Split:
    """The documents of one split of a group of files: staged in batches, and counted."""

    def __init__(self, split: str, path: str, shards: int):
        self._staging = StagingWriter(path, split, shards)
        self._pending: list[Document] = []
        self._bytes = 0
        self.counts: defaultdict[bytes, list[int]] = defaultdict(lambda: [0, 0])

    def add(self, document: Document) -> Iterator[StagedPart]:
        """Take a document; yield the part that it fills, if it does."""
        self._pending.append(document)
        self._bytes += len(document.text)
        count = self.counts[document.source]
        count[0] += 1
        count[1] += len(document.text)
        if len(self._pending) >= BATCH_DOCUMENTS or self._bytes >= BATCH_BYTES:
            self._flush()
            yield from self._staging.full()

    def rest(self) -> Iterator[StagedPart]:
        """Yield the last part, if there is one."""
        if self._pending:
            self._flush()
        yield from self._staging.rest()

    def discard(self) -> None:
        """Remove what is not closed, after an error."""
        self._staging.discard()

    def _flush(self) -> None:
        documents, self._pending, self._bytes = self._pending, [], 0
        doc_ids = [document.doc_id for document in documents]
        _, sources, texts, _, labels, languages, metadata, messages = zip(*documents, strict=True)
        batch = document_batch(doc_ids, sources, texts, labels, languages, metadata, messages)
        payloads = [payload for _, payload in encode_documents(batch)]
        sizes = [len(text) for text in texts]
        keys = id_keys(doc_ids)
        self._staging.part().append(doc_ids, sources, payloads, sizes, sizes, keys=keys)


def _read_group(
    group: tuple[int, list[InputFile]], settings: CorpusConfig, directory: str, shards: int
) -> Iterator[Any]:
    """Stage the documents of a group; yield the parts and, tagged, all else."""
    number, files = group
    splits = {s: _Split(s, os.path.join(directory, f"{s}-{number:06d}"), shards) for s in SPLITS}
    repaired: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    formats: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    unreadable: dict[str, int] = {}
    try:
        for file in files:
            by_format = formats[kind_of(file, settings)]
            for item in read_file(file, settings):
                if isinstance(item, BadRecord):
                    if not item.record and item.file == file.path:  # and no file of an archive
                        unreadable[file.path] = file.size_bytes
                    yield beam.pvalue.TaggedOutput(BAD_RECORDS, item)
                    continue
                if isinstance(item, LeftOut):
                    left_out[item.why] += 1
                    continue
                by_format[0] += 1
                by_format[1] += len(item.text)
                progress.read(1, len(item.text))
                if item.repaired:
                    repaired.update(item.repaired)
                yield from splits[split_of(item.text, settings.eval_fraction)].add(item)
        for documents in splits.values():
            yield from documents.rest()
    except BaseException:
        for documents in splits.values():
            documents.discard()
        raise
    for split, documents in splits.items():
        for source, (count, size) in documents.counts.items():
            yield beam.pvalue.TaggedOutput(COUNTS, ((split, source.decode()), (count, size)))
    size = sum(file.size_bytes for file in files)
    yield beam.pvalue.TaggedOutput(COUNTS, ((FILES, ""), (len(files), size)))
    lost = len(unreadable), sum(unreadable.values())
    yield beam.pvalue.TaggedOutput(COUNTS, ((FILES, UNREADABLE), lost))
    for name, (count, size) in formats.items():
        yield beam.pvalue.TaggedOutput(COUNTS, ((FORMATS, name), (count, size)))
    for why, count in left_out.items():
        yield beam.pvalue.TaggedOutput(COUNTS, ((LEFT_OUT, why), (count, 0)))
    for kind in repaired.items():
        yield beam.pvalue.TaggedOutput(REPAIRED, kind)


def _write_shard(
    item: tuple[str, int], parts: list[StagedPart], uri: str, shards: int
) -> tuple[tuple[str, str], tuple[int, int]]:
    """Write a shard of a split; return how many of its documents got an id of their own."""
    split, shard = item
    path = os.path.join(split_directory(uri, split), f"documents-{shard:05d}-of-{shards:05d}.gz")
    staging = Staging(parts)
    renamed = own_ids(staging, shard)
    write_sorted_shard(path, staging, split, shard, renamed=renamed, rename=rename)
    is_train = staging.splits_of(np.array(sorted(renamed), np.int64))
    return (RENAMED, ""), (int(np.sum(is_train == (split == "train"))), 0)
