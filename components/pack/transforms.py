"""Packing as a Beam transform: tokenised documents of one split in, shards of rows out."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.io import fileio
from apache_beam.io.filesystem import FileMetadata

from components.documents import BATCH_DOCUMENTS, split_directory, stable_hash, write_json
from components.errors import TokenmillError
from components.pack.account import count_sources, sum_shards
from components.pack.packing import Layout, Pieces, build_rows, pack_pieces, spans
from components.pack.pieces import FLAGS_NAME, place_ranks
from components.pack.provenance import write_provenance
from components.pack.records import RowFormat, row_dtype
from components.pack.rows import FORMAT, MANIFEST_NAME, write_array, write_shard
from components.tokenize.vocabulary import EOS_ID

SHARD_TOKENS = 8_000_000
"""A worker packs one shard in memory: some 40 bytes for each of its tokens."""
_SHARD_ROWS = 1_000


def shards_for(tokens: int, sequence_length: int) -> int:
    """Shards of a split of so many tokens: of SHARD_TOKENS each, but of 1,000 rows or more.

    The last row of a shard is partly empty: with 1,000 rows that is a thousandth at most.
    """
    return max(1, -(-tokens // max(SHARD_TOKENS, _SHARD_ROWS * sequence_length)))


@dataclass(frozen=True)
class PackSettings:
    """How documents are packed; keys and units as in the configuration.

    Attributes:
        sequence_length: Slots of a row.
        vocab_size: Ids are below it.
        shards: Files per split; None: as many as its tokens need (`shards_for`).
        task: "causal-lm" or "masked-lm".
        overlap_tokens: Context repeated before a piece that does not begin its document.
        mask_rate: Share of tokens hidden; masked-lm.
        whole_word: Hide words rather than tokens; masked-lm.
        source_weights: How often rows of each source are drawn, relative to each other; none:
            rows hold documents of all sources, and all are read alike.
        max_repetitions: How often a row is read at most.
        fixed_cuts: Cut documents where a row is full and nowhere else.
    """

    sequence_length: int
    vocab_size: int
    shards: int | None
    task: str = "causal-lm"
    overlap_tokens: int = 0
    mask_rate: float = 0.15
    whole_word: bool = False
    source_weights: dict[str, float] = field(default_factory=dict)
    max_repetitions: int | None = None
    fixed_cuts: bool = False

    @property
    def causal(self) -> bool:
        """Whether targets are the next tokens."""
        return self.task == "causal-lm"

    def of_split(self, split: str, tokens: int) -> "PackSettings":
        """The settings of a split of so many tokens; its shards are a number.

        Held-out text is cut as the served model cuts it, so the trainer's held-out loss and the
        Evaluator's from raw text are the same number.
        """
        shards = self.shards or shards_for(tokens, self.sequence_length)
        if split == "train":
            return replace(self, shards=shards)
        return replace(
            self,
            shards=shards,
            fixed_cuts=True,
            overlap_tokens=0,
            source_weights={},
            max_repetitions=None,
        )

    @property
    def layout(self) -> Layout:
        """How pieces lie in rows."""
        return Layout(self.sequence_length, not self.causal, self.overlap_tokens, self.fixed_cuts)

    @property
    def row_format(self) -> RowFormat:
        """What a record holds."""
        return RowFormat(row_dtype(self.vocab_size), self.causal, self.overlap_tokens > 0)


class TokenisedDocument(NamedTuple):
    """A document as Transform leaves it; `token_ids` is int32."""

    doc_id: bytes
    source: bytes
    byte_count: int
    token_ids: np.ndarray


class TokenisedDocuments(NamedTuple):
    """Many documents in columns, which pass through Beam in a tenth of the time.

    Attributes:
        doc_ids: Id of each.
        sources: Source of each.
        byte_counts: Bytes of text of each, int64.
        token_counts: Tokens of each, int64.
        tokens: Ids of all, one document after the other, int32.
    """

    doc_ids: list[bytes]
    sources: list[bytes]
    byte_counts: np.ndarray
    token_counts: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, documents: Sequence[TokenisedDocument]) -> "TokenisedDocuments":
        """The columns of these documents."""
        return cls(
            [d.doc_id for d in documents],
            [d.source for d in documents],
            np.array([d.byte_count for d in documents], np.int64),
            np.array([len(d.token_ids) for d in documents], np.int64),
            np.concatenate([np.zeros(0, np.int32), *(d.token_ids for d in documents)]).astype(
                np.int32
            ),
        )

    @classmethod
    def join(cls, parts: Sequence["TokenisedDocuments"]) -> "TokenisedDocuments":
        """All documents of the parts."""
        return cls(
            [i for part in parts for i in part.doc_ids],
            [s for part in parts for s in part.sources],
            *(np.concatenate([part[c] for part in parts]) for c in (2, 3, 4)),
        )

    def take(self, numbers: np.ndarray) -> "TokenisedDocuments":
        """The documents of these numbers, in this order."""
        first = np.cumsum(self.token_counts) - self.token_counts
        counts = self.token_counts[numbers]
        return TokenisedDocuments(
            [self.doc_ids[i] for i in numbers.tolist()],
            [self.sources[i] for i in numbers.tolist()],
            self.byte_counts[numbers],
            counts,
            self.tokens[spans(first[numbers], counts)],
        )


_FEATURES = {
    "doc_id": tf.io.FixedLenFeature([], tf.string),
    "source": tf.io.FixedLenFeature([], tf.string),
    "byte_count": tf.io.FixedLenFeature([], tf.int64),
    "token_ids": tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64),
}


def _parse(serialized: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """String [documents] -> the columns of TokenisedDocuments."""
    parsed = tf.io.parse_example(serialized, _FEATURES)
    ids = parsed["token_ids"]
    return (
        parsed["doc_id"],
        parsed["source"],
        parsed["byte_count"],
        ids.row_lengths(),
        tf.cast(ids.flat_values, tf.int32),
    )


def _columns(arrays: Sequence[np.ndarray]) -> TokenisedDocuments:
    doc_ids, sources, *numbers = arrays
    return TokenisedDocuments(doc_ids.tolist(), sources.tolist(), *numbers)


def decode_tokenised(serialized: list[bytes]) -> TokenisedDocuments:
    """Parses serialised, transformed tf.Examples."""
    return _columns([column.numpy() for column in _parse(tf.constant(serialized, tf.string))])


def read_tokenised(path: str) -> Iterator[TokenisedDocuments]:
    """The documents of a file of Transform, in batches; read and parsed in C++.

    Raises:
        TokenmillError: The file is damaged, or its records are no transformed documents.
    """
    dataset = tf.data.TFRecordDataset(path).batch(BATCH_DOCUMENTS).map(_parse)
    try:
        for arrays in dataset.as_numpy_iterator():
            yield _columns(arrays)
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        raise TokenmillError(
            f"{path}: {error.message.splitlines()[0]}.",
            "Delete the artifact and run again: Transform writes it anew.",
        ) from error


class PackSplit(beam.PTransform):
    """Packs one split of transformed examples and writes its rows and manifest.

    A shard holds the documents whose hash falls to it, sorted by id: the rows depend on the
    documents and the number of shards, not on bundles, workers or the order of files.

    Args:
        examples_pattern: Files of the split.
        output_uri: The PackedRows artifact.
        split: "train" or "eval".
        settings: How to pack; of the split, its shards a number (`PackSettings.of_split`).
        flags: Of the vocabulary's pieces (pieces.py), uint8 [vocab_size].
    """

    def __init__(
        self,
        examples_pattern: str,
        output_uri: str,
        split: str,
        settings: PackSettings,
        flags: np.ndarray,
    ):
        super().__init__()
        self._pattern, self._settings, self._flags = examples_pattern, settings, flags
        self._directory = split_directory(output_uri, split)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Pipeline -> PCollection of one element, the manifest."""
        settings, directory, flags = self._settings, self._directory, self._flags
        return (
            pipeline
            | "Files" >> fileio.MatchFiles(self._pattern)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_read_matched)
            | "Shard" >> beam.FlatMap(_shard, settings.shards)
            | "Group" >> beam.GroupByKey()
            | "Pack" >> beam.Map(pack_shard, directory, settings, flags)
            | "Shards" >> beam.combiners.ToList()
            | "Manifest" >> beam.Map(write_manifest, directory, settings, flags)
        )


