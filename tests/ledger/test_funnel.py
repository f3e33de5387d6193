import copy
import itertools

import pytest
from complete_model import complete
from hypothesis import given, settings
from hypothesis import strategies as st
from made_manifest import NOTHING

from components.ledger.funnel import UnbalancedLedgerError, build_funnel
from tokenmill.contracts.curation import Curation
from tokenmill.contracts.ingest import IngestCounts
from tokenmill.contracts.packed_rows import PackedManifest, SourceCounts
from tokenmill.cost.scaling import repetition_discounted_tokens

SPLITS = ("train", "eval")
REASONS = ("too_short", "exact_duplicate")
LENGTH = 32

counts = st.integers(0, 10**6)


@st.composite
def accounts(draw):
    """One source in one split: what each step did with it."""
    kept = draw(st.integers(0, 1000))
    tokens = draw(counts) if kept else 0
    return {
        "kept": kept,
        "kept_bytes": draw(counts) if kept else 0,
        "raw_bytes": draw(counts) if kept else 0,
        "dropped": {
            r: (draw(counts), draw(counts)) for r in draw(st.sets(st.sampled_from(REASONS)))
        },
        "tokens": tokens,
        "empty": draw(st.integers(0, kept)) if kept else 0,
    }


@st.composite
def corpora(draw):
    """{split: {source: account}}; a source may be missing from a split."""
    names = draw(st.sets(st.sampled_from("abcd"), min_size=1))
    return {
        split: {
            s: draw(accounts()) for s in sorted(names) if draw(st.booleans()) or split == "train"
        }
        for split in SPLITS
    }


def sum_up(parts, names):
    return {name: sum(part[name] for part in parts) for name in names}


