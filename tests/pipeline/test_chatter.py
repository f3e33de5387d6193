"""The filter of standard error: it drops what TensorFlow chats from C++, and nothing else."""

import subprocess
import sys

import pytest

# As TensorFlow 2.21 writes it, without and with a GPU driver.
CHATTER = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795908758.447226   17076 port.cc:153] oneDNN custom operations are on.
W0000 00:00:1795908758.447581   17076 gpu_device.cc:2431] Cannot dlopen some GPU libraries.
E0000 00:00:1795908758.447581   17076 cuda_platform.cc:51] failed call to cuInit: INTERNAL: 303
E0000 00:00:1795908758.447581   17076 cuda_dnn.cc:8310] Unable to register cuDNN factory
normalizer.cc(51) LOG(INFO) precompiled_charsmap is empty. use identity normalization.
"""
TOLD = """\
E0000 00:00:1795908758.447581   17076 bfc_allocator.cc:9] out of memory \udcff
F0000 00:00:1795908758.447581   17076 cpu_feature_guard.cc:7] compiled to use AVX instructions
{"event": "listening"}
I wonder
trainer_interface.cc(9) LOG(ERROR) Too few sentences are loaded!
"""
PROGRAM = """
import os, sys
from pipeline.cli.errors import user_errors
from tokenmill.errors import TokenmillError
with user_errors():
    os.write(2, os.fsencode(sys.argv[1]))
    {end}
"""


def run(end, **environment):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end), CHATTER + TOLD],
        capture_output=True, text=True, errors="surrogateescape", check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("end", "code", "last"),
    [
        ("pass", 0, ""),
        ("os.abort()", -6, ""),
        ("raise TokenmillError('no model.', 'Run.')", 1, "error: no model.\nRun.\n"),
    ],
    ids=["end", "crash", "error"],
)
def test_errors_reach_the_terminal_and_chatter_does_not(end, code, last):
    result = run(end)
    assert (result.returncode, result.stderr) == (code, TOLD + last)


def test_all_is_shown_to_who_asks_for_it():
    assert run("pass", TF_CPP_MIN_LOG_LEVEL="0").stderr == CHATTER + TOLD


def test_a_machine_without_grep_has_it_all():
    assert run("pass", PATH="/nowhere").stderr == CHATTER + TOLD


def test_an_error_is_told_when_grep_was_killed():
    """By the kernel for want of memory, say."""
    end = """
    import contextlib, psutil
    (grep,) = psutil.Process().children()
    grep.kill()
    grep.wait()
    with contextlib.suppress(BrokenPipeError):
        print("waiting", file=sys.stderr)
    raise TokenmillError("no model.", "Run.")"""
    result = run(end)
    assert result.returncode == 1
    assert result.stderr.endswith("waiting\nerror: no model.\nRun.\n")
