"""The environment of lm-evaluation-harness: made once from a lock with hashes, then reused.

The harness needs other versions than TFX allows, so it has a virtual environment of its own, in the
user's cache directory, of the same Python as this process.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from data.cache import cache_directory
from tokenmill import progress
from tokenmill.errors import TokenmillError

_LOCK = Path(__file__).with_name("lm_eval.lock")
_ROOT = Path(__file__).parents[2]


def harness_python() -> str:
    """Return the Python that has lm-evaluation-harness, making its environment where it is missing.

    Raises:
        TokenmillError: It cannot be made, such as without a network.
    """
    directory = _environment_directory()
    if not directory.exists():
        progress.say(f"lm-evaluation-harness is installed into {directory} (once, some 0.6 GB)")
        _make(directory)
    return str(directory / "bin" / "python")


def _environment_directory() -> Path:
    """Return where the environment of this lock and this Python is."""
    python = sys.implementation.cache_tag  # such as cpython-310
    key = hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:12]
    return cache_directory() / f"lm_eval-{python}-{key}"


def harness_variables(**variables: str) -> dict[str, str]:
    """Return this process's environment variables without those that choose another Python.

    Args:
        **variables: Set beside them.
    """
    chooses = ("PYTHON", "VIRTUAL_ENV", "UV_PYTHON", "UV_SYSTEM_PYTHON", "PIP_USER", "PIP_TARGET")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(chooses)}
    return kept | variables


def _make(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.tmp")
    python = str(temporary / "bin" / "python")
    uv = _find_uv()
    try:
        if uv is not None:
            _run(directory, uv, "venv", "--quiet", "--python", sys.executable, str(temporary))
            options = ("--quiet", "--require-hashes", "--python", python)
            _run(directory, uv, "pip", "sync", *options, str(_LOCK))
        else:
            _run(directory, sys.executable, "-m", "venv", str(temporary))
            # Nothing beside the lock: pip takes typepy[datetime] for another package than typepy.
            options = ("--quiet", "--require-hashes", "--no-deps", "--disable-pip-version-check")
            _run(directory, python, "-m", "pip", "install", *options, "-r", str(_LOCK))
        # Its Python is called by its path alone, so that no file in it names the directory.
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _find_uv() -> str | None:
    """Return uv as tools/setup.sh finds it: on PATH, else the one that set-up has installed."""
    found = shutil.which("uv") or str(_ROOT / ".uv" / "bin" / "uv")
    return found if os.access(found, os.X_OK) else None


def _run(directory: Path, *command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, env=harness_variables(), check=False
    )
    if done.returncode:
        raise TokenmillError(
            f"lm-evaluation-harness cannot be installed into {directory}: "
            f"{_reason((done.stderr + done.stdout).splitlines())}",
            "It comes from the package index (PyPI), once: run this with a network, or set "
            "UV_INDEX_URL or HTTPS_PROXY to where it can be reached, or copy that directory from "
            "a machine of the same system and Python.",
        )


def _reason(lines: Sequence[str]) -> str:
    """Return the last lines that tell of an error, or the last of all, as one."""
    said = [line.strip(" │├╰▶─×") for line in lines if line.strip()]
    errors = [line for line in said if "error" in line.lower() and "Retrying" not in line]
    return " ".join((errors or said)[-2:])[-600:] or "no reason was given"


def make_in_own_process(start_seconds: float) -> dict[str, str]:
    """Do what `harness_python` does, as tokenmill.run_in_subprocess calls it.

    Args:
        start_seconds: What the process took to start.
    """
    return {"python": harness_python()}
