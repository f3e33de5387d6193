"""Faults injected for real: a full disk, a killed run."""

import subprocess
import time

import pytest


def test_full_disk_is_one_message_and_leaves_no_artifact(workspace, tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        run = workspace.run("--output-dir", str(tmp_path / "out"))
        left = [p for p in (tmp_path / "out" / "artifacts").rglob("*") if p.is_file()]
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
    assert run.exit_code == 1
    assert "the disk is full" in run.output
    assert "Traceback" not in run.output
    assert left == []


@pytest.mark.slow
def test_killed_in_training_then_run_again(first_run, workspace):
    """kill -9 while the trainer runs: the next run takes the steps before it from the cache."""
    serving = first_run.home / "serving_model"
    versions = {p.name for p in serving.iterdir()}
    changed = ("--set", "train.learning_rate=3e-3")
    process = workspace.start(*changed)
    for line in process.stdout:
        if "TokenLedger" in line:
            break
    time.sleep(6)
    process.kill()
    process.wait()
    process.stdout.close()
    assert {p.name for p in serving.iterdir()} == versions
    run = workspace.run(*changed)
    assert run.exit_code == 0, run.output
    ran = {name for name, line in run.step_lines().items() if " cached " not in line}
    assert ran == {"Trainer", "Evaluator", "CostReport", "Pusher"}
    (new,) = {p.name for p in serving.iterdir()} - versions
    assert new.isdigit()
