"""Packing as a Beam transform: tokenized documents of one split in, shards of rows out."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.io import fileio
from apache_beam.io.filesystem import FileMetadata

from components.pack.classification import lay_out
from components.pack.conversations import (
    Measured,
    build_conversation_rows,
    measure,
    sum_by_document,
)
from components.pack.counts import (
    ShardCounts,
    count_buckets,
    count_by_name,
    count_loss_tokens,
    sum_shards,
)
from components.pack.job import PackJob
from components.pack.packing import build_rows, pack_parts
from components.pack.quality_buckets import SourceBuckets
from components.pack.row_groups import RowGroups, row_groups
from components.pack.tokenized import TokenizedDocuments, read_tokenized
from tokenmill.contracts.packed_rows import (
    FORMAT,
    TARGET_COUNTS_NAME,
    TOKEN_FLAGS_NAME,
    PackedManifest,
    PackedShard,
    write_packed_manifest,
)
from tokenmill.errors import TokenmillError
from tokenmill.provenance.rows import write_provenance
from tokenmill.records.keys import stable_hash
from tokenmill.records.splits import split_directory
from tokenmill.rows.arrays import Parts, spans
from tokenmill.rows.packed_split import write_array, write_shard
from tokenmill.rows.token_flags import place_ranks
from tokenmill.rows.widths import widths_of
from tokenmill.text.control_ids import TOKENMILL_CONTROL_IDS


class PackSplit(beam.PTransform):
    """Packs one split of transformed examples and writes its rows and manifest.

    A shard holds the documents whose hash falls to it, sorted by id: the rows depend on the
    documents and the number of shards, not on bundles, workers or the order of files.

    Args:
        examples_pattern: Files of the split.
        output_uri: The PackedRows artifact.
        split: "train" or "eval".
        settings: How to pack; of the split, its shards a number (`PackJob.of_split`).
        flags: Of the vocabulary's tokens (token_flags.py), uint8 [vocab_size].
        label_names: A side input, the classes in order; None where there are none.
        token_sizes: Bytes of text that each token of the vocabulary stands for, int64 [vocab_size];
            of conversations alone.
        buckets: A side input, `SourceBuckets`; None where quality does not weigh.
    """

    def __init__(
        self,
        examples_pattern: str,
        output_uri: str,
        split: str,
        settings: PackJob,
        flags: np.ndarray,
        label_names: Any = None,
        token_sizes: np.ndarray | None = None,
        buckets: Any = None,
    ):
        super().__init__()
        self._label_names, self._token_sizes, self._buckets = label_names, token_sizes, buckets
        self._pattern, self._settings, self._flags = examples_pattern, settings, flags
        self._directory = split_directory(output_uri, split)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Pack the split: pipeline -> PCollection of one element, the manifest."""
        settings, directory = self._settings, self._directory
        sides = (self._flags, self._label_names)
        of_pack = (*sides, self._token_sizes, self._buckets)
        return (
            pipeline
            | "Files" >> fileio.MatchFiles(self._pattern)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_read_matched)
            | "Shard" >> beam.FlatMap(_shard, settings.shards)
            | "Group" >> beam.GroupByKey()
            | "Pack" >> beam.Map(pack_shard, directory, settings, *of_pack)
            | "Shards" >> beam.combiners.ToList()
            | "Manifest" >> beam.Map(write_manifest, directory, settings, *sides, self._buckets)
        )


def _read_matched(file: FileMetadata) -> Iterator[TokenizedDocuments]:
    return read_tokenized(file.path)


def _shard(documents: TokenizedDocuments, shards: int) -> Iterator[tuple[int, TokenizedDocuments]]:
    if shards == 1:
        yield 0, documents
        return
    numbers = np.array([stable_hash(doc_id) % shards for doc_id in documents.doc_ids])
    for shard in np.unique(numbers).tolist():
        yield shard, documents.take(np.flatnonzero(numbers == shard))


class ShardOutcome(NamedTuple):
    """What packing a shard leaves for the manifest.

    Attributes:
        entry: Its files.
        counts: What was counted.
        target_counts: How often each id is a target, int64 [vocab_size]; in classification rows of
            each class, int64 [classes].
    """

    entry: PackedShard
    counts: ShardCounts
    target_counts: np.ndarray


