"""The runs of a directory, side by side."""

import json
from collections.abc import Callable

from rich.table import Table

from pipeline.report.tables import echo, stdout_console
from tokenmill.metadata.output_directory import open_runs
from tokenmill.metadata.run_history import RunNumbers, compare_runs
from tokenmill.number_format import count, power_of_ten, usd


def print_runs(run_dir: str, as_json: bool) -> None:
    """Print what the runs of a directory estimated and measured, one line a run or as JSON."""
    found = compare_runs(open_runs(run_dir))
    if as_json:
        known = [
            {name: value for name, value in vars(run).items() if value is not None} for run in found
        ]
        echo(json.dumps(known, indent=2))
    else:
        stdout_console(200).print(runs_table(found))
        if changes := describe_changes(found):
            echo("\nWhat was set otherwise than in the run before:")
        for line in changes:
            echo(f" {line}")


def runs_table(found: list[RunNumbers]) -> Table:
    """Show the headline numbers of runs, a line each."""
    table = Table(box=None)
    columns: tuple[tuple[str, str, str, Callable[[float], str]], ...] = (
        ("effective tokens", "estimated", "effective_tokens", count),
        ("epochs", "estimated", "epochs", "{:.2f}".format),
        ("parameters", "estimated", "params_total", count),
        ("active", "estimated", "params_active", count),
        ("FLOPs", "estimated", "total_flops", power_of_ten),
        ("est. cost", "estimated", "compute_usd", usd),
        ("cost", "actual", "compute_usd", usd),
        ("MFU", "actual", "mfu", "{:.1%}".format),
        ("goodput", "actual", "goodput", "{:.1%}".format),
        ("time/est.", "actual", "training_seconds_actual_over_estimated", "{:.2f}".format),
        ("bits/byte", "actual", "bits_per_byte", "{:.3f}".format),
        ("masked ppl", "actual", "masked_perplexity", "{:,.1f}".format),
        ("accuracy", "actual", "accuracy", "{:.1%}".format),
    )
    # A column that no run has is left out: then run names are not cut. Of dense models all
    # parameters are active.
    sparse = any(
        r.estimated.get("params_active", total) != total
        for r in found
        if (total := r.estimated.get("params_total")) is not None
    )
    shown = [
        column
        for column in columns
        if any(column[2] in vars(r)[column[1]] for r in found)
        and (column[2] != "params_active" or sparse)
    ]
    table.add_column("run", no_wrap=True)
    for title, *_ in shown:
        table.add_column(title, justify="right")
    table.add_column("")
    for run in found:
        sides = {"estimated": run.estimated, "actual": run.actual}
        cells = [
            show(sides[side][name]) if name in sides[side] else "" for _, side, name, show in shown
        ]
        note = run.ended or ("" if run.trained else "training cached")
        table.add_row(run.run[:23], *cells, note)
    return table


def describe_changes(found: list[RunNumbers]) -> list[str]:
    """Say of each run what was set otherwise than in the run before; nothing where nothing was."""
    return [
        f"{run.run[:23]}  "
        + ", ".join(f"{key}={json.dumps(value)}" if value is not None else f"{key} not set"
                    for key, value in run.changed.items())
        for run in found
        if run.changed
    ]  # fmt: skip
