import dataclasses

import pytest
from complete_model import complete
from hypothesis import given, settings
from hypothesis import strategies as st
from made_manifest import packed_manifest

from components.ledger.budget import _three_digits, check_budget, ways_to_fit
from components.ledger.config import BudgetConfig, LedgerJob
from components.ledger.ledger import Machine, build_ledger
from data.catalog.chips import Price
from tokenmill.contracts.curation import Curation
from tokenmill.contracts.ingest import IngestCounts
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape

SHAPE = {
    "layers": 8,
    "d_model": 512,
    "heads": 8,
    "d_ff": 2048,
    "vocab_size": 8192,
    "sequence_length": 512,
    "positions": "rope",
    "norm": "layer",
    "use_bias": True,
    "mlp": "gelu",
    "tie_embeddings": True,
}
DOCUMENTS, TOKENS, LENGTH = 1000, 10_000_000, 512
PLAN = LedgerJob(
    shape=ModelShape(**SHAPE),
    strategy="mirrored",
    precision="mixed_bfloat16",
    global_batch_size=64,
    epochs=2.0,
    max_steps=None,
    chip="a100-sxm4-80gb",
    chips=2,
    peak_flops_per_second_per_chip=312e12,
    memory_bytes_per_chip=80 * 2**30,
    given_mfu=0.3,
    goodput=0.9,
    price=Price(usd_per_chip_hour=4.0, provider="us-1", date="2026-01-01", source="a list"),
    vcpu_price_usd_per_hour=0.05,
    hidden_cost_multiplier_low=2.0,
    hidden_cost_multiplier_high=5.0,
)
MACHINE = Machine(peak_flops_per_second_per_chip=312e12, memory_bytes_per_device=80 * 2**30)


def manifest(tokens):
    account = {
        "documents": DOCUMENTS,
        "bytes": 4 * tokens,
        "tokens": tokens,
        "loss_tokens": tokens + DOCUMENTS,
        "dropped_empty": 0,
    }
    rows = -(-account["loss_tokens"] // LENGTH)
    return packed_manifest(
        **account,
        rows=rows,
        slots=rows * LENGTH,
        padding_slots=rows * LENGTH - account["loss_tokens"],
        segments=DOCUMENTS,
        stored_bytes=2 * tokens,
        by_source={"a": account},
    )


PACKED = {"train": manifest(TOKENS), "eval": manifest(10_000)}


def ledger_of(plan):
    sizes = {s: {n: getattr(PACKED[s], n) for n in ("documents", "bytes")} for s in PACKED}
    total = {n: sum(sizes[s][n] for s in PACKED) for n in ("documents", "bytes")}
    ingest = {
        "read": total,
        "quarantined": {"documents": 0, "bytes": 0, "by_reason": {}},
        "splits": {s: {**sizes[s], "by_source": {"a": sizes[s]}} for s in PACKED},
    }
    curation = {
        "splits": {
            s: {
                "by_source": {
                    "a": {
                        "in": sizes[s],
                        "kept": {**sizes[s], "raw_bytes": sizes[s]["bytes"]},
                        "dropped": {},
                    }
                }
            }
            for s in PACKED
        }
    }
    return build_ledger(
        complete(IngestCounts, ingest), complete(Curation, curation), PACKED, plan, MACHINE
    )


def limited(**limits):
    return PLAN.model_copy(update={"budget": BudgetConfig(**limits)})


COST = ledger_of(PLAN).cost


def check(plan):
    check_budget(ledger_of(plan), PACKED, plan, MACHINE)


def test_a_run_within_its_limits_passes_and_exactly_at_them_too():
    check(PLAN)
    check(limited(max_usd=COST.compute_usd, max_hours=COST.wall_hours))
    check(limited(max_epochs=2.01, min_effective_tokens=1.0))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_usd": COST.compute_usd * 0.9}, ["budget.max_usd = $", "chip-hours at $4.00"]),
        ({"max_hours": COST.wall_hours * 0.5}, ["budget.max_hours = "]),
        ({"max_epochs": 1.5}, ["epochs is more than budget.max_epochs = 1.5"]),
        ({"min_effective_tokens": 1e9}, ["less than budget.min_effective_tokens = 1,000,000,000"]),
    ],
)
def test_each_limit_stops_the_run_and_is_named(limits, words):
    with pytest.raises(TokenmillError) as raised:
        check(limited(**limits))
    for word in (*words, "nothing was trained"):
        assert word in raised.value.message
    assert raised.value.hint


def test_a_budget_of_nothing_stops_all_but_a_free_run():
    with pytest.raises(TokenmillError, match=r"budget\.max_usd = \$0\.00"):
        check(limited(max_usd=0.0))
    free = dataclasses.replace(PLAN.price, usd_per_chip_hour=0.0)
    check(limited(max_usd=0.0).model_copy(update={"price": free}))


