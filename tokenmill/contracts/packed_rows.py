"""What the Packer leaves in each split of its rows, beside the rows themselves."""

from __future__ import annotations

import os
from typing import Literal

from tokenmill.contracts.base import (
    Document,
    Part,
    check_document,
    key,
    read_values,
    write_document,
)
from tokenmill.errors import TokenmillError
from tokenmill.records.splits import split_directory
from tokenmill.text.control_ids import ControlIds

FORMAT = "tokenmill-rows-2"
MANIFEST_NAME = "manifest.json"
TARGET_COUNTS_NAME = "target_counts.npy"
"""How often each id is a target (int64 [vocab_size]), in masked-lm how often it could be one, in
classification how many rows each class has (int64 [classes])."""
TOKEN_FLAGS_NAME = "token_flags.npy"
"""Flags of each token of the vocabulary (tokenmill/rows/token_flags.py), uint8 [vocab_size]."""

NO_LABEL, UNKNOWN_LABEL = "no_label", "unknown_label"
LABEL_REASONS = {
    NO_LABEL: "documents without a label left out",
    UNKNOWN_LABEL: "with a label unknown to training left out",
}
"""Why classification leaves out a document that has tokens, and the words for it.

Each has a count `dropped_<reason>` in `SourceCounts`.
"""
NO_ANSWER, TOO_LONG = "no_answer", "too_long"
CONVERSATION_REASONS = {
    NO_ANSWER: "conversations without an answer left out",
    TOO_LONG: "conversations left out whose first answer does not fit (model.sequence_length)",
}
"""Why a conversation that has tokens is left out, likewise."""
LEFT_OUT_REASONS = LABEL_REASONS | CONVERSATION_REASONS
DROP_REASONS = ("empty", *LEFT_OUT_REASONS)
"""Why a document is in no row; `empty` is one without tokens."""


class SourceCounts(Part):
    """What the packer counted of the documents of one source or one language, or of all."""

    documents: int = key("Documents that arrived.", ge=0)
    bytes: int = key("Bytes of their text.", ge=0)
    tokens: int = key("Their tokens, without control tokens.", ge=0)
    loss_tokens: int = key(
        "Tokens in rows that bear a loss: in causal-lm with one end of text a document, of "
        "conversations those of answers; in masked-lm those that can be hidden, in classification "
        "all of the rows.",
        ge=0,
    )
    dropped_empty: int = key("Documents without tokens.", ge=0)
    # Of classification and of conversations: others truncate nothing and take every document with
    # tokens.
    dropped_no_label: int = key("Documents with tokens, but no label.", default=0, ge=0)
    dropped_unknown_label: int = key("Those whose label training never had.", default=0, ge=0)
    dropped_no_answer: int = key(
        "Conversations without an answer behind their first token.", default=0, ge=0
    )
    dropped_too_long: int = key(
        "Conversations whose first answer ends behind the end of a row.", default=0, ge=0
    )
    dropped_bytes: int = key(
        "Bytes of documents with tokens that are left out for one of these reasons.",
        default=0,
        ge=0,
    )
    dropped_tokens: int = key("Tokens of those.", default=0, ge=0)
    truncated_tokens: int = key(
        "Tokens behind the end of a row; of a conversation those behind the last answer that fits.",
        default=0,
        ge=0,
    )
    truncated_conversations: int = key("Conversations that were cut so.", default=0, ge=0)
    prompt_tokens: int = key(
        "Tokens of conversations in rows that are of no answer: they bear no loss.",
        default=0,
        ge=0,
    )
    answer_bytes: int = key("Bytes of text of the answers that bear a loss.", default=0, ge=0)

    def counted(self) -> dict[str, int]:
        """Return the counts by name, without those that the task does not have."""
        names = [name for name in SourceCounts.model_fields if name in self.model_fields_set]
        return {name: getattr(self, name) for name in names}


class PackedBucket(SourceCounts):
    """The documents of a source whose learned scores lie next to each other."""

    source: str = key("Where they came from.")
    bucket: int = key("Number in its source, from 0; the scores ascend.", ge=0)
    lowest_score: float = key("Score that it begins at, from 0 to 1.", ge=0, le=1)
    mean_score: float = key("Mean score of its tokens.", gt=0, le=1)
    loss_tokens_by_language: dict[str, int] = key("Its loss tokens by language.")

    @property
    def name(self) -> str:
        """Name of the bucket among those of all sources."""
        return bucket_name(self.source, self.bucket)


def bucket_name(source: str, bucket: int) -> str:
    """Return a name that no other bucket of any source has."""
    return f"{source} (quality bucket {bucket})"


