"""The screen of a whole run, drawn from the numbers that a run of the demo left."""

import contextlib
import fcntl
import io
import json
import os
import pathlib
import re
import shlex
import struct
import subprocess
import sys
import termios

import pytest
from click.testing import CliRunner
from command_line import tokenmill
from rich.cells import cell_len
from screen_size import assert_fits

from pipeline.cli import cli
from pipeline.report.console import RunConsole
from pipeline.report.lines import fit_parts, shown_path, wrap_words
from pipeline.report.run import RunReport, print_report, print_summary
from pipeline.report.run_result import ResultBuilder
from pipeline.runners.launch import _explain, _print_failures, _print_paths
from tokenmill.contracts.benchmark import BenchmarkTaskResult
from tokenmill.contracts.cost_report import CostReport
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.validation import SplitSummary
from tokenmill.errors import TokenmillError

RECORDED = pathlib.Path(__file__).with_name("golden") / "demo_report.json"
DROPPED = ("1,004 exact_duplicate", "564 near_duplicate", "338 contaminated", "57 few_stop_words",
           "6 few_alphabetic_words", "5 duplicate_lines", "4 top_4gram")  # fmt: skip
STEPS = {
    "embedded corpus": ["14,081 documents, 13.8 MB", "docstrings of 18 packages"],
    "CorpusExampleGen": ["14,081 documents, 13.8 MB, 0 records quarantined"],
    "StatisticsGen": ["13,409 train and 672 eval documents", "median 538 bytes", "most 139 kB"],
    "SchemaGen": ["6 features: doc_id", "source", "text", "byte_count", "characters", "words"],
    "ExampleValidator": [],
    "AnomalyGate": ["0 anomalies"],
    "Curator": [f"12,095 kept, 11.9 MB; dropped {DROPPED[0]}", *DROPPED[1:]],
    "TokenizerTrainer": ["4,096 tokens in the vocabulary"],
    "Transform": ["12,095 documents, 11.9 MB"],
    "Packer": ["3,525,920 tokens in 13,846 rows, 99.81% filled"],
    "Calibrator": ["6,052 tokens/s, 171 GFLOP/s", "compiling takes 13.9 s", "1.9 of 2 cores"],
    "TokenLedger": ["81,784 effective tokens", "about 1 min 45 s and $0.00291 to train"],
    "Trainer": ["20 steps, held-out loss 8.37 → 6.86", "1,160 tokens/s"],
    "Evaluator": ["blessed: 2.946 ± 0.064 bits per byte", "perplexity 958.0", "accuracy 3.8%"],
    "CostReport": ["$0.00406 for 0.0811 chip-hours", "training took 1.31 x the estimate"],
    "Pusher": ["version 1795993779"],
    "ReportPage": ["114 kB"],
}
REMARK = (
    "338 of 672 held-out documents are contaminated, 291 are left. To keep held-out documents that "
    "share words with train: --set curate.decontaminate=train (the train documents go) or off "
    "(both stay), --set curate.decontaminate_max_documents=3 (what four documents have is "
    "boilerplate), or --set curate.decontaminate_ngram_words=30 (only longer runs count)."
)
FAILURE = "bits_per_byte is 2.946, wanted at most 0.5, missed by 2.45"
OVER = TokenmillError(
    "training is over its budget: $0.00291 of compute (0.05826 chip-hours at $0.05 an hour) is "
    "more than budget.max_usd = $0.001. It would give 81,784 effective tokens; nothing is trained.",
    "Ways to fit, least loss first:\n  --set train.max_steps=3: $0.00099, 0.0198 h, 12,288 "
    "effective tokens, +1.91 expected loss, and more words than there is room for in one line",
)
RUN = "/home/someone/with/a/long/path/to/the/project/runs/demo"


def report(trained=True):
    recorded = json.loads(RECORDED.read_text())
    return RunReport(
        {name: SplitSummary(**split) for name, split in recorded["statistics"].items()},
        Ledger.model_validate(recorded["ledger"]),
        CostReport.model_validate(recorded["cost_report"]) if trained else None,
    )


