import pytest
from complete_model import complete
from hypothesis import given
from hypothesis import strategies as st

from components.cost_report.report import build_cost_report
from components.cost_report.steps import StepTime
from pipeline.report.cost import cost_table
from pipeline.report.quality import quality_table
from tokenmill.contracts.cost_report import CostReport, EvaluationSummary
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.training import Losses, Telemetry

# Two chips of 1e9 FLOP/s at 3 USD an hour; 1000 FLOPs a token; 400 effective tokens.
LEDGER = {
    "hardware": {"chips": 2, "peak_flops_per_second": 1e9, "mfu": 0.4},
    "price": {"usd_per_chip_hour": 3.0, "vcpu_usd_per_hour": 0.1},
    "cost": {
        "total_flops": 4e10,
        "chip_hours": 0.0278,
        "compute_usd": 0.0833,
        "usd_per_million_effective_tokens": 208.0,
    },
    "forecast": {
        "seconds_by_phase": {"steps": 40.0, "compile": 10.0, "evaluate_before": 4.0, "lost": 0.0},
        "training_seconds": 50.0,
        "total_seconds": 54.0,
        "goodput": 40 / 54,
    },
    "flops": {"per_token_exact": 1000.0},
    "training": {"effective_tokens": 400.0, "slots": 512, "steps": 16},
    "packing": {"train": {"segments": 30, "rows": 20}},
    "curation_saved": {
        "steps": 8,
        "steps_fixed": False,
        "bytes": 100,
        "by_reason": {
            "exact_duplicate": {"documents": 3, "bytes": 75, "tokens_estimated": 20.0},
            "too_short": {"documents": 1, "bytes": 25, "tokens_estimated": 5.0},
        },
    },
}
TIMES = [
    StepTime(step="Curator", seconds=36.0, vcpus=4, ran=True),
    StepTime(step="Packer", seconds=18.0, vcpus=4, ran=False),
    StepTime(step="Trainer", seconds=99.0, vcpus=4, ran=True),
]
TELEMETRY = Telemetry(
    params_total=1,
    steps=16,
    epochs=1.0,
    global_batch_size=2,
    replicas=1,
    trained_loss_tokens=500,
    seconds={
        "build": 4.0,
        "compile": 10.0,
        "input": 5.0,
        "steps": 60.0,
        "evaluate_before": 3.0,
        "evaluate_after": 3.0,
        "export": 5.0,
    },
    total_seconds=90.0,
    trained_slots=512,
    tokens_per_second=8.0,
    loss_curve=[],
    eval_before=Losses(nll_sum=80.0, loss_tokens=10.0, loss=8.0),
    eval_after=Losses(nll_sum=50.0, loss_tokens=10.0, loss=5.0),
    eval_losses=[],
    resumes=[],
    rewinds=[],
    overflows=0,
    training_directory=None,
)
EVALUATION = {
    "total": {"bits_per_byte": 2.0}, "by_source": {}, "by_length": {}, "by_language": {},
    "failures": [],
}  # fmt: skip


def report_of(times=TIMES, **telemetry):
    return build_cost_report(
        complete(Ledger, LEDGER),
        TELEMETRY.model_copy(update=telemetry),
        EvaluationSummary(**EVALUATION),
        {"unigram_bits_per_byte": 4.5},
        times,
    ).to_json()


def test_a_bill_worked_out_by_hand():
    report = report_of()
    actual = report["actual"]
    assert actual["training_seconds"] == 75.0  # steps, input, compile
    assert actual["total_seconds"] == 90.0
    assert actual["goodput"] == pytest.approx(64 / 90)  # 512 slots at 8 a second
    assert actual["chip_hours"] == pytest.approx(90 * 2 / 3600)  # 0.05
    assert actual["compute_usd"] == pytest.approx(0.15)
    assert actual["usd_per_million_effective_tokens"] == pytest.approx(0.15 / 400 * 1e6)
    assert actual["total_flops"] == 512_000.0
    assert actual["mfu"] == pytest.approx(8 * 1000 / 2e9)
    assert report["training_seconds_actual_over_estimated"] == pytest.approx(1.5)
    assert report["effective_tokens"] == 400.0
    assert report["trained_loss_tokens"] == 500


def test_a_lossy_tokenizer_is_said_beside_its_bits_per_byte():
    losses = TELEMETRY.eval_before.model_copy(update={"bits_per_byte": 3.0, "perplexity": 9.0})
    total = {"bits_per_byte": 2.0, "perplexity": 9.0, "token_accuracy": 0.5}
    report = build_cost_report(
        complete(Ledger, LEDGER),
        TELEMETRY.model_copy(update={"eval_before": losses, "eval_after": losses}),
        EvaluationSummary(**{**EVALUATION, "total": total}),
        {"unigram_bits_per_byte": 4.5},
        TIMES,
        0.25,
    )
    assert report.quality.lossy_fraction == 0.25
    assert "lossy (25.0% of the documents)" in str(quality_table(report).caption)
    report.quality.lossy_fraction = 0.0
    assert quality_table(report).caption is None


