import numpy as np
import pytest

from components.train.checkpoint.manager import CheckpointSchedule, CheckpointWriter
from components.train.checkpoint.store import Checkpoint, CheckpointDirectory, KeepPolicy
from components.train.execution import Execution, read_execution
from tokenmill import progress
from tokenmill.cost.pricing import daly_interval_seconds
from tokenmill.errors import TokenmillError


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def due_times(options, write_seconds, until):
    clock = Clock()
    schedule = CheckpointSchedule(options, 1000, clock)
    schedule.write_seconds = write_seconds
    times = []
    for step in range(1, until + 1):
        clock.seconds += 1.0
        if schedule.due(step):
            times.append(step)
            schedule.saved()
    return times


def test_the_interval_is_dalys_for_the_measured_write():
    options = Execution(mtbf_hours=2.0)
    interval = daly_interval_seconds(0.5, 7200.0)
    times = due_times(options, 0.5, 1000)
    assert np.diff([0, *times]).tolist() == [int(np.ceil(interval))] * len(times)
    assert due_times(options, 8.0, 1000)[0] > times[0]  # slow writes come seldom


def test_fixed_steps_and_seconds():
    assert due_times(Execution(checkpoint_steps=30), 1.0, 100) == [30, 60, 90]
    assert due_times(Execution(checkpoint_seconds=40.0), 1.0, 100) == [40, 80]


def test_a_failed_save_is_told_and_training_goes_on_for_a_while(tmp_path):
    (tmp_path / "file").write_text("where a directory should be")
    heard = []
    progress.set_listener(None, heard.append)
    writer = CheckpointWriter(
        CheckpointDirectory(str(tmp_path / "file" / "below")), KeepPolicy(1), lambda *_: None
    )
    one = Checkpoint(1, {"a": np.zeros(2)}, {"record": {"evaluations": []}})
    try:
        writer.submit(one)
        assert writer.wait() is False
        assert "could not be written" in heard[0]
        writer.submit(one)
        assert writer.wait() is False
        writer.submit(one)
        with pytest.raises(TokenmillError, match="3 checkpoints in a row"):
            writer.wait()
    finally:
        progress.set_listener(None)
        writer.close()


def test_the_execution_comes_back_from_their_file(tmp_path):
    options = Execution(checkpoint_steps=3, profile_steps=(2, 4), fresh=True)
    options.write(str(tmp_path))
    assert read_execution(str(tmp_path)) == options
    assert read_execution(str(tmp_path / "nowhere")) == Execution()
