import dataclasses
import json
import math

import pytest
from complete_model import complete
from made_manifest import packed_manifest, packed_shard

from components.ledger.config import LedgerJob
from components.ledger.funnel import UnbalancedLedgerError
from components.ledger.ledger import Machine, build_ledger
from data.catalog.chips import Price, find_chip
from pipeline.report.cost import warnings
from tokenmill.contracts.calibration import Calibration
from tokenmill.contracts.curation import Curation
from tokenmill.contracts.ingest import IngestCounts
from tokenmill.contracts.ledger import Ledger, read_ledger, write_ledger
from tokenmill.cost.device_benchmark import measure_matmul_flops_per_second
from tokenmill.cost.flops import flops_per_token, flops_per_token_6n
from tokenmill.cost.memory import estimate_memory
from tokenmill.cost.pricing import estimate_cost
from tokenmill.cost.scaling import repetition_discounted_tokens
from tokenmill.cost.utilization import utilization_range
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape

SHAPE = {
    "layers": 2,
    "d_model": 32,
    "heads": 4,
    "d_ff": 64,
    "vocab_size": 300,
    "sequence_length": 64,
    "positions": "learned",
    "norm": "layer",
    "use_bias": True,
    "mlp": "gelu",
    "tie_embeddings": True,
}
SETTINGS = LedgerJob(
    shape=ModelShape(**SHAPE),
    strategy="mirrored",
    precision="float32",
    global_batch_size=4,
    epochs=3.0,
    max_steps=None,
    chip="a100",
    chips=2,
    peak_flops_per_second_per_chip=None,
    memory_bytes_per_chip=None,
    given_mfu=0.4,
    goodput=0.9,
    price=Price(usd_per_chip_hour=2.5, provider="us-1", date="2026-01-01", source="a price list"),
    vcpu_price_usd_per_hour=0.05,
    hidden_cost_multiplier_low=2.0,
    hidden_cost_multiplier_high=5.0,
)
PEAK = 1e9


def manifest(rows, documents, size, tokens):
    account = {
        "documents": documents,
        "bytes": size,
        "tokens": tokens,
        "loss_tokens": tokens + documents,
        "dropped_empty": 0,
    }
    slots = rows * 64
    return packed_manifest(
        **account,
        rows=rows,
        slots=slots,
        padding_slots=slots - account["loss_tokens"],
        segments=documents,
        stored_bytes=2 * tokens,
        by_source={"a": account},
    )


PACKED = {"train": manifest(20, 30, 5000, 1200), "eval": manifest(2, 3, 400, 100)}
TARGETS = 1230


def read_of(split):
    return {name: getattr(PACKED[split], name) for name in ("documents", "bytes")}


def make_ledger(machine=None, dropped=None, **change):
    ingest = {
        "read": {"documents": 33, "bytes": 5400},
        "quarantined": {"documents": 0, "bytes": 0, "by_reason": {}},
        "splits": {s: {**read_of(s), "by_source": {"a": read_of(s)}} for s in PACKED},
    }
    curation = {"splits": {}}
    for split in PACKED:
        kept = {**read_of(split), "raw_bytes": PACKED[split].bytes}
        account = {"in": read_of(split), "kept": kept, "dropped": {}}
        if dropped and split == "train":
            account["dropped"] = dropped
            for unit in ("documents", "bytes"):
                gone = sum(d[unit] for d in dropped.values())
                totals = (account["in"], ingest["read"], ingest["splits"][split])
                for total in (*totals, ingest["splits"][split]["by_source"]["a"]):
                    total[unit] += gone
        curation["splits"][split] = {"by_source": {"a": account}}
    settings = SETTINGS.model_copy(update={**change})
    machine = machine or Machine(peak_flops_per_second_per_chip=PEAK)
    return build_ledger(
        complete(IngestCounts, ingest), complete(Curation, curation), PACKED, settings, machine
    ).to_json()


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
    assert ledger["price"]["source"] == "a price list"
    assert ledger["price"]["dated"]


def test_parameters_and_memory():
    shape, model = ModelShape(**SHAPE), make_ledger()["model"]
    assert model["params_total"] == shape.params_total == sum(model["params_by_part"].values())
    assert model["embedding_share"] == pytest.approx(300 * 32 / shape.params_total)
    memory = estimate_memory(shape, batch_per_device=2, precision="float32", dropout=False)
    assert make_ledger()["memory"]["bytes_per_device"] == memory.total
    assert make_ledger(chips=64)["memory"]["bytes_per_device"] < memory.total


