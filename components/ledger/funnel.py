"""The funnel of tokens, from raw text to effective tokens, by source and in all.

raw -> valid -> curated -> tokenized -> packed -> loss tokens -> unique -> repetition-discounted.
Every stage has documents, bytes and tokens; what one stage loses to the next is booked under a
reason, and the books must balance. Less than an epoch reads a share of the rows, and so from
"unique" on of documents and bytes, too. *Effective tokens* are the loss tokens of training after
curation (in masked-lm the hidden ones), discounted for repetition (Muennighoff et al. 2023, see
scaling.py).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from tokenmill.contracts.base import Part
from tokenmill.contracts.curation import Curation, KeptAmount, SourceCuration
from tokenmill.contracts.ingest import Amount, IngestCounts
from tokenmill.contracts.ledger import (
    CuratedText,
    EstimatedText,
    Funnel,
    SourceFunnel,
    Stage,
    StageName,
    TrainingText,
)
from tokenmill.contracts.packed_rows import (
    DROP_REASONS,
    LEFT_OUT_REASONS,
    PackedManifest,
    SourceCounts,
)
from tokenmill.cost.scaling import repetition_discounted_tokens

_Counts = TypeVar("_Counts", bound=Part)


class Read(NamedTuple):
    """What training reads at least once; documents and bytes by the share of the epoch."""

    documents: int
    bytes: int
    tokens: float


class UnbalancedLedgerError(ArithmeticError):
    """Documents, bytes or tokens are missing between two steps: a bug; the run must not go on."""


def build_funnel(
    ingest: IngestCounts,
    curation: Curation,
    packed: Mapping[str, PackedManifest],
    epochs: float,
    epochs_by_group: Mapping[str, float] | None = None,
) -> Funnel:
    """Join the counts of ingest, curation and packing, and check that they balance.

    Args:
        ingest: counts.json of the quarantine artifact.
        curation: curation.json of the dropped documents.
        packed: Manifest of the packed rows by split.
        epochs: How often training reads its rows.
        epochs_by_group: The same by source where sources have weights, by bucket where quality
            has; one that is missing there has none and is not read.

    Returns:
        The funnel of each source and of all. Tokens of raw and dropped documents are estimates from
        the source's own bytes per token, because only what survives is tokenized; all others are
        counts. Quarantined records have no source: only the total's raw stage has them.

    Raises:
        UnbalancedLedgerError: Two steps disagree.
    """
    sources = sorted(
        {s for split in ingest.splits.values() for s in split.by_source}
        | {s for split in curation.splits.values() for s in split.by_source}
        | {s for manifest in packed.values() for s in manifest.by_source}
    )
    _check_sums(ingest, packed)
    overall = _bytes_per_token(
        sum(m.bytes for m in packed.values()), sum(m.tokens for m in packed.values())
    )
    by_source = {}
    for source in sources:
        _check_source(source, ingest, curation, packed)
        read_alike = _read_alike(packed["train"], source, epochs, epochs_by_group)
        by_source[source] = _source_funnel(source, ingest, curation, packed, overall, read_alike)
    total = _add_funnels(list(by_source.values()))
    hidden = total.train.loss_tokens * packed["train"].mask_rate
    unique = [part.stages[6] for part in by_source.values()]
    read = Read(
        documents=sum(stage.documents for stage in unique),
        bytes=sum(stage.bytes for stage in unique),
        tokens=sum(stage.tokens for stage in unique)
        if epochs_by_group
        else hidden * min(1.0, epochs),
    )
    if not epochs_by_group:
        total.train.effective_tokens = repetition_discounted_tokens(hidden, epochs)
    total.stages = _stages(total, packed["train"].mask_rate, read)
    quarantined = ingest.quarantined
    raw, valid = total.stages[:2]
    raw.documents += quarantined.documents
    raw.bytes += quarantined.bytes
    valid.documents_lost = {
        reason: amount.documents for reason, amount in quarantined.by_reason.items()
    }
    if total.bytes_per_token:
        raw.tokens += quarantined.bytes / total.bytes_per_token
    return Funnel(total=total, by_source=by_source, quarantined=quarantined)


def _bytes_per_token(size: int, tokens: int) -> float:
    return size / tokens if tokens else 0.0


def _read_alike(
    train: PackedManifest,
    source: str,
    epochs: float,
    epochs_by_group: Mapping[str, float] | None,
) -> list[tuple[SourceCounts, float]]:
    """Divide a source into what training reads equally often: counts, and how often."""
    if not epochs_by_group:
        return [(_packed_counts(train, source), epochs)]
    groups = train.groups_of_source(source)
    return [(counts, epochs_by_group.get(name, 0.0)) for name, counts in groups.items()]


def _source_funnel(
    source: str,
    ingest: IngestCounts,
    curation: Curation,
    packed: Mapping[str, PackedManifest],
    overall_bytes_per_token: float,
    read_alike: list[tuple[SourceCounts, float]],
) -> SourceFunnel:
    """Build the funnel of one source from its counts of both splits."""
    read = [
        counts.by_source[source] for counts in ingest.splits.values() if source in counts.by_source
    ]
    curated = [
        counts.by_source[source]
        for counts in curation.splits.values()
        if source in counts.by_source
    ]
    train, evaluation = (_packed_counts(packed[split], source) for split in ("train", "eval"))
    mask_rate = packed["train"].mask_rate
    kept_bytes = sum(account.kept.bytes for account in curated)
    tokens = train.tokens + evaluation.tokens
    ratio = kept_bytes / tokens if tokens else overall_bytes_per_token

    def estimated(texts: Iterable[Amount]) -> EstimatedText:
        texts = list(texts)
        size = sum(text.bytes for text in texts)
        return EstimatedText(
            documents=sum(text.documents for text in texts),
            bytes=size,
            tokens_estimated=size / ratio if ratio else 0.0,
        )

    reasons = dict.fromkeys(reason for account in curated for reason in account.dropped)
    funnel = SourceFunnel(
        stages=[],
        raw=estimated(read),
        dropped={
            reason: estimated(a.dropped[reason] for a in curated if reason in a.dropped)
            for reason in reasons
        },
        curated=CuratedText(
            documents=sum(account.kept.documents for account in curated),
            bytes=kept_bytes,
            raw_bytes=sum(account.kept.raw_bytes for account in curated),
            tokens=tokens,
        ),
        bytes_per_token=ratio,
        train=TrainingText(
            **train.counted(),
            effective_tokens=sum(
                repetition_discounted_tokens(part.loss_tokens * mask_rate, epochs)
                for part, epochs in read_alike
            ),
        ),
        eval=evaluation,
    )
    shares = [(part, min(1.0, epochs)) for part, epochs in read_alike]
    once = Read(
        documents=round(sum(_trained_documents(part) * share for part, share in shares)),
        bytes=round(sum((part.bytes - part.dropped_bytes) * share for part, share in shares)),
        tokens=sum(part.loss_tokens * mask_rate * share for part, share in shares),
    )
    funnel.stages = _stages(funnel, mask_rate, once)
    return funnel


def _trained_documents(train: SourceCounts) -> int:
    return train.documents - sum(getattr(train, f"dropped_{reason}") for reason in DROP_REASONS)


def _add_funnels(parts: list[SourceFunnel]) -> SourceFunnel:
    """Add up the sources' counts; the stages are left to the caller."""
    reasons = dict.fromkeys(reason for part in parts for reason in part.dropped)
    curated = _add([part.curated for part in parts])
    return SourceFunnel(
        stages=[],
        raw=_add([part.raw for part in parts]),
        dropped={
            reason: _add([part.dropped[reason] for part in parts if reason in part.dropped])
            for reason in reasons
        },
        curated=curated,
        bytes_per_token=_bytes_per_token(curated.bytes, curated.tokens),
        train=_add([part.train for part in parts]),
        eval=_add([part.eval for part in parts]),
    )


