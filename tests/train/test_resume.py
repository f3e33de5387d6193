"""Killed, stopped and continued trainings, each in a process of its own."""

import json
import os
import pathlib
import random
import signal
import time

import pytest

SAVE_OFTEN = {"checkpoint_steps": 3, "log_steps": 1, "detail_steps": None}


@pytest.fixture(scope="module")
def undisturbed(launcher, tmp_path_factory):
    """What the same training comes to that nobody disturbs, without a checkpoint."""
    outcome = launcher.run(tmp_path_factory.mktemp("undisturbed"), options={"log_steps": 1})
    assert outcome.exit_code == 0, outcome.said
    return outcome.result


def training_of(directory):
    """The one training in a training directory."""
    (training,) = (p for p in pathlib.Path(directory).iterdir() if p.is_dir())
    return training


def lines_of(directory):
    text = (training_of(directory) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def assert_same(result, undisturbed):
    """Every step once, the same losses, the same weights to the last bit."""
    assert result["weights"] == undisturbed["weights"]
    for name in ("loss_curve", "trained_loss_tokens", "trained_slots", "steps"):
        assert result[name] == undisturbed[name]
    for name in ("eval_before", "eval_after"):
        assert result[name] == undisturbed[name]


def kill_and_continue(launcher, directory, poll, kills):
    """Kills a training so many times, ever further on; then lets it end.

    Every third kill comes within the first seconds, at any moment of starting, restoring and
    compiling; the others a few milliseconds after a random step was saved.
    """
    landed, chance = 0, random.Random(kills)
    for i in range(kills):
        process = launcher.start(directory, options=SAVE_OFTEN)
        if i % 3 == 1:
            time.sleep(chance.uniform(0.0, 2.0))
        else:
            target = chance.randint(36 * i // kills, 36 * (i + 1) // kills)
            poll(
                lambda pid=process.pid, step=target: reached(directory, step) or process_ended(pid)
            )
            time.sleep(chance.uniform(0.0, 0.02))
        os.kill(process.pid, signal.SIGKILL)  # if it has ended, there is still its zombie
        landed += process.wait().exit_code == -signal.SIGKILL
    outcome = launcher.run(directory, options=SAVE_OFTEN)
    assert outcome.exit_code == 0, outcome.said
    return outcome.result, landed


def reached(directory, step):
    return any(int(p.name.removeprefix("step-")) >= step for p in checkpoints_of(directory))


def checkpoints_of(directory):
    return sorted(pathlib.Path(directory).glob("*/checkpoints/step-*"))


def test_killed_anywhere_the_weights_are_those_of_the_undisturbed_run(
    launcher, undisturbed, tmp_path, poll
):
    result, landed = kill_and_continue(launcher, tmp_path, poll, 4)
    assert landed >= 3
    assert_same(result, undisturbed)
    steps = [line["step"] for line in lines_of(tmp_path) if "event" not in line]
    assert steps == list(range(1, 41))


def test_killed_in_bfloat16_the_weights_are_those_of_the_undisturbed_run(launcher, tmp_path, poll):
    job = {"precision": "bfloat16", "max_steps": 20}
    undisturbed = launcher.run(tmp_path / "whole", **job)
    process = launcher.start(tmp_path / "killed", options=SAVE_OFTEN, **job)
    poll(lambda: reached(tmp_path / "killed", 6) or process_ended(process.pid))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    continued = launcher.run(tmp_path / "killed", options=SAVE_OFTEN, **job)
    assert continued.exit_code == 0, continued.said
    assert_same(continued.result, undisturbed.result)


def test_killed_inside_a_save(launcher, undisturbed, tmp_path, poll):
    """Between a checkpoint's first file and its manifest."""
    started_ns, directory = 0, tmp_path / "0"

    def torn():
        try:
            return {
                path.name
                for path in checkpoints_of(directory)[-1:]
                if any(path.glob("variables*")) and not (path / "manifest.json").exists()
                if path.stat().st_mtime_ns > started_ns
            }
        except FileNotFoundError:  # it was the one that was being deleted
            return set()

    found, tries = set(), 0
    while len(found) < 2 and tries < 12:
        tries += 1
        started_ns = time.time_ns()
        process = launcher.start(directory, options=SAVE_OFTEN)
        poll(lambda pid=process.pid: torn() or process_ended(pid))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if now := torn():
            found |= now
        else:  # the look came too late each time: a training that has ended saves nothing more
            found, directory = set(), tmp_path / str(tries)
    assert found, "no kill came inside a save"
    outcome = launcher.run(directory, options=SAVE_OFTEN)
    assert_same(outcome.result, undisturbed)


def process_ended(pid):
    """Whether it is a zombie, which it stays until the test waits for it."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.slow
def test_killed_at_twenty_random_moments(launcher, undisturbed, tmp_path, poll):
    result, landed = kill_and_continue(launcher, tmp_path, poll, 20)
    assert landed >= 15
    assert_same(result, undisturbed)


def test_lost_steps_are_booked_as_lost(launcher, tmp_path, poll):
    options = {"checkpoint_steps": 10, "log_steps": 1, "detail_steps": None}
    process = launcher.start(tmp_path, options=options, max_steps=4000)
    poll(lambda: len(metrics_text(tmp_path).splitlines()) > 30)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = [line for line in lines_of(tmp_path) if "event" not in line][-1]
    newest = max(int(p.name.removeprefix("step-")) for p in whole_checkpoints(tmp_path))
    process = launcher.start(tmp_path, options=options, max_steps=4000)
    event = poll(lambda: [x for x in lines_of(tmp_path) if x.get("event") == "resume"])[0]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert event["step"] == newest
    assert event["lost_steps"] == before["step"] - newest
    assert 0 < event["lost_seconds"] < before["seconds"]
    assert event["seconds"] > before["seconds"]


def metrics_text(directory):
    files = list(pathlib.Path(directory).glob("*/metrics.jsonl"))
    return files[0].read_text() if files else ""


def whole_checkpoints(directory):
    return [p for p in checkpoints_of(directory) if (p / "manifest.json").exists()]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_ends_with_a_code_to_restart_on(
    launcher, undisturbed, tmp_path, poll, number, code
):
    options = {"log_steps": 1, "detail_steps": None, "checkpoint_steps": 1000}  # none is due
    process = launcher.start(tmp_path, options=options)
    poll(lambda: metrics_text(tmp_path))
    os.kill(process.pid, number)
    outcome = process.wait()
    assert outcome.exit_code == code, outcome.said
    assert number.name in outcome.said
    (saved,) = whole_checkpoints(tmp_path)
    again = launcher.run(tmp_path, options=options)
    assert_same(again.result, undisturbed)
    (resume,) = again.result["resumes"]
    assert resume["from_step"] == int(saved.name.removeprefix("step-"))
    assert resume["lost_steps"] == 0


def stop_halfway(launcher, directory, poll, **options):
    process = launcher.start(directory, options={**SAVE_OFTEN, **options})
    poll(lambda: len(whole_checkpoints(directory)) >= 2)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait().exit_code in (75, 0)


def test_a_corrupt_checkpoint_falls_back_to_the_one_before(launcher, undisturbed, tmp_path, poll):
    stop_halfway(launcher, tmp_path, poll)
    *_, before, newest = whole_checkpoints(tmp_path)
    weights = newest / "variables-00000.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    outcome = launcher.run(tmp_path, options=SAVE_OFTEN)
    assert_same(outcome.result, undisturbed)
    step = int(before.name.removeprefix("step-"))
    assert f"SHA-256 is not the manifest's; continuing from step {step} instead" in outcome.said
    assert outcome.result["resumes"][-1]["from_step"] == step


@pytest.mark.slow
def test_without_a_sound_checkpoint_it_starts_over(launcher, undisturbed, tmp_path, poll):
    stop_halfway(launcher, tmp_path, poll)
    for checkpoint in whole_checkpoints(tmp_path):
        (checkpoint / "state.json").write_text("{}")
    outcome = launcher.run(tmp_path, options=SAVE_OFTEN)
    assert outcome.exit_code == 0, outcome.said
    assert_same(outcome.result, undisturbed)
    assert "continuing from the beginning instead" in outcome.said


@pytest.mark.slow
def test_a_change_of_how_is_named_and_the_training_goes_on(launcher, undisturbed, tmp_path, poll):
    stop_halfway(launcher, tmp_path, poll)
    outcome = launcher.run(tmp_path, {"accumulation_steps": 2}, SAVE_OFTEN)
    assert outcome.exit_code == 0, outcome.said
    assert "changed: train.accumulation_steps from 1 to 2" in outcome.said
    assert outcome.result["loss_curve"] == [
        [step, pytest.approx(loss, rel=1e-5)] for step, loss in undisturbed["loss_curve"]
    ]


@pytest.mark.slow
def test_another_learning_rate_is_another_training(launcher, undisturbed, tmp_path, poll):
    stop_halfway(launcher, tmp_path, poll)
    outcome = launcher.run(tmp_path, {"learning_rate": 2e-2}, SAVE_OFTEN)
    assert outcome.result["resumes"] == []
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 2
    fresh = launcher.run(tmp_path, options={**SAVE_OFTEN, "fresh": True})
    assert fresh.result["resumes"] == []
    assert_same(fresh.result, undisturbed)


def test_a_finished_training_is_extended_by_more_steps(launcher, tmp_path):
    first = launcher.run(tmp_path / "first", options=SAVE_OFTEN)
    checkpoints = training_of(tmp_path / "first") / "checkpoints"
    longer = launcher.run(
        tmp_path / "second", options=SAVE_OFTEN, max_steps=50, resume_from=str(checkpoints)
    )
    assert longer.exit_code == 0, longer.said
    assert "changed: train.max_steps from 40 to 50" in longer.said
    assert longer.result["loss_curve"][:40] == first.result["loss_curve"]
    assert longer.result["trained_loss_tokens"] > first.result["trained_loss_tokens"]
    assert longer.result["eval_before"] == first.result["eval_before"]


def test_other_stored_weights_train_nothing(launcher, tmp_path):
    first = launcher.run(tmp_path)
    again = launcher.run(tmp_path, quantization="int8")
    assert again.exit_code == 0, again.said
    assert "changed: quantization from 'float32' to 'int8'" in again.said
    assert_same(again.result, first.result)
    assert again.result["seconds"]["steps"] == first.result["seconds"]["steps"]
    assert len(list(tmp_path.glob("*/checkpoints"))) == 1


@pytest.mark.parametrize(
    ("settings", "job", "named"),
    [
        ({"seed": 8}, {}, "seed from 7 to 8"),
        ({}, {"global_batch_size": 4}, "global_batch_size from 8 to 4"),
        ({}, {"max_steps": 20}, "has trained 40 steps, the run has 20"),
    ],
)
def test_a_change_that_makes_a_checkpoint_useless_is_refused(
    launcher, finished, tmp_path, settings, job, named
):
    outcome = launcher.run(tmp_path, settings, SAVE_OFTEN, resume_from=str(finished), **job)
    assert outcome.exit_code == 1
    assert named in outcome.said
    assert outcome.result is None


@pytest.fixture(scope="module")
def finished(launcher, tmp_path_factory):
    """The checkpoints of a training that has ended."""
    directory = tmp_path_factory.mktemp("finished")
    launcher.run(directory, options=SAVE_OFTEN)
    return training_of(directory) / "checkpoints"


def test_a_resume_from_nowhere_says_so(launcher, tmp_path):
    outcome = launcher.run(tmp_path, resume_from=str(tmp_path / "nowhere"))
    assert outcome.exit_code == 1
    assert "nowhere: no checkpoint there" in outcome.said