def in_two_languages(totals):
    """The counts of a split, divided between two languages."""
    halves = {name: value // 2 for name, value in totals.items()}
    return {"de": halves, "und": {name: value - halves[name] for name, value in totals.items()}}


def reports_of(corpus):
    """What ingest, curation and packing would have written about a corpus."""
    sizes = ("documents", "bytes")
    ingest = {"splits": {}, "quarantined": {"documents": 3, "bytes": 70}}
    ingest["quarantined"]["by_reason"] = {
        "not_utf8": {"documents": 2, "bytes": 60},
        "too_long": {"documents": 1, "bytes": 10},
    }
    curation, packed = {"splits": {}}, {}
    for split, sources in corpus.items():
        read, curated, rows = {}, {}, {}
        for source, a in sources.items():
            gone = a["dropped"].values()
            read[source] = {
                "documents": a["kept"] + sum(d for d, _ in gone),
                "bytes": a["raw_bytes"] + sum(b for _, b in gone),
            }
            curated[source] = {
                "in": dict(read[source]),
                "kept": {
                    "documents": a["kept"],
                    "bytes": a["kept_bytes"],
                    "raw_bytes": a["raw_bytes"],
                },
                "dropped": {r: {"documents": d, "bytes": b} for r, (d, b) in a["dropped"].items()},
            }
            if a["kept"]:  # packing knows of the documents that reached it only
                rows[source] = {
                    "documents": a["kept"],
                    "bytes": a["kept_bytes"],
                    "tokens": a["tokens"],
                    "loss_tokens": a["tokens"] + a["kept"] - a["empty"],
                    "dropped_empty": a["empty"],
                }
        ingest["splits"][split] = {**sum_up(read.values(), sizes), "by_source": read}
        curation["splits"][split] = {"by_source": curated}
        totals = sum_up(
            rows.values(), ("documents", "bytes", "tokens", "loss_tokens", "dropped_empty")
        )
        slots = -(-totals["loss_tokens"] // LENGTH) * LENGTH
        packed[split] = {
            **totals,
            "slots": slots,
            "padding_slots": slots - totals["loss_tokens"],
            "by_source": rows,
            "by_language": in_two_languages(totals),
        }
    ingest["read"] = sum_up(ingest["splits"].values(), sizes)
    return ingest, curation, packed


def funnel_of(ingest, curation, packed, *epochs):
    """The funnel of what `reports_of` gives; a wrong number passes on, whatever its sign."""
    manifests = {}
    for split, values in packed.items():
        counted = {
            kind: {name: SourceCounts.model_construct(**counts) for name, counts in parts.items()}
            for kind in ("by_source", "by_language")
            for parts in (values[kind],)
        }
        values = {**NOTHING, **values, **counted}
        manifests[split] = PackedManifest.model_construct(**values)
    ingest = complete(IngestCounts, ingest, check=False)
    curation = complete(Curation, curation, check=False)
    return build_funnel(ingest, curation, manifests, *epochs).to_json()


def numbers_in(tree, path=()):
    """Paths to all numbers of nested dictionaries."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from numbers_in(value, (*path, key))
        else:
            yield (*path, key)


def change(tree, path, by):
    *branches, leaf = path
    for key in branches:
        tree = tree[key]
    tree[leaf] += by


@settings(deadline=None)
@given(corpora(), st.floats(0.01, 100))
def test_consistent_counts_balance(corpus, epochs):
    funnel = funnel_of(*reports_of(corpus), epochs)
    everything = [a for sources in corpus.values() for a in sources.values()]
    total = funnel["total"]
    gone = [d for a in everything for d in a["dropped"].values()]
    kept = sum(a["kept"] for a in everything)
    assert total["raw"]["documents"] == kept + sum(d for d, _ in gone)
    assert total["raw"]["bytes"] == sum(a["raw_bytes"] for a in everything) + sum(
        b for _, b in gone
    )
    assert total["curated"]["documents"] == kept
    assert total["curated"]["tokens"] == sum(a["tokens"] for a in everything)
    assert total["train"]["loss_tokens"] == sum(
        a["tokens"] + a["kept"] - a["empty"] for a in corpus["train"].values()
    )
    assert funnel["quarantined"]["documents"] == 3


@settings(deadline=None)
@given(corpora(), st.floats(0.01, 100))
def test_the_total_is_the_sum_of_the_sources(corpus, epochs):
    funnel = funnel_of(*reports_of(corpus), epochs)
    parts = list(funnel["by_source"].values())
    assert set(funnel["by_source"]) == {s for sources in corpus.values() for s in sources}
    for path in numbers_in(funnel["total"]):
        if path[0] in ("bytes_per_token", "stages"):
            continue
        added = 0.0
        for part in parts:
            for key in path:
                part = part.get(key, 0) if isinstance(part, dict) else part
            added += part
        value = funnel["total"]
        for key in path:
            value = value[key]
        assert value == pytest.approx(added, rel=1e-9, abs=1e-6), path


@settings(deadline=None, max_examples=300)
@given(corpora(), st.sampled_from([-1, 1]), st.data())
def test_any_one_number_off_by_one_stops_the_run(corpus, by, data):
    reports = reports_of(corpus)
    places = [(i, path) for i, report in enumerate(reports) for path in numbers_in(report)]
    which, path = data.draw(st.sampled_from(places))
    wrong = copy.deepcopy(reports)
    change(wrong[which], path, by)
    with pytest.raises(UnbalancedLedgerError, match="does not balance"):
        funnel_of(*wrong, 1.0)


@settings(deadline=None)
@given(corpora(), st.sampled_from(SPLITS))
def test_a_source_that_appears_or_vanishes_in_packing_stops_the_run(corpus, split):
    ingest, curation, packed = reports_of(corpus)
    packed = copy.deepcopy(packed)
    extra = {"documents": 1, "bytes": 5, "tokens": 4, "loss_tokens": 5, "dropped_empty": 0}
    packed[split]["by_source"]["stranger"] = extra
    for name, value in extra.items():
        packed[split][name] += value
        packed[split]["by_language"]["de"][name] += value
    packed[split]["slots"] += 5
    with pytest.raises(UnbalancedLedgerError, match="stranger"):
        funnel_of(ingest, curation, packed, 1.0)


def test_errors_that_cancel_between_splits_are_found():
    account = {"kept": 5, "kept_bytes": 90, "raw_bytes": 99, "tokens": 40, "empty": 0}
    account["dropped"] = {"too_short": (3, 7)}
    ingest, curation, packed = reports_of({split: {"a": account} for split in SPLITS})
    for split, by in zip(SPLITS, (1, -1), strict=True):
        dropped = curation["splits"][split]["by_source"]["a"]["dropped"]["too_short"]
        dropped["documents"] += by
    with pytest.raises(UnbalancedLedgerError, match="a/train"):
        funnel_of(ingest, curation, packed, 1.0)


@settings(deadline=None)
@given(corpora(), st.floats(0.01, 1000))
def test_effective_tokens_never_exceed_the_targets_read(corpus, epochs):
    funnel = funnel_of(*reports_of(corpus), epochs)
    for account in (funnel["total"], *funnel["by_source"].values()):
        train = account["train"]
        most = train["loss_tokens"] * epochs
        assert train["effective_tokens"] <= most * (1 + 1e-12)
        if epochs <= 1:
            assert train["effective_tokens"] == pytest.approx(most)
        expected = repetition_discounted_tokens(train["loss_tokens"], epochs)
        assert train["effective_tokens"] == expected
    assert "effective_tokens" not in funnel["total"]["eval"]


def test_tokens_of_raw_and_dropped_documents_are_estimated_from_the_source_itself():
    dense = {"kept": 2, "kept_bytes": 100, "raw_bytes": 110, "tokens": 50, "empty": 0}
    sparse = {"kept": 1, "kept_bytes": 400, "raw_bytes": 400, "tokens": 100, "empty": 0}
    lost = {"kept": 0, "kept_bytes": 0, "raw_bytes": 0, "tokens": 0, "empty": 0}
    sources = {
        "dense": {**dense, "dropped": {"too_short": (1, 30)}},
        "sparse": {**sparse, "dropped": {}},
        "lost": {**lost, "dropped": {"few_letters": (4, 1000)}},
    }
    by_source = funnel_of(*reports_of({"train": sources, "eval": {}}), 1.0)["by_source"]
    assert by_source["dense"]["bytes_per_token"] == 2.0
    assert by_source["dense"]["raw"]["tokens_estimated"] == 70.0
    assert by_source["dense"]["dropped"]["too_short"]["tokens_estimated"] == 15.0
    assert by_source["sparse"]["raw"]["tokens_estimated"] == 100.0
    # Nothing of it was tokenized: the ratio of the whole corpus, 500 bytes in 150 tokens.
    assert by_source["lost"]["dropped"]["few_letters"]["tokens_estimated"] == pytest.approx(300.0)


@settings(deadline=None)
@given(corpora(), st.sampled_from(["tokens", "dropped_empty"]), st.sampled_from([-1, 1]))
def test_targets_that_do_not_follow_from_the_tokens_stop_the_run(corpus, name, by):
    corpus["train"]["z"] = {
        "kept": 5, "kept_bytes": 9, "raw_bytes": 9, "tokens": 40, "empty": 1, "dropped": {}
    }  # fmt: skip
    ingest, curation, packed = reports_of(corpus)
    packed["train"][name] += by
    packed["train"]["by_source"]["z"][name] += by
    packed["train"]["by_language"]["de"][name] += by
    with pytest.raises(UnbalancedLedgerError, match="z/train: packing made"):
        funnel_of(ingest, curation, packed, 1.0)


@settings(deadline=None)
@given(corpora(), st.floats(0.01, 100))
def test_each_stage_has_what_the_one_before_did_not_lose(corpus, epochs):
    funnel = funnel_of(*reports_of(corpus), epochs)
    total = funnel["total"]["stages"]
    assert [stage["stage"] for stage in total] == [
        "raw", "valid", "curated", "tokenized", "packed", "loss_tokens", "unique",
        "repetition_discounted",
    ]  # fmt: skip
    for account in (funnel["total"], *funnel["by_source"].values()):
        stages = account["stages"]
        for before, after in itertools.pairwise(stages):
            lost = sum(after["documents_lost"].values())
            assert before["documents"] - lost == after["documents"], after["stage"]
        assert stages[5]["tokens"] >= stages[6]["tokens"]
        assert stages[7]["tokens"] >= stages[6]["tokens"] * 0.999999
        assert stages[7]["tokens"] == account["train"]["effective_tokens"]
    assert total[0]["documents"] - total[1]["documents"] == funnel["quarantined"]["documents"]
    for i in range(8):
        added = sum(a["stages"][i]["documents"] for a in funnel["by_source"].values())
        assert added == total[i]["documents"] - (3 if i == 0 else 0)


def test_loss_tokens_by_source_and_language_are_those_of_the_source():
    account = {"kept": 5, "kept_bytes": 90, "raw_bytes": 99, "tokens": 40, "empty": 0}
    ingest, curation, packed = reports_of({"train": {"a": {**account, "dropped": {}}}, "eval": {}})
    packed["train"]["loss_tokens_by_source_and_language"] = {"a": {"de": 22, "und": 23}}
    funnel_of(ingest, curation, packed, 1.0, {"a": 1.0})
    packed["train"]["loss_tokens_by_source_and_language"]["a"]["de"] = 21
    with pytest.raises(UnbalancedLedgerError, match=r"45 loss tokens of source a, .* have 44"):
        funnel_of(ingest, curation, packed, 1.0, {"a": 1.0})


def test_context_slots_are_neither_loss_nor_padding():
    corpus = {"train": {"a": {"kept": 1, "kept_bytes": 9, "raw_bytes": 9, "dropped": {},
                              "tokens": 9, "empty": 0}}, "eval": {}}  # fmt: skip
    ingest, curation, packed = reports_of(corpus)
    train = packed["train"]
    train["context_slots"] = 2
    with pytest.raises(UnbalancedLedgerError, match="slots filled"):
        funnel_of(ingest, curation, packed, 1.0)
    train["padding_slots"] -= 2
    funnel_of(ingest, curation, packed, 1.0)


@st.composite
def labeled_corpora(draw):
    """Reports of a classifier's corpus: some documents without a known label, some cut off."""
    ingest, curation, packed = reports_of(draw(corpora()))
    for manifest in packed.values():
        manifest["task"] = "classification"
        for account in manifest["by_source"].values():
            left = account["documents"] - account["dropped_empty"]
            account["dropped_no_label"] = draw(st.integers(0, left))
            account["dropped_unknown_label"] = draw(
                st.integers(0, left - account["dropped_no_label"])
            )
            account["dropped_bytes"] = draw(st.integers(0, account["bytes"]))
            account["dropped_tokens"] = draw(st.integers(0, account["tokens"]))
            kept = account["tokens"] - account["dropped_tokens"]
            account["truncated_tokens"] = draw(st.integers(0, kept))
            account["loss_tokens"] = kept - account["truncated_tokens"]
        parts = manifest["by_source"].values()
        totals = {name: sum(a[name] for a in parts) for name in CLASSIFIED}
        manifest.update(totals, by_language=in_two_languages(totals))
        manifest["padding_slots"] = manifest["slots"] - manifest["loss_tokens"]
    return ingest, curation, packed


CLASSIFIED = (
    "documents", "bytes", "tokens", "loss_tokens", "dropped_empty", "dropped_no_label",
    "dropped_unknown_label", "dropped_bytes", "dropped_tokens", "truncated_tokens",
)  # fmt: skip


@settings(deadline=None)
@given(labeled_corpora(), st.data())
def test_a_classifiers_documents_are_lost_for_a_reason(reports, data):
    ingest, curation, packed = reports
    total = funnel_of(ingest, curation, packed, 2.0)["total"]
    stages = {stage["stage"]: stage for stage in total["stages"]}
    lost = {
        reason: sum(m[f"dropped_{reason}"] for m in packed.values())
        for reason in ("no_label", "unknown_label")
    }
    assert stages["packed"]["documents_lost"] == {r: n for r, n in lost.items() if n}
    assert stages["packed"]["documents"] == stages["tokenized"]["documents"] - sum(lost.values())
    assert stages["packed"]["tokens"] == sum(m["loss_tokens"] for m in packed.values())
    assert stages["packed"]["bytes"] == sum(
        m["bytes"] - m["dropped_bytes"] for m in packed.values()
    )
    train = packed["train"]
    assert stages["loss_tokens"]["tokens"] == train["loss_tokens"]
    assert stages["loss_tokens"]["documents"] == train["documents"] - sum(
        train[f"dropped_{r}"] for r in ("empty", "no_label", "unknown_label")
    )
    if train["by_source"]:
        source = data.draw(st.sampled_from(sorted(train["by_source"])))
        for account in (train, train["by_source"][source], train["by_language"]["und"]):
            account["truncated_tokens"] += 1
        with pytest.raises(UnbalancedLedgerError):
            funnel_of(ingest, curation, packed, 2.0)


@pytest.mark.parametrize("by_source", [False, True])
def test_below_one_epoch_documents_bytes_and_tokens_shrink_alike(by_source):
    account = {"kept": 1000, "kept_bytes": 9000, "raw_bytes": 9000, "tokens": 4000, "empty": 0,
               "dropped": {}}  # fmt: skip
    corpus = {"train": {"a": account, "b": account}, "eval": {"a": account}}
    shares = {"a": 0.25, "b": 0.5} if by_source else {"a": 0.3, "b": 0.3}
    epochs = (0.375, shares) if by_source else (0.3,)
    funnel = funnel_of(*reports_of(corpus), *epochs)
    for source, share in shares.items():
        whole, *read = funnel["by_source"][source]["stages"][5:]
        for stage in read:
            for unit in ("documents", "bytes", "tokens"):
                assert stage[unit] == pytest.approx(share * whole[unit])
        assert read[0]["documents_lost"] == {"not_read": 1000 * (1 - share)}
    assert funnel["total"]["stages"][6]["documents"] == 1000 * sum(shares.values())
    assert funnel["total"]["stages"][6]["tokens"] == pytest.approx(5000 * sum(shares.values()))


def test_of_masked_lm_only_the_hidden_tokens_count():
    account = {"kept": 10, "kept_bytes": 900, "raw_bytes": 900, "tokens": 400, "empty": 0,
               "dropped": {}}  # fmt: skip
    ingest, curation, packed = reports_of({"train": {"a": account}, "eval": {}})
    for manifest in packed.values():
        manifest |= {"task": "masked-lm", "mask_rate": 0.15, "loss_tokens": manifest["tokens"]}
        manifest["padding_slots"] = manifest["slots"] - manifest["loss_tokens"]
        for kind in ("by_source", "by_language"):
            for counts in manifest[kind].values():
                counts["loss_tokens"] = counts["tokens"]
    for account in (
        funnel_of(ingest, curation, packed, 3.0)["total"],
        funnel_of(ingest, curation, packed, 3.0, {"a": 3.0})["by_source"]["a"],
    ):
        stages = {stage["stage"]: stage for stage in account["stages"]}
        assert stages["packed"]["tokens"] == 400
        assert stages["loss_tokens"]["tokens"] == stages["unique"]["tokens"] == 60
        assert stages["loss_tokens"]["tokens_are"] == "estimated"
        assert account["train"]["effective_tokens"] == repetition_discounted_tokens(60, 3.0)
