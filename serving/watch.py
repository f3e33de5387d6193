"""Comparison of a rollout's arms from the server's request log; rolls back on a breach."""

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from serving.rollout import end_rollout, read_rollout, user_share, write_rollout
from serving.sequential import MIN_VALUES, Arm, compare
from tokenmill.contracts.base import Part, key
from tokenmill.errors import TokenmillError

_ARMS = ("stable", "canary")
_SERVER_FAULTS = {"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
_LOOK_EVERY_SECONDS = 1.0


class ArmNumbers(Part):
    """Measures of one arm; the means are absent where there was no value."""

    requests: int = key("Requests of the arm.")
    p99_ms: float | None = key("99th percentile of latency, milliseconds; null without an answer.")
    log_seconds: float | None = key("Mean logarithm of the latency in seconds.", default=None)
    error: float | None = key("Share of requests that the server failed.", default=None)
    tokens: float | None = key("Mean tokens of a request.", default=None)
    feedback: float | None = key("Mean feedback of the users.", default=None)


class Difference(Part):
    """The canary's mean less the stable arm's; low and high are null while nothing is known."""

    difference: float = key("Difference of the means.")
    low: float | None = key("Lower bound of the confidence sequence.")
    high: float | None = key("Upper bound of the confidence sequence.")
    verdict: str = key("What is known of the canary's mean: higher, lower or undecided.")


class WatchReport(Part):
    """Result of watching a rollout."""

    rolled_back: bool = key("Whether the rollout was ended for a breach.")
    judged: bool = key("Whether the canary had enough requests to be judged.")
    reason: str = key("The breach, or why the canary is not judged; empty if it is fine.")
    arms: dict[str, ArmNumbers] = key("Measures by arm: stable and canary.")
    canary_less_stable: dict[str, Difference] = key("Comparison by measure.")


class ArmRecords:
    """Latencies and running means of one arm's requests."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.measures = {name: Arm() for name in ("log_seconds", "error", "tokens", "feedback")}

    def add_request(self, record: dict[str, Any]) -> None:
        """Add a line of the request log."""
        failed = record["code"] in _SERVER_FAULTS
        self.measures["error"].add(float(failed))
        if record["code"] == "OK":
            self.seconds.append(record["seconds"])
            # The logarithm: latencies have tails that would drown a mean.
            self.measures["log_seconds"].add(float(np.log(max(record["seconds"], 1e-6))))
            self.measures["tokens"].add(float(record["tokens"]))

    def numbers(self) -> ArmNumbers:
        """Return the measures of which there are values."""
        means = {name: arm.mean for name, arm in self.measures.items() if arm.count}
        return ArmNumbers(requests=self.measures["error"].count, p99_ms=self.p99_ms, **means)

    @property
    def p99_ms(self) -> float | None:
        """Return the 99th percentile of latency, milliseconds; None without an answer."""
        return float(np.percentile(self.seconds, 99) * 1e3) if self.seconds else None


class _Tail:
    """Reader of the new whole lines of a growing file of JSON lines.

    Args:
        path: The file, which may not be there yet; None for no lines.
    """

    def __init__(self, path: str | None):
        self._path, self._offset = path, 0

    def lines(self) -> Iterator[dict[str, Any]]:
        if self._path is None or not os.path.exists(self._path):
            return
        if os.path.isdir(self._path):
            raise TokenmillError(
                f"{self._path} is a directory, not a file of JSON lines.",
                "Give the file that tokenmill serve --request-log writes, or the one of feedback.",
            )
        with open(self._path, "rb") as source:
            if source.seek(0, os.SEEK_END) < self._offset:  # it was emptied, as rotation does
                self._offset = 0
            source.seek(self._offset)
            for line in source:
                if not line.endswith(b"\n"):
                    return  # being written
                self._offset += len(line)
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record


def watch_rollout(
    model_dir: str,
    name: str,
    seconds: float,
    request_log: str,
    feedback: str | None = None,
    p99_ms: float | None = None,
    max_error_rate: float | None = None,
) -> WatchReport:
    """Read the log until the rollout ends, an objective is missed, or the time is over.

    Args:
        model_dir: The model's base directory.
        name: Name of the model, for models.config.
        seconds: Seconds to watch; 0 looks once.
        request_log: The server's log of requests. Those from before the rollout, of other versions
            and of users whose own version was not loaded are left out.
        feedback: Lines {"user": key, "value": number}; the higher the better. Lines with a "time"
            (seconds since 1970) from before the rollout are left out.
        p99_ms: Bound of the canary's 99th percentile of latency.
        max_error_rate: Bound of the canary's share of failed requests. Both bounds hold from
            `sequential.MIN_VALUES` requests on.

    Raises:
        TokenmillError: No rollout is running, or the version to roll back to is gone.
    """
    rollout = read_rollout(model_dir)
    if rollout is None or rollout.status != "running" or rollout.canary is None:
        raise TokenmillError(f"no rollout is running in {model_dir}.", "Begin one: rollout start.")
    arms = {label: ArmRecords() for label in _ARMS}
    log, votes = _Tail(request_log), _Tail(feedback)
    labels = {f"{rollout.stable} as stable": "stable", f"{rollout.canary} as canary": "canary"}
    end = time.monotonic() + seconds
    reason = ""
    while True:
        for record in log.lines():
            # Before both versions are loaded, one answers the users of both, beside the loading.
            label = labels.get(f"{record.get('version')} as {record.get('label')}")
            if label is not None and _is_since(rollout.started, record) and _is_request(record):
                arms[label].add_request(record)
        for vote in votes.lines():
            if _is_number(vote.get("value")) and _is_since(rollout.started, vote):
                share = user_share(str(vote.get("user")), rollout.salt)
                label = "canary" if share < rollout.canary_weight else "stable"
                arms[label].measures["feedback"].add(float(vote["value"]))
        reason = _breach(arms["canary"], p99_ms, max_error_rate)
        current = read_rollout(model_dir)
        running = current is not None and current.status == "running"
        if reason and running:
            write_rollout(model_dir, end_rollout(model_dir, False, reason), name)
        if reason or not running or time.monotonic() >= end:
            break
        time.sleep(min(_LOOK_EVERY_SECONDS, max(0.0, end - time.monotonic())))
    requests = arms["canary"].measures["error"].count
    if requests < MIN_VALUES:
        reason = (
            f"not judged: version {rollout.canary} answered {requests} requests of the canary's "
            f"users since the rollout began, and {MIN_VALUES} are needed"
        )
        if not requests:
            reason += (
                "; is it loaded (GET /v1/models/NAME), and do requests carry x-user-key?"
                if os.path.exists(request_log)
                else f"; there is no {request_log}"
            )
    return WatchReport(
        rolled_back=requests >= MIN_VALUES and bool(reason and running),
        judged=requests >= MIN_VALUES,
        reason=reason,
        arms={label: arm.numbers() for label, arm in arms.items()},
        canary_less_stable={
            measure: _difference(arms["stable"].measures[measure], arms["canary"].measures[measure])
            for measure in arms["stable"].measures
        },
    )


def _is_number(value: Any) -> bool:
    """Return whether a value of JSON is a finite number; true is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return bool(np.isfinite(float(value)))
    except OverflowError:
        return False


def _is_request(line: dict[str, Any]) -> bool:
    """Return whether a line of the log has what is compared."""
    if line.get("code") != "OK":
        return isinstance(line.get("code"), str)
    return _is_number(line.get("seconds")) and _is_number(line.get("tokens"))


def _is_since(started: float, line: dict[str, Any]) -> bool:
    """Return whether a line is no older than the rollout; one without a time is none of before."""
    written = line.get("time")
    return not isinstance(written, (int, float)) or written >= started


def _breach(canary: ArmRecords, p99_ms: float | None, max_error_rate: float | None) -> str:
    """Return which objective the canary misses; empty for none, or before it can be judged."""
    requests = canary.measures["error"]
    if requests.count < MIN_VALUES:
        return ""
    if max_error_rate is not None and requests.mean > max_error_rate:
        return f"error rate {requests.mean:.3g} is above {max_error_rate:g}"
    found = canary.p99_ms
    if p99_ms is not None and found is not None and found > p99_ms:
        return f"p99 of {found:.4g} ms is above {p99_ms:g} ms"
    return ""


def _difference(stable: Arm, canary: Arm) -> Difference:
    found = compare(stable, canary)
    known = np.isfinite(found.low)
    return Difference(
        difference=found.difference,
        low=found.low if known else None,
        high=found.high if known else None,
        verdict=found.verdict,
    )