def test_packing_is_repeated_and_hardware_named():
    ledger = make_ledger()
    assert ledger["packing"]["train"]["rows"] == 20
    assert ledger["packing"]["eval"]["padding_slots"] == 2 * 64 - 103
    assert ledger["hardware"] == {
        "chip": "a100",
        "chips": 2,
        "peak_flops_per_second": PEAK,
        "mfu": 0.4,
        "mfu_source": "configured",
        "mfu_low": 0.4,
        "mfu_high": 0.4,
        "mfu_basis": "",
        "mfu_runs": [],
        "hfu": 0.4,
        "goodput": 0.9,
        "price_usd_per_chip_hour": 2.5,
        "calibration": None,
    }


def test_published_runs_give_a_range_of_hours_and_money():
    published = utilization_range(find_chip("a100"), 1e9)
    ledger = make_ledger(given_mfu=None, published_mfu=published)
    hardware, cost = ledger["hardware"], ledger["cost"]
    assert hardware["mfu"] == published.median
    assert hardware["mfu_source"] == "published"
    assert hardware["mfu_runs"] == list(published.runs)
    assert f"{len(published.runs)} published bills" in hardware["mfu_basis"]
    for name in ("wall_hours", "chip_hours", "compute_usd"):
        assert cost[f"{name}_low"] < cost[name] < cost[f"{name}_high"]
        ratio = cost[f"{name}_high"] / cost[f"{name}_low"]
        assert ratio == pytest.approx(published.high / published.low)
    Ledger.model_validate(ledger)
    measured = make_ledger(given_mfu=None, published_mfu=published, machine=calibrated())
    assert measured["hardware"]["mfu_runs"] == []
    assert measured["cost"]["compute_usd_low"] == measured["cost"]["compute_usd_high"]
    assert make_ledger(given_mfu=None)["hardware"]["mfu_source"] == "assumed"


def test_rematerialization_is_hardware_flops_not_model_flops():
    plain, again = make_ledger(), make_ledger(rematerialize=True)
    assert again["flops"]["total_exact"] == plain["flops"]["total_exact"]
    forward = again["flops"]["forward_per_token_by_part"]
    repeated = again["flops"]["per_token_forward"] - forward["output_projection"]
    assert again["flops"]["per_token_rematerialized"] == repeated
    assert plain["flops"]["per_token_rematerialized"] == 0
    share = again["flops"]["per_token_hardware"] / again["flops"]["per_token_exact"]
    assert again["hardware"]["hfu"] == pytest.approx(0.4 * share)
    assert again["memory"]["recompute"] == "full"
    parts = again["memory"]["bytes_by_part"]
    assert parts["activations"] < plain["memory"]["bytes_by_part"]["activations"]


def test_failures_faster_than_checkpoints_are_no_plan():
    ledger = make_ledger(chip_mtbf_hours=1e-9, checkpoint_bytes_per_second=1.0)
    assert ledger["checkpoints"] is None
    Ledger.model_validate(ledger)


def test_the_document_is_read_as_it_was_written(tmp_path):
    ledger = make_ledger()
    assert json.loads(json.dumps(ledger)) == ledger
    write_ledger(str(tmp_path), Ledger.model_validate(ledger))
    assert json.loads((tmp_path / "ledger.json").read_text()) == ledger
    assert read_ledger(str(tmp_path)).to_json() == ledger


def test_a_ledger_of_another_version_is_named(tmp_path):
    (tmp_path / "ledger.json").write_text('{"schema": "tokenmill-ledger-3"}')
    with pytest.raises(TokenmillError, match=r"ledger\.json: funnel: Field required"):
        read_ledger(str(tmp_path))


def test_the_document_has_the_schema():
    for change in ({}, {"mfu": None, "machine": calibrated()}, {"dropped": DROPPED}):
        Ledger.model_validate(make_ledger(**change))
    broken = make_ledger()
    del broken["cost"]["wall_hours"]
    with pytest.raises(ValueError, match="wall_hours"):
        Ledger.model_validate(broken)


def calibrated(**change):
    calibration = {
        "tokens_per_second": 1000.0,
        "achieved_flops_per_second": 1.0,
        "peak_flops_per_second": 2.0,
        "steps": 4,
        "step_seconds": 0.256,
        "start_seconds": 3.0,
        "build_seconds": 1.0,
        "compile_seconds": 10.256,
        "evaluate_batch_seconds": 0.5,
        "evaluate_compile_seconds": 3.0,
        "vcpus": 2,
        "memory_bytes": 2**33,
        "total_seconds": 20.0,
        **change,
    }
    return Machine(peak_flops_per_second_per_chip=PEAK, calibration=Calibration(**calibration))


