"""Experts spread over two processes: the losses of one, and checkpoints that one goes on from."""

import dataclasses
import os
import signal

import pytest
from test_distribution import OPTIONS, SETTINGS, assert_follows, saved_steps, start_workers

from pipeline.config import Config


@pytest.fixture(scope="module")
def shape(small_shape):
    """Two layers of four experts beside a shared one, after a dense layer."""
    experts = {"experts": 4, "experts_per_token": 2, "shared_experts": 1, "first_dense_layers": 1}
    return dataclasses.replace(small_shape, layers=3, **experts).__dict__


@pytest.fixture(scope="module")
def one_process(launcher, shape, tmp_path_factory):
    outcome = launcher.run(tmp_path_factory.mktemp("one"), SETTINGS, OPTIONS, shape=shape)
    assert outcome.exit_code == 0, outcome.said
    return outcome.result


def spread(launcher, directory, shape, **job):
    return start_workers(launcher, directory, shape=shape, expert_parallel=True, **job)


@pytest.fixture(scope="module")
def two_processes(launcher, shape, tmp_path_factory):
    """What the chief of two found, with its moments split."""
    directory = tmp_path_factory.mktemp("two")
    outcomes = [worker.wait() for worker in spread(launcher, directory, shape, zero=1)]
    for outcome in outcomes:
        assert outcome.exit_code == 0, outcome.said
    return outcomes[0].result


@pytest.mark.slow
def test_spread_experts_follow_the_losses_of_one_process(two_processes, one_process):
    assert_follows(two_processes, one_process)
    assert two_processes["params_total"] == one_process["params_total"]  # gathered at the end


@pytest.mark.slow
@pytest.mark.parametrize(
    "job",
    [{"jit_compile": True}, {"balance": "bias"}],
    ids=lambda job: next(iter(job)),
)
def test_so_they_do_compiled_and_with_a_bias(launcher, shape, tmp_path, one_process, job):
    reference = one_process
    if "balance" in job:
        shape, job = {**shape, **job}, {}
        reference = launcher.run(tmp_path / "one", SETTINGS, OPTIONS, shape=shape).result
    for outcome in [each.wait() for each in spread(launcher, tmp_path / "two", shape, **job)]:
        assert outcome.exit_code == 0, outcome.said
        assert outcome.result["loss_curve"] is not None
        assert_follows(outcome.result, reference)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_and_all_go_on_bit_by_bit(
    launcher, shape, two_processes, tmp_path, poll, victim
):
    workers = spread(launcher, tmp_path, shape, zero=1)
    poll(lambda: saved_steps(tmp_path))
    os.kill(workers[victim].pid, signal.SIGKILL)
    assert [worker.wait() for worker in workers][1 - victim].exit_code == 75
    for outcome in [each.wait() for each in spread(launcher, tmp_path, shape, zero=1)]:
        assert outcome.exit_code == 0, outcome.said
        assert outcome.result["loss_curve"] == two_processes["loss_curve"]
        if outcome.result["params_total"] == two_processes["params_total"]:  # the chief
            assert outcome.result["weights"] == two_processes["weights"]


@pytest.mark.slow
def test_one_process_goes_on_from_their_checkpoint(launcher, shape, one_process, tmp_path, poll):
    workers = spread(launcher, tmp_path, shape)
    poll(lambda: saved_steps(tmp_path))
    os.kill(workers[1].pid, signal.SIGTERM)
    assert [worker.wait().exit_code for worker in workers] == [75, 75]
    alone = launcher.run(tmp_path, SETTINGS, OPTIONS, shape=shape)
    assert alone.exit_code == 0, alone.said
    assert "changed: train.expert_parallel from True to False" in alone.said
    assert alone.result["resumes"][0]["lost_steps"] == 0
    assert_follows(alone.result, one_process)


@pytest.mark.slow
def test_experts_that_do_not_divide_are_refused(launcher, shape, tmp_path):
    for outcome in [each.wait() for each in spread(launcher, tmp_path, {**shape, "experts": 3})]:
        assert outcome.exit_code == 1
        assert "model.experts = 3 do not divide over 2 replicas" in outcome.said


@pytest.mark.parametrize(
    ("model", "train", "said"),
    [
        ({}, {}, "model.experts = 1 has none"),
        ({"experts": 4}, {"zero": 0}, "train.zero = 0: expected 1"),
        ({"experts": 4}, {"strategy": "mirrored"}, 'train.strategy = "mirrored"'),
        ({"experts": 4}, {"prune_sparsity": 0.5}, "train.prune_sparsity = 0.5"),
        ({"experts": 4}, {"precision": "mixed_float16"}, "train.precision = mixed_float16"),
        ({"experts": 4}, {"rematerialize": True}, "train.rematerialize = True"),
        ({"experts": 4}, {"accumulation_steps": 2}, "train.accumulation_steps = 2"),
    ],
)
def test_what_does_not_go_together_is_refused(model, train, said):
    train = {"expert_parallel": True, "zero": 1, "strategy": "multi_worker", **train}
    with pytest.raises(ValueError, match=said):
        Config.model_validate({"model": model, "train": train})
