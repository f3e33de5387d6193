"""Faults injected for real: a full disk, a killed run."""

import contextlib
import json
import signal
import subprocess
import time

import pytest
from ml_metadata.proto import metadata_store_pb2

from tokenmill.metadata.store import open_store


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def _fill(disk, rest_bytes):
    with open(disk / "other", "wb", buffering=0) as other:
        size = 0
        with contextlib.suppress(OSError):
            while True:
                size += other.write(bytes(65_536))
        other.truncate(size - rest_bytes)


def test_a_disk_that_fills_up_is_one_message_and_leaves_no_artifact(workspace, small_disk):
    process = workspace.start("--output-dir", str(small_disk / "out"))
    while not list(small_disk.glob("out/logs/*/config.toml")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    _fill(small_disk, 500_000)
    said = " ".join(process.stdout.read().split())
    assert process.wait() == 1
    process.stdout.close()
    left = [p for p in (small_disk / "out" / "artifacts").rglob("*") if p.is_file()]
    assert "the disk is full" in said
    assert "Traceback" not in said
    assert left == []


def test_a_full_disk_is_told_before_the_first_step(workspace, small_disk):
    _fill(small_disk, 600_000)
    run = workspace.run("--output-dir", str(small_disk / "out"))
    assert run.exit_code == 1
    assert "B free; the run needs" in run.said
    assert not (small_disk / "out").exists()


def _kill_at_a_checkpoint(workspace, number, *arguments):
    """Starts a run and sends it a signal once it has saved a second checkpoint; its exit code."""
    process = workspace.start(*arguments)
    training = workspace.home / "training"
    known = set(training.glob("*/checkpoints/step-*/manifest.json"))
    while len(set(training.glob("*/checkpoints/step-*/manifest.json")) - known) < 2:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    process.send_signal(number)
    said = " ".join(process.stdout.read().split())
    code = process.wait()
    process.stdout.close()
    return code, said


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_stopped_in_training_the_next_run_continues_there(first_run, workspace, number, code):
    """kill -9 or preemption: the same command takes the steps before the trainer from the cache
    and goes on in the middle of training, to the weights of a run that nobody disturbed."""
    serving = first_run.home / "serving_model"
    versions = {p.name for p in serving.iterdir()}
    changed = (
        *("--set", f"train.learning_rate={3e-3 if number == signal.SIGKILL else 2e-3}"),
        *("--set", "execution.checkpoint_steps=40"),
    )
    ended, said = _kill_at_a_checkpoint(workspace, number, *changed)
    assert ended == code, said
    if number == signal.SIGTERM:
        assert "stopped after step" in said
        assert "The same command continues from there" in said
    assert {p.name for p in serving.iterdir()} == versions
    run = workspace.run(*changed)
    assert run.exit_code == 0, run.output
    assert "continuing after step" in run.said
    ran = {name for name, line in run.step_lines().items() if " cached" not in line}
    assert ran == {"Trainer", "Evaluator", "CostReport", "Pusher", "ReportPage"}
    (new,) = {p.name for p in serving.iterdir()} - versions
    assert new.isdigit()
    (resume,) = telemetry_of(run)["resumes"]
    assert resume["from_step"] >= 80
    undisturbed = workspace.run(*changed, "--no-cache")
    assert telemetry_of(undisturbed)["resumes"] == []
    for name in ("loss_curve", "eval_after", "trained_loss_tokens"):
        assert telemetry_of(undisturbed)[name] == telemetry_of(run)[name]
    # The way of carrying it out is no part of the cache's key.
    cached = workspace.run(
        *changed, "--set", "execution.log_steps=3", "--set", "execution.mtbf_hours=1"
    )
    assert " cached" in cached.step_lines()["Trainer"]


def _signal_in(workspace, home, step, number):
    """Starts a run and sends it a signal in a step; (exit code, output, the step's states)."""
    pattern = f"artifacts/{step}/.system/executor_execution/*"
    known = set(home.glob(pattern))
    process = workspace.start("--output-dir", str(home), "--set", "evaluate.max_bits_per_byte=9")
    while not set(home.glob(pattern)) - known:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    process.send_signal(number)
    said = " ".join(process.stdout.read().split())
    code = process.wait()
    process.stdout.close()
    store = open_store(str(home / "metadata.sqlite"))
    (node,) = (c for c in store.get_contexts_by_type("node") if c.name.endswith(f".{step}"))
    executions = sorted(store.get_executions_by_context(node.id), key=lambda each: each.id)
    states = metadata_store_pb2.Execution.State
    return code, said, [states.Name(each.last_known_state) for each in executions]


def test_a_signal_in_a_data_step_is_told_and_recorded(workspace, tmp_path):
    code, said, states = _signal_in(workspace, tmp_path, "StatisticsGen", signal.SIGTERM)
    assert code == 75, said
    assert "stopped by SIGTERM" in said
    assert "The same command continues" in said
    assert states == ["CANCELED"]
    code, said, states = _signal_in(workspace, tmp_path, "StatisticsGen", signal.SIGKILL)
    assert (code, states) == (-signal.SIGKILL, ["CANCELED", "RUNNING"])
    code, said, states = _signal_in(workspace, tmp_path, "StatisticsGen", signal.SIGINT)
    assert (code, states) == (130, ["CANCELED", "FAILED", "CANCELED"]), said


@pytest.mark.slow
def test_a_signal_in_the_evaluator_ends_the_run(first_run, workspace):
    code, said, states = _signal_in(workspace, first_run.home, "Evaluator", signal.SIGTERM)
    assert code == 75, said
    assert "stopped by SIGTERM" in said
    assert states[-1] == "CANCELED"


def telemetry_of(run):
    """The newest telemetry.json."""
    found = (run.home / "artifacts" / "Trainer" / "model_run").glob("*/telemetry.json")
    return json.loads(max(found, key=lambda p: p.stat().st_mtime).read_text())
