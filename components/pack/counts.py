"""Counts of each shard, added up and checked."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from components.pack.quality_buckets import SourceBuckets
from tokenmill.contracts.packed_rows import (
    CONVERSATION_REASONS,
    LABEL_REASONS,
    LEFT_OUT_REASONS,
    PackedBucket,
    PackedCounts,
    SourceCounts,
)


class ShardCounts(NamedTuple):
    """What was counted of a shard.

    Attributes:
        segments: Parts of documents in its rows.
        filled_slots: Slots that are not padding.
        context_slots: Those of them that repeat tokens as context.
        frame_slots: Those of them that hold CLS or SEP.
        packed_items: Items of the parts.
        slots: Slots of its rows with padding.
        by_source: Counts of its documents.
        by_language: The same by language.
        loss_tokens_by_source_and_language: Loss tokens of each source, by language; empty where
            sources have no weights.
        by_bucket: Counts of each (source, bucket), and its loss tokens by language; empty where
            quality does not weigh.
    """

    segments: int
    filled_slots: int
    context_slots: int
    frame_slots: int
    packed_items: int
    slots: int
    by_source: dict[str, SourceCounts]
    by_language: dict[str, SourceCounts]
    loss_tokens_by_source_and_language: dict[str, dict[str, int]]
    by_bucket: dict[tuple[str, int], tuple[SourceCounts, dict[str, int]]]


def count_by_name(
    names_of_documents: list[str], columns: Mapping[str, np.ndarray]
) -> dict[str, SourceCounts]:
    """Add up a shard's documents by source or by language.

    Args:
        names_of_documents: Source or language of each document.
        columns: What to add up, by its name in `SourceCounts`: a number for each document.
    """
    names, index = np.unique(np.array(names_of_documents, object), return_inverse=True)
    sums = {
        column: np.bincount(index, weights=values, minlength=len(names)).astype(np.int64)
        for column, values in columns.items()
    }
    return {
        str(name): SourceCounts(**{column: int(values[i]) for column, values in sums.items()})
        for i, name in enumerate(names)
    }


def count_loss_tokens(
    sources: list[str], languages: list[str], loss_tokens: np.ndarray
) -> dict[str, dict[str, int]]:
    """Add up the loss tokens of a shard's documents, int64 [documents], by source and language."""
    found: dict[str, dict[str, int]] = {}
    for source, language, count in zip(sources, languages, loss_tokens.tolist(), strict=True):
        of_source = found.setdefault(source, {})
        of_source[language] = of_source.get(language, 0) + count
    return found


def count_buckets(
    keys: Sequence[tuple[str, int]],
    of_document: np.ndarray,
    languages: list[str],
    columns: Mapping[str, np.ndarray],
) -> dict[tuple[str, int], tuple[SourceCounts, dict[str, int]]]:
    """Add up a shard's documents by bucket, and the loss tokens of each by language.

    Args:
        keys: Source and bucket of each group.
        of_document: Group of each document, int64.
        languages: Language of each document.
        columns: As for `count_by_name`.
    """
    numbers = list(map(str, of_document.tolist()))
    counts = count_by_name(numbers, columns)
    by_language = count_loss_tokens(numbers, languages, columns["loss_tokens"])
    return {key: (counts[str(i)], by_language[str(i)]) for i, key in enumerate(keys)}


def _merge_buckets(
    shards: Iterable[Mapping[tuple[str, int], tuple[SourceCounts, dict[str, int]]]],
    names: Sequence[str],
    buckets: SourceBuckets,
) -> list[PackedBucket]:
    """Add up the counts of all shards, bucket by bucket, ascending by source and bucket."""
    parts: dict[tuple[str, int], list[SourceCounts]] = {}
    by_language: dict[tuple[str, int], Counter[str]] = {}
    for shard in shards:
        for key, (counts, languages) in shard.items():
            parts.setdefault(key, []).append(counts)
            by_language.setdefault(key, Counter()).update(languages)
    return [
        PackedBucket(
            **_add_up(parts[source, number], names),
            source=source,
            bucket=number,
            lowest_score=buckets[source][number].lowest_score,
            mean_score=buckets[source][number].mean_score,
            loss_tokens_by_language=dict(by_language[source, number]),
        )
        for source, number in sorted(parts)
    ]


def _add_up(parts: Iterable[SourceCounts], names: Iterable[str]) -> dict[str, int]:
    parts = list(parts)
    return {name: sum(getattr(part, name) for part in parts) for name in names}