def _add(parts: list[_Counts]) -> _Counts:
    """Add up counts of one kind, key by key."""
    names = dict.fromkeys(name for part in parts for name in part.model_fields_set)
    return type(parts[0])(**{name: sum(getattr(part, name) for part in parts) for name in names})


def _stages(funnel: SourceFunnel, mask_rate: float, read: Read) -> list[Stage]:
    """List the funnel in order; each stage says what the one before lost, and to what.

    Args:
        funnel: Counts of a source, or of all.
        mask_rate: Share of the tokens that an epoch hides (masked-lm), else 1.
        read: What training reads of it at least once.
    """
    valid, curated, train, evaluation = funnel.raw, funnel.curated, funnel.train, funnel.eval
    empty = train.dropped_empty + evaluation.dropped_empty
    with_tokens = curated.documents - empty
    left_out = {
        reason: sum(getattr(part, f"dropped_{reason}") for part in (train, evaluation))
        for reason in LEFT_OUT_REASONS
    }
    packed = with_tokens - sum(left_out.values())
    trained = _trained_documents(train)

    def stage(
        name: StageName,
        documents: int,
        size: int,
        tokens: float,
        lost: Mapping[str, int],
        counted: bool = True,
    ) -> Stage:
        return Stage(
            stage=name,
            documents=documents,
            bytes=size,
            tokens=tokens,
            tokens_are="counted" if counted else "estimated",
            documents_lost={reason: count for reason, count in lost.items() if count},
        )

    trained_bytes = train.bytes - train.dropped_bytes
    packed_bytes = trained_bytes + evaluation.bytes - evaluation.dropped_bytes
    ingested = (valid.documents, valid.bytes, valid.tokens_estimated)
    dropped = {reason: text.documents for reason, text in funnel.dropped.items()}
    packed_tokens = sum(split.loss_tokens + split.prompt_tokens for split in (train, evaluation))
    of_loss: StageName = "answer_tokens" if train.loss_name == "answer tokens" else "loss_tokens"
    all_count = mask_rate == 1  # which tokens are hidden is drawn when they are read
    loss_tokens = train.loss_tokens if all_count else train.loss_tokens * mask_rate
    return [
        stage("raw", *ingested, {}, counted=False),
        stage("valid", *ingested, {}, counted=False),
        stage("curated", curated.documents, curated.bytes, curated.tokens, dropped),
        stage("tokenized", with_tokens, curated.bytes, curated.tokens, {"empty": empty}),
        stage("packed", packed, packed_bytes, packed_tokens, left_out),
        stage(of_loss, trained, trained_bytes, loss_tokens,
              {"eval": packed - trained}, all_count),
        stage("unique", read.documents, read.bytes, read.tokens,
              {"not_read": trained - read.documents}, all_count),
        stage("repetition_discounted", read.documents, read.bytes, train.effective_tokens, {},
              all_count),
    ]  # fmt: skip


