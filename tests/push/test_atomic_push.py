import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest
import tensorflow as tf
from tfx.components.pusher import executor as tfx_executor
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components.push.component import AtomicPusherExecutor
from components.push.config import PushConfig
from tokenmill.errors import TokenmillError


class Push:
    """A model, its blessing and a serving directory, all on disk."""

    def __init__(self, base):
        self.directory = base / "serving"
        serving = base / "model" / "Format-Serving"
        (serving / "variables").mkdir(parents=True)
        (serving / "saved_model.pb").write_bytes(b"graph")
        (serving / "variables" / "variables.index").write_bytes(b"index")
        self.model, self.pushed = standard_artifacts.Model(), standard_artifacts.PushedModel()
        self.blessing = standard_artifacts.ModelBlessing()
        self.model.uri, self.pushed.uri = str(base / "model"), str(base / "pushed")
        self.bless(True)

    def bless(self, blessed):
        self.blessing.set_int_custom_property("blessed", int(blessed))

    def __call__(self, infra_validator="off", max_check_seconds=120.0):
        config = PushConfig(infra_validator=infra_validator, max_check_seconds=max_check_seconds)
        destination = pusher_pb2.PushDestination()
        destination.filesystem.base_directory = str(self.directory)
        AtomicPusherExecutor().Do(
            {"model": [self.model], "model_blessing": [self.blessing]},
            {"pushed_model": [self.pushed]},
            {
                "push_destination": proto_utils.proto_to_json(destination),
                "custom_config": json.dumps({"push": config.to_json()}),
            },
        )

    def listing(self):
        return sorted(os.listdir(self.directory)) if self.directory.exists() else []


@pytest.fixture
def push(tmp_path):
    return Push(tmp_path)


def test_a_blessed_model_becomes_a_numbered_version(push):
    push()
    (version,) = push.listing()
    assert version.isdigit()
    target = push.directory / version
    assert (target / "saved_model.pb").read_bytes() == b"graph"
    assert (target / "variables" / "variables.index").read_bytes() == b"index"
    assert push.pushed.get_int_custom_property("pushed") == 1
    assert push.pushed.get_string_custom_property("pushed_version") == version
    assert push.pushed.get_string_custom_property("pushed_destination") == str(target)


def test_an_unblessed_model_leaves_nothing(push):
    push.bless(False)
    push()
    assert push.listing() == []
    assert push.pushed.get_int_custom_property("pushed") == 0


def test_earlier_versions_stay(push):
    earlier = push.directory / "17"
    earlier.mkdir(parents=True)
    (earlier / "saved_model.pb").write_bytes(b"old")
    push()
    assert len(push.listing()) == 2
    assert (earlier / "saved_model.pb").read_bytes() == b"old"


