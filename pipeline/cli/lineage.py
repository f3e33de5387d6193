"""`tokenmill lineage` and `tokenmill gc`: origins of a model; removal of what no run needs."""

import datetime
import json
import os

import click

from pipeline.cli.errors import user_errors_without_warnings
from pipeline.cli.options import json_option, metadata_url_option, run_option
from pipeline.runners.run_lock import run_lock


@click.command()
@click.argument("model")
@run_option
@metadata_url_option
@json_option
def lineage(model: str, run_directory: str | None, metadata_url: str | None, as_json: bool) -> None:
    """Show what the pushed model MODEL was trained on: files, tokens, settings, cost."""
    with user_errors_without_warnings():
        from tokenmill.metadata.lineage import trace_model

        traced = trace_model(model, run_directory, metadata_url)
    if as_json:
        click.echo(json.dumps(traced.to_json(), indent=2, sort_keys=True))
        return
    from pipeline.report.quality import describe_quality
    from tokenmill.cost.pricing import usd

    total, actual = traced.ledger.funnel.total, traced.cost_report.actual
    evaluation = traced.cost_report.quality.evaluation.total
    click.echo(f"{traced.model}\n  pushed by run {traced.run_id}")
    click.echo(f"  read {len(traced.inputs)} file(s):")
    for file in traced.inputs:
        modified = datetime.datetime.fromtimestamp(file["modified"], datetime.timezone.utc)
        click.echo(
            f"    {file['path']}  {file['size_bytes']:,} bytes, of {modified:%Y-%m-%d %H:%M} UTC"
        )
    click.echo(
        f"  {total.raw.documents:,} documents, {total.curated.documents:,} after "
        f"curation, {total.train.tokens:,} tokens to train on, "
        f"{traced.ledger.training.effective_tokens:,.0f} effective"
    )
    click.echo(
        f"  {usd(actual.compute_usd)} for {actual.chip_hours:.3g} chip-hours; "
        f"{describe_quality(evaluation)} on held-out text"
    )
    click.echo("  artifacts:")
    for name, directory in traced.artifacts.items():
        click.echo(f"    {name}: {directory}")
    click.echo("  the whole configuration: tokenmill lineage --json, key config_toml")


@click.command()
@click.argument("run_directory")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    required=True,
    help="Number of newest runs that keep their artifacts.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def gc(run_directory: str, keep: int, yes: bool) -> None:
    """Remove what neither the newest runs nor a served model need: artifacts, checkpoints."""
    with user_errors_without_warnings():
        from tokenmill.metadata.garbage_collection import collect_garbage, find_garbage
        from tokenmill.metadata.output_directory import open_runs

        metadata = open_runs(run_directory, example=["runs/demo"])
        with run_lock(run_directory):
            garbage = find_garbage(metadata, run_directory, keep)
            if not garbage.directories:
                click.echo("Nothing to remove.")
                return
            for directory in garbage.directories:
                click.echo(os.path.relpath(directory, run_directory))
            size = f"{len(garbage.directories)} directories, {garbage.size_bytes / 1e6:,.1f} MB"
            if not yes and not click.confirm(f"Remove {size}?"):
                raise SystemExit(1)
            collect_garbage(metadata.store, garbage)
    click.echo(f"Removed {size}.")