def _check_source(
    source: str,
    ingest: IngestCounts,
    curation: Curation,
    packed: Mapping[str, PackedManifest],
) -> None:
    """Check that each step read of a source what the step before wrote, split by split.

    Raises:
        UnbalancedLedgerError: A step read another number than was written.
    """
    nothing = Amount(documents=0, bytes=0)
    no_curation = SourceCuration(
        arrived=nothing,
        kept=KeptAmount(documents=0, bytes=0, raw_bytes=0),
        removed_line_bytes=0,
        dropped={},
    )
    for split, counts in ingest.splits.items():
        read = counts.by_source.get(source, nothing)
        curated = curation.splits[split].by_source.get(source, no_curation)
        kept, where = curated.kept, f"{source}/{split}"
        _expect(
            curated.arrived == read,
            f"{where}: ingest wrote {read}, curation read {curated.arrived}",
        )
        for name, stayed in (("documents", kept.documents), ("bytes", kept.raw_bytes)):
            arrived = getattr(read, name)
            gone = sum(getattr(amount, name) for amount in curated.dropped.values())
            _expect(
                arrived == stayed + gone,
                f"{where}: {arrived} {name} in, {stayed} kept, {gone} dropped",
            )
        mine = _packed_counts(packed[split], source)
        sent = f"documents={kept.documents} bytes={kept.bytes}"
        packed_text = f"documents={mine.documents} bytes={mine.bytes}"
        _expect(sent == packed_text, f"{where}: curation kept {sent}, packing read {packed_text}")
        # In causal-lm the end of a document is a target too.
        ends = mine.documents - mine.dropped_empty
        has_ends = packed[split].task == "causal-lm" and not packed[split].answers_only
        lost = mine.dropped_tokens + mine.truncated_tokens + mine.prompt_tokens
        _expect(
            mine.loss_tokens == mine.tokens + ends * has_ends - lost,
            f"{where}: packing made {mine.loss_tokens} targets of {mine.tokens} tokens in "
            f"{mine.documents} documents, {mine.dropped_empty} of them empty",
        )


