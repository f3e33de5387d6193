"""The load test, alone and against a real server."""

import json
import socket

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import cli
from serving.loadtest import LoadConfig, Objectives, Outcome, arrival_times, summarize


def test_arrivals_are_a_poisson_process():
    times = arrival_times(200.0, 100.0, 1)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 200, rel=0.03)  # exponential: as large as the mean
    assert (gaps > 3 / 200).mean() == pytest.approx(np.exp(-3), rel=0.1)


@given(rate=st.floats(0.1, 500), seconds=st.floats(0.1, 20), seed=st.integers(0, 2**32))
def test_arrivals_are_ordered_within_the_time_and_repeatable(rate, seconds, seed):
    times = arrival_times(rate, seconds, seed)
    assert (np.diff(times) >= 0).all()
    assert not len(times) or 0 <= times[0] <= times[-1] < seconds
    np.testing.assert_array_equal(times, arrival_times(rate, seconds, seed))


def outcome(due, done, status=200, tokens=10):
    return Outcome(due, due, done, status, tokens, "1", "" if status == 200 else "why")


def settings(**change):
    options = {"url": "http://x", "model": "m", "signature": "score", "texts": ("a",),
               "options": {}, "rate_per_second": 1.0, "duration_seconds": 1.0,
               "seed": 0}  # fmt: skip
    return LoadConfig(**{**options, **change})


def test_latency_counts_from_when_a_request_was_due():
    late = Outcome(due=0.0, sent=5.0, done=5.1, status=200, tokens=1, version="1", error="")
    summary = summarize([late], Objectives())
    assert summary.latency_ms.p50 == pytest.approx(5100)
    assert summary.send_delay_p99_ms == pytest.approx(5000)


def test_shed_requests_are_no_errors_and_objectives_are_named():
    outcomes = [outcome(0, 0.010)] * 6 + [outcome(0, 0.001, 429)] * 3 + [outcome(0, 0.2, 500)]
    summary = summarize(outcomes, Objectives(p50_ms=5, max_shed_rate=0.5))
    assert (summary.answered, summary.shed, summary.failed) == (6, 3, 1)
    assert summary.to_json()["missed"] == {
        "p50_ms": {"objective": 5, "found": pytest.approx(10)},
        "max_error_rate": {"objective": 0.0, "found": 0.1},
    }
    assert summary.tokens_per_second == pytest.approx(60 / 0.2)
    assert summary.errors == ["500 why"]


def test_the_command_writes_its_report_and_exits_by_the_objectives(server, tmp_path):
    arguments = ["--rate", "20", "--seconds", "1.5", "--text", "a b c"]
    load = ["loadtest", f"http://127.0.0.1:{server.ports.rest}", *arguments]
    passed = CliRunner().invoke(cli, [*load, "--p50-ms", "20000", "--output", str(tmp_path)])
    failed = CliRunner().invoke(cli, [*load, "--p50-ms", "0.001"])
    wrong = CliRunner().invoke(cli, [*load, "--signature", "nonsense"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = CliRunner().invoke(cli, ["loadtest", f"http://127.0.0.1:{port}", *arguments])
    assert passed.exit_code == 0, passed.output
    summary = json.loads((tmp_path / "loadtest.json").read_text())
    assert summary["requests"] == summary["answered"] == len(arrival_times(20, 1.5, 0))
    assert summary["tokens_per_second"] > 0
    assert (tmp_path / "loadtest.png").read_bytes().startswith(b"\x89PNG")
    assert failed.exit_code == 1
    assert "p50_ms" in json.loads(failed.output)["missed"]
    assert wrong.exit_code == 1
    assert "no signature" in wrong.output
    assert nobody.exit_code == 1
    assert "no answer from" in nobody.output
