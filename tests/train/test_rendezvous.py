"""Chief and workers find each other, late, killed or started again."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from components.train.config import TrainConfig, TrainingJob
from components.train.distributed import rendezvous
from components.train.distributed.rendezvous import (
    CHIEF_NAME,
    RENDEZVOUS_NAME,
    Rendezvous,
    call_workers,
    show_life,
    wait_for_chief,
    wait_for_workers,
)
from tokenmill.errors import TokenmillError
from tokenmill.heartbeat import beat_heart
from tokenmill.model.shape import ModelShape
from tokenmill.preemption import StoppedError

POLL_SECONDS = 0.02
SHAPE = ModelShape(
    layers=1, d_model=8, heads=1, d_ff=8, vocab_size=9, sequence_length=8, positions="rope",
    norm="rms", use_bias=False, mlp="gelu", tie_embeddings=True,
)  # fmt: skip


@pytest.fixture(autouse=True)
def fast_beats(monkeypatch):
    monkeypatch.setattr(rendezvous, "beat_heart", lambda path: beat_heart(path, beat_seconds=0.05))


@pytest.fixture
def three(monkeypatch):
    """A chief and two workers, as the chief's TF_CONFIG names them."""
    cluster = {"chief": ["c:1"], "worker": ["w:1", "w:2"]}
    config = {"cluster": cluster, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


def of(rows_uri):
    job = TrainingJob(shape=SHAPE, train=TrainConfig(), seed=1)
    return Rendezvous(job=job, rows_uri=rows_uri, tokenizer_path="tokenizer.model")


class Worker(threading.Thread):
    """A worker that waits; what it was told, or why it went."""

    def __init__(self, directory, index=1, wait_seconds=20.0, silent_seconds=10.0):
        super().__init__(daemon=True)
        self.arguments = (str(directory), index, wait_seconds, silent_seconds, POLL_SECONDS)
        self.error = self.told = None
        self.start()

    def run(self):
        try:
            self.told = wait_for_chief(*self.arguments)
        except TokenmillError as error:
            self.error = error

    def end(self):
        self.join(30.0)
        assert not self.is_alive()
        return self.told and self.told.rows_uri


def written(directory):
    return json.loads((directory / CHIEF_NAME).read_text())


def wait_for_a_beat(directory):
    """Its process takes a moment to start."""
    while not written(directory)["beat"]:
        time.sleep(0.05)
    return written(directory)


def wait_for_others(directory, wait_seconds=20.0):
    wait_for_workers(str(directory), wait_seconds, POLL_SECONDS)


def test_workers_that_come_before_and_after_the_call_hear_it(tmp_path, three):
    early = Worker(tmp_path, 1)
    time.sleep(5 * POLL_SECONDS)
    with call_workers(str(tmp_path), of("new")):
        with pytest.raises(StoppedError, match=r"worker 2 of 3 did not come within 1 s") as caught:
            wait_for_others(tmp_path, 1.0)
        assert caught.value.exit_code == 75
        assert early.is_alive(), "a worker must not join before the other is there"
        late = Worker(tmp_path, 2)
        wait_for_others(tmp_path)
        assert (early.end(), late.end()) == ("new", "new")
    assert [path.name for path in tmp_path.iterdir()] == [CHIEF_NAME]


def test_the_call_of_a_killed_chief_is_not_answered(tmp_path, three):
    with call_workers(str(tmp_path), of("old")):
        call, life = (tmp_path / RENDEZVOUS_NAME).read_text(), (tmp_path / CHIEF_NAME).read_text()
    (tmp_path / RENDEZVOUS_NAME).write_text(call.replace('"complete": false', '"complete": true'))
    (tmp_path / CHIEF_NAME).write_text(life)
    workers = [Worker(tmp_path, 1), Worker(tmp_path, 2)]
    time.sleep(10 * POLL_SECONDS)
    assert all(worker.is_alive() for worker in workers)
    with call_workers(str(tmp_path), of("new")):
        wait_for_others(tmp_path)
        assert [worker.end() for worker in workers] == ["new", "new"]


def test_a_worker_waits_as_long_as_the_chief_lives(tmp_path, three):
    """Longer than for the first sign of life: data steps may take a day."""
    with show_life(str(tmp_path)):
        wait_for_a_beat(tmp_path)
        workers = [Worker(tmp_path, i, wait_seconds=2.0) for i in (1, 2)]
        time.sleep(3.0)
        assert all(worker.is_alive() for worker in workers)
        with call_workers(str(tmp_path), of("new")):
            wait_for_others(tmp_path)
            assert [worker.end() for worker in workers] == ["new", "new"]


@pytest.mark.parametrize(("error", "code"), [(None, 0), (StoppedError("x"), 75), (OSError, 1)])
def test_a_worker_ends_as_the_chief_that_ends_before_the_training(tmp_path, three, error, code):
    with contextlib.suppress(TokenmillError, OSError), show_life(str(tmp_path)):
        wait_for_a_beat(tmp_path)
        worker = Worker(tmp_path)
        time.sleep(1.0)
        if error is not None:
            raise error
    assert worker.end() is None
    assert (worker.error.exit_code if code else worker.error or 0) == code


CHIEF = """
import sys, time
from components.train.distributed.rendezvous import show_life
with show_life(sys.argv[1]):
    print("alive", flush=True)
    time.sleep(600)
"""


def test_a_chief_that_is_killed_is_missed(tmp_path):
    chief = subprocess.Popen([sys.executable, "-c", CHIEF, tmp_path], stdout=subprocess.PIPE)
    chief.stdout.readline()
    worker = Worker(tmp_path, silent_seconds=5.0)
    time.sleep(3.0)
    chief.send_signal(signal.SIGKILL)
    chief.wait()
    chief.stdout.close()
    worker.end()
    assert "silent for 5 s" in worker.error.message
    assert worker.error.exit_code == 75
    life = (tmp_path / CHIEF_NAME).read_text()
    time.sleep(2.5)
    assert (tmp_path / CHIEF_NAME).read_text() == life  # nobody beats for the dead


def test_no_chief_is_one_message(tmp_path):
    with pytest.raises(StoppedError, match=r"no chief has come within 0 s: chief.json") as caught:
        wait_for_chief(str(tmp_path), 1, 0.1, 0.1, POLL_SECONDS)
    assert caught.value.exit_code == 75


def test_a_beat_goes_on_while_the_gil_is_held(tmp_path):
    """A C function through PyDLL keeps it, as tf.distribute does while it waits."""
    with show_life(str(tmp_path)):
        before = wait_for_a_beat(tmp_path)
        started = time.monotonic()
        ctypes.PyDLL(None).usleep(900_000)
        ctypes.PyDLL(None).usleep(900_000)
        assert time.monotonic() - started > 1.5
        after = written(tmp_path)
    assert after["attempt"] == before["attempt"]
    assert after["beat"] >= before["beat"] + 3
    assert written(tmp_path)["exit_code"] == 0
    assert os.listdir(tmp_path) == [CHIEF_NAME]
