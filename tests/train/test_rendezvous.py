"""A worker follows the chief that is there, not one that is gone."""

import json
import threading
import time

import pytest

from components.train.config import TrainConfig, TrainingJob
from components.train.distributed.rendezvous import (
    RENDEZVOUS_NAME,
    Rendezvous,
    hold_rendezvous,
    wait_for_chief,
)
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape

POLL_SECONDS = 0.02
SHAPE = ModelShape(
    layers=1, d_model=8, heads=1, d_ff=8, vocab_size=9, sequence_length=8, positions="rope",
    norm="rms", use_bias=False, mlp="gelu", tie_embeddings=True,
)  # fmt: skip


def of(rows_uri):
    job = TrainingJob(shape=SHAPE, train=TrainConfig(), seed=1)
    return Rendezvous(job=job, rows_uri=rows_uri, tokenizer_path="tokenizer.model")


class Waiting(threading.Thread):
    """A worker that waits; what it was told."""

    def __init__(self, directory, wait_seconds=10.0):
        super().__init__(daemon=True)
        self.directory, self.wait_seconds, self.told = str(directory), wait_seconds, None
        self.start()

    def run(self):
        self.told = wait_for_chief(self.directory, self.wait_seconds, POLL_SECONDS)

    def end(self):
        self.join(5.0)
        return self.told and self.told.rows_uri


def killed_chief(directory, job):
    """Leaves what a chief leaves that gets no chance to clean up."""
    with hold_rendezvous(str(directory), of(job)):
        text = (directory / RENDEZVOUS_NAME).read_text()
    (directory / RENDEZVOUS_NAME).write_text(text)


def test_a_worker_that_waits_first_hears_the_chief(tmp_path):
    worker = Waiting(tmp_path)
    time.sleep(5 * POLL_SECONDS)
    with hold_rendezvous(str(tmp_path), of("new"), beat_seconds=60.0):
        assert worker.end() == "new"


def test_a_worker_that_comes_later_hears_the_chief_too(tmp_path):
    with hold_rendezvous(str(tmp_path), of("new"), beat_seconds=0.1):
        assert Waiting(tmp_path).end() == "new"


def test_the_job_of_a_killed_chief_is_not_taken_up(tmp_path):
    killed_chief(tmp_path, "old")
    worker = Waiting(tmp_path)
    time.sleep(10 * POLL_SECONDS)
    assert worker.told is None
    with hold_rendezvous(str(tmp_path), of("new"), beat_seconds=60.0):
        assert worker.end() == "new"


def test_the_same_job_again_is_a_new_one(tmp_path):
    killed_chief(tmp_path, "same")
    worker = Waiting(tmp_path)
    time.sleep(5 * POLL_SECONDS)
    with hold_rendezvous(str(tmp_path), of("same"), beat_seconds=60.0):
        assert worker.end() == "same"


def test_nothing_is_left_at_the_end_also_after_an_error(tmp_path):
    def fail():
        with hold_rendezvous(str(tmp_path), of("new"), beat_seconds=0.01):
            time.sleep(0.05)
            assert json.loads((tmp_path / RENDEZVOUS_NAME).read_text())["beat"] > 0
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("left", "words"), [(False, "no .*rendezvous.json, after"), (True, "is gone")]
)
def test_no_chief_is_one_message(tmp_path, left, words):
    if left:
        killed_chief(tmp_path, "old")
    with pytest.raises(TokenmillError, match=words):
        wait_for_chief(str(tmp_path), 0.1, POLL_SECONDS)