def _read_matched(file: FileMetadata) -> Iterator[TokenisedDocuments]:
    return read_tokenised(file.path)


def _shard(documents: TokenisedDocuments, shards: int) -> Iterator[tuple[int, TokenisedDocuments]]:
    if shards == 1:
        yield 0, documents
        return
    numbers = np.array([stable_hash(doc_id) % shards for doc_id in documents.doc_ids])
    for shard in np.unique(numbers).tolist():
        yield shard, documents.take(np.flatnonzero(numbers == shard))


def pack_shard(
    item: tuple[int, Iterable[TokenisedDocuments]],
    directory: str,
    settings: PackSettings,
    flags: np.ndarray,
) -> dict[str, Any]:
    """Packs and writes one shard; returns its manifest entry with its counts."""
    shard, groups = item
    documents = TokenisedDocuments.join(list(groups))
    keys = list(zip(documents.doc_ids, documents.sources, strict=True))
    documents = documents.take(np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64))
    sources = [source.decode() for source in documents.sources]
    layout = settings.layout
    pieces, rows_by_source = _pack_sources(documents, sources, settings, flags)
    rows = build_rows(pieces, documents.tokens, documents.token_counts, layout)
    name = f"rows-{shard:05d}"
    entry = write_shard(directory, name, rows, settings.row_format)
    provenance = f"{name}.provenance"
    digest = write_provenance(
        os.path.join(directory, provenance),
        documents.doc_ids,
        pieces,
        entry["rows"],
        layout.frame_slots,
    )
    counts = np.bincount(documents.tokens, minlength=settings.vocab_size)
    if settings.causal:
        counts[EOS_ID] += np.count_nonzero(documents.token_counts)
    return {
        **entry,
        "shard": shard,
        "provenance": provenance,
        "provenance_sha256": digest,
        "rows_by_source": rows_by_source,
        "counts": {
            "segments": len(rows.segment_lengths),
            "filled_slots": len(rows.inputs),
            "context_slots": int(pieces.context.sum()),
            "frame_slots": layout.frame_slots * len(pieces.row),
            "packed_items": int(pieces.length.sum()),
            "by_source": count_sources(
                sources, documents.byte_counts, documents.token_counts, settings.causal
            ),
        },
        "target_counts": counts,
    }


