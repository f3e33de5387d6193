"""The funnel of tokens, from raw text to effective tokens, by source and in all.

raw -> curated -> loss-bearing -> effective. Every stage has documents, bytes and tokens; what one
stage loses to the next is booked under a reason, and the books must balance. *Effective tokens*
are the loss-bearing tokens of training after curation, discounted for repetition (Muennighoff et
al. 2023, see scaling.py).
"""

from collections.abc import Mapping
from typing import Any

from components.ledger.scaling import repetition_discounted_tokens

_NOTHING_PACKED = {"documents": 0, "bytes": 0, "tokens": 0, "targets": 0, "dropped_empty": 0}


class UnbalancedLedgerError(ArithmeticError):
    """Documents, bytes or tokens are missing between two steps: a bug; the run must not go on."""


def build_funnel(
    ingest: Mapping[str, Any],
    curation: Mapping[str, Any],
    packed: Mapping[str, Mapping[str, Any]],
    epochs: float,
) -> dict[str, Any]:
    """Joins the counts of ingest, curation and packing; checks that they balance.

    Args:
        ingest: counts.json of the quarantine artifact.
        curation: curation.json of the rejected documents.
        packed: Manifest of the packed rows by split.
        epochs: How often training reads its rows.

    Returns:
        {"total": account, "by_source": {source: account}, "quarantined": {..}}. Tokens of raw and
        dropped documents are estimates from the source's own bytes per token ("tokens_estimated"),
        because only what survives is tokenised; all others are counts.

    Raises:
        UnbalancedLedgerError: Two steps disagree.
    """
    sources = sorted(
        {s for split in ingest["splits"].values() for s in split["by_source"]}
        | {s for split in curation["splits"].values() for s in split["by_source"]}
        | {s for manifest in packed.values() for s in manifest["by_source"]}
    )
    _check_sums(ingest, packed)
    overall = _bytes_per_token(packed.values())
    by_source = {
        source: _source_account(source, ingest, curation, packed, overall) for source in sources
    }
    total = _add_up(list(by_source.values()))
    for account in (*by_source.values(), total):
        train = account["train"]
        train["effective_tokens"] = repetition_discounted_tokens(train["targets"], epochs)
    return {"total": total, "by_source": by_source, "quarantined": ingest["quarantined"]}


def _bytes_per_token(manifests: Any) -> float:
    manifests = list(manifests)
    tokens = sum(m["tokens"] for m in manifests)
    return sum(m["bytes"] for m in manifests) / tokens if tokens else 0.0


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
        # But for masked-lm, the end of a document is a target too.
        ends = mine["documents"] - mine["dropped_empty"]
        _expect(
            mine["targets"] == mine["tokens"] + ends * (packed[split].get("task") != "masked-lm"),
            f"{where}: packing made {mine['targets']} targets of {mine['tokens']} tokens in "
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


def _check_sums(ingest: Mapping[str, Any], packed: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks each total against its parts."""
    counts: tuple[str, ...] = ("documents", "bytes")
    bad = ingest["quarantined"]
    totals = [("ingest", ingest["read"], ingest["splits"], counts)]
    totals.append(("quarantine", bad, bad["by_reason"], counts))
    for split, account in ingest["splits"].items():
        totals.append((f"ingest/{split}", account, account["by_source"], counts))
    for split, manifest in packed.items():
        totals.append((f"packing/{split}", manifest, manifest["by_source"], tuple(_NOTHING_PACKED)))
    for where, total, parts, names in totals:
        for name in names:
            added = sum(part[name] for part in parts.values())
            _expect(total[name] == added, f"{where}: {total[name]} {name}, its parts have {added}")
    for split, manifest in packed.items():
        # Context is read again for its successors' sake and bears no loss; absent means none.
        context = manifest.get("context_slots", 0)
        filled = manifest["slots"] - manifest["padding_slots"] - context
        _expect(
            filled == manifest["targets"],
            f"packing/{split}: {filled} slots filled with {manifest['targets']} targets",
        )


def _packed_of(manifest: Mapping[str, Any], source: str) -> dict[str, Any]:
    return dict(manifest["by_source"].get(source, _NOTHING_PACKED))


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
