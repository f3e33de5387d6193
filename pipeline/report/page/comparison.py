"""comparison.html: several runs side by side, on one page."""

import json
import os
import urllib.parse
from collections.abc import Callable, Iterator, Sequence

import tomli

from pipeline.report.page.charts import COLORS
from pipeline.report.page.compared_runs import (
    ComparedRun,
    Measure,
    changed_settings,
    describe_change,
    measure_table,
    name_runs,
)
from pipeline.report.page.content import DataTable, Section, shorten, words
from pipeline.report.page.headline import BigNumber, Headline, headline
from pipeline.report.page.locate import locate_run
from pipeline.report.page.render import PAGE_NAME
from pipeline.report.page.run_documents import RunDocuments, read_run
from pipeline.report.page.template import render
from pipeline.report.page.training import compare_losses
from pipeline.report.quality import MEASURES
from tokenmill.contracts.cost_report import CostReport
from tokenmill.contracts.ledger import Ledger
from tokenmill.errors import TokenmillError
from tokenmill.files import write_text
from tokenmill.metadata.run_history import flat_config
from tokenmill.number_format import (
    approximate,
    byte_size,
    count,
    duration,
    power_of_ten,
    usd,
    usd_price,
)

COMPARISON_NAME = "comparison.html"

_MOST_RUNS = COLORS
_SLICES_SHOWN = 40
# They tell runs apart and change nothing that is computed.
_NAMES = {"run.name", "run.output_dir"}


def write_comparison(paths: Sequence[str], output: str) -> str:
    """Write a page with several runs side by side.

    Args:
        paths: Output directories, or directories of logs in them, as `locate_run` takes them.
        output: The file to write.

    Returns:
        The file, absolute.

    Raises:
        TokenmillError: A path names no run, a run is there twice, there are too many, or the
            output is no local file.
    """
    if len(paths) > _MOST_RUNS:
        raise TokenmillError(
            f"{len(paths)} runs are too many for one plot.", f"Compare at most {_MOST_RUNS}."
        )
    if "://" in output or os.path.isdir(output):
        raise TokenmillError(
            f"--output {output}: expected a file on this machine.", "Give the name of a file."
        )
    output = os.path.abspath(output)
    # A link to a directory leads to the same run, and would look like another.
    found = map(locate_run, paths)
    runs = [read_run(x.metadata, os.path.realpath(x.directory), x.run_id) for x in found]
    write_text(output, render_comparison(runs, output))
    return output


def render_comparison(documents: Sequence[RunDocuments], output: str) -> str:
    """Return the page of several runs.

    Args:
        documents: Of each run; differences are from the first.
        output: Where the page will lie: links to the runs' pages are relative to it.
    """
    runs = name_runs(documents)
    made = (_outcomes(runs, output), _settings(runs), _tokens(runs), _training(runs), _cost(runs),
            _quality(runs))  # fmt: skip
    sections = [section for section in made if not section.is_empty]
    head = Headline("comparison", "", list(_differences(runs)), "plain",
                    f"{len(runs)} runs side by side", list(_cautions(runs)), [])  # fmt: skip
    return str(render("page.html.j2", head=head, sections=sections, index=""))


def _of_ledger(value: Callable[[Ledger], float | None]) -> Callable[[RunDocuments], float | None]:
    return lambda run: None if run.ledger is None else value(run.ledger)


def _of_cost(value: Callable[[CostReport], float | None]) -> Callable[[RunDocuments], float | None]:
    return lambda run: None if run.cost_report is None else value(run.cost_report)


def _of_total(name: str) -> Callable[[RunDocuments], float | None]:
    return _of_cost(lambda cost: cost.quality.evaluation.total.get(name))


def _written(spec: str) -> Callable[[float], str]:
    return lambda value: format(value, spec)


