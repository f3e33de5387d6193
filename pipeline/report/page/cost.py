"""Where time and money went: estimate beside actual, by phase, by step; return on curation."""

from collections.abc import Iterator

from pipeline.report.cost import cost_table, describe_hardware, notes, phases_table, steps_table
from pipeline.report.page.charts import Bar, bar_chart
from pipeline.report.page.content import (
    Figure,
    Legend,
    Section,
    optional_tables,
    table_of_screen,
    words,
)
from pipeline.report.page.law import law_table
from pipeline.report.page.run_documents import RunDocuments
from tokenmill.contracts.cost_report import CostReport
from tokenmill.number_format import duration, usd


def cost_section(run: RunDocuments) -> Section:
    """Show the estimate beside what it took, and the bill by step."""
    ledger, cost = run.ledger, run.cost_report
    if ledger is None:
        return Section("cost", "Time and money")
    tables = [(f"Cost on {describe_hardware(ledger)}", cost_table(ledger, cost))]
    figures = []
    if cost is not None:
        tables.append(("What each step cost, and the training it saved",
                       steps_table(cost, run.records)))  # fmt: skip
        figures = [_phases(cost), _steps(run, cost), *_returns(run, cost)]
    shown = optional_tables(tables)
    ladder = ledger.guidance.ladder
    if ladder is not None and ladder.constants is not None:
        shown.append(law_table(ladder.constants, ladder.published, ladder.level))
    return Section("cost", "Time and money", list(notes(ledger)), figures, shown)


def _phases(cost: CostReport) -> Figure:
    """Draw two bars a phase: forecast and actual."""
    bars, colors = [], []
    for phase in cost.phases:
        if not phase.actual_seconds and not phase.forecast_seconds:
            continue
        name = label = words(phase.phase)
        if phase.forecast_seconds is not None:
            forecast = phase.forecast_seconds
            bars.append(Bar(name, [forecast], duration(forecast)))
            colors.append(1)
            label = ""  # that of the bar above
        bars.append(Bar(label, [phase.actual_seconds], duration(phase.actual_seconds)))
        colors.append(0)
    estimated, actual = cost.estimated.total_seconds, cost.actual.total_seconds
    return Figure(
        "Where the trainer's time went",
        bar_chart(bars, colors),
        f"Bars, forecast and actual of each phase: in all {duration(estimated)} were forecast, "
        f"{duration(actual)} were taken.",
        table_of_screen(phases_table(cost)),
        (Legend("forecast", 1), Legend("actual", 0)),
    )


def _returns(run: RunDocuments, cost: CostReport) -> Iterator[Figure]:
    """Draw what curation and packing cost beside the training they saved, if they saved any."""
    lines = [line for line in cost.return_on_curation if line.saved_usd]
    if not lines:
        return
    bars, colors = [], []
    for line in lines:
        bars += [Bar(line.step, [line.cost_usd], usd(line.cost_usd)),
                 Bar("", [line.saved_usd], usd(line.saved_usd))]  # fmt: skip
        colors += [1, 2]
    said = "; ".join(
        f"{line.step} cost {usd(line.cost_usd)} and saved {usd(line.saved_usd)} of training"
        for line in lines
    )
    yield Figure(
        "Return on curation and packing",
        bar_chart(bars, colors),
        f"Bars, two a step: {said}.",
        table_of_screen(steps_table(cost, run.records)),
        (Legend("cost of the step", 1), Legend("training saved", 2)),
    )


def _steps(run: RunDocuments, cost: CostReport) -> Figure:
    """Draw a bar a step: its cost when it ran."""
    bars = [Bar(step.step, [step.usd], usd(step.usd)) for step in cost.steps]
    return Figure(
        "What each step cost when it ran",
        bar_chart(bars),
        f"Bars, one a step; all together {usd(cost.pipeline.usd)}.",
        table_of_screen(steps_table(cost, run.records)),
    )
