"""What benchmark tasks measured of a model: benchmark.json."""

from __future__ import annotations

import os

from tokenmill.contracts.base import Document, Part, key, read_document, write_document

BENCHMARK_NAME = "benchmark.json"


class BenchmarkMetric(Part):
    """One number of a task."""

    value: float | None = key("As lm-evaluation-harness computed it; null if it is not finite.")
    standard_error: float | None = key("Likewise; null where the harness has none.")
    chance: float | None = key("What guessing scores; null where the task does not say.")
    higher_is_better: bool = key("Whether a greater number is a better one.")


class BenchmarkTaskResult(Part):
    """What one task measured."""

    items: int = key("Items that were scored.", ge=0)
    version: str = key("The task's own version.")
    metrics: dict[str, BenchmarkMetric] = key("By the harness's names; with its filter, if any.")
    samples: str = key(
        "File beside this one: each item with requests and answers, a JSON object a line."
    )


class BenchmarkReport(Document):
    """benchmark.json: benchmark tasks, scored by lm-evaluation-harness."""

    model: str = key("The SavedModel's directory.")
    harness: str = key("Version of lm-evaluation-harness.")
    seconds: float = key("Wall time, seconds.", ge=0)
    tasks: dict[str, BenchmarkTaskResult] = key("By the task's name.")


def read_benchmark(directory: str) -> BenchmarkReport:
    """Read benchmark.json of a directory."""
    return read_document(os.path.join(directory, BENCHMARK_NAME), BenchmarkReport)


def write_benchmark(directory: str, report: BenchmarkReport) -> None:
    """Write benchmark.json into a directory."""
    write_document(os.path.join(directory, BENCHMARK_NAME), report)
