"""An open-loop load test: requests leave when they are due, whether or not the server keeps up.

Arrivals are a Poisson process. A request's latency counts from when it was due, not from when it
was sent, so that a stalled server cannot hide its stall (coordinated omission, Tene 2013).
"""

import asyncio
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokenmill.errors import TokenmillError
from tokenmill.files import AtomicFile, write_json

# About 64 tokens of the demo's vocabulary.
DEFAULT_TEXT = (
    "Returns the value of the tensor, reduced over the given axis. If axis is None, all dimensions "
    "are reduced and a tensor with a single element is returned. The dtype of x is kept as it was, "
    "unless the keepdims argument is set to true, and then it is a float."
)
_SHED = 429
_TOKEN_FIELDS = ("token_count", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class LoadSettings:
    """What is sent.

    Attributes:
        url: "http://host:port" of a REST server, TensorFlow Serving's or ours.
        model: The model's name.
        signature: Which signature is called.
        texts: Texts that requests take in turn.
        options: More inputs, by name, each one value.
        rate_per_second: Mean rate of arrivals.
        duration_seconds: How long requests arrive.
        seed: Of the arrival times.
        timeout_seconds: A request that takes longer is an error.
        label: Version label or None.
        users: Number of made-up user keys that requests carry; 0 carries none.
    """

    url: str
    model: str
    signature: str
    texts: tuple[str, ...]
    options: dict[str, Any]
    rate_per_second: float
    duration_seconds: float
    seed: int
    timeout_seconds: float = 30.0
    label: str | None = None
    users: int = 0


@dataclass(frozen=True)
class Outcome:
    """One request: seconds are from the start of the test; status 0 is no answer."""

    due: float
    sent: float
    done: float
    status: int
    tokens: int
    version: str
    error: str


def arrival_times(rate_per_second: float, duration_seconds: float, seed: int) -> np.ndarray:
    """Times of a Poisson process in [0, duration), in seconds: float64 [requests]."""
    rng = np.random.default_rng(seed)
    expected = rate_per_second * duration_seconds
    gaps = rng.exponential(1 / rate_per_second, int(expected + 6 * expected**0.5) + 10)
    times = np.cumsum(gaps)
    return times[times < duration_seconds]


async def _send_all(settings: LoadSettings) -> list[Outcome]:
    import aiohttp

    where = f"/labels/{settings.label}" if settings.label else ""
    address = f"{settings.url}/v1/models/{settings.model}{where}:predict"
    due_times = arrival_times(settings.rate_per_second, settings.duration_seconds, settings.seed)
    timeout = aiohttp.ClientTimeout(total=settings.timeout_seconds)
    connector = aiohttp.TCPConnector(limit=0)  # a bound would close the loop
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        start = time.perf_counter()

        async def send(index: int, due: float) -> Outcome:
            text = settings.texts[index % len(settings.texts)]
            columns = {"text": [text], **{k: [v] for k, v in settings.options.items()}}
            body = {"signature_name": settings.signature, "inputs": columns}
            headers = {"x-user-key": f"user-{index % settings.users}"} if settings.users else {}
            sent = time.perf_counter() - start
            status, tokens, version, error = 0, 0, "", ""
            try:
                async with client.post(address, json=body, headers=headers) as response:
                    content = await response.read()
                done = time.perf_counter() - start
                version = response.headers.get("x-model-version", "")
                if response.status == 200:
                    outputs = json.loads(content)["outputs"]
                    tokens = sum(sum(outputs.get(name, [])) for name in _TOKEN_FIELDS)
                else:
                    error = content.decode("utf-8", "replace")[:200]
                status = response.status
            except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as problem:
                done = time.perf_counter() - start
                error = f"{type(problem).__name__}: {problem}"
            return Outcome(due, sent, done, status, tokens, version, error)

        tasks = []
        for index, due in enumerate(due_times.tolist()):
            wait = due - (time.perf_counter() - start)
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.ensure_future(send(index, due)))
        return list(await asyncio.gather(*tasks))