def pack_shard(
    item: tuple[int, Iterable[TokenizedDocuments]],
    directory: str,
    settings: PackJob,
    flags: np.ndarray,
    label_names: list[bytes] | None = None,
    token_sizes: np.ndarray | None = None,
    buckets: SourceBuckets | None = None,
) -> ShardOutcome:
    """Pack the documents of one shard and write its rows, index and provenance."""
    shard, batches = item
    documents = TokenizedDocuments.join(list(batches))
    keys = list(zip(documents.doc_ids, documents.sources, strict=True))
    documents = documents.take(np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64))
    sources = [source.decode() for source in documents.sources]
    languages = [code.decode() for code in documents.languages]
    groups = row_groups(sources, documents.scores, settings, buckets)
    layout = settings.layout
    token_counts = documents.token_counts
    columns = {
        "documents": np.ones(len(sources), np.int64),
        "bytes": documents.byte_counts,
        "tokens": token_counts,
        "dropped_empty": token_counts == 0,
    }
    if settings.classifies:
        laid = lay_out(documents, label_names or [], layout, groups)
        parts, rows, group_rows = laid.parts, laid.rows, laid.group_rows
        left_out = sum(laid.reasons.values(), start=np.zeros(len(sources), bool))
        columns |= {f"dropped_{reason}": dropped for reason, dropped in laid.reasons.items()}
        columns["dropped_bytes"] = documents.byte_counts * left_out
        columns["dropped_tokens"] = token_counts * left_out
        columns["truncated_tokens"] = token_counts * ~left_out - laid.kept_tokens
        columns["loss_tokens"] = laid.kept_tokens
        counts = laid.by_class
        without_loss = 0
        widths = widths_of(rows.segment_lengths, settings.sequence_length)
        slots = int(widths.sum())
    elif settings.conversations:
        measured = measure(documents, settings.sequence_length)
        parts, group_rows = _pack_groups(documents, groups, measured.items, settings, flags)
        rows = build_conversation_rows(parts, documents, measured.bears_loss)
        columns |= _count_conversations(documents, measured, token_sizes)
        learned = documents.tokens[measured.bears_loss]
        counts = np.bincount(learned, minlength=settings.vocab_size)
        without_loss = len(rows.inputs) - len(learned)
        slots = len(rows.segment_counts) * settings.sequence_length
    else:
        items = token_counts + (token_counts > 0) if settings.causal else token_counts
        parts, group_rows = _pack_groups(documents, groups, items, settings, flags)
        rows = build_rows(parts, documents.tokens, token_counts, layout)
        without_loss = int(parts.context.sum())
        counts = np.bincount(documents.tokens, minlength=settings.vocab_size)
        columns["loss_tokens"] = token_counts + (token_counts > 0) * settings.causal
        if settings.causal:
            counts[settings.control_ids.need("eos")] += np.count_nonzero(token_counts)
        slots = len(rows.segment_counts) * settings.sequence_length
    name = f"rows-{shard:05d}"
    files = write_shard(directory, name, rows, settings.row_format)
    provenance = f"{name}.provenance"
    digest = write_provenance(
        os.path.join(directory, provenance),
        documents.doc_ids,
        parts,
        files.rows,
        layout.frame_slots,
    )
    of_buckets: dict[str, Any] = {}
    if groups is not None and groups.has_buckets:
        of_buckets = {"rows_by_bucket": groups.rows_by_bucket(group_rows)}
    entry = PackedShard(
        **files.to_json(),
        shard=shard,
        provenance=provenance,
        provenance_sha256=digest,
        rows_by_source=[] if groups is None else groups.rows_by_source(group_rows),
        **of_buckets,
    )
    shard_counts = ShardCounts(
        segments=len(rows.segment_lengths),
        filled_slots=len(rows.inputs),
        context_slots=without_loss,
        frame_slots=layout.frame_slots * len(parts.row),
        packed_items=int(parts.length.sum()) - (without_loss if settings.conversations else 0),
        slots=slots,
        by_source=count_by_name(sources, columns),
        by_language=count_by_name(languages, columns),
        loss_tokens_by_source_and_language=count_loss_tokens(
            sources, languages, columns["loss_tokens"]
        )
        if settings.source_weights
        else {},
        by_bucket=count_buckets(groups.keys, groups.of_document, languages, columns)
        if groups is not None and groups.has_buckets
        else {},
    )
    return ShardOutcome(entry, shard_counts, counts)


