"""A whole `tokenmill run` whose Trainer trains with another process (strategy multi_worker)."""

import json
import os
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.loader import load_config
from tokenmill.errors import TokenmillError
from tokenmill.machine import vcpus


def free_addresses(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    finally:
        for each in sockets:
            each.close()


def test_that_speed_cannot_be_measured_in_one_process_is_said_before_the_run():
    config = load_config(overrides=["train.strategy=multi_worker"])
    with pytest.raises(TokenmillError, match="times training in one process") as caught:
        config.ledger_job()
    assert "cost.mfu" in caught.value.hint
    load_config(overrides=["train.strategy=multi_worker", "cost.mfu=0.3"]).ledger_job()


def test_the_ledger_knows_the_workers_of_a_cluster(monkeypatch):
    config = load_config(
        overrides=["train.strategy=multi_worker", "cost.mfu=0.3", "engine.workers=3"]
    )
    job = config.ledger_job()
    assert (job.workers, job.machines, job.devices, job.chips) == (3, 3, 3, 3 * vcpus())
    # Two of three processes share a machine, and its cores.
    cluster = {"chief": ["a:1"], "worker": ["b:1", "b:2"]}
    task = {"type": "chief", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    job = config.ledger_job()
    assert (job.workers, job.machines, job.devices, job.chips) == (3, 2, 3, 2 * vcpus())
    alone = load_config(overrides=["engine.workers=3"]).ledger_job()
    assert (alone.workers, alone.devices, alone.chips) == (1, 1, vcpus())


@pytest.mark.parametrize(
    ("tf_config", "words"),
    [
        ("", "needs TF_CONFIG in the environment"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "TF_CONFIG"),
        (
            '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, '
            '"task": {"type": "worker", "index": 0}}',
            "worker 1 of 2",
        ),
    ],
)
def test_who_is_no_chief_is_told_before_the_first_step(tmp_path, monkeypatch, tf_config, words):
    monkeypatch.setenv("TF_CONFIG", tf_config)
    settings = ["train.strategy=multi_worker", "cost.mfu=0.3"]
    words_of_command = [word for setting in settings for word in ("--set", setting)]
    home = tmp_path / "home"
    result = CliRunner().invoke(cli, ["run", "--output-dir", str(home), *words_of_command])
    assert result.exit_code == 1
    assert words in result.output
    assert not home.exists()


@pytest.mark.slow
def test_the_pipeline_is_the_chief_and_pushes_the_model_of_both(workspace, tmp_path, monkeypatch):
    chief, worker = free_addresses(2)
    cluster = {"chief": [chief], "worker": [worker]}  # as Vertex AI and the JobSet name them

    def config(role):
        return json.dumps({"cluster": cluster, "task": {"type": role, "index": 0}})

    home = tmp_path / "home"
    with open(tmp_path / "worker.out", "w", encoding="utf-8") as out:
        other = subprocess.Popen(
            [sys.executable, "-m", "components.train.distributed.worker", str(home / "training")],
            env={**os.environ, "TF_CONFIG": config("worker")},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        monkeypatch.setenv("TF_CONFIG", config("chief"))
        settings = (
            "train.strategy=multi_worker",
            "train.max_steps=60",
            "cost.mfu=0.3",
            "evaluate.beat_baseline=false",  # so few steps teach less than token frequencies
        )
        words = [word for setting in settings for word in ("--set", setting)]
        run = workspace.run("--output-dir", str(home), *words)
        said = run.output + (tmp_path / "worker.out").read_text()
        assert run.exit_code == 0, said[-6000:]
        assert other.wait(60) == 0, said[-6000:]
    finally:
        other.kill()
        other.wait()
    (telemetry,) = home.glob("artifacts/Trainer/model_run/*/telemetry.json")
    told = json.loads(telemetry.read_text())
    assert (told["replicas"], told["steps"]) == (2, 60)
    # Each worker is a device of the forecast, and sends what the formula says.
    (report,) = home.glob("artifacts/CostReport/cost_report/*/cost_report.json")
    sent = json.loads(report.read_text())["sent"]
    assert (sent["estimated_devices"], sent["replicas"]) == (2, 2)
    assert sent["actual_bytes"] == pytest.approx(sent["estimated_bytes"], rel=0.001)
    losses = [loss for _, loss in told["loss_curve"]]
    assert losses[-1] < losses[0]
    (version,) = (home / "serving_model").iterdir()
    assert (version / "saved_model.pb").exists()
    assert not (home / "training" / "rendezvous.json").exists()