def run_load(settings: LoadSettings) -> list[Outcome]:
    """Sends all requests and waits for all answers.

    Raises:
        TokenmillError: The server does not answer at all.
    """
    outcomes = asyncio.run(_send_all(settings))
    if outcomes and not any(outcome.status for outcome in outcomes):
        raise TokenmillError(
            f"no answer from {settings.url}: {outcomes[0].error}", "Is `tokenmill serve` running?"
        )
    return outcomes


@dataclass(frozen=True)
class Objectives:
    """Service level objectives; None is not asked for.

    Attributes:
        p50_ms: Bound of the median latency, in milliseconds.
        p99_ms: Bound of the 99th percentile, in milliseconds.
        max_error_rate: Bound of the share of requests that fail otherwise than by shedding.
        max_shed_rate: Bound of the share that is shed with 429.
    """

    p50_ms: float | None = None
    p99_ms: float | None = None
    max_error_rate: float | None = 0.0
    max_shed_rate: float | None = None


def summarize(
    settings: LoadSettings, outcomes: list[Outcome], objectives: Objectives
) -> dict[str, Any]:
    """Counts, latencies in milliseconds, rates, and which objectives are missed."""
    answered = [o for o in outcomes if o.status == 200]
    shed = [o for o in outcomes if o.status == _SHED]
    failed = [o for o in outcomes if o.status not in (200, _SHED)]
    latencies = np.array([(o.done - o.due) * 1e3 for o in answered])
    last = max((o.done for o in outcomes), default=0.0)
    total = max(1, len(outcomes))
    latency_ms = {
        name: float(np.percentile(latencies, q)) if len(latencies) else None
        for name, q in (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100))
    }
    summary = {
        "settings": {**asdict(settings), "texts": len(settings.texts)},
        "requests": len(outcomes),
        "answered": len(answered),
        "shed": len(shed),
        "failed": len(failed),
        "error_rate": len(failed) / total,
        "shed_rate": len(shed) / total,
        "errors": sorted({f"{o.status} {o.error}" for o in failed})[:10],
        "latency_ms": latency_ms,
        "answered_per_second": len(answered) / last if last else 0.0,
        "tokens_per_second": sum(o.tokens for o in answered) / last if last else 0.0,
        "versions": sorted({o.version for o in answered}),
        # How late requests were sent: if this is large, the tester was the bottleneck.
        "send_delay_p99_ms": float(
            np.percentile([(o.sent - o.due) * 1e3 for o in outcomes] or [0.0], 99)
        ),
    }
    found = {
        "p50_ms": latency_ms["p50"],
        "p99_ms": latency_ms["p99"],
        "max_error_rate": summary["error_rate"],
        "max_shed_rate": summary["shed_rate"],
    }
    summary["missed"] = {
        name: {"objective": bound, "found": found[name]}
        for name, bound in asdict(objectives).items()
        if bound is not None and (found[name] is None or found[name] > bound)
    }
    return summary


def write_report(directory: str, summary: dict[str, Any], outcomes: list[Outcome]) -> None:
    """Writes `loadtest.json` and `loadtest.png` (latency over time, and its distribution)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    os.makedirs(directory, exist_ok=True)
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    over_time, distribution = figure.subplots(1, 2)
    answered = [o for o in outcomes if o.status == 200]
    for name, chosen in (
        ("answered", answered),
        ("shed", [o for o in outcomes if o.status == _SHED]),
        ("failed", [o for o in outcomes if o.status not in (200, _SHED)]),
    ):
        if chosen:
            x, y = [o.due for o in chosen], [(o.done - o.due) * 1e3 for o in chosen]
            over_time.scatter(x, y, s=4, label=name)
    over_time.set(xlabel="due (s)", ylabel="latency (ms)", yscale="log")
    over_time.legend()
    latencies = np.sort([(o.done - o.due) * 1e3 for o in answered])
    if len(latencies):
        share = 1 - np.arange(len(latencies)) / len(latencies)
        distribution.plot(latencies, share)
    distribution.set(xlabel="latency (ms)", ylabel="share slower", xscale="log", yscale="log")
    with AtomicFile(os.path.join(directory, "loadtest.png")) as out:
        figure.savefig(out, format="png", dpi=100)
    write_json(os.path.join(directory, "loadtest.json"), summary)