def _merge(
    shards: Iterable[Mapping[str, SourceCounts]], names: Sequence[str]
) -> dict[str, SourceCounts]:
    """Add up the counts of all shards, source by source or language by language."""
    parts: dict[str, list[SourceCounts]] = {}
    for shard in shards:
        for name, counts in shard.items():
            parts.setdefault(name, []).append(counts)
    return {name: SourceCounts(**_add_up(counts, names)) for name, counts in parts.items()}


def _merge_loss_tokens(
    shards: Iterable[Mapping[str, Mapping[str, int]]],
) -> dict[str, dict[str, int]]:
    """Add up what `count_loss_tokens` found of all shards."""
    found: dict[str, Counter[str]] = {}
    for shard in shards:
        for source, by_language in shard.items():
            found.setdefault(source, Counter()).update(by_language)
    return {source: dict(by_language) for source, by_language in found.items()}


def _counted_names(task: str, conversations: bool) -> list[str]:
    """Return what is counted of a source, by the names of `SourceCounts`."""
    names = [name for name, field in SourceCounts.model_fields.items() if field.is_required()]
    if conversations:
        names += [f"dropped_{reason}" for reason in CONVERSATION_REASONS]
        names += ["truncated_conversations", "prompt_tokens", "answer_bytes"]
    elif task == "classification":
        names += [f"dropped_{reason}" for reason in LABEL_REASONS]
    if conversations or task == "classification":
        names += ["dropped_bytes", "dropped_tokens", "truncated_tokens"]
    return names


def sum_shards(
    shards: Sequence[ShardCounts],
    task: str,
    conversations: bool = False,
    buckets: SourceBuckets | None = None,
) -> PackedCounts:
    """Add up the counts of all shards and check that nothing is missing.

    Args:
        shards: Counts of each.
        task: In causal-lm a document's end bears a loss too; in classification documents without a
            known label are left out, and what is behind the row's end is cut off.
        conversations: Documents are conversations: those without an answer that fits are left out,
            and answers alone bear a loss.
        buckets: Of each source; None where quality does not weigh.

    Raises:
        ArithmeticError: Tokens went missing; a bug, and no run should go on with it.
    """
    names = _counted_names(task, conversations)
    by_source = _merge((shard.by_source for shard in shards), names)
    by_language = _merge((shard.by_language for shard in shards), names)
    totals = SourceCounts(**_add_up(by_source.values(), names))
    slots = sum(shard.slots for shard in shards)
    segments = sum(shard.segments for shard in shards)
    filled = sum(shard.filled_slots for shard in shards)
    frame = sum(shard.frame_slots for shard in shards)
    without_loss = frame + sum(shard.context_slots for shard in shards)
    items = sum(shard.packed_items for shard in shards)
    documents = totals.documents - totals.dropped_empty
    expected = totals.tokens + (documents if task == "causal-lm" else 0)
    if task == "classification" or conversations:
        documents -= sum(getattr(totals, f"dropped_{reason}") for reason in LEFT_OUT_REASONS)
        expected = totals.tokens - totals.dropped_tokens - totals.truncated_tokens
        expected -= totals.prompt_tokens
        if documents != segments:
            raise ArithmeticError(
                f"packing does not balance: {documents} documents are to be packed, but "
                f"{segments} were"
            )
    if not filled - without_loss == items == totals.loss_tokens == expected:
        raise ArithmeticError(
            f"packing does not balance: {totals.tokens} tokens in {documents} documents "
            f"make {totals.loss_tokens} targets ({expected} expected); {items} "
            f"were packed, into {filled - without_loss} slots"
        )
    of_languages = SourceCounts(**_add_up(by_language.values(), names))
    if of_languages != totals:
        raise ArithmeticError(
            f"packing does not balance: the sources have {totals}, the languages {of_languages}"
        )
    of_buckets: dict[str, list[PackedBucket]] = {}
    if buckets is not None:
        by_bucket = _merge_buckets((shard.by_bucket for shard in shards), names, buckets)
        for source, whole in by_source.items():
            found = SourceCounts(**_add_up((b for b in by_bucket if b.source == source), names))
            if found != whole:
                raise ArithmeticError(
                    f"packing does not balance: {source} has {whole}, its quality buckets {found}"
                )
        of_buckets = {"by_bucket": by_bucket}
    return PackedCounts(
        **totals.counted(),
        slots=slots,
        context_slots=without_loss,
        frame_slots=frame,
        padding_slots=slots - filled,
        segments=segments,
        by_source=by_source,
        by_language=by_language,
        loss_tokens_by_source_and_language=_merge_loss_tokens(
            shard.loss_tokens_by_source_and_language for shard in shards
        ),
        **of_buckets,
    )
