"""Benchmark tasks of a model, printed: each number beside what guessing scores."""

from collections.abc import Iterator, Mapping

from rich.table import Table

from pipeline.report.tables import escape, plain_table
from tokenmill.contracts.benchmark import BenchmarkTaskResult

BENCHMARK_COLUMNS = ("task", "metric", "value", "standard error", "chance", "items")


def benchmark_table(tasks: Mapping[str, BenchmarkTaskResult]) -> Table | None:
    """Return the table of all tasks; None if there are none."""
    if not tasks:
        return None
    table = plain_table(*BENCHMARK_COLUMNS, left=2)
    for row in benchmark_rows(tasks):
        table.add_row(*map(escape, row))
    return table


def benchmark_parts(tasks: Mapping[str, BenchmarkTaskResult]) -> list[str]:
    """Return each number in a few words, beside what guessing scores."""
    return [
        f"{task} {metric} {value}" + (f" (chance {chance})" if chance else "")
        for task, metric, value, _, chance, _ in benchmark_rows(tasks)
        if value
    ]


def benchmark_rows(tasks: Mapping[str, BenchmarkTaskResult]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each number, in the order of BENCHMARK_COLUMNS; blank where none is."""
    for name, task in sorted(tasks.items()):
        for metric, number in sorted(task.metrics.items()):
            shown = ("" if x is None else f"{x:.4g}" for x in (
                number.value, number.standard_error, number.chance
            ))  # fmt: skip
            yield name, metric, *shown, f"{task.items:,}"