def test_a_measured_speed_forecasts_the_steps_and_the_phases_around_them():
    ledger = make_ledger(given_mfu=None, goodput=1.0, machine=calibrated())
    seconds = ledger["forecast"]["seconds_by_phase"]
    assert ledger["hardware"]["mfu_source"] == "measured"
    assert seconds["steps"] == pytest.approx(15 * 4 * 64 / 1000.0)  # slots / (slots / second)
    assert seconds["compile"] == 10.0  # the compiling step itself is one of the steps
    assert seconds["evaluate_before"] == 3.5  # two held-out rows are one batch
    assert seconds["evaluate_after"] == 0.5
    total = 3.84 + 10.0 + 3.5 + 0.5 + 1.0 + 3.0
    assert ledger["forecast"]["total_seconds"] == pytest.approx(total)
    assert ledger["cost"]["chip_hours"] == pytest.approx(total * 2 / 3600)
    assert ledger["forecast"]["training_seconds"] == pytest.approx(13.84)
    assert ledger["forecast"]["goodput"] == pytest.approx(3.84 / total)


def test_samples_are_forecast_where_their_time_was_measured():
    assert "samples" not in make_ledger(machine=calibrated())["forecast"]["seconds_by_phase"]
    machine = calibrated(first_samples_seconds=2.0, samples_seconds=0.25)
    with_samples = make_ledger(given_mfu=None, goodput=1.0, machine=machine)["forecast"]
    assert with_samples["seconds_by_phase"]["samples"] == 2.5  # before, half way, after
    without = make_ledger(given_mfu=None, goodput=1.0, machine=calibrated())["forecast"]
    assert with_samples["total_seconds"] == pytest.approx(without["total_seconds"] + 2.5)


def test_goodput_is_a_factor_of_its_own():
    forecast = make_ledger(given_mfu=None, goodput=0.5, machine=calibrated())["forecast"]
    busy = sum(v for k, v in forecast["seconds_by_phase"].items() if k != "lost")
    assert forecast["seconds_by_phase"]["lost"] == pytest.approx(busy)
    assert forecast["total_seconds"] == pytest.approx(2 * busy)


DROPPED = {
    "exact_duplicate": {"documents": 5, "bytes": 4000},
    "too_short": {"documents": 9, "bytes": 1000},
}


def test_curation_saves_the_steps_that_dropped_text_would_have_added():
    ledger = make_ledger(dropped=DROPPED)
    saved = ledger["curation_saved"]
    # As many bytes dropped as kept: 20 rows would have been 40, 15 steps 30.
    assert saved["steps"] == 15
    assert saved["documents"] == 14
    step_hours = ledger["flops"]["total_exact"] / 15 / (2 * PEAK * 0.4) * 2 / 3600
    assert saved["chip_hours"] == pytest.approx(15 * step_hours)
    assert saved["usd"] == pytest.approx(15 * step_hours * 2.5)
    by_reason = saved["by_reason"]
    assert by_reason["exact_duplicate"]["usd"] == pytest.approx(saved["usd"] * 0.8)
    assert sum(r["chip_hours"] for r in by_reason.values()) == pytest.approx(saved["chip_hours"])
    assert saved["tokens_estimated"] == pytest.approx(5000 / ledger["funnel"]["total"][
        "bytes_per_token"])  # fmt: skip


def test_curation_saves_nothing_where_the_steps_are_fixed():
    saved = make_ledger(dropped=DROPPED, max_steps=5)["curation_saved"]
    assert saved["steps_fixed"]
    assert saved["steps"] == saved["usd"] == 0


def test_storage_and_network_have_their_own_lines():
    cost = make_ledger()["cost"]
    params = make_ledger()["model"]["params_total"]
    rows = PACKED["train"].stored_bytes + PACKED["eval"].stored_bytes
    assert cost["stored_bytes"] == 5400 + rows + 2 * 12 * params + 4 * params
    assert cost["storage_usd"] == pytest.approx(cost["stored_bytes"] / 1e9 * 0.02)
    assert cost["network_usd"] == 0
    assert cost["hidden_usd_low"] == pytest.approx(cost["compute_usd"])


def test_the_flops_by_part_add_up():
    flops = make_ledger()["flops"]
    assert sum(flops["forward_per_token_by_part"].values()) == flops["per_token_forward"]
    assert flops["per_token_backward"] == 2 * flops["per_token_forward"]
    assert (
        flops["per_token_exact"]
        == flops["per_token_forward"] + flops["per_token_backward"]
        + flops["per_token_rematerialized"]
    )  # fmt: skip
    assert flops["per_token_exact_causal_half"] < flops["per_token_exact"]


