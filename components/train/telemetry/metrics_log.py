"""metrics.jsonl: a line of scalars every few steps, appended while training runs.

It is also how a run that was killed is known to have got further than its last checkpoint.
"""

import json
import os
import time
from typing import Any

import tensorflow as tf

from tokenmill.errors import TokenmillError
from tokenmill.files import write_text

METRICS_NAME = "metrics.jsonl"
_FLUSH_SECONDS = 1.0
# Events that were measured of the weights after a step: where that is done again, so are they.
_MEASURED = ("evaluation", "expert_load")


class MetricsLog:
    """Appends to metrics.jsonl of a training directory.

    Args:
        directory: On any filesystem that TensorFlow knows.
    """

    def __init__(self, directory: str):
        self._path = os.path.join(directory, METRICS_NAME)
        self._waiting: list[str] = []
        self._flushed = 0.0
        self._measured: set[tuple[str, int]] = set()

    def append(self, line: dict[str, Any]) -> None:
        """Add a line; it reaches the file within a second of training."""
        self._waiting.append(json.dumps(line, sort_keys=True) + "\n")
        self._remember(line)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Append the waiting lines to the file."""
        if self._waiting:
            with tf.io.gfile.GFile(self._path, "ab") as out:
                out.write("".join(self._waiting).encode())
            self._waiting.clear()
        self._flushed = time.monotonic()

    def rewind(self, step: int) -> tuple[int, float]:
        """Remove the lines of later steps, and what was measured there; other events stay.

        Args:
            step: The last step that still counts.

        Returns:
            The last step that had been reached, and the seconds of the training at that time;
            zeros without a line.
        """
        self.flush()
        lines = read_metrics(self._path)
        kept = [x for x in lines if x["step"] <= step or x.get("event") not in (None, *_MEASURED)]
        write_text(self._path, "".join(json.dumps(x, sort_keys=True) + "\n" for x in kept))
        self._measured.clear()
        for line in kept:
            self._remember(line)
        steps = [x["step"] for x in lines if "event" not in x]
        return max(steps, default=0), max((x["seconds"] for x in lines), default=0.0)

    def has_measured(self, event: str, step: int) -> bool:
        """Return whether there is a line of this event (evaluation, expert_load) at this step."""
        return (event, step) in self._measured

    def _remember(self, line: dict[str, Any]) -> None:
        if line.get("event") in _MEASURED:
            self._measured.add((line["event"], line["step"]))


def read_metrics(path: str) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl without a last one that a kill has cut off.

    Raises:
        TokenmillError: A line is no JSON object.
    """
    if not tf.io.gfile.exists(path):
        return []
    with tf.io.gfile.GFile(path, "rb") as source:
        lines = source.read().split(b"\n")
    return [_read_line(path, i + 1, line) for i, line in enumerate(lines[:-1]) if line]


def _read_line(path: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise TokenmillError(
            f"{path}: line {number}: expected a JSON object, found {line[:40]!r}.",
            "Remove this line; the file only tells of the training.",
        )
    return found
