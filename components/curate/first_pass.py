"""The first pass over the documents: normalize, mask and judge them, and stage them on disk.

A document that passes is staged as the record that will be written if it stays, one that does not
as its record among the dropped. By the content of those that pass, and by their LSH bands, copies
are found later; these hashes are written beside it.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from components.curate.boilerplate import remove_frequent
from components.curate.config import CurateConfig
from components.curate.conversations import drop_refused, tidy_conversations
from components.curate.counts import (
    COUNTS,
    MASKED,
    REMOVED_LINES,
    TALLIES,
    OutcomeCounts,
)
from components.curate.decision import judge_texts
from components.curate.list_entries import NO_LISTS, ListFiles
from components.curate.lists import Lists, read_lists
from components.curate.mask import mask
from components.curate.near_duplicates import all_ngrams, band_hashes
from components.curate.quality.scorer import Scorer, read_scorer
from components.curate.quality.selection import tally_scores
from components.curate.rules import thresholds_of
from components.curate.rules.lines import Removed, remove_lines
from tokenmill.contracts.curation import DroppedDocument
from tokenmill.records.documents import (
    DocumentFile,
    document_batch,
    encode_documents,
    read_documents,
)
from tokenmill.records.keys import content_key, stable_hash
from tokenmill.records.staging import PartWriter, StagingWriter
from tokenmill.text.chat import Chat, chat_of
from tokenmill.text.normalize import normalize

# The flag of a staged row whose payload is the record of a dropped document.
DROPPED_ROW = 1

# Kinds of hashes that are staged.
CONTENT = "content"
BANDS = "bands"


def first_pass(
    file: DocumentFile,
    settings: CurateConfig,
    directory: str,
    shards: int,
    frequent: np.ndarray | None = None,
    list_files: ListFiles = NO_LISTS,
    chat_format: str = "",
    quality_uri: str = "",
) -> Iterator[Any]:
    """Stage the documents of a file; yield the parts and, tagged, what was counted.

    Args:
        file: What to read.
        settings: What to do.
        directory: The staging directory.
        shards: Shards that will be written.
        frequent: uint64, ascending: hashes of the lines to remove; None removes none.
        list_files: The lists of hosts, licenses and words that are in use.
        chat_format: JSON of the `ChatFormat` of conversations; empty where documents are texts.
        quality_uri: The QualityModel to score with; empty for none.
    """
    name = f"{file.split}-{stable_hash(file.path.encode()):016x}"
    staging = StagingWriter(os.path.join(directory, name), file.split, shards)
    lists = read_lists(list_files) if list_files != NO_LISTS else None
    chat = chat_of(chat_format) if chat_format else None
    scorer = read_scorer(quality_uri) if quality_uri else None
    counts: dict[tuple[str, str, str], list[int]] = {}
    edits = Edits()
    try:
        for batch in read_documents(file.path):
            removed_bytes = np.zeros(batch.num_rows, np.int64)
            if frequent is not None:
                batch, removed = remove_frequent(batch, frequent)
                removed_bytes += edits.add(removed)
            for record in judge_batch(
                batch, file.split, settings, staging.part(), edits, removed_bytes, lists, chat,
                scorer,
            ):  # fmt: skip
                key = (record.split, record.source.decode(), record.reason)
                total = counts.setdefault(key, [0, 0])
                total[0] += 1
                total[1] += record.raw_bytes
            yield from staging.full()
        yield from staging.rest()
    except BaseException:
        staging.discard()
        raise
    for key, (documents, raw_bytes) in counts.items():
        yield beam.pvalue.TaggedOutput(COUNTS, (key, OutcomeCounts(documents, raw_bytes, 0, 0)))
    for item in edits.masked.items():
        yield beam.pvalue.TaggedOutput(MASKED, item)
    for tally in edits.tallies.items():
        yield beam.pvalue.TaggedOutput(TALLIES, tally)
    for reason, lines in edits.lines.items():
        yield beam.pvalue.TaggedOutput(REMOVED_LINES, (reason, (lines, edits.line_bytes[reason])))


class Edits:
    """What was changed in the documents of a file, by kind, and what they were judged by."""

    def __init__(self) -> None:
        self.tallies: Counter[tuple[str, ...]] = Counter()
        self.masked: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        self.line_bytes: Counter[str] = Counter()

    def add(self, removed: Removed) -> np.ndarray:
        """Count removed lines; return their bytes, int64 [documents]."""
        for reason, (lines, size) in removed.by_reason.items():
            self.lines[reason] += lines
            self.line_bytes[reason] += size
        return removed.sizes


def judge_batch(
    batch: pa.RecordBatch,
    split: str,
    settings: CurateConfig,
    part: PartWriter,
    edits: Edits,
    removed_bytes: np.ndarray,
    lists: Lists | None,
    chat: Chat | None = None,
    scorer: Scorer | None = None,
) -> list[DroppedDocument]:
    """Normalize and judge a batch, and stage it; return the dropped documents.

    Args:
        batch: The documents.
        split: Their split.
        settings: What to do.
        part: Where they go.
        edits: Takes what is changed.
        removed_bytes: int64 [documents], bytes of lines that are gone already.
        lists: Of hosts, licenses and words; None for none.
        chat: Writes conversations, of which no line is removed; None where documents are texts.
        scorer: Of quality; None for none.
    """
    doc_ids, sources, raw, raw_bytes, labels, declared, messages, metadata = (
        column.to_pylist()
        for column in batch.columns[:-1]  # none has a score so far
    )
    refused: dict[int, str] = {}
    if chat is not None:
        texts, messages, refused = tidy_conversations(messages, settings.mask, edits.masked, chat)
    else:
        texts = [normalize(text.decode()) for text in raw]
        if settings.mask:
            texts = _mask_all(texts, settings.mask, edits.masked)
        removed = remove_lines(texts, thresholds_of(settings))
        texts, removed_bytes = removed.texts, removed_bytes + edits.add(removed)
    judged = judge_texts(
        texts, settings, [code.decode() for code in declared], metadata, lists, scorer
    )
    drop_refused(judged, refused)
    edits.tallies.update(judged.tallies())
    edits.tallies.update(tally_scores(judged.scores, sources))
    decisions = judged.dropped
    dropped = {
        i: DroppedDocument(
            split, doc_ids[i], sources[i], texts[i], raw_bytes[i], *decision, b"",
            judged.languages[i], metadata=metadata[i],
            matched=judged.matched.get(i, ""),
        )
        for i, decision in decisions.items()
    }  # fmt: skip
    passed = np.array([i for i in range(len(texts)) if i not in decisions], np.int64)
    encoded = [text.encode() for text in texts]
    languages = [code.encode() for code in judged.languages]
    columns = (doc_ids, sources, encoded, labels, languages, metadata, messages)
    scored = () if scorer is None else (judged.scores,)
    kept = document_batch(*([column[i] for i in passed] for column in (*columns, *scored)))
    payloads = {i: record.shortened().to_line() for i, record in dropped.items()}
    payloads.update(zip(passed.tolist(), (p for _, p in encode_documents(kept)), strict=True))
    keys = np.zeros((len(texts), 2), np.uint64)
    content = b"".join(content_key(encoded[i]) for i in passed)
    keys[passed] = np.frombuffer(content, np.uint64).reshape(-1, 2)
    sizes = np.array([len(text) for text in encoded], np.uint32)
    flags = np.zeros(len(texts), np.uint8)
    flags[list(dropped)] = DROPPED_ROW
    sizes[list(dropped)] = 0
    first = part.rows
    part.append(
        doc_ids,
        sources,
        [payloads[i] for i in range(len(texts))],
        sizes,
        raw_bytes,
        flags,
        keys,
        removed_bytes,
        judged.scores,
    )
    part.add_hashes(CONTENT, keys[passed, 0], first + passed)
    if settings.near_duplicates == "drop":
        shingles = all_ngrams([texts[i] for i in passed], settings.near_duplicate_ngram_words)
        long_enough = np.diff(shingles.first) > 0  # others have nothing to compare
        bands = band_hashes(shingles, settings)[long_enough]
        rows = np.repeat(first + passed[long_enough], bands.shape[1])
        part.add_hashes(BANDS, bands.ravel(), rows)
    return [dropped[i] for i in sorted(dropped)]


def _mask_all(texts: list[str], kinds: Iterable[str], masked: Counter[str]) -> list[str]:
    result = []
    for text in texts:
        text, counts = mask(text, kinds)
        result.append(text)
        masked.update(counts)
    return result
