"""Trainings with experts: on several replicas, killed and continued, as proxies, on real text."""

import dataclasses
import json
import os
import pathlib
import signal

import numpy as np
import pytest
import tensorflow as tf

from components.train.loop import Trainer
from components.train.proxy import ProxyTrainer
from components.train.telemetry.metrics_log import MetricsLog, read_metrics
from tests.train.test_distribution import SETTINGS, assert_follows, start_workers
from tests.train.test_proxy import CONFIG, weights_of
from tests.train.test_telemetry import tensorboard_of
from tokenmill.model.decoder import Decoder
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit

OPTIONS = {"log_steps": 1, "detail_steps": None, "samples": 0, "checkpoint_steps": 5}


@pytest.fixture(scope="module")
def sparse_shape(small_shape):
    return dataclasses.replace(small_shape, experts=4, experts_per_token=2, layers=2)


def loads_of(directory):
    """The lines of metrics.jsonl that tell of experts, and their steps."""
    (path,) = pathlib.Path(directory).glob("*/metrics.jsonl")
    lines = [x for x in map(json.loads, path.read_text().splitlines())
             if x.get("event") == "expert_load"]  # fmt: skip
    return lines, [line["step"] for line in lines]


@pytest.mark.parametrize(
    "balance",
    [
        {"balance": "bias", "balance_weight": 0.02},
        pytest.param({"balance_weight": 0.1}, marks=pytest.mark.slow),
    ],
)
def test_two_replicas_follow_the_losses_of_one(launcher, sparse_shape, tmp_path, balance):
    """No expert has a limit and balance goes by rows or whole batches: no split changes a loss."""
    shape = dataclasses.replace(sparse_shape, layers=1, **balance).__dict__
    settings = {**SETTINGS, "shape": shape, "max_steps": 12}
    one = launcher.run(tmp_path / "one", settings, OPTIONS)
    options = {**OPTIONS, "cpu_devices": 2}
    two = launcher.run(tmp_path / "two", settings, options, strategy="mirrored")
    for outcome in (one, two):
        assert outcome.exit_code == 0, outcome.said
    assert two.result["replicas"] == 2
    assert_follows(two.result, one.result)


@pytest.mark.slow
def test_two_processes_follow_the_losses_of_one(launcher, sparse_shape, tmp_path):
    shape = dataclasses.replace(sparse_shape, balance="bias").__dict__
    one = launcher.run(tmp_path / "one", {**SETTINGS, "shape": shape}, OPTIONS)
    workers = start_workers(launcher, tmp_path / "two", OPTIONS, shape=shape)
    outcomes = [worker.wait() for worker in workers]
    for outcome in outcomes:
        assert outcome.exit_code == 0, outcome.said
        assert_follows(outcome.result, one.result)
    assert outcomes[0].result["weights"] == outcomes[1].result["weights"]
    (first, steps), (second, same) = (loads_of(tmp_path / name) for name in ("one", "two"))
    assert steps == same == [0, *range(4, 41, 4)]  # the chief alone tells them
    for ours, theirs in zip(first, second, strict=True):
        for one_layer, other in zip(ours["layers"], theirs["layers"], strict=True):
            np.testing.assert_allclose(one_layer["load_shares"], other["load_shares"], atol=0.02)


@pytest.mark.slow
def test_killed_and_continued_it_is_the_same_training_and_tells_each_load_once(
    launcher, sparse_shape, tmp_path, poll
):
    shape = dataclasses.replace(sparse_shape, balance="bias").__dict__
    settings = {"shape": shape, "max_steps": 60}
    options = {**OPTIONS, "evaluate_steps": 8, "detail_steps": 9, "checkpoint_steps": 7}
    whole = launcher.run(tmp_path / "whole", settings, options)
    assert whole.exit_code == 0, whole.said
    directory = tmp_path / "killed"
    for line in (12, 30, 55):
        process = launcher.start(directory, settings, options)
        poll(lambda line=line: reached(directory) >= line)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait().exit_code == -signal.SIGKILL
    ended = launcher.run(directory, settings, options)
    assert ended.exit_code == 0, ended.said
    assert len(ended.result["resumes"]) >= 2
    assert ended.result["weights"] == whole.result["weights"]
    assert ended.result["loss_curve"] == whole.result["loss_curve"]
    (once, steps), (again, same) = (loads_of(tmp_path / name) for name in ("whole", "killed"))
    expected = {*range(0, 61, 6), *range(8, 60, 8), *range(9, 60, 9)}
    assert steps == same == sorted(expected)
    assert [x["layers"] for x in once] == [x["layers"] for x in again]


