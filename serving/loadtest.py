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

from tokenmill.contracts.base import Part, key
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
class LoadConfig:
    """Load of a test: the requests, their rate and their number.

    Attributes:
        url: "http://host:port" of a REST server, TensorFlow Serving's or ours.
        model: Name of the model.
        signature: Name of the signature that is called.
        texts: Texts that requests take in turn.
        options: Other inputs by name, each one value.
        rate_per_second: Mean rate of arrivals.
        duration_seconds: Seconds in which requests arrive.
        seed: Seed of the arrival times.
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
    """Answer to one request.

    Attributes:
        due: When the request was due, seconds from the start of the test.
        sent: When it was sent, seconds from the start.
        done: When it was answered, or failed, seconds from the start.
        status: HTTP status; 0 without an answer.
        tokens: Tokens that the server read and generated.
        version: Version of the model that answered.
        error: What went wrong; empty if nothing did.
    """

    due: float
    sent: float
    done: float
    status: int
    tokens: int
    version: str
    error: str


def arrival_times(rate_per_second: float, duration_seconds: float, seed: int) -> np.ndarray:
    """Draw times of a Poisson process in [0, duration), in seconds: float64 [requests]."""
    rng = np.random.default_rng(seed)
    expected = rate_per_second * duration_seconds
    gaps = rng.exponential(1 / rate_per_second, int(expected + 6 * expected**0.5) + 10)
    times = np.cumsum(gaps)
    return times[times < duration_seconds]


async def _send_all(config: LoadConfig) -> list[Outcome]:
    import aiohttp

    where = f"/labels/{config.label}" if config.label else ""
    address = f"{config.url}/v1/models/{config.model}{where}:predict"
    due_times = arrival_times(config.rate_per_second, config.duration_seconds, config.seed)
    timeout = aiohttp.ClientTimeout(total=config.timeout_seconds)
    connector = aiohttp.TCPConnector(limit=0)  # a bound would close the loop
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        start = time.perf_counter()

        async def send(index: int, due: float) -> Outcome:
            text = config.texts[index % len(config.texts)]
            columns = {"text": [text], **{k: [v] for k, v in config.options.items()}}
            body = {"signature_name": config.signature, "inputs": columns}
            headers = {"x-user-key": f"user-{index % config.users}"} if config.users else {}
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


def run_load(config: LoadConfig) -> list[Outcome]:
    """Send all requests and wait for all answers.

    Raises:
        TokenmillError: The server does not answer at all.
    """
    outcomes = asyncio.run(_send_all(config))
    if outcomes and not any(outcome.status for outcome in outcomes):
        raise TokenmillError(
            f"no answer from {config.url}: {outcomes[0].error}", "Is `tokenmill serve` running?"
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


class LatencyMs(Part):
    """Percentiles of latency from when requests were due, milliseconds; null without an answer."""

    p50: float | None = key("Median.")
    p95: float | None = key("95th percentile.")
    p99: float | None = key("99th percentile.")
    max: float | None = key("The longest.")


class Missed(Part):
    """Objective that was missed."""

    objective: float = key("Its bound.")
    found: float | None = key("What was measured; null without an answer.")


class LoadSummary(Part):
    """Result of a load test."""

    requests: int = key("Requests that were due.")
    answered: int = key("Requests that were answered with 200.")
    shed: int = key("Requests that were refused with 429.")
    failed: int = key("All other requests.")
    error_rate: float = key("Share of the requests that failed.")
    shed_rate: float = key("Share of the requests that were shed.")
    errors: list[str] = key("Statuses and messages of failures, up to ten.")
    latency_ms: LatencyMs = key("Latencies of answered requests.")
    answered_per_second: float = key("Answers a second, until the last one.")
    tokens_per_second: float = key("Tokens of answered requests a second.")
    versions: list[str] = key("Versions of the model that answered.")
    send_delay_p99_ms: float = key(
        "99th percentile of how late requests were sent, milliseconds. If it is large, the tester "
        "was the bottleneck."
    )
    missed: dict[str, Missed] = key("Objectives that are missed, by name.")


def summarize(outcomes: list[Outcome], objectives: Objectives) -> LoadSummary:
    """Compute counts, latencies, rates, and which objectives are missed."""
    answered = [o for o in outcomes if o.status == 200]
    shed = [o for o in outcomes if o.status == _SHED]
    failed = [o for o in outcomes if o.status not in (200, _SHED)]
    latencies = np.array([(o.done - o.due) * 1e3 for o in answered])
    last = max((o.done for o in outcomes), default=0.0)
    total = max(1, len(outcomes))
    latency_ms = LatencyMs(
        **{
            name: float(np.percentile(latencies, q)) if len(latencies) else None
            for name, q in (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100))
        }
    )
    found = {
        "p50_ms": latency_ms.p50,
        "p99_ms": latency_ms.p99,
        "max_error_rate": len(failed) / total,
        "max_shed_rate": len(shed) / total,
    }
    return LoadSummary(
        requests=len(outcomes),
        answered=len(answered),
        shed=len(shed),
        failed=len(failed),
        error_rate=len(failed) / total,
        shed_rate=len(shed) / total,
        errors=sorted({f"{o.status} {o.error}" for o in failed})[:10],
        latency_ms=latency_ms,
        answered_per_second=len(answered) / last if last else 0.0,
        tokens_per_second=sum(o.tokens for o in answered) / last if last else 0.0,
        versions=sorted({o.version for o in answered}),
        send_delay_p99_ms=float(
            np.percentile([(o.sent - o.due) * 1e3 for o in outcomes] or [0.0], 99)
        ),
        missed={
            name: Missed(objective=bound, found=found[name])
            for name, bound in asdict(objectives).items()
            if bound is not None and (found[name] is None or found[name] > bound)
        },
    )


def write_report(
    directory: str, config: LoadConfig, summary: LoadSummary, outcomes: list[Outcome]
) -> None:
    """Write `loadtest.json` and `loadtest.png` (latency over time, and its distribution)."""
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
    report = {**summary.to_json(), "settings": {**asdict(config), "texts": len(config.texts)}}
    write_json(os.path.join(directory, "loadtest.json"), report)