def show(screen, outcome="pushed"):
    """What a run shows, whatever becomes of it."""
    result = ResultBuilder()
    result.paths.directory = f"{RUN}/logs/20261129T191840.723135Z"
    result.paths.page = f"{result.paths.directory}/report.html"
    result.paths.log = f"{result.paths.directory}/tokenmill.log"
    last = {"over_budget": "TokenLedger", "failed": "Curator"}.get(outcome)
    for name, summary in STEPS.items():
        screen.step_started(name)
        if name == last:
            screen.step_failed(name, "over the budget" if outcome == "over_budget" else "failed")
            break
        screen.step_finished(name, summary, cached=outcome == "cached")
        if name == "Curator":
            screen.remarks([REMARK])
    if outcome == "failed":
        _explain(screen, ValueError("no such rule"), result, debug=False)
        return result
    print_summary(screen, report(outcome != "over_budget"))
    if outcome == "over_budget":
        _explain(screen, OVER, result, debug=False)
        return result
    if outcome == "not_blessed":
        _print_failures(screen, [FAILURE])
    else:
        result.paths.model = f"{RUN}/serving_model/1795993779"
    _print_paths(screen, result, 393.2)
    return result


OUTCOMES = ("pushed", "cached", "not_blessed", "over_budget", "failed")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_whole_run_fits_45_lines_of_100_columns(outcome):
    out = io.StringIO()
    show(RunConsole(out), outcome)
    assert_fits(out.getvalue())
    said = " ".join(out.getvalue().split())
    assert "e+" not in out.getvalue().replace("type+", "")
    for words in {
        "pushed": ["Quality: 2.946", "$0.00406", "Report: /home", "Pushed: /home", "84.2 million"],
        "cached": [" cached 14,081 documents", "6 min 33 s"],
        "not_blessed": [FAILURE, "Not pushed", "not bless"],
        "over_budget": ["over the budget", "budget.max_usd", "--set train.max_steps=3", "Log: "],
        "failed": ["✗ Curator", "error: ValueError: no such rule", "--debug", "Report: ", "Log: "],
    }[outcome]:
        assert words in said
    assert (REMARK in said) == (outcome != "failed")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_narrow_screen_loses_nothing_but_what_it_counts(outcome, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    out = io.StringIO()
    show(RunConsole(out), outcome)
    assert_fits(out.getvalue(), lines=80, columns=60)
    if outcome == "pushed":
        assert "14,081 documents, 13.8 MB ..\n" in out.getvalue()
        assert "0 r…\n" in out.getvalue()
        assert REMARK in " ".join(out.getvalue().split())


def test_the_full_screen_has_all_tables_and_whole_lines():
    out = io.StringIO()
    screen = RunConsole(out, full=True)
    for name, summary in STEPS.items():
        screen.step_finished(name, summary, cached=False)
    print_report(screen.console, report(), {})
    assert ", ".join(DROPPED) in out.getvalue()
    for title in ("Tokens by source", "Dropped, by reason", "Where the trainer's time went"):
        assert title in out.getvalue()
    text = io.StringIO()
    screen.repeat_on(RunConsole(text, full=True))
    assert ", ".join(DROPPED) in text.getvalue()


def test_benchmarks_have_a_line():
    numbers = report()
    metric = {"value": 0.5, "standard_error": 0.1, "chance": 0.25, "higher_is_better": True}
    of_task = BenchmarkTaskResult(items=200, version="1", metrics={"acc": metric}, samples="a")
    tasks = {f"task {i}": of_task for i in range(9)}
    numbers.cost_report.quality.evaluation.benchmarks = tasks
    out = io.StringIO()
    print_summary(RunConsole(out), numbers)
    assert (
        "Benchmarks: task 0 acc 0.5 (chance 0.25), task 1 acc 0.5 (chance 0.25)" in out.getvalue()
    )
    assert_fits(out.getvalue())


def test_many_remarks_are_counted_and_kept():
    out = io.StringIO()
    screen = RunConsole(out)
    screen.remarks([f"remark {i}" for i in range(9)])
    assert out.getvalue().count("remark ") == 3
    assert ".. and 6 more remarks, in report.txt" in out.getvalue()
    assert len(screen.notes) == 9


# ---- scripts


def test_quiet_shows_the_error_alone():
    out, err = io.StringIO(), io.StringIO()
    show(RunConsole(out, errors=err), "over_budget")
    assert out.getvalue() == ""
    assert err.getvalue().startswith("error: training is over its budget")


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_json_is_one_document(outcome):
    out, err = io.StringIO(), io.StringIO()
    screen = RunConsole(out, errors=err)
    result = show(screen, outcome)
    result.outcome = "pushed" if outcome == "cached" else outcome
    result.read_numbers(report(outcome != "over_budget"))
    screen.print_document(result.result(screen, 0, 1.5).to_text())
    told = json.loads(out.getvalue())
    assert told["schema"] == "tokenmill-run-1"
    assert [step["step"] for step in told["steps"]] == list(STEPS)[: len(told["steps"])]
    assert all(step["cached"] for step in told["steps"]) == (outcome == "cached")
    assert told["numbers"]["effective_tokens"] == pytest.approx(81_784, abs=1)
    assert (told["numbers"]["actual"] is None) == (outcome == "over_budget")
    assert (REMARK in told["warnings"]) == (outcome != "failed")
    assert (told["error"] is not None) == (outcome in ("over_budget", "failed"))
    assert told["paths"]["page"].endswith("report.html")


def test_json_and_quiet_of_a_run_that_cannot_start(tmp_path):
    missing = ("run", "--input", tmp_path / "missing.txt", "--output-dir", tmp_path / "out")
    failed = tokenmill(*missing, "--json")
    assert failed.returncode == 1
    told = json.loads(failed.stdout)
    assert (told["outcome"], told["exit_code"], told["steps"]) == ("failed", 1, [])
    assert "missing.txt" in told["error"]["message"]
    quiet = tokenmill(*missing, "--quiet")
    assert (quiet.returncode, quiet.stdout) == (1, "")
    assert "missing.txt" in quiet.stderr


def test_json_tells_of_a_path_that_is_no_utf_8(tmp_path):
    missing = str(tmp_path / "\udcff.txt")
    failed = tokenmill("run", "--input", missing, "--output-dir", tmp_path / "out", "--json")
    assert missing in json.loads(failed.stdout)["error"]["message"]


@pytest.mark.parametrize("stdout", [">&-", "> /dev/full"])
@pytest.mark.parametrize(
    ("option", "says"),
    [("corpus.messages_field=m", "no conversations"), ("corpus.shards=none", "corpus.shards")],
)  # after and before there is a log
def test_a_screen_that_takes_nothing_costs_no_error_message(stdout, option, says, tmp_path):
    words = [sys.executable, "-m", "pipeline.cli", "run", "--json", "--set", option,
             "--output-dir", str(tmp_path)]  # fmt: skip
    failed = subprocess.run(["bash", "-c", f"{shlex.join(words)} {stdout}"], capture_output=True,
                            text=True, check=False)  # fmt: skip
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert says in failed.stderr


def test_a_document_that_could_not_be_written_is_told():
    errors = io.StringIO()
    with open("/dev/full", "w", buffering=1) as full:
        assert not RunConsole(full, errors=errors).print_document("{}")
        with contextlib.suppress(OSError):
            full.close()
    assert "No space left on device" in errors.getvalue()
    written = io.StringIO()
    assert RunConsole(written, errors=errors).print_document("{}")
    assert written.getvalue() == "{}\n"


def test_ctrl_c_before_the_first_step_has_a_document(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.loader.load_run_config", interrupted)
    result = CliRunner().invoke(cli, ["run", "--json"])
    assert result.exit_code == 130
    told = json.loads(result.stdout)
    assert (told["outcome"], told["exit_code"], told["error"]) == ("interrupted", 130, None)
    assert result.stderr == "interrupted\n"


def test_quiet_and_json_exclude_each_other():
    both = tokenmill("run", "--quiet", "--json")
    assert both.returncode == 2
    assert "give one of them" in both.stderr


# ---- terminals


@contextlib.contextmanager
def terminal(columns):
    """A pseudo-terminal: a stream to it, and a function that reads what it got."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    os.set_blocking(leader, False)
    got = bytearray()

    def read():
        with contextlib.suppress(BlockingIOError):
            while block := os.read(leader, 1 << 16):
                got.extend(block)
        return got.decode()

    try:
        with os.fdopen(follower, "w", buffering=1, encoding="utf-8") as stream:
            yield stream, read
    finally:
        os.close(leader)


def live(columns):
    """What a terminal gets of a step that reads and one that trains."""
    with terminal(columns) as (stream, read):
        screen = RunConsole(stream)
        screen.step_started("Curator")
        screen.step_read(512, 4_000_000)
        screen._started -= 1  # a second later
        screen.step_read(512, 4_000_000)
        screen._progress.refresh()
        screen.step_finished("Curator", STEPS["Curator"], cached=False)
        screen.step_started("Trainer")
        screen.step_progress(
            128, 256, "loss 5.123, held-out 5.432, 4,508 tokens/s, $0.0031, MFU 60%"
        )
        screen._progress.refresh()
        screen.step_progress(256, 256, "loss 4.987")
        screen._progress.refresh()
        screen.step_finished("Trainer", STEPS["Trainer"], cached=False)
        return read()


CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("columns", [100, 60])
def test_bars_show_what_is_read_and_how_training_goes(columns, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLUMNS", raising=False)
    got = live(columns)
    shown = CONTROL.sub("", got)
    assert "1,024 documents" in shown
    assert "loss 5.123" in shown
    assert "loss 4.987" in shown
    if columns == 100:
        assert re.search(r"1,024 documents, [78]\.?\d* MB/s", shown)
        assert "held-out 5.432, 4,508 tokens/s, $0.0031" in shown
    assert max(cell_len(line) for line in re.split(r"[\r\n]+", shown)) <= columns
    assert "\x1b[32m✓" in got


def test_no_color_has_bars_without_color(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    got = live(100)
    assert "loss 5.123" in CONTROL.sub("", got)
    assert not re.search(r"\x1b\[[0-9;]*[34]\d[;m]", got)


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with terminal(100) as (stream, read):
        screen = RunConsole(stream)
        show(screen)
        got = read()
    assert "\x1b" not in got
    assert_fits(got.replace("\r", ""))


# ---- lines


def test_parts_that_do_not_fit_are_counted():
    parts = ["a" * 10, "bb", "cc"]
    assert fit_parts(parts, 18) == "aaaaaaaaaa, bb, cc"
    assert fit_parts([*parts, "d" * 30], 33) == "aaaaaaaaaa, bb, cc .. and 1 more"
    assert fit_parts(parts, 4) == "aaa…"
    assert fit_parts([], 9) == ""


def test_words_are_kept_whole_and_wide_characters_count_double():
    assert wrap_words("one two three", 7, 5) == ["one two", "three"]
    assert wrap_words(f"see {'x' * 30} there", 10, 10) == ["see", "x" * 30, "there"]
    assert wrap_words("日本 日本", 8, 8) == ["日本", "日本"]
    assert wrap_words("", 8, 8) == [""]


def test_a_path_below_the_current_directory_is_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown_path(f"{tmp_path}/runs/demo") == os.path.join("runs", "demo")
    assert shown_path(f"{tmp_path}-2/runs") == f"{tmp_path}-2/runs"
    assert shown_path("gs://bucket/model") == "gs://bucket/model"
