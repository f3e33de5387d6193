import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from components.train.checkpoint.store import (
    Checkpoint,
    CheckpointDirectory,
    CorruptCheckpointError,
    KeepPolicy,
)


def checkpoint(step, loss=None):
    rng = np.random.default_rng(step)
    variables = {
        "model/kernel": rng.normal(size=(3, 4)).astype(np.float32),
        "model/half": rng.normal(size=5).astype(ml_dtypes.bfloat16),
        "optimizer/iteration": np.array(step, np.int64),
        "optimizer/finite": np.array(True),
    }
    evaluations = [] if loss is None else [[step, loss]]
    return Checkpoint(step, variables, {"record": {"evaluations": evaluations}, "x": 0.1 + 0.2})


def test_what_is_written_is_read_to_the_last_bit(tmp_path):
    directory = CheckpointDirectory(str(tmp_path))
    written = checkpoint(7)
    directory.write(written)
    read = directory.read(7)
    assert read.state == written.state
    assert set(read.variables) == set(written.variables)
    for name, array in written.variables.items():
        assert read.variables[name].dtype == array.dtype
        assert read.variables[name].shape == array.shape
        assert read.variables[name].tobytes() == array.tobytes()


@given(
    arrays_of.arrays(
        st.sampled_from([np.float32, np.float16, np.int64, np.bool_]),
        arrays_of.array_shapes(min_dims=0, min_side=0),
    )
)
def test_any_array_comes_back(tmp_path_factory, array):
    directory = CheckpointDirectory(str(tmp_path_factory.mktemp("any")))
    directory.write(Checkpoint(0, {"a": array}, {}))
    assert directory.read(0).variables["a"].tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ["variables-00000.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_any_damage_is_noticed_and_the_one_before_is_taken(tmp_path, name, damage):
    directory = CheckpointDirectory(str(tmp_path))
    for step in (1, 2):
        directory.write(checkpoint(step))
    path = tmp_path / "step-0000000002" / name
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        half = len(content) // 2
        path.write_bytes(
            content[:half]
            if damage == "cut"
            else content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        )
    newest, problems = directory.newest()
    assert newest.step == 1
    if (name, damage) == ("manifest.json", "remove"):
        assert problems == []  # no checkpoint at all
        assert directory.delete_unfinished() == [2]
    else:
        assert len(problems) == 1
        assert "step-0000000002" in problems[0]
        with pytest.raises(CorruptCheckpointError):
            directory.read(2)


def test_the_manifest_is_written_last_and_deleted_first(tmp_path, monkeypatch):
    """A crash at any file operation leaves the checkpoint before as it was."""
    import tensorflow as tf

    directory = CheckpointDirectory(str(tmp_path))
    directory.write(checkpoint(1))
    calls = 0

    class Crash(Exception):
        pass

    def crashing(operation, at):
        def wrapped(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls == at:
                raise Crash
            return operation(*arguments, **keywords)

        return wrapped

    survived = []
    for at in range(1, 12):
        calls = 0
        with monkeypatch.context() as patch:
            for name in ("GFile", "rename", "makedirs", "remove", "rmtree"):
                patch.setattr(tf.io.gfile, name, crashing(getattr(tf.io.gfile, name), at))
            try:
                directory.write(checkpoint(2))
                directory.delete(2)
            except Crash:
                pass
        newest, problems = directory.newest()
        survived.append(newest.step)
        assert problems == []
        directory.delete(2)
    assert set(survived) == {1, 2}


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (KeepPolicy(last=2, best=False), {9, 10}),
        (KeepPolicy(last=1, every_steps=4, best=False), {4, 8, 10}),
        (KeepPolicy(last=1, best=True), {3, 10}),
        (KeepPolicy(last=0, best=False), {10}),
    ],
)
def test_what_the_policy_keeps(tmp_path, policy, kept):
    directory = CheckpointDirectory(str(tmp_path))
    for step in range(1, 11):
        directory.write(checkpoint(step, loss=abs(step - 3.2) if step < 8 else None))
    deleted = directory.prune(policy, 10, frozenset({5}))
    assert set(directory.steps()) == kept | {5}
    assert set(deleted) | kept | {5} == set(range(1, 11))
    assert {p.name for p in tmp_path.iterdir()} == {f"step-{s:010d}" for s in kept | {5}}


def test_corrupt_steps_push_no_sound_one_out(tmp_path):
    directory = CheckpointDirectory(str(tmp_path))
    for step in (3, 8, 9, 4):
        directory.write(checkpoint(step, loss=1.0))
    for step in (3, 8, 9):
        (tmp_path / f"step-{step:010d}" / "state.json").write_text("{}")
    assert directory.prune(KeepPolicy(last=2), 4) == [8, 9]
    assert directory.steps() == [3, 4]


def test_a_step_is_written_anew_in_place(tmp_path):
    directory = CheckpointDirectory(str(tmp_path))
    directory.write(Checkpoint(1, {"a": np.zeros(3), "b": np.zeros(3)}, {"n": 1}))
    directory.write(Checkpoint(1, {"a": np.ones(3)}, {"n": 2}))
    assert list(directory.read(1).variables) == ["a"]
    assert json.loads((tmp_path / "step-0000000001" / "state.json").read_text()) == {"n": 2}
