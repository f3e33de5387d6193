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
EXIT_FAILED = 1


class StoppedError(TokenmillError):
    """The run was asked to stop, or lost a worker; the same command continues it.

    Attributes:
        exit_code: For the process: 75 after SIGTERM or the loss of a worker, 130 after Ctrl-C.
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = EXIT_PREEMPTED):
        super().__init__(message, hint)
        self.exit_code = exit_code


def exit_code_of(error: BaseException) -> int:
    """Return the code with which a process ends for an error, or for what caused it."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    codes = [getattr(each, "exit_code", None) for each in (error, error.__cause__)]
    return next((code for code in codes if code is not None), EXIT_FAILED)


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt no Exception, which libraries catch and go on."""


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
        return StoppedError(what + where, "The same command continues from there.", code)


def handled_signals() -> list[signal.Signals]:
    """Return the signals that this thread may give handlers: none, but in the main thread.

    SIGINT is not among them where it is ignored, as in the background jobs of a script: Ctrl-C is
    not for these.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    numbers = (signal.SIGTERM, signal.SIGINT)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the body, the first SIGTERM or SIGINT asks to stop, the second does what it did.

    Only the main thread gets signals; elsewhere the request stays empty.
    """
    request = StopRequest()
    before: dict[signal.Signals, Any] = {}

    def ask(number, frame):
        request.signal = signal.Signals(number)
        signal.signal(number, before[request.signal])
        progress.say(f"{request.signal.name}: saving after this step (again: stop at once)")

    for number in handled_signals():
        before[number] = signal.getsignal(number)
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the body, the first SIGTERM or SIGINT ends it, the second does what it did before.

    A run's process may be the first of a container, in which a signal without a handler is lost.

    Raises:
        StoppedError: SIGTERM came, whatever libraries have made of the exception.
        KeyboardInterrupt: SIGINT came.
    """
    got: list[signal.Signals] = []
    before: dict[signal.Signals, Any] = {}

    def end(number: int, frame: Any) -> None:
        got.append(signal.Signals(number))
        signal.signal(number, before[got[-1]])
        raise (KeyboardInterrupt if number == signal.SIGINT else Terminated)(got[-1].name)

    for each in handled_signals():
        before[each] = signal.getsignal(each)
        signal.signal(each, end)
    try:
        yield
    except BaseException as error:
        if not got:
            raise
        if got[0] == signal.SIGINT:
            raise KeyboardInterrupt from error
        raise StoppedError(
            "the run was stopped by SIGTERM.",
            "The same command continues after the last step that was done.",
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def killable(seconds: int) -> Iterator[None]:
    """Within the body, SIGTERM, SIGINT and a time limit end the process at once.

    For a call into C that keeps Python's GIL, in which no handler of Python's would run. What
    started the process makes a sentence of its end (tokenmill/run_in_subprocess.py).

    Args:
        seconds: The time limit, after which the process ends by SIGALRM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