def test_the_estimate_is_repeated_as_the_ledger_gave_it():
    cost, forecast = LEDGER["cost"], LEDGER["forecast"]
    assert report_of()["estimated"] == {
        "slots": 512,
        "training_seconds": 50.0,
        "total_seconds": 54.0,
        "total_flops": cost["total_flops"],
        "mfu": 0.4,
        "goodput": forecast["goodput"],
        "chip_hours": cost["chip_hours"],
        "compute_usd": cost["compute_usd"],
        "usd_per_million_effective_tokens": cost["usd_per_million_effective_tokens"],
    }


def test_the_report_has_the_schema():
    CostReport.model_validate(report_of())
    CostReport.model_validate(report_of(times=[]))
    with pytest.raises(ValueError, match="pipeline"):
        CostReport.model_validate({k: v for k, v in report_of().items() if k != "pipeline"})


def test_the_reasons_name_what_differed():
    reasons = {r["reason"]: r["seconds"] for r in report_of()["reasons"]}
    # 512 slots took 64 s, not 40; compiling 75 - 64 = 11 s, not 10; nobody forecast the export.
    assert reasons == pytest.approx(
        {"mfu": 24.0, "export": 5.0, "build": 4.0, "evaluate_after": 3.0, "compile": 1.0,
         "evaluate_before": -1.0}
    )  # fmt: skip
    words = {r["reason"]: r["meaning"] for r in report_of()["reasons"]}
    assert words["export"] == "phase export, not forecast"
    half = {r["reason"]: r["seconds"] for r in report_of(trained_slots=256)["reasons"]}
    assert half["tokens"] == pytest.approx(-20.0)


@given(
    st.fixed_dictionaries(
        {
            name: st.floats(0.0, 1e4)
            for name in ("compile", "input", "steps", "export", "checkpoint", "lost", "restart")
        }
    ),
    st.floats(0.0, 1e3),
    st.integers(1, 10**6),
    st.floats(0.1, 1e4),
)
def test_reasons_and_phases_always_add_up(seconds, unknown, slots, rate):
    total = sum(seconds.values()) + unknown + 1.0
    report = report_of(
        seconds=seconds, total_seconds=total, trained_slots=slots, tokens_per_second=rate
    )
    difference = report["actual"]["total_seconds"] - report["estimated"]["total_seconds"]
    assert sum(r["seconds"] for r in report["reasons"]) == pytest.approx(difference, abs=1e-3)
    shown = sum(p["actual_seconds"] for p in report["phases"])
    assert shown == pytest.approx(total, abs=1e-3)


def test_each_step_costs_its_time_and_a_cached_one_nothing_now():
    report = report_of()
    steps = {step["step"]: step for step in report["steps"]}
    assert steps["Curator"]["usd"] == pytest.approx(36 * 4 / 3600 * 0.1)
    assert steps["Packer"]["usd"] == pytest.approx(0.002)
    assert steps["Packer"]["usd_in_this_run"] == 0.0
    assert steps["Trainer"]["seconds"] == 90.0  # its own account, on two chips at 3 USD
    assert steps["Trainer"]["usd"] == pytest.approx(report["actual"]["compute_usd"])
    assert report["pipeline"]["usd"] == pytest.approx(0.004 + 0.002 + 0.15)
    assert report["pipeline"]["usd_in_this_run"] == pytest.approx(0.004 + 0.15)


def test_return_on_curation_at_the_measured_speed():
    curator, packer = report_of()["return_on_curation"]
    # 64 s for 16 steps are 4 s a step: 8 steps saved are 32 s on two chips.
    assert curator["saved_chip_hours"] == pytest.approx(64 / 3600)
    assert curator["saved_usd"] == pytest.approx(64 / 3600 * 3)
    assert curator["cost_usd"] == pytest.approx(0.004)
    assert curator["saved_over_cost"] == pytest.approx(64 / 1200 / 0.004)
    assert curator["by_reason"]["exact_duplicate"]["saved_usd"] == pytest.approx(0.04)
    # 30 pieces in 20 rows: unpacked, 16 steps would be 24.
    assert packer["saved_training_steps"] == pytest.approx(8.0)
    assert packer["cost_usd_in_this_run"] == 0.0


