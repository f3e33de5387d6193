"""Quality on held-out text: against the baselines, by slice with intervals, calibration."""

from collections.abc import Sequence

from components.evaluate.metrics import HIGH, LOW
from pipeline.report.benchmark import benchmark_table
from pipeline.report.page.charts import Interval, Line, interval_chart, line_chart
from pipeline.report.page.content import (
    DataTable,
    Figure,
    Section,
    optional_tables,
    shorten,
    words,
)
from pipeline.report.page.run_documents import RunDocuments
from pipeline.report.pruning import pruning_table
from pipeline.report.quality import MEASURES, quality_table
from tokenmill.contracts.cost_report import CalibrationBin, EvaluationSummary, Metrics
from tokenmill.number_format import count
from tokenmill.text.language import language_label

_MAIN = ("bits_per_byte", "masked_perplexity", "accuracy")
_SLICES_DRAWN = 24


def quality_section(run: RunDocuments) -> Section:
    """Show what the model is worth on text that it has not seen."""
    if run.cost_report is None:
        return Section("quality", "Quality on held-out text")
    cost, evaluation = run.cost_report, run.cost_report.quality.evaluation
    figures = []
    for title, slices in (
        ("source", evaluation.by_source),
        ("language", {language_label(k): v for k, v in evaluation.by_language.items()}),
        ("length", evaluation.by_length),
    ):
        figure = _slices(title, slices, evaluation)
        if figure is not None:
            figures.append(figure)
    if len(evaluation.calibration) > 1:
        figures.append(_reliability(evaluation.calibration))
    sentences = []
    if (error := evaluation.total.get("calibration_error")) is not None:
        sentences.append(
            f"Calibration error {error:.2%}: so far the model's confidence in its tokens is from "
            "how often they are right, on average."
        )
    tables = optional_tables(
        [("Against the baselines", quality_table(cost)),
         ("Pruning", pruning_table(cost.quality)),
         ("Benchmarks", benchmark_table(evaluation.benchmarks))]
    )  # fmt: skip
    return Section("quality", "Quality on held-out text", sentences, figures, tables)


def _reliability(bins: Sequence[CalibrationBin]) -> Figure:
    """Draw how often the first guesses of each confidence are right (Guo et al. 2017)."""
    guesses = sum(each.count for each in bins)
    svg, legend = line_chart(
        [
            Line(
                "the model; a larger dot has more guesses",
                [(each.confidence, each.accuracy) for each in bins],
                dots=True,
                weights=[float(each.count) for each in bins],
            ),
            Line("as often right as it is sure", [(0.0, 0.0), (1.0, 1.0)]),
        ],
        "probability that the model gives its first guess",
        "{:.0%}".format,
        show_x="{:.0%}".format,
    )
    widest = max(bins, key=lambda each: each.count)
    return Figure(
        "Calibration: share of first guesses that are right",
        svg,
        f"A dot for each of {len(bins)} bins of confidence, with {count(guesses)} guesses in all. "
        f"Most, {count(widest.count)}, are given {widest.confidence:.1%} on average, and "
        f"{widest.accuracy:.1%} of them are right. A dot below the line is of guesses that the "
        "model is too sure of.",
        DataTable(
            ("confidence", "guesses", "mean confidence", "right"),
            [(f"{each.low:.1%} to {each.high:.1%}", count(each.count), f"{each.confidence:.1%}",
              f"{each.accuracy:.1%}") for each in bins],
        ),
        legend,
    )  # fmt: skip


def _slices(by: str, slices: dict[str, Metrics], evaluation: EvaluationSummary) -> Figure | None:
    """Draw the task's measure of each slice with its interval; None where there are no two."""
    name = next((name for name in _MAIN if name in evaluation.total), None)
    if name is None:
        return None
    found = {value: metrics for value, metrics in slices.items() if name in metrics}
    if len(found) < 2:
        return None
    spec = next(spec for measure, spec, _ in MEASURES if measure == name)
    ordered = sorted(
        found.items(), key=lambda item: (-item[1].get("evaluated_documents", 0.0), item[0])
    )
    intervals = [_interval("all", evaluation.total, name, spec)]
    intervals += [_interval(value, metrics, name, spec)
                  for value, metrics in ordered[:_SLICES_DRAWN]]  # fmt: skip
    columns = [key for key, _, _ in MEASURES if key in evaluation.total]
    specs = {key: each for key, each, _ in MEASURES}
    rows = [
        (
            shorten(value),
            f"{metrics['evaluated_documents']:,.0f}" if "evaluated_documents" in metrics else "",
            *(format(metrics[key], specs[key]) if key in metrics else "" for key in columns),
            _range(metrics, name, spec),
            f"{metrics['calibration_error']:.2%}" if "calibration_error" in metrics else "",
        )
        for value, metrics in [("all", evaluation.total), *ordered]
    ]
    rest = len(ordered) - _SLICES_DRAWN
    more = f" The table has {rest:,} more." if rest > 0 else ""
    headings = ("documents", *map(words, columns), f"95% interval of {words(name)}",
                "calibration error")  # fmt: skip
    return Figure(
        f"{words(name).capitalize()} by {by}",
        interval_chart(intervals),
        f"A dot a {by}, with its 95% interval where there is one; all held-out text has "
        f"{format(evaluation.total[name], spec)}.{more}",
        DataTable((by, *headings), rows),
    )


def _interval(label: str, metrics: Metrics, name: str, spec: str) -> Interval:
    low, high = metrics.get(name + LOW), metrics.get(name + HIGH)
    return Interval(label, metrics[name], low, high, format(metrics[name], spec))


def _range(metrics: Metrics, name: str, spec: str) -> str:
    low, high = metrics.get(name + LOW), metrics.get(name + HIGH)
    return "" if low is None or high is None else f"{format(low, spec)} to {format(high, spec)}"
