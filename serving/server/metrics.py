"""Counters and histograms of the server, for Prometheus."""

import numpy as np
import prometheus_client as prometheus

_SECONDS = (
    *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5),
    *(0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0),
)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Which output of a signature counts which kind of tokens.
_TOKEN_OUTPUTS = {
    "token_count": "read",
    "prompt_tokens": "prompt",
    "completion_tokens": "generated",
}


class ServerMetrics:
    """Counters and histograms of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        by_request = ["protocol", "version", "label", "signature"]
        self.requests = prometheus.Counter(
            "tokenmill_requests", "Requests by outcome.", [*by_request, "code"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = prometheus.Histogram(
            "tokenmill_request_seconds", "From arrival to answer.", by_request,
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.tokens = prometheus.Counter(
            "tokenmill_tokens", "Tokens read, in prompts, and generated.",
            ["version", "signature", "kind"], registry=self.registry,
        )  # fmt: skip
        self.batch_rows = prometheus.Histogram(
            "tokenmill_batch_rows", "Rows computed together.", ["signature"],
            buckets=_ROWS, registry=self.registry,
        )  # fmt: skip
        self.queue_seconds = prometheus.Histogram(
            "tokenmill_queue_seconds", "From arrival to computation.", ["signature"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.queued_rows = prometheus.Gauge(
            "tokenmill_queued_rows", "Rows that wait.", registry=self.registry
        )
        self.shed = prometheus.Counter(
            "tokenmill_shed_requests", "Refused as the queue was full.", registry=self.registry
        )
        self.loads = prometheus.Counter(
            "tokenmill_version_loads", "Versions loaded, by outcome.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.available = prometheus.Gauge(
            "tokenmill_version_available", "1 while a version is served.", ["version"],
            registry=self.registry,
        )  # fmt: skip
        prometheus.ProcessCollector(registry=self.registry)

    def count_tokens(self, version: str, signature: str, outputs: dict[str, np.ndarray]) -> int:
        """Count the tokens of an answer; return their number."""
        total = 0
        for name, kind in _TOKEN_OUTPUTS.items():
            if name in outputs:
                count = int(outputs[name].sum())
                self.tokens.labels(version, signature, kind).inc(count)
                total += count
        return total

    def text(self) -> bytes:
        """Return all values in Prometheus' exposition format."""
        return prometheus.generate_latest(self.registry)
