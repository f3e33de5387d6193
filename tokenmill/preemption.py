"""SIGTERM and Ctrl-C: save, then end with a code that says what happened."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from tokenmill import progress
from tokenmill.errors import TokenmillError

# sysexits.h: "temporary failure, the user is invited to retry". Not 128 + 15: that is what a
# process looks like that was killed and has saved nothing.
EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130


class TrainingStoppedError(TokenmillError):
    """Training was asked to stop and has saved its state; the same command continues it.

    Attributes:
        exit_code: For the process: 75 after SIGTERM or the loss of a worker, 130 after Ctrl-C.
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = EXIT_PREEMPTED):
        super().__init__(message, hint)
        self.exit_code = exit_code


class StopRequest:
    """A request to stop after the next step, with its reason."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.reason: TokenmillError | None = None

    def __bool__(self) -> bool:
        return self.signal is not None or self.reason is not None

    def error(self, step: int, steps: int, saved: str) -> TokenmillError:
        """Return the error to raise once the state is saved.

        Args:
            step: Steps done.
            steps: Steps in all.
            saved: Where the state was saved; empty if nowhere.
        """
        if self.reason is not None:
            return self.reason
        what = f"training was stopped after step {step:,} of {steps:,}"
        what += f" by {self.signal.name}" if self.signal else " by another worker"
        where = f"; it is saved in {saved}." if saved else "; nothing was saved."
        code = EXIT_INTERRUPTED if self.signal == signal.SIGINT else EXIT_PREEMPTED
        return TrainingStoppedError(what + where, "The same command continues from there.", code)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the body, the first SIGTERM or SIGINT asks to stop, the second does what it did.

    Only the main thread gets signals; elsewhere the request stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before: dict[signal.Signals, Any] = {}

    def ask(number, frame):
        request.signal = signal.Signals(number)
        signal.signal(number, before[request.signal])
        progress.say(f"{request.signal.name}: saving after this step (again: stop at once)")

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.getsignal(number)
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
