"""The command line in a process of its own, as a user has it."""

import os
import subprocess
import sys


def tokenmill(*arguments, timeout=120):
    """Run a command on a terminal of 100 columns; it never shows a stack trace."""
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert "Traceback" not in result.stdout + result.stderr
    return result
