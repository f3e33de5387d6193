"""What test_run_in_subprocess.py has called in another process: calls that keep Python's GIL."""

import ctypes
import os
import signal

from tokenmill.preemption import killable


def hold_the_gil(path, start_seconds):
    """Leaves its pid; signals do nothing and no thread of Python's runs for a minute."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    _sleep(path)
    return {}


def wait_killable(path, start_seconds, seconds=60):
    """The same, where signals and a time limit end it."""
    with killable(seconds):
        _sleep(path)
    return {}


def _sleep(path):
    with open(path, "w", encoding="ascii") as out:
        out.write(str(os.getpid()))
    # A signal ends one sleep, but no wait in C++.
    for _ in range(600):
        ctypes.PyDLL(None).usleep(100_000)