class PackedCounts(SourceCounts):
    """All documents, and the slots of the rows: loss_tokens + context_slots + padding_slots."""

    slots: int = key("Rows x sequence_length; of a classifier the sum of bucket widths.", ge=0)
    context_slots: int = key("Slots without a loss that are not padding.", ge=0)
    frame_slots: int = key("Those of them that hold CLS or SEP.", ge=0)
    padding_slots: int = key("Empty slots.", ge=0)
    segments: int = key("Parts of documents in the rows.", ge=0)
    by_source: dict[str, SourceCounts] = key("The counts of each source.")
    by_language: dict[str, SourceCounts] = key(
        "The counts of each language (ISO 639; und: not known)."
    )
    loss_tokens_by_source_and_language: dict[str, dict[str, int]] = key(
        "Loss tokens of each source, by language; empty without weights."
    )
    by_bucket: list[PackedBucket] = key(
        "The counts by source and quality, in this order; absent without pack.quality_weighting.",
        default=[],
    )

    @property
    def loss_tokens_by_group_and_language(self) -> dict[str, dict[str, int]]:
        """Loss tokens by language of each group of rows with a weight of its own."""
        if self.by_bucket:
            return {bucket.name: bucket.loss_tokens_by_language for bucket in self.by_bucket}
        return self.loss_tokens_by_source_and_language

    def groups_of_source(self, source: str) -> dict[str, SourceCounts]:
        """Return the counts of a source's groups of rows, by the names that the mixture has."""
        buckets = {b.name: b for b in self.by_bucket if b.source == source}
        return {**buckets} or {source: self.by_source.get(source) or self.nothing()}

    @property
    def answers_only(self) -> bool:
        """Whether documents are conversations, of which answers alone bear a loss."""
        return "answer_bytes" in self.model_fields_set

    @property
    def loss_bytes(self) -> int:
        """Bytes of the text that bears a loss: of conversations that of their answers."""
        return self.answer_bytes if self.answers_only else self.bytes

    def nothing(self) -> SourceCounts:
        """Return the counts of a source or language without a document: zeros."""
        return SourceCounts(**dict.fromkeys(self.counted(), 0))


class RowFormat(Part):
    """What a stored row holds beside its ids and its segments' lengths."""

    dtype: str = key("NumPy's name of the stored integer type.")
    last_targets: bool = key("Whether the last targets are stored: causal-lm.")
    context: bool = key("Whether the lengths of context are stored: there is an overlap.")
    label: bool = key("Whether a label is stored: classification.", default=False)
    answers: bool = key(
        "Whether each id is stored doubled, plus 1 where the target bears a loss: conversations.",
        default=False,
    )

    @property
    def columns(self) -> int:
        """Values stored for a segment."""
        return 1 + self.last_targets + self.context + self.label


class ShardFiles(Part):
    """A file of rows with its index of offsets."""

    file: str = key("TFRecord file of the rows.")
    index: str = key("Offset of each record and of the file's end, int64 little-endian.")
    rows: int = key("Rows in it.", ge=0)
    bytes: int = key("Size of the TFRecord file, bytes.", ge=0)
    sha256: str = key("Of the TFRecord file, hexadecimal.")
    index_sha256: str = key("Of the index, hexadecimal.")


class PackedShard(ShardFiles):
    """A shard: its rows, and where its documents are in them."""

    shard: int = key("Number from 0: documents of this hash modulo shard_count.", ge=0)
    provenance: str = key("File of provenance (tokenmill/provenance/rows.py).")
    provenance_sha256: str = key("Of that file, hexadecimal.")
    rows_by_source: list[tuple[str, int]] = key(
        "Source and number of rows, in the order of rows; empty without weights."
    )
    rows_by_bucket: list[tuple[str, int, int]] = key(
        "Source, bucket and number of rows, in the order of rows; absent without "
        "pack.quality_weighting.",
        default=[],
    )

    @property
    def rows_by_group(self) -> list[tuple[str, int]]:
        """Name and number of rows of each group with a weight of its own, in the order of rows."""
        if self.rows_by_bucket:
            return [(bucket_name(source, b), rows) for source, b, rows in self.rows_by_bucket]
        return self.rows_by_source


class PackedManifest(Document, PackedCounts):
    """manifest.json of a packed split: counts, settings and the files with their SHA-256."""

    format: str = key("Name and version of the format of rows.")
    task: Literal["causal-lm", "masked-lm", "classification"] = key("train.task.")
    row_format: RowFormat = key("What a record holds.")
    sequence_length: int = key("Slots of a row.", gt=0)
    vocab_size: int = key("Ids are below it.", gt=0)
    overlap_tokens: int = key("Tokens repeated as context.", ge=0)
    mask_rate: float = key("Share of tokens that an epoch hides; masked-lm.", default=1.0)
    whole_word: bool = key("Whether words are hidden, not tokens; masked-lm.", default=False)
    control_ids: ControlIds | None = key(
        "Ids of the tokenizer's control tokens; absent for tokenmill's own.", default=None
    )
    label_names: list[str] | None = key("The classes in order; classification.", default=None)
    documents_by_label: dict[str, int] | None = key("Rows of each; classification.", default=None)
    source_weights: dict[str, float] = key("pack.source_weights; empty for none.")
    quality_weighting: float = key(
        "pack.quality_weighting; absent where quality does not weigh.", default=0.0, ge=0
    )
    max_repetitions: int | None = key("pack.max_repetitions; null for no limit.")
    rows: int = key("Rows of the split.", ge=0)
    stored_bytes: int = key("Size of the TFRecord files, bytes.", ge=0)
    shard_count: int = key("Shards that a document's hash chooses from.", ge=1)
    shards: list[PackedShard] = key("The shards that have documents, in the order of rows.")

    @property
    def has_weights(self) -> bool:
        """Whether rows are read by weights: of their sources, or of their quality."""
        return bool(self.source_weights or self.by_bucket)


def read_packed_manifest(uri: str, split: str) -> PackedManifest:
    """Read the manifest of a split.

    Args:
        uri: A PackedRows artifact.
        split: "train" or "eval".

    Raises:
        TokenmillError: The format is not one that this version reads.
    """
    directory = split_directory(uri, split)
    path = os.path.join(directory, MANIFEST_NAME)
    values = read_values(path)
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise TokenmillError(
            f"{directory}: rows of format {found!r}, expected {FORMAT!r}.",
            "Pack the documents anew with this version.",
        )
    return check_document(path, values, PackedManifest)


def write_packed_manifest(directory: str, manifest: PackedManifest) -> None:
    """Write the manifest into a split's directory."""
    write_document(os.path.join(directory, MANIFEST_NAME), manifest)
