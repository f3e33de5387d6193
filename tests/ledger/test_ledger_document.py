import dataclasses
import json
import math

import pytest

from components.errors import TokenmillError
from components.ledger.flops import flops_per_token, flops_per_token_6n
from components.ledger.ledger import LedgerSettings, build_ledger, check_budget, usd
from components.ledger.machine import measure_matmul_flops_per_second
from components.ledger.memory import estimate_memory
from components.ledger.money import estimate_cost
from components.ledger.scaling import repetition_discounted_tokens
from components.model_shape import ModelShape

SHAPE = {
    "n_layers": 2,
    "d_model": 32,
    "n_heads": 4,
    "d_ff": 64,
    "vocab_size": 300,
    "sequence_length": 64,
    "positions": "learned",
    "norm": "layer",
    "use_bias": True,
    "mlp": "gelu",
    "tie_embeddings": True,
}
SETTINGS = LedgerSettings(
    shape=SHAPE,
    precision="float32",
    global_batch_size=4,
    epochs=3.0,
    max_steps=None,
    chip="a100",
    chips=2,
    peak_flops_per_second_per_chip=None,
    mfu=0.4,
    goodput=0.9,
    price_usd_per_chip_hour=2.5,
    price_source="a price list",
    hidden_cost_multiplier_low=2.0,
    hidden_cost_multiplier_high=5.0,
    budget_usd=None,
)
PEAK = 1e9


def manifest(rows, documents, size, tokens):
    account = {
        "documents": documents,
        "bytes": size,
        "tokens": tokens,
        "targets": tokens + documents,
        "dropped_empty": 0,
    }
    slots = rows * 64
    return {
        **account,
        "rows": rows,
        "slots": slots,
        "padding_slots": slots - account["targets"],
        "segments": documents,
        "stored_bytes": 2 * tokens,
        "by_source": {"a": account},
    }


PACKED = {"train": manifest(20, 30, 5000, 1200), "eval": manifest(2, 3, 400, 100)}
TARGETS = 1230


def read_of(split):
    return {name: PACKED[split][name] for name in ("documents", "bytes")}


def make_ledger(**change):
    ingest = {
        "read": {"documents": 33, "bytes": 5400},
        "quarantined": {"documents": 0, "bytes": 0, "by_reason": {}},
        "splits": {s: {**read_of(s), "by_source": {"a": read_of(s)}} for s in PACKED},
    }
    curation = {"splits": {}}
    for split in PACKED:
        kept = {**read_of(split), "raw_bytes": PACKED[split]["bytes"]}
        account = {"in": read_of(split), "kept": kept, "dropped": {}}
        curation["splits"][split] = {"by_source": {"a": account}}
    settings = dataclasses.replace(SETTINGS, **change)
    return build_ledger(ingest, curation, PACKED, settings, PEAK)


def test_the_plan_is_that_of_the_trainer():
    training = make_ledger()["training"]
    assert training["steps"] == 15  # 3 epochs of 20 rows, 4 rows a step
    assert training["epochs"] == 3.0
    assert training["slots"] == 15 * 4 * 64
    assert training["effective_tokens"] == repetition_discounted_tokens(TARGETS, 3.0)


def test_max_steps_shortens_the_run_and_its_cost():
    short, whole = make_ledger(max_steps=5), make_ledger()
    assert short["training"]["epochs"] == 1.0
    assert short["training"]["effective_tokens"] == TARGETS
    assert short["flops"]["total_exact"] == pytest.approx(whole["flops"]["total_exact"] / 3)


def test_flops_are_those_of_all_slots():
    shape, ledger = ModelShape(**SHAPE), make_ledger()
    flops, slots = ledger["flops"], ledger["training"]["slots"]
    assert flops["per_token_6n"] == 6 * shape.params_total
    assert flops["per_token_6n"] == flops_per_token_6n(shape.params_total)
    assert flops["per_token_exact"] == flops_per_token(shape).training
    assert flops["total_6n"] == flops["per_token_6n"] * slots
    assert flops["total_exact"] == flops["per_token_exact"] * slots