def test_a_price_without_a_date_is_flagged():
    price = Price(usd_per_chip_hour=1.0, provider="me", date="", source="a guess")
    assert make_ledger(price=price)["price"]["dated"] is False


def test_guidance_flags_repetition_and_names_sources():
    few, many = make_ledger(epochs=4.0)["guidance"], make_ledger(epochs=5.0)["guidance"]
    assert not few["repetition"]["over_limit"]
    assert many["repetition"]["over_limit"]
    assert few["goal"]["verdict"] == "below_minimum"
    assert all(part["source"] for part in few.values())


def test_this_machine_has_a_peak():
    rate = measure_matmul_flops_per_second()
    assert math.isfinite(rate)
    assert 1e6 < rate < 1e18


def mixed(epochs, rows=(15, 5), weights=(1.0, 1.0), limit=None, max_steps=None, buckets=None):
    """The ledger of two sources, `a` of 15 rows and `b` of 5, with weights and a limit.

    With buckets, (source, rows, mean score) each, quality weighs by the square of the score.
    """
    sources = {}
    for name, count in zip("ab", rows, strict=True):
        sources[name] = {
            "documents": count, "bytes": 300 * count, "tokens": 63 * count,
            "loss_tokens": 64 * count, "dropped_empty": 0,
        }  # fmt: skip
    total = {key: sum(account[key] for account in sources.values()) for key in sources["a"]}
    slots = sum(rows) * 64
    of_buckets, rows_by_bucket = {}, {}
    if buckets is not None:
        numbered = [
            (source, sum(b[0] == source for b in buckets[:i]), count, score)
            for i, (source, count, score) in enumerate(buckets)
        ]
        rows_by_bucket = {"rows_by_bucket": [bucket[:3] for bucket in numbered]}
        of_buckets = {
            "quality_weighting": 2.0,
            "by_bucket": [
                {
                    "documents": count, "bytes": 300 * count, "tokens": 63 * count,
                    "loss_tokens": 64 * count, "dropped_empty": 0, "source": source,
                    "bucket": number, "lowest_score": 0.0, "mean_score": score,
                    "loss_tokens_by_language": {"en": 64 * count},
                }
                for source, number, count, score in numbered
            ],
        }  # fmt: skip
    train = packed_manifest(
        **total, rows=sum(rows), slots=slots, padding_slots=0, segments=sum(rows),
        stored_bytes=1, by_source=sources, max_repetitions=limit, **of_buckets,
        source_weights=dict(zip("ab", weights, strict=True)) if weights else {},
        shards=[
            packed_shard(rows_by_source=list(zip("ab", rows, strict=True)), **rows_by_bucket)
        ],
    )  # fmt: skip
    packed = {"train": train, "eval": PACKED["eval"]}
    counted = {
        split: {
            name: {key: getattr(account, key) for key in ("documents", "bytes")}
            for name, account in manifest.by_source.items()
        }
        for split, manifest in packed.items()
    }

    def together(accounts):
        return {key: sum(account[key] for account in accounts) for key in ("documents", "bytes")}

    splits = {s: {**together(c.values()), "by_source": c} for s, c in counted.items()}
    ingest = {
        "read": together(splits.values()),
        "quarantined": {"documents": 0, "bytes": 0, "by_reason": {}},
        "splits": splits,
    }
    curation = {
        "splits": {
            split: {
                "by_source": {
                    name: {
                        "in": account,
                        "kept": {**account, "raw_bytes": account["bytes"]},
                        "dropped": {},
                    }
                    for name, account in accounts.items()
                }
            }
            for split, accounts in counted.items()
        }
    }
    settings = SETTINGS.model_copy(update={"epochs": epochs, "max_steps": max_steps})
    machine = Machine(peak_flops_per_second_per_chip=PEAK)
    return build_ledger(
        complete(IngestCounts, ingest), complete(Curation, curation), packed, settings, machine
    ).to_json()


