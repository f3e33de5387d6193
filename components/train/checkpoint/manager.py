"""When to save, and the thread that writes while training goes on."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from components.train.checkpoint.store import Checkpoint, CheckpointDirectory, KeepPolicy
from components.train.config import ExecutionConfig
from tokenmill import progress
from tokenmill.cost.pricing import daly_interval_seconds
from tokenmill.errors import TokenmillError

# Before the first save has been timed: a plain disk's rate.
_ASSUMED_BYTES_PER_SECOND = 200e6
_FAILURES_TO_STOP = 3
_SECONDS_PER_HOUR = 3600.0


class CheckpointSchedule:
    """Says when the next checkpoint is due.

    Args:
        execution: Fixed steps, fixed seconds, or the mean time between failures.
        bytes_each: Size of a checkpoint.
        now: A clock in seconds.
    """

    def __init__(
        self, execution: ExecutionConfig, bytes_each: int, now: Callable[[], float] = time.monotonic
    ):
        self._execution, self._now = execution, now
        self.write_seconds = max(1e-3, bytes_each / _ASSUMED_BYTES_PER_SECOND)
        self._last = now()

    @property
    def interval_seconds(self) -> float | None:
        """Seconds between checkpoints; None if steps are counted instead."""
        execution = self._execution
        if execution.checkpoint_steps is not None:
            return None
        if execution.checkpoint_seconds is not None:
            return execution.checkpoint_seconds
        mtbf_seconds = execution.mtbf_hours * _SECONDS_PER_HOUR
        return daly_interval_seconds(self.write_seconds, mtbf_seconds)

    def due(self, step: int) -> bool:
        """Return whether to save after this many steps."""
        interval = self.interval_seconds
        if interval is None:
            return step % (self._execution.checkpoint_steps or 1) == 0
        return self._now() - self._last >= interval

    def saved(self) -> None:
        """Note that a checkpoint has just been taken."""
        self._last = self._now()


class CheckpointWriter:
    """Writes checkpoints one at a time in a thread of its own.

    A save that fails is told loudly and tried again at the next interval; training goes on. After
    three failures in a row it stops.

    Args:
        directory: Where to.
        keep: Which ones stay after each save.
        on_written: Told of each save: step, bytes, seconds.
    """

    def __init__(
        self,
        directory: CheckpointDirectory,
        keep: KeepPolicy,
        on_written: Callable[[int, int, float], None],
    ):
        self._directory, self._keep, self._on_written = directory, keep, on_written
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None
        self._failures = 0

    @property
    def busy(self) -> bool:
        """Whether a save is under way."""
        return self._pending is not None and not self._pending.done()

    def submit(self, checkpoint: Checkpoint, protected: frozenset[int] = frozenset()) -> None:
        """Start to write a checkpoint; wait first for an earlier one that is still being written.

        Args:
            checkpoint: Arrays that nobody changes any more.
            protected: Steps that stay whatever the policy says.

        Raises:
            TokenmillError: Three saves in a row have failed.
        """
        self.wait()
        self._pending = self._executor.submit(self._write, checkpoint, protected)

    def wait(self) -> bool:
        """Wait for the save under way; return whether the last one succeeded.

        Raises:
            TokenmillError: Three saves in a row have failed.
        """
        if self._pending is None:
            return self._failures == 0
        error, self._pending = self._pending.exception(), None
        if error is None:
            self._failures = 0
            return True
        self._failures += 1
        message = f"a checkpoint could not be written to {self._directory.directory}: {error}"
        logging.error(message)
        progress.say(message)
        if self._failures >= _FAILURES_TO_STOP:
            raise TokenmillError(
                f"{_FAILURES_TO_STOP} checkpoints in a row could not be written to "
                f"{self._directory.directory}: {error}",
                "Make room or repair the file system, then run again.",
            ) from error
        return False

    def close(self) -> None:
        """Wait for a save under way and end the thread."""
        self._executor.shutdown(wait=True)

    def _write(self, checkpoint: Checkpoint, protected: frozenset[int]) -> None:
        started = time.perf_counter()
        size = self._directory.write(checkpoint)
        seconds = time.perf_counter() - started
        self._directory.prune(self._keep, checkpoint.step, protected)
        self._on_written(checkpoint.step, size, seconds)
