"""The end of a process whose native libraries abort in a destructor."""

import os
import signal
import subprocess
import sys

import pytest
from aborting_destructors import aborting

SCRIPT = """
import atexit, sys, threading, time
from tokenmill.process_end import end_without_destructors

def work():
    atexit.register(lambda: print("handler"))
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    print("worked")
    {end}

if {ours}:
    end_without_destructors(work)
else:
    work()
"""


def run(directory, end="", ours=True, **options):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=end, ours=ours)],
        env={**os.environ, **aborting(directory)},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_without_it_a_destructor_makes_a_failure_of_work_that_is_done(tmp_path):
    result = run(tmp_path, ours=False)
    assert result.returncode == -signal.SIGABRT
    assert "worked" in result.stdout


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit()", 0),
        ("sys.exit(0)", 0),
        ("sys.exit(75)", 75),
        ("sys.exit('no')", 1),
        ("raise ValueError('no')", 1),
    ],
)
def test_the_exit_code_is_the_works_and_handlers_and_threads_are_waited_for(tmp_path, end, code):
    result = run(tmp_path, end)
    assert (result.returncode, result.stdout) == (code, "worked\nthread\nhandler\n")
    assert result.stderr.count("no") == ("no" in end)


def test_an_interrupt_ends_the_process_as_ever(tmp_path):
    interrupt = "import signal; signal.raise_signal(signal.SIGINT)"
    plain = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=interrupt, ours=False)],
        capture_output=True,
        check=False,
    )
    ours = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=interrupt, ours=True)],
        capture_output=True,
        check=False,
    )
    assert ours.returncode == plain.returncode == -signal.SIGINT


def test_what_cannot_be_written_at_the_end_is_no_success(tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", SCRIPT.format(end="", ours=True)]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        result = subprocess.run(
            command, stdout=full, stderr=subprocess.DEVNULL, env=environment, check=False
        )
    assert result.returncode == 120


def test_the_command_line_ends_so(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "plan", "--help"],
        env={**os.environ, **aborting(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage" in result.stdout
