"""Runs beside each other: what they are called, and one line a number with what differs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.report.page.content import NAME_CHARACTERS, DataTable, shorten
from pipeline.report.page.headline import headline
from pipeline.report.page.run_documents import RunDocuments
from tokenmill.errors import TokenmillError


@dataclass(frozen=True)
class ComparedRun:
    """A run of a comparison, by a name that no other run of it has."""

    name: str
    run: RunDocuments


class Measure(NamedTuple):
    """A number of every run: its name, its value where known, and how it is written.

    Attributes:
        label: What it is, with its unit.
        value: Its value in a run; None where the run has none.
        show: How a value is written.
        is_share: Whether it is a fraction, whose difference is in percentage points.
    """

    label: str
    value: Callable[[RunDocuments], float | None]
    show: Callable[[float], str]
    is_share: bool = False


def name_runs(runs: Sequence[RunDocuments]) -> list[ComparedRun]:
    """Name runs so that they are told apart: by pipeline, then by directory, then by run.

    Raises:
        TokenmillError: A run is there twice.
    """
    names = [shorten(headline(run).name, NAME_CHARACTERS // 4) for run in runs]
    ways: list[Callable[[str, RunDocuments], str]] = [
        lambda name, run: name,
        lambda name, run: f"{name} in {run.directory}",
        lambda name, run: f"{name}, {run.run_id[:19]}",
        lambda name, run: f"{name} in {run.directory}, {run.run_id}",
    ]
    for way in ways:
        found = [way(name, run) for name, run in zip(names, runs, strict=True)]
        if len(set(found)) == len(found):
            return [ComparedRun(name, run) for name, run in zip(found, runs, strict=True)]
    twice = next(name for name in found if found.count(name) > 1)
    raise TokenmillError(f"{twice} is given twice.", "Name each run once.")


def measure_table(first_heading: str, measures: Sequence[Measure],
                  runs: Sequence[ComparedRun]) -> DataTable:  # fmt: skip
    """Show numbers, a column a run; each after the first with its difference from the first.

    A number that no run has is left out, and so is a difference from one that is not known.
    """
    rows = []
    for measure in measures:
        values = [measure.value(each.run) for each in runs]
        if any(value is not None for value in values):
            cells = ["" if value is None else measure.show(value) for value in values]
            changes = (describe_change(measure, values[0], value) for value in values)
            rows.append(
                (
                    measure.label,
                    *(
                        f"{cell} ({change})" if change else cell
                        for cell, change in zip(cells, changes, strict=True)
                    ),
                )
            )
    return DataTable((first_heading, *(each.name for each in runs)), rows)


def describe_change(measure: Measure, before: float | None, after: float | None) -> str:
    """Say by how much a number differs; empty where one is not known, or nothing does."""
    if before is None or after is None or before == after:
        return ""
    if measure.is_share:
        return f"{(after - before) * 100:+.1f} points"
    return f"{after / before - 1:+.1%}" if before > 0 else f"from {measure.show(before)}"


def changed_settings(configs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the keys that the configurations do not all have alike, with the value of each."""
    for key in sorted(set().union(*configs)):
        values = [config.get(key) for config in configs]
        if any(value != values[0] for value in values):
            yield key, values
