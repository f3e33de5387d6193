import io
import shlex
import subprocess
import sys

import pytest
from complete_model import complete
from rich.console import Console

from pipeline.report.console import RunConsole
from pipeline.report.cost import cost_table, notes, phases_table, stages_table, steps_table
from pipeline.report.quality import describe_quality, quality_notes, quality_table
from tokenmill.contracts.cost_report import CostReport, EvaluationSummary
from tokenmill.contracts.ledger import Ledger
from tokenmill.metadata.step_records import StepRecord

LEDGER_KEYS = {
    "hardware": {"chip": "a100", "mfu_source": "measured", "mfu_runs": []},
    "cost": {"total_usd_low": 2.0, "total_usd_high": 5.0},
    "price": {"dated": False},
    "curation_saved": {"steps_fixed": True},
    "memory": {"fits": False, "bytes_per_device": 2**31, "smallest_device_count": 4},
    "guidance": {
        "goal": {"message": "Too few tokens."},
        "chinchilla": {"optimal_tokens_for_this_model": 2e9, "tokens_per_param": 0.5},
        "repetition": {"over_limit": True, "epochs": 6.0, "limit_epochs": 4.0},
    },
    "funnel": {
        "total": {
            "stages": [
                {"stage": "raw", "documents": 12, "bytes": 100, "tokens": 30.0,
                 "tokens_are": "estimated", "documents_lost": {}},
                {"stage": "valid", "documents": 10, "bytes": 90, "tokens": 28.0,
                 "tokens_are": "counted", "documents_lost": {"not_utf8": 2}},
            ]
        }
    },
}  # fmt: skip
LEDGER = complete(Ledger, LEDGER_KEYS)
SIDE = {
    "slots": 100, "total_flops": 1e12, "mfu": 0.4, "training_seconds": 100.0,
    "total_seconds": 110.0, "goodput": 0.9, "chip_hours": 0.1, "compute_usd": 1.0,
    "usd_per_million_effective_tokens": 3.0,
}  # fmt: skip


def step(name, usd):
    return {"step": name, "seconds": 5.0, "chip_hours": 0.01, "usd": usd, "ran_in_this_run": None}


COST_KEYS = {
    "estimated": SIDE,
    "actual": {**SIDE, "total_seconds": 130.0, "mfu": None},
    "reasons": [
        {"reason": "mfu", "meaning": "steps slower", "seconds": 19.5, "usd": 0.1},
        {"reason": "build", "meaning": "phase build", "seconds": 0.5, "usd": 0.0},
    ],
    "phases": [
        {"phase": "checkpoint", "forecast_seconds": None, "actual_seconds": 9.0, "share": 0.1},
        {"phase": "lost", "forecast_seconds": 0.0, "actual_seconds": 0.0, "share": 0.0},
    ],
    "steps": [step("Curator", 0.02), step("Trainer", 1.0)],
    "pipeline": {"seconds": 10.0, "chip_hours": 0.02},
    "return_on_curation": [
        {"step": "Curator", "saved_chip_hours": 1.3, "saved_usd": 2.6,
         "by_reason": {"exact_duplicate": {"saved_chip_hours": 1.3, "saved_usd": 2.6}}}
    ],
}  # fmt: skip
COST = complete(CostReport, COST_KEYS)


def text_of(table):
    out = io.StringIO()
    Console(file=out, width=140).print(table)
    return out.getvalue()


def test_the_funnel_says_what_each_stage_lost():
    text = text_of(stages_table(LEDGER))
    assert "-2 not utf8" in text
    assert "~ 30" in text


def test_reasons_too_small_to_matter_are_left_out():
    text = text_of(cost_table(LEDGER, COST))
    assert "steps slower" in text
    assert "+19.5 s" in text
    assert "phase build" not in text
    assert "unknown" in text  # the MFU of a single step


def test_whatever_phases_there_are_have_a_line():
    text = text_of(phases_table(COST))
    assert "checkpoint" in text
    assert "lost" not in text  # nothing was


@pytest.mark.parametrize(("cached", "paid"), [(True, "$1.00"), (False, "$1.02")])
def test_a_cached_step_costs_nothing_and_keeps_what_it_saved(cached, paid):
    records = {"Curator": StepRecord(cached, {}), "Trainer": StepRecord(False, {})}
    text = text_of(steps_table(COST, records))
    assert ("$0 (cached; $0.02)" in text) == cached
    assert f"{paid} in this run" in text
    assert text.count(" 1.3 ") == 2


def test_a_published_mfu_has_its_range():
    ledger = {
        **LEDGER_KEYS,
        "hardware": {"mfu_source": "published", "mfu_runs": ["A", "B", "C"], "mfu_low": 0.2,
                     "mfu_high": 0.45},
        "cost": {**LEDGER_KEYS["cost"], "compute_usd_low": 0.8, "compute_usd_high": 1.9,
                 "wall_hours_low": 2.5, "wall_hours_high": 5.75},
    }  # fmt: skip
    text = text_of(cost_table(complete(Ledger, ledger), COST))
    for words in (
        "(published)",
        "45.0% - 20.0% (3 bills)",
        "$0.80 - $1.90",
        "2.5 - 5.75 h",
    ):
        assert words in text
    assert "bills" not in text_of(cost_table(LEDGER, COST))