_EFFECTIVE = Measure("effective tokens", _of_ledger(lambda x: x.training.effective_tokens), count)
_COST = Measure("cost of training", _of_cost(lambda cost: cost.actual.compute_usd), usd)
_QUALITY = tuple(
    Measure(words(name), _of_total(name), _written(spec), spec.endswith("%"))
    for name, spec, _ in MEASURES
)  # fmt: skip
_TOKENS = (
    _EFFECTIVE,
    Measure("effective tokens a parameter",
            _of_ledger(lambda x: x.guidance.chinchilla.tokens_per_param), approximate),
    Measure("epochs", _of_ledger(lambda x: x.training.epochs), approximate),
    Measure("steps", _of_ledger(lambda x: x.training.steps), count),
    Measure("parameters", _of_ledger(lambda x: x.model.params_total), count),
    Measure("parameters that a token passes, of mixtures of experts",
            _of_ledger(lambda x: None if x.model.params_active == x.model.params_total
                       else x.model.params_active), count),
    Measure("bytes of text a token", _of_ledger(lambda x: x.funnel.total.bytes_per_token),
            lambda y: f"{y:.2f}"),
)  # fmt: skip
_COSTS = (
    Measure("estimated compute", _of_ledger(lambda x: x.cost.compute_usd), usd),
    _COST,
    Measure("per million effective tokens",
            _of_cost(lambda cost: cost.actual.usd_per_million_effective_tokens), usd),
    Measure("all steps, when they ran", _of_cost(lambda cost: cost.pipeline.usd), usd),
    Measure("estimated time of the trainer",
            _of_ledger(lambda x: x.forecast.total_seconds), duration),
    Measure("time of the trainer", _of_cost(lambda cost: cost.actual.total_seconds), duration),
    Measure("chip-hours", _of_cost(lambda cost: cost.actual.chip_hours), approximate),
    Measure("FLOPs", _of_cost(lambda cost: cost.actual.total_flops), power_of_ten),
    Measure("MFU", _of_cost(lambda cost: cost.actual.mfu), lambda y: f"{y:.1%}", True),
    Measure("goodput", _of_cost(lambda cost: cost.actual.goodput), lambda y: f"{y:.1%}", True),
    Measure("tokens a second",
            lambda run: run.telemetry.tokens_per_second if run.telemetry else None, count),
    Measure("price of a chip-hour", _of_ledger(lambda x: x.price.usd_per_chip_hour), usd_price),
)  # fmt: skip


def _outcomes(runs: Sequence[ComparedRun], output: str) -> Section:
    """Show what became of each run, with a link to its own page."""
    rows: list[tuple[str, ...]] = []
    links: dict[tuple[int, int], str] = {}
    for i, each in enumerate(runs):
        head = headline(each.run)
        page = os.path.join(each.run.log_directory, PAGE_NAME)
        if each.run.log_directory and os.path.exists(page):
            relative = os.path.relpath(page, os.path.dirname(output))
            links[i, 0] = "./" + urllib.parse.quote(os.fsencode(relative))
        trainer = each.run.records.get("Trainer")
        earlier = "; trained in an earlier run" if trainer and trainer.cached else ""
        numbers = (number.value if number else "" for number in _three(head))
        rows.append((each.name, head.verdict + earlier, *numbers, each.run.run_id[:16]))
    headings = ("run", "outcome", "effective tokens", "cost of training", "quality", "started")
    return Section("runs", "The runs", tables=[("Outcome", DataTable(headings, rows, links=links))])


def _three(head: Headline) -> list[BigNumber | None]:
    """Return a run's three numbers, None where it has none."""
    by_label = {number.label: number for number in head.numbers}
    tokens, cost = (by_label.pop(name, None) for name in ("effective tokens", "cost of training"))
    by_label.pop("estimated compute", None)
    return [tokens, cost, next(iter(by_label.values()), None)]


def _settings(runs: Sequence[ComparedRun]) -> Section:
    """Show the settings that are not alike in all runs."""
    title, configs = "What was set otherwise", [_config(each.run) for each in runs]
    rows = [
        (key, *("not set" if value is None else shorten(json.dumps(value, ensure_ascii=False))
                for value in values))
        for key, values in changed_settings(configs)
        if key not in _NAMES
    ]  # fmt: skip
    if not rows:
        return Section("settings", title, ["Nothing: the runs have the same settings."])
    table = DataTable(("key", *(each.name for each in runs)), rows)
    return Section("settings", title, tables=[("Keys that differ", table)])


def _config(run: RunDocuments) -> dict[str, object]:
    return flat_config(tomli.loads(run.config_toml))