def reached(directory):
    """Return the last step whose line is there; -1 where there is none."""
    files = list(directory.glob("*/metrics.jsonl"))
    lines = read_metrics(str(files[0])) if files else []
    return max((x["step"] for x in lines if "event" not in x), default=-1)


def test_a_rewind_of_the_log_forgets_what_is_measured_again(tmp_path):
    log = MetricsLog(str(tmp_path))
    for step in (0, 2, 4):
        for event in ("expert_load", "evaluation", "checkpoint"):
            log.append({"event": event, "step": step, "seconds": 1.0})
        log.append({"step": step, "seconds": 2.0 + step})
    assert log.has_measured("expert_load", 4)
    assert log.rewind(2) == (4, 6.0)
    found = [(x.get("event"), x["step"]) for x in read_metrics(f"{tmp_path}/metrics.jsonl")]
    for event in ("expert_load", "evaluation", None):
        assert [step for kind, step in found if kind == event] == [0, 2]
    assert [step for kind, step in found if kind == "checkpoint"] == [0, 2, 4]
    assert log.has_measured("expert_load", 2)
    assert not log.has_measured("expert_load", 4)


def test_loads_are_told_through_the_training_to_the_log_and_to_tensorboard(
    launcher, sparse_shape, tmp_path
):
    settings = {"shape": sparse_shape.__dict__, "max_steps": 10}
    outcome = launcher.run(tmp_path, settings, OPTIONS)
    assert outcome.exit_code == 0, outcome.said
    lines, steps = loads_of(tmp_path)
    assert steps == list(range(11))
    scalars, _ = tensorboard_of(tmp_path)
    for line in lines:
        for layer in line["layers"]:
            prefix = f"experts/layer{layer['layer']}"
            assert sum(layer["load_shares"]) == pytest.approx(1.0, abs=1e-4)
            assert max(layer["load_shares"]) * 4 == pytest.approx(layer["max_load"], abs=1e-3)
            for name in ("max_load", "router_entropy_nats"):
                value = scalars[f"{prefix}/{name}"][line["step"]]
                assert value == pytest.approx(layer[name], rel=1e-5)
            dead = scalars[f"{prefix}/dead_experts"][line["step"]]
            assert dead == len(layer["dead_experts"])
    assert [layer["layer"] for layer in lines[0]["layers"]] == [0, 1]


def test_a_proxy_run_of_experts_is_the_training_that_wsd_makes(counting_rows, sparse_shape):
    shape = dataclasses.replace(sparse_shape, layers=1, balance="bias", balance_weight=0.02)
    rows = PackedSplit(counting_rows, "train")
    curve = ProxyTrainer(shape, CONFIG, rows).train([10, 20], 7, weights_of)
    assert curve.points[1].loss < curve.points[0].loss
    model = Decoder(shape, 7)
    # A quarter of the shortest count, 2 steps, as the trunk warms up.
    config = CONFIG.model_copy(update={"schedule": "wsd", "warmup_fraction": 2 / 20})
    plan = plan_steps(rows.rows, 8, 1000, 20)
    Trainer(tf.distribute.get_strategy(), model, config, plan, 7).fit(
        rows, PackedSplit(counting_rows, "eval")
    )
    for ours, theirs in zip(curve.points[-1].result, weights_of(model), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    bias = model.blocks[0].mlp.selection_bias.numpy()
    assert np.abs(bias).max() > 0.02
