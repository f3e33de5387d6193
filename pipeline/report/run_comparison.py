"""The runs of a directory, side by side."""

import json

import click
from rich.table import Table

from pipeline.report.tables import stdout_console
from tokenmill.metadata.output_directory import open_runs
from tokenmill.metadata.run_history import RunNumbers, compare_runs


def print_runs(run_dir: str, as_json: bool) -> None:
    """Print what the runs of a directory estimated and measured, one line a run or as JSON."""
    found = compare_runs(open_runs(run_dir))
    if as_json:
        known = [
            {name: value for name, value in vars(run).items() if value is not None} for run in found
        ]
        click.echo(json.dumps(known, indent=2))
    else:
        _print_table(found)


def _print_table(found: list[RunNumbers]) -> None:
    table = Table(box=None)
    columns = (
        ("effective tokens", "estimated", "effective_tokens", ",.0f"),
        ("epochs", "estimated", "epochs", ".2f"),
        ("parameters", "estimated", "params_total", ",.0f"),
        ("FLOPs", "estimated", "total_flops", ".2e"),
        ("USD est.", "estimated", "compute_usd", ".3g"),
        ("USD", "actual", "compute_usd", ".3g"),
        ("MFU", "actual", "mfu", ".1%"),
        ("goodput", "actual", "goodput", ".1%"),
        ("time/est.", "actual", "training_seconds_actual_over_estimated", ".2f"),
        ("bits/byte", "actual", "bits_per_byte", ".3f"),
        ("masked ppl", "actual", "masked_perplexity", ".1f"),
        ("accuracy", "actual", "accuracy", ".1%"),
    )
    table.add_column("run")
    for title, *_ in columns:
        table.add_column(title, justify="right")
    table.add_column("")
    for run in found:
        sides = {"estimated": run.estimated, "actual": run.actual}
        cells = [
            format(sides[side][name], spec) if name in sides[side] else ""
            for _, side, name, spec in columns
        ]
        note = "" if run.trained else "trainer cached"
        note = "stopped before training" if run.trained is None else note
        table.add_row(run.run[:19], *cells, note)
    stdout_console(140).print(table)
