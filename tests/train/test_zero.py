"""Moments split over the replicas: the same bits, and checkpoints that any number goes on from."""

import dataclasses
import hashlib
import math
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.train import fingerprint
from components.train.config import TrainingJob
from components.train.distributed.zero import plan_buckets
from pipeline.config import Config
from tests.train.test_training_loop import SHAPE
from tokenmill.cost.memory import estimate_memory
from tokenmill.cost.sharding import sent_by_ring, traffic
from tokenmill.errors import TokenmillError

BALANCED = dataclasses.replace(
    SHAPE, experts=4, experts_per_token=1, balance="bias", balance_weight=0.02
)
OPTIONS = {"log_steps": 1, "detail_steps": None, "samples": 0, "checkpoint_steps": 10}


def files_of(directory):
    return {
        path.relative_to(directory).parts[1:]: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.glob("*/checkpoints/step-*/variables-*")
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"jit_compile": True},
        {"precision": "bfloat16", "accumulation_steps": 2},
        {"shape": dataclasses.asdict(BALANCED)},  # a bias whose steps are none of AdamW's
        pytest.param({"precision": "mixed_float16"}, marks=pytest.mark.slow),
        pytest.param({"prune_sparsity": 0.5}, marks=pytest.mark.slow),
    ],
)
def test_split_moments_give_the_same_bits(launcher, tmp_path, settings):
    settings = {"max_steps": 12, **settings}
    options = {**OPTIONS, "cpu_devices": 2}
    found = []
    for zero in (0, 1):
        outcome = launcher.run(
            tmp_path / str(zero), {**settings, "zero": zero}, options, strategy="mirrored"
        )
        assert outcome.exit_code == 0, outcome.said
        assert outcome.result["loss_curve"][-1][1] < outcome.result["loss_curve"][0][1]
        found.append(outcome.result)
    assert found[0]["loss_curve"] == found[1]["loss_curve"]
    assert found[0]["weights"] == found[1]["weights"]
    # Moments too: the files of the checkpoints hold the same numbers under the same names.
    assert files_of(tmp_path / "0") == files_of(tmp_path / "1")


SHAPES = st.lists(
    st.tuples(st.lists(st.integers(1, 20), max_size=3), st.sampled_from(["float32", "bfloat16"])),
    min_size=1,
    max_size=9,
)


@given(variables=SHAPES, replicas=st.integers(1, 5), most_bytes=st.integers(1, 4000))
def test_every_element_is_updated_by_one_replica(variables, replicas, most_bytes):
    updated = {}
    for bucket in plan_buckets(variables, replicas, most_bytes):
        dtypes = {variables[member][1] for member in bucket.members}
        assert len(dtypes) == 1
        for replica in range(replicas):
            end = 0
            for piece in bucket.pieces(replica):
                assert piece.place >= end
                end = piece.place + piece.stop - piece.start
                for element in range(piece.start, piece.stop):
                    assert updated.setdefault((piece.variable, element), replica) == replica
            assert end <= bucket.shard
    assert len(updated) == sum(math.prod(shape) for shape, _ in variables)


def test_what_is_sent_is_what_the_ledger_says(launcher, small_shape, tmp_path):
    """Counted where the step hands it over, beside the formula."""
    one = estimate_memory(small_shape, batch_per_device=1, precision="float32")
    options = {**OPTIONS, "cpu_devices": 2}
    for zero, strategy in enumerate(("data", "zero1")):
        settings = {"max_steps": 2, "zero": zero}
        outcome = launcher.run(tmp_path / strategy, settings, options, strategy="mirrored")
        handed = outcome.result["collective_bytes_per_step"]
        scalars = 4 * 4
        assert handed["all_reduce"] == 4 * small_shape.params_total + scalars
        # Over a ring of two each sends half of what is summed twice, and its part to the other.
        sent = sent_by_ring(handed, 2)
        assert sent == handed["all_reduce"] + handed.get("all_gather", 0)
        assert sent == pytest.approx(traffic(one, strategy, 2).total, rel=0.05)
    assert handed["all_gather"] == pytest.approx(2 * small_shape.params_total, rel=0.1)


def test_one_replica_says_that_nothing_is_split(launcher, tmp_path):
    alone = launcher.run(tmp_path, {"max_steps": 1, "zero": 1})
    assert alone.exit_code == 0, alone.said
    assert "SAID train.zero = 1 splits AdamW's moments over replicas" in alone.said
    assert 'train.strategy = "default" has one here' in alone.said


def test_a_change_is_told_with_the_default_of_what_a_checkpoint_leaves_out():
    """Both where it leaves out what decides nothing, and where the key is newer."""

    def settings(train=None, shape=SHAPE):
        return fingerprint.settings_of(TrainingJob(shape=shape, train=train or {}, seed=1))

    plain, split = settings(), settings({"zero": 1})
    assert "train.zero" not in plain
    assert fingerprint.describe(fingerprint.changes(split, plain)) == "train.zero from 1 to 0"
    assert fingerprint.describe(fingerprint.changes(plain, split)) == "train.zero from 0 to 1"
    before = {name: value for name, value in plain.items() if name != "train.on_spike"}
    assert not fingerprint.changes(before, plain)
    pruned = fingerprint.changes(plain, settings({"prune_sparsity": 0.5}))
    assert pruned == {"train.prune_sparsity": (0.0, 0.5)}
    sparse = fingerprint.changes(plain, settings(shape=BALANCED))
    with pytest.raises(TokenmillError, match=r"shape\.experts from 1 to 4"):
        fingerprint.check_changes(sparse, "x")


def newest_step(directory):
    steps = [int(p.parent.name[5:]) for p in directory.glob("*/checkpoints/step-*/manifest.json")]
    return max(steps, default=0)


@pytest.mark.slow
def test_a_killed_training_goes_on_split_or_not(launcher, tmp_path, poll):
    """The checkpoint is the same either way: moments are gathered."""
    options = {**OPTIONS, "cpu_devices": 2}
    whole = launcher.run(tmp_path / "whole", options=options, strategy="mirrored")
    directory = tmp_path / "killed"
    for zero in (1, 0, 1):
        before = newest_step(directory)
        process = launcher.start(directory, {"zero": zero}, options, strategy="mirrored")
        poll(lambda before=before: newest_step(directory) > before)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    ended = launcher.run(directory, options=options, strategy="mirrored")
    assert ended.exit_code == 0, ended.said
    assert ended.result["weights"] == whole.result["weights"]
    assert "changed: train.zero from 1 to 0" in ended.said


def test_replicas_that_share_a_program_are_refused():
    with pytest.raises(ValueError, match=r"train.zero = 1 does not go with train.strategy"):
        Config.model_validate({"train": {"zero": 1, "strategy": "tpu"}})