def _check_sums(ingest: IngestCounts, packed: Mapping[str, PackedManifest]) -> None:
    """Check each total against the sum of its parts."""
    amounts = ["documents", "bytes"]
    bad = ingest.quarantined
    totals: list[tuple[str, Part, Mapping[str, Part], list[str]]] = [
        ("ingest", ingest.read, ingest.splits, amounts),
        ("quarantine", bad, bad.by_reason, amounts),
    ]
    for split, counts in ingest.splits.items():
        totals.append((f"ingest/{split}", counts, counts.by_source, amounts))
    for split, manifest in packed.items():
        names = list(manifest.counted())
        totals.append((f"packing/{split}", manifest, manifest.by_source, names))
        totals.append((f"packing/{split}/languages", manifest, manifest.by_language, names))
    for where, total, parts, names in totals:
        for name in names:
            whole, added = getattr(total, name), sum(getattr(p, name) for p in parts.values())
            _expect(whole == added, f"{where}: {whole} {name}, its parts have {added}")
    for split, manifest in packed.items():
        for bucket in manifest.by_bucket:
            added = sum(bucket.loss_tokens_by_language.values())
            _expect(
                bucket.loss_tokens == added,
                f"packing/{split}: {bucket.loss_tokens} loss tokens of {bucket.name}, its "
                f"languages have {added}",
            )
        for source in manifest.by_source if manifest.by_bucket else ():
            buckets = manifest.groups_of_source(source).values()
            for name, whole in manifest.by_source[source].counted().items():
                added = sum(getattr(bucket, name) for bucket in buckets)
                _expect(
                    whole == added,
                    f"packing/{split}: {whole} {name} of source {source}, its quality buckets "
                    f"have {added}",
                )
        for source, by_language in manifest.loss_tokens_by_source_and_language.items():
            whole = _packed_counts(manifest, source).loss_tokens
            added = sum(by_language.values())
            _expect(
                whole == added,
                f"packing/{split}: {whole} loss tokens of source {source}, its languages have "
                f"{added}",
            )
    for split, manifest in packed.items():
        # Context is read again for its successors' sake and bears no loss.
        filled = manifest.slots - manifest.padding_slots - manifest.context_slots
        _expect(
            filled == manifest.loss_tokens,
            f"packing/{split}: {filled} slots filled with {manifest.loss_tokens} targets",
        )


def _packed_counts(manifest: PackedManifest, source: str) -> SourceCounts:
    """Return what packing counted of a source in a split; zeros where it has no document."""
    return manifest.by_source.get(source) or manifest.nothing()


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise UnbalancedLedgerError(f"the token ledger does not balance: {what}")
