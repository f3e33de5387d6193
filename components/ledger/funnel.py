"""The funnel of tokens, from raw text to effective tokens, by source and in all.

raw -> valid -> curated -> tokenized -> packed -> loss-bearing -> unique -> repetition-discounted.
Every stage has documents, bytes and tokens; what one stage loses to the next is booked under a
reason, and the books must balance. *Effective tokens* are the loss-bearing tokens of training
after curation, discounted for repetition (Muennighoff et al. 2023, see scaling.py).
"""

from collections.abc import Mapping
from typing import Any

from tokenmill.contracts.packed_rows import DROP_REASONS, LABEL_REASONS, PackedManifest
from tokenmill.cost.scaling import repetition_discounted_tokens


class UnbalancedLedgerError(ArithmeticError):
    """Documents, bytes or tokens are missing between two steps: a bug; the run must not go on."""


def build_funnel(
    ingest: Mapping[str, Any],
    curation: Mapping[str, Any],
    packed: Mapping[str, PackedManifest],
    epochs: float,
    epochs_by_source: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Joins the counts of ingest, curation and packing; checks that they balance.

    Args:
        ingest: counts.json of the quarantine artifact.
        curation: curation.json of the rejected documents.
        packed: Manifest of the packed rows by split.
        epochs: How often training reads its rows.
        epochs_by_source: The same by source where sources have weights; one that is missing
            there has none and is not read.

    Returns:
        {"total": account, "by_source": {source: account}, "quarantined": {..}}. Tokens of raw and
        dropped documents are estimates from the source's own bytes per token ("tokens_estimated"),
        because only what survives is tokenized; all others are counts. An account's "stages" list
        the funnel in order. Quarantined records have no source: only the total's raw stage has
        them.

    Raises:
        UnbalancedLedgerError: Two steps disagree.
    """
    sources = sorted(
        {s for split in ingest["splits"].values() for s in split["by_source"]}
        | {s for split in curation["splits"].values() for s in split["by_source"]}
        | {s for manifest in packed.values() for s in manifest.by_source}
    )
    _check_sums(ingest, packed)
    overall = _bytes_per_token(packed.values())
    by_source = {
        source: _source_account(source, ingest, curation, packed, overall) for source in sources
    }
    total = _add_up(list(by_source.values()))
    for source, account in by_source.items():
        repeated = epochs_by_source.get(source, 0.0) if epochs_by_source else epochs
        train = account["train"]
        train["effective_tokens"] = repetition_discounted_tokens(train["loss_tokens"], repeated)
        account["stages"] = _stages(account, train["loss_tokens"] * min(1.0, repeated))
    train = total["train"]
    train["effective_tokens"] = repetition_discounted_tokens(train["loss_tokens"], epochs)
    once = train["loss_tokens"] * min(1.0, epochs)
    if epochs_by_source:
        parts = list(by_source.values())
        train["effective_tokens"] = sum(part["train"]["effective_tokens"] for part in parts)
        once = sum(part["stages"][6]["tokens"] for part in parts)
    total["stages"] = _stages(total, once)
    quarantined = ingest["quarantined"]
    raw = total["stages"][0]
    for name in ("documents", "bytes"):
        raw[name] += quarantined[name]
    total["stages"][1]["documents_lost"] = {
        reason: numbers["documents"] for reason, numbers in quarantined["by_reason"].items()
    }
    if total["bytes_per_token"]:
        raw["tokens"] += quarantined["bytes"] / total["bytes_per_token"]
    return {"total": total, "by_source": by_source, "quarantined": quarantined}


def _bytes_per_token(manifests: Any) -> float:
    manifests = list(manifests)
    tokens = sum(m.tokens for m in manifests)
    return sum(m.bytes for m in manifests) / tokens if tokens else 0.0


def _source_account(source, ingest, curation, packed, overall_bytes_per_token) -> dict[str, Any]:
    raw: dict[str, float] = {"documents": 0, "bytes": 0}
    kept = {"documents": 0, "bytes": 0, "raw_bytes": 0}
    dropped: dict[str, dict[str, float]] = {}
    tokens = {split: _packed_of(packed[split], source) for split in packed}
    for split, counts in ingest["splits"].items():
        read = counts["by_source"].get(source, {"documents": 0, "bytes": 0})
        curated = curation["splits"][split]["by_source"].get(source)
        if curated is None:
            nothing = {"documents": 0, "bytes": 0}
            curated = {"in": nothing, "kept": {**nothing, "raw_bytes": 0}, "dropped": {}}
        where = f"{source}/{split}"
        _expect(
            curated["in"] == read, f"{where}: ingest wrote {read}, curation read {curated['in']}"
        )
        _accumulate(raw, read)
        _accumulate(kept, curated["kept"])
        for reason, numbers in curated["dropped"].items():
            _accumulate(dropped.setdefault(reason, {"documents": 0, "bytes": 0}), numbers)
        for name, kept_as in (("documents", "documents"), ("bytes", "raw_bytes")):
            gone = sum(numbers[name] for numbers in curated["dropped"].values())
            _expect(
                read[name] == curated["kept"][kept_as] + gone,
                f"{where}: {read[name]} {name} in, {curated['kept'][kept_as]} kept, {gone} dropped",
            )
        mine = tokens[split]
        arrived = {name: mine[name] for name in ("documents", "bytes")}
        sent = {name: curated["kept"][name] for name in ("documents", "bytes")}
        _expect(arrived == sent, f"{where}: curation kept {sent}, packing read {arrived}")
        # In causal-lm the end of a document is a target too.
        ends = mine["documents"] - mine["dropped_empty"]
        causal = packed[split].task == "causal-lm"
        lost = mine.get("dropped_tokens", 0) + mine.get("truncated_tokens", 0)
        _expect(
            mine["loss_tokens"] == mine["tokens"] + ends * causal - lost,
            f"{where}: packing made {mine['loss_tokens']} targets of {mine['tokens']} tokens in "
            f"{mine['documents']} documents, {mine['dropped_empty']} of them empty",
        )
    counted = sum(t["tokens"] for t in tokens.values())
    ratio = kept["bytes"] / counted if counted else overall_bytes_per_token
    for account in (raw, *dropped.values()):
        account["tokens_estimated"] = account["bytes"] / ratio if ratio else 0.0
    return {
        "raw": raw,
        "dropped": dropped,
        "curated": {**kept, "tokens": counted},
        "bytes_per_token": ratio,
        **tokens,
    }


def _stages(account: Mapping[str, Any], once: float) -> list[dict[str, Any]]:
    """The funnel in order; each stage says what the one before lost, and to what.

    Args:
        account: Of a source, or of all.
        once: Loss-bearing tokens that training reads at least once.
    """
    valid, curated, train, held_out = (account[k] for k in ("raw", "curated", "train", "eval"))
    empty = train["dropped_empty"] + held_out["dropped_empty"]
    packed_tokens = train["loss_tokens"] + held_out["loss_tokens"]
    with_tokens = curated["documents"] - empty
    left_out = {
        reason: sum(part.get(f"dropped_{reason}", 0) for part in (train, held_out))
        for reason in LABEL_REASONS
    }
    packed = with_tokens - sum(left_out.values())
    trained = train["documents"] - sum(train.get(f"dropped_{r}", 0) for r in DROP_REASONS)

    def stage(
        name: str, numbers: tuple[float, float, float], counted: bool, lost: Mapping[str, float]
    ) -> dict[str, Any]:
        documents, size, tokens = numbers
        return {
            "stage": name,
            "documents": documents,
            "bytes": size,
            "tokens": tokens,
            "tokens_are": "counted" if counted else "estimated",
            "documents_lost": {reason: count for reason, count in lost.items() if count},
        }

    size, trained_bytes = curated["bytes"], train["bytes"] - train.get("dropped_bytes", 0)
    packed_bytes = trained_bytes + held_out["bytes"] - held_out.get("dropped_bytes", 0)
    read = (valid["documents"], valid["bytes"], valid["tokens_estimated"])
    dropped = {reason: numbers["documents"] for reason, numbers in account["dropped"].items()}
    tokens, effective = curated["tokens"], train["effective_tokens"]
    return [
        stage("raw", read, False, {}),
        stage("valid", read, False, {}),
        stage("curated", (curated["documents"], size, tokens), True, dropped),
        stage("tokenized", (with_tokens, size, tokens), True, {"empty": empty}),
        stage("packed", (packed, packed_bytes, packed_tokens), True, left_out),
        stage("loss_bearing", (trained, trained_bytes, train["loss_tokens"]), True,
              {"held_out": packed - trained}),
        stage("unique", (trained, trained_bytes, once), True, {}),
        stage("repetition_discounted", (trained, trained_bytes, effective), True, {}),
    ]  # fmt: skip


def _check_sums(ingest: Mapping[str, Any], packed: Mapping[str, PackedManifest]) -> None:
    """Checks each total against its parts."""
    counts: tuple[str, ...] = ("documents", "bytes")
    bad = ingest["quarantined"]
    totals = [("ingest", ingest["read"], ingest["splits"], counts)]
    totals.append(("quarantine", bad, bad["by_reason"], counts))
    for split, account in ingest["splits"].items():
        totals.append((f"ingest/{split}", account, account["by_source"], counts))
    for split, manifest in packed.items():
        parts = {source: part.counted() for source, part in manifest.by_source.items()}
        total = manifest.counted()
        totals.append((f"packing/{split}", total, parts, tuple(total)))
    for where, total, parts, names in totals:
        for name in names:
            added = sum(part[name] for part in parts.values())
            _expect(total[name] == added, f"{where}: {total[name]} {name}, its parts have {added}")
    for split, manifest in packed.items():
        # Context is read again for its successors' sake and bears no loss.
        filled = manifest.slots - manifest.padding_slots - manifest.context_slots
        _expect(
            filled == manifest.loss_tokens,
            f"packing/{split}: {filled} slots filled with {manifest.loss_tokens} targets",
        )


def _packed_of(manifest: PackedManifest, source: str) -> dict[str, Any]:
    counts = manifest.by_source.get(source)
    return counts.counted() if counts else dict.fromkeys(manifest.counted(), 0)


def _accumulate(total: dict, part: Mapping) -> None:
    for name in total:
        total[name] += part[name]


def _add_up(accounts: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums nested accounts number by number; ratios are formed anew."""

    def add(parts: list[Any]) -> Any:
        if isinstance(parts[0], dict):
            keys = dict.fromkeys(k for part in parts for k in part)
            return {k: add([part[k] for part in parts if k in part]) for k in keys}
        return sum(parts)

    total = add([{k: v for k, v in a.items() if k != "bytes_per_token"} for a in accounts])
    tokens = total["curated"]["tokens"]
    total["bytes_per_token"] = total["curated"]["bytes"] / tokens if tokens else 0.0
    return total


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise UnbalancedLedgerError(f"the token ledger does not balance: {what}")