def test_exact_flops_worked_out_by_hand():
    # Per layer and token: 4 d^2 projections, 2 d d_ff MLP, 2 T d scores; d V logits. Two FLOPs
    # a multiply-add, three passes.
    products = 2 * (4 * 32 * 32 + 2 * 32 * 64 + 2 * 64 * 32) + 32 * 300
    assert make_ledger()["flops"]["per_token_exact"] == 2 * 3 * products


def test_cost_is_that_of_the_money_module():
    ledger = make_ledger()
    expected = estimate_cost(
        total_flops=ledger["flops"]["total_exact"],
        effective_tokens=ledger["training"]["effective_tokens"],
        chips=2,
        peak_flops_per_second=PEAK,
        mfu=0.4,
        price_usd_per_chip_hour=2.5,
        goodput=0.9,
        hidden_multiplier_low=2.0,
        hidden_multiplier_high=5.0,
    )
    for name, value in dataclasses.asdict(expected).items():
        assert ledger["cost"][name] == value, name
    seconds = ledger["flops"]["total_exact"] / (2 * PEAK * 0.4) / 0.9
    assert ledger["cost"]["wall_seconds"] == pytest.approx(seconds)
    assert ledger["cost"]["compute_usd"] == pytest.approx(seconds * 2 / 3600 * 2.5)
    assert ledger["cost"]["price_source"] == "a price list"


def test_parameters_and_memory():
    shape, model = ModelShape(**SHAPE), make_ledger()["model"]
    assert model["params_total"] == shape.params_total == sum(model["params_by_part"].values())
    assert model["embedding_share"] == pytest.approx(300 * 32 / shape.params_total)
    memory = estimate_memory(shape, batch_per_device=2, precision="float32", dropout=False)
    assert model["memory_bytes_per_chip"] == memory.total
    assert make_ledger(chips=64)["model"]["memory_bytes_per_chip"] < memory.total


def test_packing_is_repeated_and_hardware_named():
    ledger = make_ledger()
    assert ledger["packing"]["train"]["rows"] == 20
    assert ledger["packing"]["eval"]["padding_slots"] == 2 * 64 - 103
    assert ledger["hardware"] == {
        "chip": "a100",
        "chips": 2,
        "peak_flops_per_second_per_chip": PEAK,
        "mfu": 0.4,
        "goodput": 0.9,
    }


def test_the_document_is_json():
    ledger = make_ledger()
    assert json.loads(json.dumps(ledger)) == ledger


def test_the_budget_stops_above_and_not_at():
    cost = make_ledger(price_usd_per_chip_hour=3000.0)["cost"]["compute_usd"]
    check_budget(make_ledger(price_usd_per_chip_hour=3000.0))  # no budget
    check_budget(make_ledger(price_usd_per_chip_hour=3000.0, budget_usd=cost))
    budget = math.nextafter(cost, 0.0)
    with pytest.raises(TokenmillError):
        check_budget(make_ledger(price_usd_per_chip_hour=3000.0, budget_usd=budget))


def test_a_budget_of_nothing_stops_all_but_a_free_run():
    check_budget(make_ledger(price_usd_per_chip_hour=0.0, budget_usd=0.0))
    with pytest.raises(TokenmillError, match=r"budget.max_usd = \$0\.00"):
        check_budget(make_ledger(budget_usd=0.0))


def test_the_budget_message_names_both_amounts():
    ledger = make_ledger(budget_usd=0.5)
    ledger["cost"]["compute_usd"] = 1234.4
    with pytest.raises(TokenmillError) as raised:
        check_budget(ledger)
    assert "$1,234" in str(raised.value)
    assert "budget.max_usd = $0.50" in str(raised.value)
    assert "$2.50 an hour" in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (1234567.8, "$1,234,568"),
        (1000, "$1,000"),
        (999.994, "$999.99"),
        (1.234, "$1.23"),
        (0.1, "$0.10"),
        (0.0996, "$0.0996"),
        (0.00123456, "$0.00123"),
    ],
)
def test_dollars_have_the_digits_they_need(amount, text):
    assert usd(amount) == text


def test_this_machine_has_a_peak():
    rate = measure_matmul_flops_per_second()
    assert math.isfinite(rate)
    assert 1e6 < rate < 1e18
