"""A file that says that this process lives, written by a process of its own.

    python -m tokenmill.heartbeat PATH ATTEMPT BEAT_SECONDS PARENT

A thread would fall silent while a C call holds Python's GIL, as for minutes in the data steps. The
reader compares no clocks: a file that it has seen change is of one who lives.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

from tokenmill.contracts.base import Document, key, read_document, write_document
from tokenmill.preemption import exit_code_of

BEAT_SECONDS = 2.0  # an object store takes about one write a second of the same object


class Heartbeat(Document):
    """The file: who writes it, how often it was written, and how the process ended."""

    attempt: str = key("Of the process, another one each time it starts.")
    beat: int = key("How often this attempt has written the file.", ge=0)
    exit_code: int | None = key("With which it ended; absent while it lives.", default=None)


@contextlib.contextmanager
def beat_heart(path: str, beat_seconds: float = BEAT_SECONDS) -> Iterator[str]:
    """Write the file again and again while the body runs, at last with an exit code.

    Args:
        path: The file.
        beat_seconds: How often it is written.

    Yields:
        The attempt.
    """
    attempt = uuid.uuid4().hex
    _write(path, Heartbeat(attempt=attempt, beat=0))
    words = [path, attempt, str(beat_seconds), str(os.getpid())]
    # A session of its own: Ctrl-C is not for it.
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenmill.heartbeat", *words],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    code = 0
    try:
        yield attempt
    except BaseException as error:
        code = exit_code_of(error)
        raise
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # a file system that hangs
            process.kill()
            process.wait()
        _write(path, Heartbeat(attempt=attempt, beat=0, exit_code=code))


class HeartbeatWatch:
    """What a reader has seen of a heartbeat.

    Args:
        path: The file.
    """

    def __init__(self, path: str):
        self._path = path
        self._last = self._read()
        self._changed_at: float | None = None

    def look(self) -> Heartbeat | None:
        """Return what was written by one who lives, or lived when last looked at; else None."""
        now = self._read()
        if now is not None and now != self._last:
            # One that only ended says nothing to a reader who never saw it live.
            if now.exit_code is None or self._changed_at is not None:
                self._changed_at = time.monotonic()
            self._last = now
        return self._last if self._changed_at is not None else None

    @property
    def silent_seconds(self) -> float:
        """Seconds since it was seen to change; 0 if it never was."""
        return 0.0 if self._changed_at is None else time.monotonic() - self._changed_at

    def _read(self) -> Heartbeat | None:
        try:
            return read_document(self._path, Heartbeat)
        except OSError:  # not there, or a network's file system that does not answer
            return None


def _write(path: str, heartbeat: Heartbeat) -> None:
    try:
        write_document(path, heartbeat)
    except OSError:  # the next one may get through
        logging.warning("cannot write %s", path, exc_info=True)


def main() -> None:
    """Beat until the parent has ended, or says so by SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # never in the middle of a write
    path, attempt, seconds, parent = sys.argv[1:]
    beat = 1
    while os.getppid() == int(parent):
        _write(path, Heartbeat(attempt=attempt, beat=beat))
        beat += 1
        if signal.sigtimedwait([signal.SIGTERM], float(seconds)):
            break


if __name__ == "__main__":
    main()
