"""The check before a push: the model in a fresh process, every signature called and timed."""

import json
import logging
import os
import subprocess
import sys
from typing import Any

from tokenmill.errors import TokenmillError

_PROBE = os.path.join(os.path.dirname(__file__), "model_check.py")


def probe_model(path: str, max_seconds: float) -> dict[str, Any]:
    """Run model_check.py on a SavedModel; return its timings.

    The process starts with `-I`: neither this project nor the current directory is on its path, so
    that the model proves that it needs TensorFlow and tensorflow-text only.

    Args:
        path: The SavedModel.
        max_seconds: The longest that it may take.

    Raises:
        TokenmillError: It took longer, died, or a signature failed.
    """
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # The GPU is the trainer's; the probe asks whether the model works, not how fast.
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    try:
        result = subprocess.run(
            # The process starts elsewhere; gs:// is no path of this machine.
            [sys.executable, "-I", _PROBE, path if "://" in path else os.path.abspath(path)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            env=environment,
            timeout=max_seconds,
        )
    except subprocess.TimeoutExpired:
        raise TokenmillError(
            f"not pushed: the model did not answer in {max_seconds:g} s in a fresh process.",
            f"If the model is large: --set push.max_check_seconds={2 * max_seconds:g}",
        ) from None
    if result.returncode != 0:
        logging.error("%s", result.stderr)
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        why = lines[-1].strip() if lines else f"exit status {result.returncode}"
        raise TokenmillError(
            f"not pushed: the model fails in a fresh process: {why[:300]}",
            "The step's log has the whole error; nothing was published.",
        )
    return json.loads(result.stdout.splitlines()[-1])
