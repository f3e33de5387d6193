"""One training on one device, on two, and by two processes: the same losses at every step."""

import json
import os
import shutil
import signal
import socket

import numpy as np
import pytest

OPTIONS = {"log_steps": 1, "detail_steps": None, "checkpoint_steps": 5}
# With gradients clipped far below Adam's epsilon, the update is proportional to them, and a
# factor that Adam would divide out shows in the losses.
SETTINGS = {"clip_norm": 1e-6, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def one_device(launcher, tmp_path_factory):
    outcome = launcher.run(tmp_path_factory.mktemp("one"), SETTINGS, OPTIONS)
    assert outcome.exit_code == 0, outcome.said
    losses = [loss for _, loss in outcome.result["loss_curve"]]
    assert losses[-1] < 0.95 * losses[0]
    return outcome.result


def assert_follows(result, reference):
    """The same losses to the rounding of another order of summation."""
    for curve in ("loss_curve",):
        steps, losses = zip(*result[curve], strict=True)
        assert list(steps) == [step for step, _ in reference[curve]]
        np.testing.assert_allclose(losses, [loss for _, loss in reference[curve]], rtol=1e-5)
    for name in ("eval_before", "eval_after"):
        assert result[name]["loss_tokens"] == reference[name]["loss_tokens"]
        assert result[name]["loss"] == pytest.approx(reference[name]["loss"], rel=1e-5)
    for name in ("trained_loss_tokens", "trained_slots"):
        assert result[name] == reference[name]


@pytest.mark.parametrize("parts", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_accumulated_micro_batches_follow_the_losses_of_whole_ones(
    launcher, one_device, tmp_path, parts
):
    outcome = launcher.run(tmp_path, {**SETTINGS, "accumulation_steps": parts}, OPTIONS)
    assert outcome.exit_code == 0, outcome.said
    assert_follows(outcome.result, one_device)


@pytest.mark.parametrize("buckets", [{}, {"bucket_bytes": 512}])
def test_two_devices_follow_the_losses_of_one(launcher, one_device, tmp_path, buckets):
    options = {**OPTIONS, "cpu_devices": 2, **buckets}
    outcome = launcher.run(tmp_path, SETTINGS, options, strategy="mirrored")
    assert outcome.exit_code == 0, outcome.said
    assert outcome.result["replicas"] == 2
    assert_follows(outcome.result, one_device)


def test_a_batch_that_does_not_divide_is_refused(launcher, tmp_path):
    options = {**OPTIONS, "cpu_devices": 2}
    outcome = launcher.run(tmp_path, SETTINGS, options, strategy="mirrored", global_batch_size=7)
    assert outcome.exit_code == 1
    assert "global_batch_size = 7 does not divide into 2 replicas" in outcome.said


def test_multi_worker_without_tf_config_says_what_it_needs(launcher, tmp_path):
    outcome = launcher.run(tmp_path, SETTINGS, OPTIONS, strategy="multi_worker")
    assert outcome.exit_code == 1
    assert "needs TF_CONFIG" in outcome.said


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start_workers(launcher, directory, options=OPTIONS, count=2, zero=0, **job):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return [
        launcher.start_process(
            directory,
            {
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
                )
            },
            {**SETTINGS, "zero": zero},
            options,
            strategy="multi_worker",
            **job,
        )
        for index in range(count)
    ]


@pytest.mark.slow
def test_two_processes_follow_the_losses_of_one(launcher, one_device, small_tokenizer, tmp_path):
    options = {**OPTIONS, "tokenizer_path": small_tokenizer}
    workers = start_workers(launcher, tmp_path, options)
    outcomes = [worker.wait() for worker in workers]
    for outcome in outcomes:
        assert outcome.exit_code == 0, outcome.said
        assert_follows(outcome.result, one_device)
    assert outcomes[0].result["weights"] == outcomes[1].result["weights"]
    # The chief alone samples, and the other waits for it.
    steps = [[point["step"] for point in outcome.result["samples"]] for outcome in outcomes]
    assert steps == [[0, 20, 40], []]
    # Only the chief writes: every line once.
    (metrics,) = tmp_path.glob("*/metrics.jsonl")
    lines = map(json.loads, metrics.read_text().splitlines())
    assert [x["step"] for x in lines if "event" not in x] == list(range(1, 41))


def saved_steps(directory):
    return [
        int(p.parent.name.removeprefix("step-"))
        for p in directory.glob("*/checkpoints/step-*/manifest.json")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_is_killed_and_all_are_started_again(launcher, one_device, tmp_path, poll, victim):
    workers = start_workers(launcher, tmp_path)
    poll(lambda: saved_steps(tmp_path))
    os.kill(workers[victim].pid, signal.SIGKILL)
    outcomes = [worker.wait() for worker in workers]
    assert outcomes[victim].exit_code == -signal.SIGKILL
    survivor = outcomes[1 - victim]
    assert survivor.exit_code == 75, survivor.said  # it does not hang
    # It has asked, or been told by the connection; missing heartbeats would take minutes.
    assert "was lost" in survivor.said
    assert "no answer for" not in survivor.said
    again = [worker.wait() for worker in start_workers(launcher, tmp_path)]
    for outcome in again:
        assert outcome.exit_code == 0, outcome.said
        assert_follows(outcome.result, one_device)
    assert again[0].result["resumes"]


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_all_at_the_same_step(launcher, one_device, tmp_path, poll):
    workers = start_workers(launcher, tmp_path)
    poll(lambda: saved_steps(tmp_path))
    os.kill(workers[1].pid, signal.SIGTERM)
    outcomes = [worker.wait() for worker in workers]
    assert [outcome.exit_code for outcome in outcomes] == [75, 75], outcomes
    again = [worker.wait() for worker in start_workers(launcher, tmp_path)]
    for outcome in again:
        assert_follows(outcome.result, one_device)
    assert again[0].result["resumes"][0]["lost_steps"] == 0


@pytest.fixture(scope="module")
def two_processes(launcher, tmp_path_factory):
    """What the chief of two workers found, each with all moments."""
    workers = start_workers(launcher, tmp_path_factory.mktemp("two"))
    chief, _ = (worker.wait() for worker in workers)
    return chief.result


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_split_moments_outlive_a_killed_worker_bit_by_bit(
    launcher, two_processes, tmp_path, poll, victim
):
    workers = start_workers(launcher, tmp_path, zero=1)
    poll(lambda: saved_steps(tmp_path))
    os.kill(workers[victim].pid, signal.SIGKILL)
    outcomes = [worker.wait() for worker in workers]
    assert outcomes[1 - victim].exit_code == 75, outcomes[1 - victim].said
    for outcome in [worker.wait() for worker in start_workers(launcher, tmp_path, zero=1)]:
        assert outcome.exit_code == 0, outcome.said
        assert outcome.result["loss_curve"] == two_processes["loss_curve"]
        assert outcome.result["weights"] == two_processes["weights"]


@pytest.mark.slow
def test_a_clock_of_the_chief_has_all_save(launcher, two_processes, tmp_path):
    options = {"log_steps": 1, "detail_steps": None, "checkpoint_seconds": 0.001}
    workers = start_workers(launcher, tmp_path, options, zero=1)
    chief, _ = (worker.wait() for worker in workers)
    assert chief.exit_code == 0, chief.said
    assert chief.result["weights"] == two_processes["weights"]
    assert chief.result["seconds"]["checkpoint"] > 0
    assert max(saved_steps(tmp_path)) == 40


@pytest.mark.slow
def test_any_number_of_workers_goes_on_from_split_moments(
    launcher, one_device, two_processes, tmp_path, poll
):
    """Equal to rounding: the gradients of the parts of a batch are summed in another order."""
    workers = start_workers(launcher, tmp_path / "2", zero=1)
    poll(lambda: saved_steps(tmp_path / "2"))
    os.kill(workers[1].pid, signal.SIGTERM)
    assert [worker.wait().exit_code for worker in workers] == [75, 75]
    for count in (1, 4):
        shutil.copytree(tmp_path / "2", tmp_path / str(count))
    alone = launcher.run(tmp_path / "1", {**SETTINGS, "zero": 1}, OPTIONS)
    again = [alone]
    for count in (2, 4):
        workers = start_workers(launcher, tmp_path / str(count), count=count, zero=1)
        chief, *_ = (worker.wait() for worker in workers)
        again.append(chief)
    for outcome in again:
        assert outcome.exit_code == 0, outcome.said
        assert outcome.result["resumes"]
        assert_follows(outcome.result, one_device)
    assert again[1].result["weights"] == two_processes["weights"]