def _count_conversations(
    documents: TokenizedDocuments, measured: Measured, token_sizes: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Count what becomes of each conversation's tokens, by the names of `SourceCounts`."""
    counts = documents.token_counts
    left_out = measured.kept_tokens == 0
    truncated = np.where(left_out, 0, counts - measured.kept_tokens)
    loss_tokens = sum_by_document(measured.bears_loss, counts)
    assert token_sizes is not None  # the component gives them of conversations
    answer_bytes = token_sizes[documents.tokens] * measured.bears_loss
    return {
        **{f"dropped_{reason}": dropped for reason, dropped in measured.reasons.items()},
        "dropped_bytes": documents.byte_counts * (left_out & (counts > 0)),
        "dropped_tokens": counts * left_out,
        "truncated_tokens": truncated,
        "truncated_conversations": truncated > 0,
        "loss_tokens": loss_tokens,
        "prompt_tokens": measured.kept_tokens - loss_tokens,
        "answer_bytes": sum_by_document(answer_bytes, counts),
    }


def _pack_groups(
    documents: TokenizedDocuments,
    groups: RowGroups | None,
    items: np.ndarray,
    settings: PackJob,
    flags: np.ndarray,
) -> tuple[Parts, list[int]]:
    """Pack a shard's documents; with weights, each group for itself, one after the other.

    Args:
        documents: Of the shard.
        groups: Which of them share rows; None: all.
        items: What there is to pack of each, int64; 0 takes no place.
        settings: How to pack.
        flags: Of the vocabulary's tokens.

    Returns:
        The parts, and the rows of each group, in the order of rows (empty without weights).
    """
    counts = documents.token_counts
    ranks = place_ranks(documents.tokens, flags)
    if groups is None:
        return pack_parts(items, settings.layout, ranks), []
    of_groups, group_rows, first_row = [], [], 0
    first = np.cumsum(counts) - counts
    for group in range(len(groups.keys)):
        mine = np.flatnonzero(groups.of_document == group)
        parts = pack_parts(items[mine], settings.layout, ranks[spans(first[mine], counts[mine])])
        rows = int(parts.row[-1]) + 1 if len(parts.row) else 0
        of_groups.append(parts._replace(document=mine[parts.document], row=parts.row + first_row))
        group_rows.append(rows)
        first_row += rows
    return Parts(*(np.concatenate(c) for c in zip(*of_groups, strict=True))), group_rows


def write_manifest(
    shards: Iterable[ShardOutcome],
    directory: str,
    settings: PackJob,
    flags: np.ndarray,
    label_names: list[bytes] | None = None,
    buckets: SourceBuckets | None = None,
) -> PackedManifest:
    """Add up the shards' counts, check that they balance, and write what is one for the split.

    These are `manifest.json`, `target_counts.npy` and `token_flags.npy`.

    Raises:
        ArithmeticError: Tokens went missing; a bug, and no run should go on with it.
        TokenmillError: The sources with weights are not those of the documents.
    """
    shards = sorted(shards, key=lambda shard: shard.entry.file)
    counts = sum_shards(
        [shard.counts for shard in shards], settings.task, settings.conversations, buckets
    )
    _check_weights(settings.source_weights, sorted(counts.by_source))
    target_counts = sum(
        (shard.target_counts for shard in shards),
        start=np.zeros(settings.classes if settings.classifies else settings.vocab_size, np.int64),
    )
    of_task: dict[str, Any] = {}
    if settings.task == "masked-lm":
        of_task = {"mask_rate": settings.mask_rate, "whole_word": settings.whole_word}
    if settings.classifies:
        names = [name.decode("utf-8", "replace") for name in label_names or []]
        of_task = {
            "label_names": names,
            "documents_by_label": dict(zip(names, target_counts.tolist(), strict=True)),
        }
    if buckets is not None:
        of_task["quality_weighting"] = settings.quality_weighting
    if settings.control_ids != TOKENMILL_CONTROL_IDS:
        of_task["control_ids"] = settings.control_ids
    manifest = PackedManifest(
        **counts.to_json(),
        **of_task,
        format=FORMAT,
        task=settings.task,
        row_format=settings.row_format,
        sequence_length=settings.sequence_length,
        vocab_size=settings.vocab_size,
        overlap_tokens=settings.overlap_tokens,
        source_weights=settings.source_weights,
        max_repetitions=settings.max_repetitions,
        rows=sum(shard.entry.rows for shard in shards),
        stored_bytes=sum(shard.entry.bytes for shard in shards),
        shard_count=settings.shards,
        shards=[shard.entry for shard in shards],
    )
    write_array(os.path.join(directory, TARGET_COUNTS_NAME), target_counts)
    write_array(os.path.join(directory, TOKEN_FLAGS_NAME), flags)
    write_packed_manifest(directory, manifest)
    return manifest


def _check_weights(weights: dict[str, float], sources: list[str]) -> None:
    """Check that every source has a weight: rows without one would be dropped silently."""
    missing = [source for source in sources if source not in weights]
    if weights and missing:
        raise TokenmillError(
            f"pack.source_weights has no weight for {', '.join(missing)}; the documents come from "
            f"{', '.join(sources)}.",
            "Give each source a weight; 0 leaves it out.",
        )