def apply(plan, changes):
    """A plan with the keys of `--set` changed, as the configuration would."""
    shape, values = {}, {}
    names = {"layers": "layers", "d_model": "d_model", "d_ff": "d_ff",
             "sequence_length": "sequence_length"}  # fmt: skip
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if section == "model":
            shape[names[name]] = value
        elif section == "train":
            values[name] = value
    return plan.model_copy(update={"shape": dataclasses.replace(plan.shape, **shape), **values})


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_way_to_fit_fits_when_the_ledger_is_made_again_with_it(share):
    plan = limited(max_usd=COST.compute_usd * share)
    ways = {way.kind: way for way in ways_to_fit(PACKED, plan, MACHINE)}
    assert {"fewer_steps", "smaller_model"} <= set(ways)
    for kind in ("fewer_steps", "smaller_model"):
        way = ways[kind]
        changed = apply(plan, way.changes)
        again = ledger_of(changed)
        assert again.cost.compute_usd == pytest.approx(way.estimate.cost.compute_usd)
        check_budget(again, PACKED, changed, MACHINE)


def test_ways_are_ordered_by_what_they_lose():
    ways = ways_to_fit(PACKED, limited(max_usd=COST.compute_usd * 0.5), MACHINE)
    losses = [round(way.estimate.expected_loss, 4) for way in ways]
    assert losses == sorted(losses)
    kinds = [way.kind for way in ways]
    assert len(set(kinds)) == len(kinds)
    # Another chip does the same training: it loses nothing, so it comes first if one is cheaper.
    if "other_chip" in kinds:
        assert kinds[0] == "other_chip"
        assert ways[0].estimate.effective_tokens == ledger_of(PLAN).training.effective_tokens


def test_another_chip_takes_the_users_own_numbers_with_it():
    cost = COST.compute_usd * 0.5
    (kind, *_) = ways_to_fit(PACKED, limited(max_usd=cost), MACHINE)
    assert set(kind.changes) == {"cost.chip", "cost.chips"}
    price = dataclasses.replace(PLAN.price, source="cost.price_usd_per_chip_hour")
    plan = limited(max_usd=cost).model_copy(
        update={"price": price, "peak_flops_per_second_per_chip": 1e14}
    )
    (kind, *_) = ways_to_fit(PACKED, plan, MACHINE)
    assert {"cost.price_usd_per_chip_hour", "cost.peak_flops_per_second_per_chip"} < set(
        kind.changes
    )


def test_hours_can_be_bought_with_chips():
    ways = ways_to_fit(PACKED, limited(max_hours=COST.wall_hours * 0.4), MACHINE)
    more = next(way for way in ways if way.kind == "more_chips")
    assert more.changes == {"cost.chips": 8}
    assert more.estimate.cost.compute_usd == pytest.approx(COST.compute_usd)


def test_too_few_tokens_ask_for_more_epochs_as_far_as_repetition_helps():
    have = ledger_of(PLAN).training.effective_tokens
    (way,) = ways_to_fit(PACKED, limited(min_effective_tokens=have * 1.5), MACHINE)
    assert way.kind == "more_epochs"
    assert way.estimate.effective_tokens >= have * 1.5
    assert way.estimate.plan.epochs > 3.0  # more than 1.5 x 2: repeated tokens are worth less
    assert not ways_to_fit(PACKED, limited(min_effective_tokens=have * 100), MACHINE)


def test_a_limit_of_steps_is_part_of_the_advice():
    plan = limited(max_usd=COST.compute_usd * 0.2).model_copy(update={"max_steps": 400})
    way = next(w for w in ways_to_fit(PACKED, plan, MACHINE) if w.kind == "fewer_steps")
    assert way.changes["train.max_steps"] == way.estimate.plan.steps < 400


@settings(deadline=None, max_examples=25)
@given(st.floats(0.01, 3.0), st.floats(0.01, 3.0))
def test_every_way_keeps_every_limit(usd_share, hours_share):
    plan = limited(max_usd=COST.compute_usd * usd_share, max_hours=COST.wall_hours * hours_share)
    for way in ways_to_fit(PACKED, plan, MACHINE):
        assert way.estimate.cost.compute_usd <= plan.budget.max_usd
        assert way.estimate.cost.wall_hours <= plan.budget.max_hours


@given(st.floats(1e-6, 1e6))
def test_three_digits_never_round_up(number):
    assert number * 0.985 <= _three_digits(number) <= number


def test_an_estimate_grows_with_tokens_and_price():
    dear = PLAN.model_copy(update={"price": dataclasses.replace(PLAN.price, usd_per_chip_hour=8.0)})
    longer = PLAN.model_copy(update={"epochs": 4.0})
    assert ledger_of(dear).cost.compute_usd == pytest.approx(2 * COST.compute_usd)
    assert ledger_of(longer).cost.compute_usd == pytest.approx(2 * COST.compute_usd, rel=0.01)
