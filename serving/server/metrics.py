"""Counters and histograms of the server, for Prometheus."""

from collections.abc import Iterable

import numpy as np
import prometheus_client as prometheus

from serving.server.errors import Code

_SECONDS = (
    *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5),
    *(0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0),
)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_PROTOCOLS = ("rest", "grpc")
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
        self.first_token_seconds = prometheus.Histogram(
            "tokenmill_first_token_seconds", "From a whole request to its first token.",
            ["signature"], buckets=_SECONDS, registry=self.registry,
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
        self.lost_log_lines = prometheus.Counter(
            "tokenmill_request_log_lost_lines", "Lines that the request log could not take.",
            registry=self.registry,
        )  # fmt: skip
        prometheus.ProcessCollector(registry=self.registry)
        self._started: set[tuple[int, str]] = set()
        # A counter that appears with its first count has no increase for Prometheus to see.
        for outcome in ("loaded", "failed"):
            self.loads.labels(outcome)
        self._start_requests("", "", [""])

    def _start_requests(self, version: str, label: str, signatures: Iterable[str]) -> None:
        for signature in signatures:
            for protocol in _PROTOCOLS:
                for code in ("OK", *(code.name for code in Code)):
                    self.requests.labels(protocol, version, label, signature, code)

    def start_route(self, protocol: str, route: str) -> None:
        """Set the counters of a route of another API to 0.

        Args:
            protocol: Name of the API; it stands where others have rest or grpc.
            route: Its name; it stands where others have the signature.
        """
        for code in ("OK", "CANCELLED", *(code.name for code in Code)):
            self.requests.labels(protocol, "", "", route, code)
        self.first_token_seconds.labels(route)

    def start_version(
        self, version: int, labels: list[str], outputs: dict[str, tuple[str, ...]]
    ) -> None:
        """Set the counters of a version to 0 where they do not count yet.

        Args:
            version: Number of the version, which is served now.
            labels: Labels by which requests come to it.
            outputs: Names of the outputs by signature.
        """
        self.available.labels(str(version)).set(1)
        for label in labels:
            if (version, label) not in self._started:
                self._started.add((version, label))
                self._start_requests(str(version), label, ["", *outputs])
                for signature, names in outputs.items():
                    for name in set(names) & set(_TOKEN_OUTPUTS):
                        self.tokens.labels(str(version), signature, _TOKEN_OUTPUTS[name])

    def end_version(self, version: int) -> None:
        """Drop the counters of a version that is served no more, but for those that counted."""
        self.available.labels(str(version)).set(0)
        self._started = {known for known in self._started if known[0] != version}
        for counter in (self.requests, self.tokens):
            for family in counter.collect():
                for sample in family.samples:
                    unused = sample.name.endswith("_total") and sample.value == 0
                    if unused and sample.labels.get("version") == str(version):
                        counter.remove(*sample.labels.values())

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