def test_what_the_bill_leaves_out_is_named():
    records = {name: StepRecord(False, {}) for name in ("Curator", "Trainer", "Pusher")}
    assert "Not in the bill (TFX's own, seconds each): Pusher." in text_of(
        steps_table(COST, records)
    )


def test_a_reason_that_saved_nothing_has_no_line():
    gain = COST_KEYS["return_on_curation"][0]
    by_reason = {**gain["by_reason"], "too_short": {"saved_chip_hours": 0.0, "saved_usd": 0.0}}
    keys = {**COST_KEYS, "return_on_curation": [{**gain, "by_reason": by_reason}]}
    text = text_of(steps_table(complete(CostReport, keys), {}))
    assert "exact duplicate" in text
    assert "too short" not in text


def test_notes_flag_repetition_memory_and_undated_prices():
    text = " ".join(notes(LEDGER))
    for words in (
        "Too few tokens.",
        "6.0 epochs",
        "2.0 GiB",
        "4 devices",
        "no date",
        "saved no training time",
    ):
        assert words in text


def test_a_metric_of_one_document_has_no_interval():
    found = {"bits_per_byte": 2.5, "perplexity": 40.0, "token_accuracy": 0.25}
    words = "bits per byte, perplexity 40.0, accuracy 25.0%"
    assert describe_quality(found) == f"2.500 {words}"
    bounds = {"bits_per_byte_ci95_low": 2.25, "bits_per_byte_ci95_high": 2.75}
    assert describe_quality(found | bounds) == f"2.500 ± 0.250 {words}"


@pytest.mark.parametrize("measured", [{}, {"evaluated_documents": 1.0}, {"macro_f1": 0.5}])
@pytest.mark.parametrize("kind", [{"accuracy": 0.5}, {"perplexity": 9.0}, {"bits_per_byte": 2.0}])
def test_what_could_not_be_measured_is_blank(measured, kind):
    """One held-out document: no AUC, no interval, of a masked model perhaps nothing at all."""
    losses = {"loss": 1.0, **kind}
    quality = {"eval_before": losses, "eval_after": losses, "evaluation": {"total": measured}}
    text = text_of(quality_table(complete(CostReport, {**COST_KEYS, "quality": quality})))
    assert "pushed model, from raw text" in text
    assert "nan" not in text.lower() + describe_quality(measured).lower()
    assert ("1 document only" in describe_quality(measured)) == ("evaluated_documents" in measured)


def test_a_lopsided_interval_shows_its_ends():
    found = {"accuracy": 1.0, "accuracy_ci95_low": 0.4, "accuracy_ci95_high": 1.0}
    assert describe_quality(found) == "accuracy 100.0% (40.0% to 100.0%)"


def test_slices_of_few_documents_are_named():
    few = [f"source {letter}" for letter in "abcdefg"]
    summary = {"total": {"evaluated_documents": 500.0}, "few_documents": few}
    (note,) = quality_notes(complete(EvaluationSummary, summary))
    assert "Fewer than 30" in note
    assert "source a" in note
    assert "2 more" in note
    whole = complete(EvaluationSummary, {"total": {"evaluated_documents": 4.0}})
    assert "corpus.eval_fraction" in quality_notes(whole)[0]


def test_before_training_the_table_shows_the_estimate_alone():
    text = text_of(cost_table(LEDGER, None))
    assert "estimated" in text
    assert "actual" not in text


class Gone(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Gone, io.StringIO])
def test_nothing_on_the_screen_fails_a_run(stream):
    out = stream()
    screen = RunConsole(out)
    screen.say("[/not markup]")
    screen.note("a note")
    screen.step_started("Step")
    with screen.showing("the table"):
        raise KeyError("total")
    screen.step_finished("Step", [5], cached=False)  # no text
    screen.step_failed("Step")
    screen.print_document("{}")
    if stream is io.StringIO:
        assert out.getvalue().endswith("{}\n")
        said = " ".join(out.getvalue().split())
        assert "the table could not be shown (KeyError: 'total')" in said


def test_a_reader_that_leaves_does_not_end_the_run():
    """`tokenmill run | head -1`: rich would exit at the second line."""
    code = (
        "import os\n"
        "from pipeline.report.console import RunConsole\n"
        "screen = RunConsole(os.fdopen(os.dup(1), 'w', buffering=1))\n"
        "for i in range(20_000): screen.say(f'line {i}')\n"
        "os._exit(7)"
    )
    command = f"{{ {shlex.quote(sys.executable)} -c {shlex.quote(code)}; echo $? >&2; }} | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr.split()[-1] == "7"
