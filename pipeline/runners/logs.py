"""A quiet screen: whatever the libraries print goes to the run's log file."""

import os
import sys
from typing import NamedTuple, TextIO

LOG_NAME = "tokenmill.log"
REPORT_NAME = "report.json"
"""Its numbers, beside the log."""


class Terminal(NamedTuple):
    """The process's own standard output and standard error."""

    out: TextIO
    err: TextIO


def send_output_to_log(path: str) -> Terminal:
    """Send file descriptors 1 and 2 to the log; return streams to where they went.

    TensorFlow, gRPC and XLA write to the descriptors from C++, so redirecting `sys.stderr` would
    not silence them. It is for the rest of the process: TensorFlow complains at exit, too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # By lines: through a pipe, too, a step's line is to be seen when the step is done.
    terminal = Terminal(
        *(os.fdopen(os.dup(fd), "w", buffering=1, encoding="utf-8", errors="replace")
          for fd in (1, 2))
    )  # fmt: skip
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return terminal
