"""What a run ends with: a table and a line of quality, or all tables."""

from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from components.validate.statistics import summarize_statistics
from pipeline.report.benchmark import benchmark_parts, benchmark_table
from pipeline.report.console import RunConsole
from pipeline.report.cost import (
    cost_table,
    describe_hardware,
    notes,
    phases_table,
    stages_table,
    steps_table,
    summary_table,
    warnings,
)
from pipeline.report.languages import language_quality_table, languages_table
from pipeline.report.pruning import describe_pruning, pruning_table
from pipeline.report.quality import (
    describe_forgetting,
    quality_line,
    quality_notes,
    quality_table,
    quality_warnings,
)
from pipeline.report.sources import sources_table
from pipeline.report.tables import escape
from tokenmill.contracts.cost_report import CostReport, read_cost_report
from tokenmill.contracts.ledger import Ledger, read_ledger
from tokenmill.contracts.validation import SplitSummary
from tokenmill.metadata.step_records import StepRecord
from tokenmill.number_format import byte_size, count
from tokenmill.records.splits import SPLITS


class RunReport(NamedTuple):
    """The numbers behind the tables at the end of a run; no cost report if it was not trained."""

    statistics: dict[str, SplitSummary]
    ledger: Ledger
    cost_report: CostReport | None

    def to_json(self) -> dict[str, Any]:
        """Return the content of report.json."""
        return {
            "statistics": {name: split.to_json() for name, split in self.statistics.items()},
            "ledger": self.ledger.to_json(),
            "cost_report": None if self.cost_report is None else self.cost_report.to_json(),
        }


def read_report(steps: dict[str, StepRecord], ledger: Ledger | None = None) -> RunReport:
    """Read the numbers of a run.

    Args:
        steps: The steps that finished.
        ledger: The ledger of a run that it stopped.
    """
    statistics = {
        split: summarize_statistics(steps["StatisticsGen"].one("statistics").uri, split)
        for split in SPLITS
    }
    ledger = ledger or read_ledger(steps["TokenLedger"].one("ledger").uri)
    done = "CostReport" in steps
    cost = read_cost_report(steps["CostReport"].one("cost_report").uri) if done else None
    return RunReport(statistics, ledger, cost)


def print_report(console: Console, report: RunReport, steps: dict[str, StepRecord]) -> None:
    """Print the tables of a run: counts and estimate, and what a training took and is worth."""
    ledger, cost = report.ledger, report.cost_report
    tables: list[tuple[str, Table | None]] = [
        ("Documents as they came in", statistics_table(report.statistics)),
        ("Tokens by source", sources_table(ledger.funnel)),
        ("Training text by language", languages_table(ledger, cost)),
        ("The funnel", stages_table(ledger)),
        ("Dropped, by reason", dropped_table(ledger)),
        (f"Cost on {describe_hardware(ledger)}", cost_table(ledger, cost)),
    ]
    if cost is not None:
        tables += [
            ("Where the trainer's time went", phases_table(cost)),
            ("What each step cost, and the training it saved", steps_table(cost, steps)),
            ("Quality on held-out text", quality_table(cost)),
            ("Pruning", pruning_table(cost.quality)),
            ("Quality by language", language_quality_table(cost)),
            ("Benchmarks", benchmark_table(cost.quality.evaluation.benchmarks)),
        ]
    for title, table in tables:
        if table is None:
            continue
        console.print(f"\n[bold]{escape(title)}[/]", soft_wrap=True)
        console.print(table)
    console.print()
    for note in (*(quality_notes(cost.quality.evaluation) if cost else ()), *notes(ledger)):
        console.print(f"[dim]{escape(note)}[/]", soft_wrap=True)


def print_summary(screen: RunConsole, report: RunReport) -> None:
    """Print what there is room for: estimate against actual, quality, what needs to be done."""
    ledger, cost = report.ledger, report.cost_report
    screen.paragraph(describe_hardware(ledger), "\n[bold]Cost on[/] ")
    screen.console.print(summary_table(ledger, cost))
    if cost is not None:
        screen.paragraph(quality_line(cost.quality), "[bold]Quality:[/] ")
        if (forgetting := cost.quality.evaluation.forgetting) is not None:
            screen.paragraph(describe_forgetting(forgetting))
        if (pruning := cost.quality.pruning) is not None:
            screen.paragraph(describe_pruning(pruning))
        if parts := benchmark_parts(cost.quality.evaluation.benchmarks):
            screen.parts("Benchmarks: ", parts)
    for warning in report_warnings(report):
        screen.note(warning)


def report_warnings(report: RunReport) -> list[str]:
    """Return what a run's numbers say after which something is to be done."""
    cost = report.cost_report
    found = [] if cost is None else quality_warnings(cost.quality.evaluation)
    return [*found, *warnings(report.ledger)]


def statistics_table(statistics: dict[str, SplitSummary]) -> Table:
    """Show how long the documents of each split are."""
    table = Table(box=None)
    table.add_column("")
    for name in ("documents", "measure", "mean", "p10", "median", "p90", "most"):
        table.add_column(name, justify="right")
    for split, summary in statistics.items():
        for i, measure in enumerate(("byte_count", "words")):
            sizes = getattr(summary, measure)
            numbers = (sizes.mean, sizes.p10, sizes.p50, sizes.p90, sizes.max)
            first = (split, count(summary.documents))
            name = measure.replace("byte_count", "bytes")
            table.add_row(*(first if i == 0 else ("", "")), name, *map(count, numbers))
    return table


def dropped_table(ledger: Ledger) -> Table:
    """Show what curation dropped, by reason, the most text first."""
    table = Table(box=None)
    table.add_column("reason")
    for name in ("documents", "bytes", "~ tokens", "of raw bytes"):
        table.add_column(name, justify="right")
    total = ledger.funnel.total
    for reason, numbers in sorted(total.dropped.items(), key=lambda item: -item[1].bytes):
        table.add_row(
            reason.replace("_", " "),
            count(numbers.documents),
            byte_size(numbers.bytes),
            count(numbers.tokens_estimated),
            f"{numbers.bytes / total.raw.bytes:.2%}",
        )
    return table