KILLED = """
import os, signal, sys
from components.push.publish import temporary_directory
with temporary_directory(sys.argv[1]) as path:
    open(os.path.join(path, "half"), "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("blessed", [True, False])
def test_what_a_killed_push_left_is_cleaned_up(push, blessed):
    child = subprocess.run(
        [sys.executable, "-c", KILLED, push.directory], check=False, capture_output=True
    )
    assert child.returncode == -9, child.stderr
    (left,) = (push.directory / ".pushing").iterdir()
    assert (left / "half").exists()
    push.bless(blessed)
    push()
    assert [name for name in push.listing() if not name.isdigit()] == []
    assert len(push.listing()) == int(blessed)


def test_a_copy_that_fails_half_way_leaves_no_version(push, monkeypatch):
    copied = []

    def copy_then_fail(source, target, **_):
        os.makedirs(target)
        copied.append(target)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(tfx_executor.io_utils, "copy_dir", copy_then_fail)
        with pytest.raises(OSError, match="disk full"):
            push()
    assert copied
    assert not any(name.isdigit() for name in push.listing())
    push()  # the next push is not hindered
    (version,) = push.listing()
    assert version.isdigit()


def test_no_version_is_visible_while_files_are_copied(push, monkeypatch):
    seen = []
    copy_file = tfx_executor.io_utils.copy_file

    def copy_and_look(*args, **kwargs):
        seen.extend(push.listing())
        copy_file(*args, **kwargs)
        seen.extend(push.listing())

    monkeypatch.setattr(tfx_executor.io_utils, "copy_file", copy_and_look)
    push()
    assert set(seen) == {".pushing"}


def test_two_pushes_in_one_second_do_not_overwrite_each_other(push, monkeypatch):
    monkeypatch.setattr(tfx_executor.time, "time", lambda: 1_700_000_000.5)
    push()
    (push.directory / "1700000000" / "saved_model.pb").write_bytes(b"first")
    push()
    assert push.listing() == ["1700000000", "1700000001"]
    assert (push.directory / "1700000000" / "saved_model.pb").read_bytes() == b"first"
    assert push.pushed.get_string_custom_property("pushed_version") == "1700000001"


def test_a_push_is_newer_than_what_is_there_though_the_clock_went_back(push):
    (push.directory / "99999999999").mkdir(parents=True)
    (push.directory / ("9" * 20)).mkdir()  # no version
    push()
    assert "100000000000" in push.listing()
    (push.directory / str(2**63 - 1)).mkdir()
    with pytest.raises(TokenmillError, match="no number above the newest version"):
        push()
    assert push.pushed.get_int_custom_property("pushed") == 0


def test_pushes_at_once_publish_whole_models_under_numbers_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(tfx_executor.time, "time", lambda: 1_700_000_000.5)
    pushes, barrier = [], threading.Barrier(6)
    for i in range(6):
        push = Push(tmp_path / str(i))
        push.directory = tmp_path / "serving"
        served = tmp_path / str(i) / "model" / "Format-Serving"
        (served / "saved_model.pb").write_bytes(b"%d" % i)
        for part in range(20):
            (served / "variables" / f"part-{part:02}").write_bytes(b"%d" % i)
        pushes.append(push)

    def run(push):
        barrier.wait()
        push()

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        list(threads.map(run, pushes))
    pushed = [push.pushed.get_string_custom_property("pushed_destination") for push in pushes]
    assert sorted(pushed) == [str(tmp_path / "serving" / name) for name in pushes[0].listing()]
    for i, target in enumerate(map(pathlib.Path, pushed)):
        parts = [target / "saved_model.pb", *target.glob("variables/part-*")]
        assert [part.read_text() for part in parts] == [str(i)] * 21
        origin = json.loads((target / "assets.extra" / "origin.json").read_text())
        assert origin["version"] == target.name


def save_model(push, function):
    """A real SavedModel whose signature `score` is `function` of text."""
    module = tf.Module()
    module.score = tf.function(function, input_signature=[tf.TensorSpec([None], tf.string, "text")])
    tf.saved_model.save(
        module,
        os.path.join(push.model.uri, "Format-Serving"),
        signatures={"score": module.score.get_concrete_function()},
    )


def test_a_model_that_answers_is_pushed_with_its_timings(push):
    save_model(push, lambda text: {"bytes": tf.strings.length(text)})
    push("process")
    assert len(push.listing()) == 1
    found = json.loads(push.pushed.get_string_custom_property("model_check"))
    assert found["signatures"]["score"]["outputs"] == ["bytes"]
    assert found["seconds"]["load"] > 0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            lambda text: {"x": tf.strings.to_number(text)},
            "signature score: StringToNumber",
        ),
        (
            lambda text: {"x": tf.cast(tf.strings.length(text), tf.float32) * float("nan")},
            "signature score: x is not a number",
        ),
    ],
)
def test_a_model_that_fails_when_called_is_not_pushed(push, function, words):
    save_model(push, function)
    with pytest.raises(TokenmillError, match=words):
        push("process")
    assert [name for name in push.listing() if name.isdigit()] == []
    assert push.pushed.get_int_custom_property("pushed") == 0


def test_a_model_that_cannot_be_loaded_or_takes_too_long_is_not_pushed(push):
    with pytest.raises(TokenmillError, match="not pushed: the model fails in a fresh process"):
        push("process")  # saved_model.pb is no model
    with pytest.raises(
        TokenmillError, match=r"did not answer in 0\.01 s.*push\.max_check_seconds=0\.02"
    ):
        push("process", max_check_seconds=0.01)
    assert push.listing() == []