def _tokens(runs: Sequence[ComparedRun]) -> Section:
    stages = list(dict.fromkeys(
        stage.stage for each in runs if each.run.ledger
        for stage in each.run.ledger.funnel.total.stages
    ))  # fmt: skip
    reasons = sorted({reason for each in runs if each.run.curation
                      for reason in each.run.curation.dropped_by_reason()})  # fmt: skip
    tables = [
        ("Tokens", measure_table("", _TOKENS, runs)),
        ("Tokens after each stage",
         measure_table("stage", [_stage(stage) for stage in stages], runs)),
        ("Text that was dropped, by reason",
         measure_table("reason", [_reason(reason) for reason in reasons], runs)),
    ]  # fmt: skip
    return Section("tokens", "Tokens", tables=_with_rows(tables))


def _stage(name: str) -> Measure:
    return Measure(
        words(name),
        _of_ledger(lambda ledger: next(
            (float(stage.tokens) for stage in ledger.funnel.total.stages if stage.stage == name),
            None)),
        count,
    )  # fmt: skip


def _reason(name: str) -> Measure:
    def dropped(run: RunDocuments) -> float | None:
        amount = run.curation.dropped_by_reason().get(name) if run.curation else None
        return None if amount is None else float(amount.bytes)

    return Measure(words(name), dropped, byte_size)


def _training(runs: Sequence[ComparedRun]) -> Section:
    trained = [(each.name, each.run.telemetry) for each in runs if each.run.telemetry]
    return Section("training", "Training", figures=list(compare_losses(trained)))


def _cost(runs: Sequence[ComparedRun]) -> Section:
    tables = [("Estimate and outcome", measure_table("", _COSTS, runs))]
    return Section("cost", "Time and money", tables=_with_rows(tables))


def _quality(runs: Sequence[ComparedRun]) -> Section:
    tables = [("All held-out text", measure_table("", [
        *_QUALITY,
        Measure("calibration error", _of_total("calibration_error"), lambda y: f"{y:.2%}", True),
        Measure("held-out documents", _of_total("evaluated_documents"), count),
    ], runs))]  # fmt: skip
    shown = next((m for m in _QUALITY if all(m.value(each.run) is not None for each in runs)), None)
    if shown is not None:
        for by in ("source", "language", "length"):
            values = sorted({value for each in runs for value in _slices(each.run, by)})
            measures = [_slice(by, value, shown) for value in values[:_SLICES_SHOWN]]
            title = f"{shown.label.capitalize()} by {by}"
            if len(values) > 1:
                tables.append((title, measure_table(by, measures, runs)))
    return Section("quality", "Quality on held-out text", tables=_with_rows(tables))


def _slices(run: RunDocuments, by: str) -> dict[str, dict[str, float]]:
    if run.cost_report is None:
        return {}
    found: dict[str, dict[str, float]] = getattr(run.cost_report.quality.evaluation, f"by_{by}")
    return found


def _slice(by: str, value: str, measure: Measure) -> Measure:
    name = next(name for name, _, _ in MEASURES if words(name) == measure.label)
    return measure._replace(
        label=shorten(value), value=lambda run: _slices(run, by).get(value, {}).get(name)
    )


def _with_rows(tables: Sequence[tuple[str, DataTable]]) -> list[tuple[str, DataTable]]:
    return [(title, table) for title, table in tables if table.rows]


def _differences(runs: Sequence[ComparedRun]) -> Iterator[str]:
    """Say in a sentence a run what sets it apart from the first, in the numbers that count."""
    first, *others = runs
    shown = next((m for m in _QUALITY if m.value(first.run) is not None), None)
    for each in others:
        parts = []
        for measure in (_EFFECTIVE, _COST, *([shown] if shown else [])):
            before, after = measure.value(first.run), measure.value(each.run)
            if before is not None and after is not None:
                change = describe_change(measure, before, after) or "the same"
                parts.append(f"{measure.label} {measure.show(after)} ({change})")
        if parts:
            yield f"{each.name}, against {first.name}: {'; '.join(parts)}."
    yield f"In brackets: by how much a number differs from that of {first.name}."


def _cautions(runs: Sequence[ComparedRun]) -> Iterator[str]:
    """Say what makes the runs hard to compare."""
    changed = {key.partition(".")[0] for key, _ in
               changed_settings([_config(each.run) for each in runs])}  # fmt: skip
    held_out = {_of_total("evaluated_documents")(each.run) for each in runs} - {None}
    if len(held_out) > 1 or changed & {"corpus", "curate"}:
        yield "The runs may differ in their held-out text: their quality is then not of the same."
    for each in runs:
        if each.run.ended:
            yield f"{each.name}: the run {each.run.ended}."