def _pack_sources(
    documents: TokenisedDocuments, sources: list[str], settings: PackSettings, flags: np.ndarray
) -> tuple[Pieces, list[list]]:
    """The pieces of a shard; with weights, the rows of each source follow those of the last.

    Returns:
        The pieces, and [source, rows] in the order of rows (empty without weights).
    """
    counts = documents.token_counts
    items = counts + (counts > 0) if settings.causal else counts
    ranks = place_ranks(documents.tokens, flags)
    if not settings.source_weights:
        return pack_pieces(items, settings.layout, ranks), []
    parts, rows_by_source, first_row = [], [], 0
    first = np.cumsum(counts) - counts
    names = np.array(sources, object)
    for source in sorted(set(sources)):
        mine = np.flatnonzero(names == source)
        part = pack_pieces(items[mine], settings.layout, ranks[spans(first[mine], counts[mine])])
        rows = int(part.row[-1]) + 1 if len(part.row) else 0
        parts.append(part._replace(document=mine[part.document], row=part.row + first_row))
        rows_by_source.append([source, rows])
        first_row += rows
    return Pieces(*(np.concatenate(c) for c in zip(*parts, strict=True))), rows_by_source


def write_manifest(
    shards: list[dict[str, Any]], directory: str, settings: PackSettings, flags: np.ndarray
) -> dict[str, Any]:
    """Sums the shards' counts, checks that they balance, and writes `manifest.json`.

    `target_counts.npy` beside it holds how often each id is a target (int64, [vocab_size]), in
    masked-lm how often it could be one; `piece_flags.npy` what pieces.py says of each id.

    Raises:
        ArithmeticError: Tokens went missing; a bug, and no run should go on with it.
        TokenmillError: The sources with weights are not those of the documents.
    """
    shards = sorted(shards, key=lambda shard: shard["file"])
    rows = sum(shard["rows"] for shard in shards)
    account = sum_shards(shards, rows * settings.sequence_length, settings.causal)
    _check_weights(settings.source_weights, sorted(account["by_source"]))
    target_counts = sum(
        (shard["target_counts"] for shard in shards),
        start=np.zeros(settings.vocab_size, np.int64),
    )
    masks = (
        {}
        if settings.causal
        else {"mask_rate": settings.mask_rate, "whole_word": settings.whole_word}
    )
    manifest = {
        "format": FORMAT,
        "task": settings.task,
        "row_format": settings.row_format._asdict(),
        "sequence_length": settings.sequence_length,
        "vocab_size": settings.vocab_size,
        "overlap_tokens": settings.overlap_tokens,
        **masks,
        "source_weights": settings.source_weights,
        "max_repetitions": settings.max_repetitions,
        "rows": rows,
        **account,
        "stored_bytes": sum(shard["bytes"] for shard in shards),
        "shard_count": settings.shards,
        "shards": [
            {k: v for k, v in shard.items() if k not in ("counts", "target_counts")}
            for shard in shards
        ],
    }
    write_array(os.path.join(directory, "target_counts.npy"), target_counts)
    write_array(os.path.join(directory, FLAGS_NAME), flags)
    write_json(os.path.join(directory, MANIFEST_NAME), manifest)
    return manifest


def _check_weights(weights: dict[str, float], sources: list[str]) -> None:
    """Every source needs a weight: rows without one would be dropped silently."""
    missing = [source for source in sources if source not in weights]
    if weights and missing:
        raise TokenmillError(
            f"pack.source_weights has no weight for {', '.join(missing)}; the documents come from "
            f"{', '.join(sources)}.",
            "Give each source a weight; 0 leaves it out.",
        )
