"""The table at the end of a run: tokens by source, cost, quality, and where the model is."""

from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.validate.statistics import summarize_statistics
from pipeline.report.console import count, megabytes
from pipeline.report.cost import (
    cost_table,
    describe_hardware,
    notes,
    phases_table,
    stages_table,
    steps_table,
)
from pipeline.report.quality import quality_table
from pipeline.report.sources import sources_table
from tokenmill.contracts.cost_report import CostReport, read_cost_report
from tokenmill.contracts.ledger import Ledger, read_ledger
from tokenmill.contracts.validation import SplitSummary
from tokenmill.metadata.step_records import StepRecord
from tokenmill.records.splits import SPLITS


class RunReport(NamedTuple):
    """The numbers behind the tables at the end of a run."""

    statistics: dict[str, SplitSummary]
    ledger: Ledger
    cost_report: CostReport

    def to_json(self) -> dict[str, Any]:
        """Return the content of report.json."""
        return {
            "statistics": {name: split.to_json() for name, split in self.statistics.items()},
            "ledger": self.ledger.to_json(),
            "cost_report": self.cost_report.to_json(),
        }


def print_report(console: Console, steps: dict[str, StepRecord]) -> RunReport:
    """Print the final tables; return the numbers behind them."""
    ledger = read_ledger(steps["TokenLedger"].one("ledger").uri)
    cost = read_cost_report(steps["CostReport"].one("cost_report").uri)
    statistics = {
        split: summarize_statistics(steps["StatisticsGen"].one("statistics").uri, split)
        for split in SPLITS
    }
    for title, table in (
        ("Documents as they came in", _statistics_table(statistics)),
        ("Tokens by source", sources_table(ledger.funnel)),
        ("The funnel", stages_table(ledger)),
        ("Dropped, by reason", _dropped_table(ledger)),
        (f"Cost on {describe_hardware(ledger)}", cost_table(ledger, cost)),
        ("Where the trainer's time went", phases_table(cost)),
        ("What each step cost, and the training it saved", steps_table(cost, steps)),
        ("Quality on held-out text", quality_table(cost)),
    ):
        console.print(f"\n[bold]{escape(title)}[/]", soft_wrap=True)
        console.print(table)
    console.print()
    for note in notes(ledger):
        console.print(f"[dim]{escape(note)}[/]", soft_wrap=True)
    return RunReport(statistics, ledger, cost)


def _statistics_table(statistics: dict[str, SplitSummary]) -> Table:
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


def _dropped_table(ledger: Ledger) -> Table:
    table = Table(box=None)
    table.add_column("reason")
    for name in ("documents", "bytes", "~ tokens", "of raw bytes"):
        table.add_column(name, justify="right")
    total = ledger.funnel.total
    for reason, numbers in sorted(total.dropped.items(), key=lambda item: -item[1].bytes):
        table.add_row(
            reason.replace("_", " "),
            count(numbers.documents),
            megabytes(numbers.bytes),
            count(numbers.tokens_estimated),
            f"{numbers.bytes / total.raw.bytes:.2%}",
        )
    return table
