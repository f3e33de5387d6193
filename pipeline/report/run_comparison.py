"""The runs of a directory, side by side."""

import json

from rich.table import Table

from pipeline.report.tables import echo, stdout_console
from tokenmill.metadata.output_directory import open_runs
from tokenmill.metadata.run_history import RunNumbers, compare_runs


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
    # A column that no run has is left out: then run names are not cut.
    shown = [column for column in columns if any(column[2] in vars(r)[column[1]] for r in found)]
    table.add_column("run", no_wrap=True)
    for title, *_ in shown:
        table.add_column(title, justify="right")
    table.add_column("")
    for run in found:
        sides = {"estimated": run.estimated, "actual": run.actual}
        cells = [
            format(sides[side][name], spec) if name in sides[side] else ""
            for _, side, name, spec in shown
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
