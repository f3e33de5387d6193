"""A process of our own ends when it shall, also in the middle of a call into C."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tokenmill.preemption import StoppedError
from tokenmill.run_in_subprocess import run_in_subprocess


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    paths = (os.path.dirname(__file__), os.environ.get("PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


PARENT = """
import sys
from tokenmill.run_in_subprocess import run_in_subprocess
run_in_subprocess("held_in_subprocess." + sys.argv[1], "it", "", path=sys.argv[2])
"""


def child_of(function, path, **options):
    """Starts a process with one in it; returns it, and the pid of the inner one."""
    words = [sys.executable, "-c", PARENT, function, str(path)]
    process = subprocess.Popen(words, **options)
    return process, int(wait_until(lambda: path.exists() and path.read_text()))


def ended(pid):
    return not os.path.exists(f"/proc/{pid}") or "Z (zombie)" in open(f"/proc/{pid}/status").read()


def test_the_process_dies_with_its_parent_even_where_it_holds_the_gil(tmp_path):
    parent, pid = child_of("hold_the_gil", tmp_path / "pid")
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    wait_until(lambda: ended(pid), 5.0)


@pytest.mark.parametrize("function", ["hold_the_gil", "wait_killable"])
def test_signals_end_a_process_that_holds_the_gil(tmp_path, function):
    """At the first one where it is `killable`, at the second everywhere."""
    parent, pid = child_of(function, tmp_path / "pid", stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    parent.send_signal(signal.SIGTERM)
    if function == "hold_the_gil":
        time.sleep(1.0)
        assert parent.poll() is None
        parent.send_signal(signal.SIGTERM)
    assert "it was ended by SIGTERM" in parent.communicate(timeout=10)[1]
    assert ended(pid)


def test_a_wait_for_others_has_an_end(tmp_path):
    with pytest.raises(StoppedError, match="waited too long for the others") as caught:
        run_in_subprocess("held_in_subprocess.wait_killable", "it", "", path="/dev/null", seconds=1)
    assert caught.value.exit_code == 75


def test_a_background_job_ignores_ctrl_c_and_heeds_sigterm(tmp_path):
    """SIGINT is ignored from the start in each background job of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        parent, pid = child_of("wait_killable", tmp_path / "pid", stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    parent.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert parent.poll() is None
    parent.send_signal(signal.SIGTERM)
    assert "it was ended by SIGTERM" in parent.communicate(timeout=10)[1]
    assert ended(pid)