def test_a_mixture_repeats_each_source_as_often_as_its_weight_says():
    # 40 rows, half of each source: b's 5 rows are read four times, a's 15 rows 4/3 times.
    ledger = mixed(epochs=2.0)
    training = ledger["training"]
    assert training["steps"] == 10
    expected = {
        "a": repetition_discounted_tokens(15 * 64, 20 / 15),
        "b": repetition_discounted_tokens(5 * 64, 4.0),
    }
    for name, tokens in expected.items():
        account = ledger["funnel"]["by_source"][name]
        assert account["train"]["effective_tokens"] == pytest.approx(tokens)
        assert account["stages"][-1]["tokens"] == account["train"]["effective_tokens"]
    assert training["effective_tokens"] == pytest.approx(sum(expected.values()))
    per_million = ledger["cost"]["compute_usd"] / training["effective_tokens"] * 1e6
    assert ledger["cost"]["usd_per_million_effective_tokens"] == pytest.approx(per_million)
    # Even repetition is worth more than uneven, by concavity.
    assert training["effective_tokens"] < repetition_discounted_tokens(20 * 64, 2.0)
    Ledger.model_validate(ledger)


BUCKETS = [("a", 9, 0.25), ("a", 6, 0.5), ("b", 5, 0.75)]


@pytest.mark.parametrize("weights", [None, (1.0, 1.0)])
def test_quality_repeats_the_better_bucket_more_and_leaves_the_sources_shares(weights):
    # 40 rows. a's share is divided as 9 x 0.25 ** 2 to 6 x 0.5 ** 2, or 3 to 8.
    ledger = mixed(epochs=2.0, weights=weights, buckets=BUCKETS)
    of_a, of_b = (20, 20) if weights else (30, 10)
    parts = {
        "a": [(9, of_a * 3 / 11 / 9), (6, of_a * 8 / 11 / 6)],
        "b": [(5, of_b / 5)],
    }
    for name, mine in parts.items():
        account = ledger["funnel"]["by_source"][name]
        expected = sum(repetition_discounted_tokens(64 * rows, epochs) for rows, epochs in mine)
        # Of so few rows the mixture's whole places show.
        assert account["train"]["effective_tokens"] == pytest.approx(expected, rel=0.03)
        unique = sum(64 * rows * min(1.0, epochs) for rows, epochs in mine)
        assert account["stages"][6]["tokens"] == pytest.approx(unique, abs=64)
    total = ledger["funnel"]["total"]["train"]["effective_tokens"]
    assert ledger["training"]["effective_tokens"] == pytest.approx(total)
    # Uneven repetition is worth less, by concavity.
    assert total < mixed(epochs=2.0, weights=weights or (15.0, 5.0))["training"]["effective_tokens"]
    assert ledger["by_language"]["en"]["cost_share"] == pytest.approx(1.0)
    Ledger.model_validate(ledger)


def test_buckets_that_lack_text_of_their_source_stop_the_run():
    with pytest.raises(UnbalancedLedgerError, match="of source b, its quality buckets have"):
        mixed(epochs=2.0, weights=None, buckets=[*BUCKETS[:2], ("b", 4, 0.75)])


def test_a_source_that_is_hardly_read_has_fewer_unique_tokens_than_it_holds():
    # 20 rows, 19 of 20 of them of b: a's 15 rows are not all read.
    ledger = mixed(epochs=1.0, weights=(0.05, 0.95))
    unique = {
        name: account["stages"][6]["tokens"]
        for name, account in ledger["funnel"]["by_source"].items()
    }
    assert unique["a"] <= 64 * 2
    assert unique["b"] == 5 * 64
    assert ledger["funnel"]["total"]["stages"][6]["tokens"] == sum(unique.values())


def test_a_limit_of_repetitions_ends_the_run():
    # Twice each row at most: 40 rows in all, whatever the epochs.
    ledger = mixed(epochs=50.0, limit=2)
    assert ledger["training"]["steps"] == 10
    assert ledger["training"]["slots"] == 40 * 64
    each = {
        name: account["train"]["effective_tokens"]
        for name, account in ledger["funnel"]["by_source"].items()
    }
    assert each["a"] == pytest.approx(repetition_discounted_tokens(15 * 64, 2.0))
    assert each["b"] == pytest.approx(repetition_discounted_tokens(5 * 64, 2.0))
    # Nothing was dropped, so curation saved nothing.
    assert ledger["curation_saved"]["steps"] == 0


def test_a_run_whose_network_is_the_limit_is_warned():
    def warned(peak, **change):
        machine = Machine(peak_flops_per_second_per_chip=peak)
        ledger = Ledger.model_validate(make_ledger(machine, **change))
        return [note for note in warnings(ledger) if "The network is the limit" in note]

    assert warned(1e9) == []
    (note,) = warned(1e15)
    assert "computing" in note
    assert warned(1e15, chip="mi300x") == []  # of which the catalog has no bandwidth
    assert warned(1e15, chips=1) == []