def test_a_runner_that_tells_no_run_leaves_the_cache_unknown():
    times = [StepTime(step="Curator", seconds=36.0, vcpus=4, ran=None)]
    report = report_of(times=times)
    assert report["steps"][0]["usd_in_this_run"] is None
    assert report["pipeline"]["usd_in_this_run"] is None
    assert report["return_on_curation"][0]["cost_usd_in_this_run"] == pytest.approx(0.004)


def test_quality_is_passed_on():
    assert report_of()["quality"] == {
        "eval_before": {"nll_sum": 80.0, "loss_tokens": 10.0, "loss": 8.0},
        "eval_after": {"nll_sum": 50.0, "loss_tokens": 10.0, "loss": 5.0},
        "evaluation": EVALUATION,
        "base_model": None,
        "lossy_fraction": 0.0,
        "unigram_bits_per_byte": 4.5,
        "pruning": None,
    }


def test_a_run_of_one_step_has_no_steady_rate_and_no_mfu():
    seconds = {"compile": 10.0, "input": 1.0}
    report = report_of(tokens_per_second=None, seconds=seconds, total_seconds=22.0)
    assert report["actual"]["mfu"] is None
    assert report["actual"]["training_seconds"] == 11.0
    assert report["actual"]["goodput"] == pytest.approx(0.5)
    assert sum(p["actual_seconds"] for p in report["phases"]) == pytest.approx(22.0)


CALIBRATED = {
    **LEDGER,
    "hardware": {
        **LEDGER["hardware"], "chip": "cpu-vcpu", "mfu_source": "measured",
        # 12.8 slots a second: a step of 32 slots takes 2.5 s, and 4 s of its two cores' time
        "calibration": {"tokens_per_second": 12.8, "step_seconds": 2.5, "step_cpu_seconds": 4.0,
                        "achieved_flops_per_second": 1e9, "steps": 4, "vcpus": 2,
                        "memory_bytes": 1, "peak_flops_per_second": 1e9},
    },
}  # fmt: skip


def reasons_with_cpu(cpu_seconds):
    """Seconds by reason where the steps took 64 s, not 40, and so much CPU time."""
    # 65 s in the timer's steady phases, for 65/64 of the 16 steps
    report = build_cost_report(
        complete(Ledger, CALIBRATED),
        TELEMETRY.model_copy(update={"cpu_seconds": {"steps": cpu_seconds * 65 / 64}}),
        EvaluationSummary(**EVALUATION),
        {"unigram_bits_per_byte": 4.5},
        TIMES,
    ).to_json()
    return {r["reason"]: r["seconds"] for r in report["reasons"]}


def test_slower_steps_and_a_busy_machine_are_told_apart():
    # As much CPU time as at calibration (4 s a step) in more wall time: others had the cores.
    busy = reasons_with_cpu(16 * 4.0)
    assert busy["busy"] == pytest.approx(24.0)
    assert "mfu" not in busy or abs(busy["mfu"]) < 1e-9
    # More CPU time in proportion: the steps themselves are slower.
    slower = reasons_with_cpu(16 * 4.0 * 1.6)
    assert slower["mfu"] == pytest.approx(24.0)
    assert "busy" not in slower or abs(slower["busy"]) < 1e-9
    both = reasons_with_cpu(16 * 4.0 * 1.3)
    assert both["mfu"] == pytest.approx(12.0)
    assert both["busy"] == pytest.approx(12.0)


def sent(devices, replicas, **handed):
    fit = {"strategy": "data", "sent_bytes_per_step": 4000 * (devices - 1)}
    ledger = complete(Ledger, {**LEDGER, "memory": {"devices": devices, "by_strategy": [fit]}})
    telemetry = TELEMETRY.model_copy(
        update={"replicas": replicas, "collective_bytes_per_step": handed}
    )
    report = build_cost_report(ledger, telemetry, EvaluationSummary(**EVALUATION), {}, TIMES)
    table = cost_table(ledger, report)
    cells = [list(column.cells) for column in table.columns]
    rows = {row[0]: row[1:] for row in zip(*cells, strict=True)}
    return report.sent, {label: row for label, row in rows.items() if label.startswith("sent")}


def test_what_was_sent_stands_beside_the_formula():
    found, rows = sent(2, 2, all_reduce=4040)
    assert (found.estimated_bytes, found.actual_bytes) == (4000, 4040)
    assert found.ratio == pytest.approx(1.01)
    assert rows == {"sent by a device in a step": ("4 kB", "4.04 kB", "1.01")}
    # A formula of another number of devices is no forecast of this one.
    found, rows = sent(1, 2, all_reduce=4040)
    assert found.ratio is None
    assert list(rows) == ["sent by a device in a step (1 estimated, 2 trained)"]
    assert sent(1, 1) == (None, {})
