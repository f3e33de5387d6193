import pytest

from components.settle.report import build_cost_report

# Two chips of 1e9 FLOP/s at 3 USD an hour; 1000 FLOPs a token; 400 effective tokens.
LEDGER = {
    "hardware": {"chips": 2, "peak_flops_per_second_per_chip": 1e9, "mfu": 0.4},
    "cost": {
        "wall_seconds": 50.0,
        "total_flops": 4e10,
        "chip_hours": 0.0278,
        "compute_usd": 0.0833,
        "price_usd_per_chip_hour": 3.0,
        "usd_per_million_effective_tokens": 208.0,
    },
    "flops": {"per_token_exact": 1000.0},
    "training": {"effective_tokens": 400.0},
}
TELEMETRY = {
    "seconds": {
        "build": 4.0,
        "compile": 10.0,
        "input": 5.0,
        "steps": 60.0,
        "evaluate_before": 3.0,
        "evaluate_after": 3.0,
        "export": 5.0,
        "total": 90.0,
    },
    "trained_slots": 512,
    "slots_per_second": 1.2e6,
    "held_out_before": {"loss": 8.0},
    "held_out_after": {"loss": 5.0},
}
EVALUATION = {"total": {"bits_per_byte": 2.0}, "by_source": {}, "failures": []}


def settle(**telemetry):
    return build_cost_report(LEDGER, {**TELEMETRY, **telemetry}, EVALUATION, 4.5)


def test_a_bill_worked_out_by_hand():
    report = settle()
    actual = report["actual"]
    assert actual["training_seconds"] == 75.0  # steps, input, compile
    assert actual["total_seconds"] == 90.0
    assert actual["goodput"] == pytest.approx(75 / 90)
    assert actual["chip_hours"] == pytest.approx(90 * 2 / 3600)  # 0.05
    assert actual["compute_usd"] == pytest.approx(0.15)
    assert actual["usd_per_million_effective_tokens"] == pytest.approx(0.15 / 400 * 1e6)
    assert actual["total_flops"] == 512_000.0
    assert actual["mfu"] == pytest.approx(1.2e6 * 1000 / 2e9)  # 0.6
    assert report["training_seconds_actual_over_estimated"] == pytest.approx(1.5)
    assert report["effective_tokens"] == 400.0


def test_the_estimate_is_repeated_as_the_ledger_gave_it():
    cost = LEDGER["cost"]
    assert settle()["estimated"] == {
        "training_seconds": cost["wall_seconds"],
        "total_flops": cost["total_flops"],
        "mfu": 0.4,
        "chip_hours": cost["chip_hours"],
        "compute_usd": cost["compute_usd"],
        "usd_per_million_effective_tokens": cost["usd_per_million_effective_tokens"],
    }


def test_quality_is_passed_on():
    assert settle()["quality"] == {
        "held_out_before": {"loss": 8.0},
        "held_out_after": {"loss": 5.0},
        "evaluation": EVALUATION,
        "unigram_bits_per_byte": 4.5,
    }


def test_a_run_of_one_step_has_no_steady_rate_and_no_mfu():
    seconds = {"compile": 10.0, "input": 1.0, "total": 22.0}
    report = settle(slots_per_second=None, seconds=seconds)
    assert report["actual"]["mfu"] is None
    assert report["actual"]["training_seconds"] == 11.0
    assert report["actual"]["goodput"] == pytest.approx(0.5)
