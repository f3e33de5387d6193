"""`tokenmill lineage` and `tokenmill gc`: origins of a model; removal of what no run needs."""

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
        from pipeline.report.lineage import print_lineage
        from tokenmill.metadata.lineage import trace_model

        traced = trace_model(model, run_directory, metadata_url)
    if as_json:
        click.echo(json.dumps(traced.to_json(), indent=2, sort_keys=True))
    else:
        print_lineage(traced)


@click.command()
@click.argument("run_directory")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    required=True,
    help="Number of newest finished runs that keep their artifacts and logs.",
)
@click.option(
    "--keep-versions",
    type=click.IntRange(min=1),
    help="Number of newest pushed versions that stay, besides those of a rollout or named in "
    "models.config; all, if not given.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def gc(run_directory: str, keep: int, keep_versions: int | None, yes: bool) -> None:
    """Remove what neither the newest runs nor a pushed version needs; say what, and ask.

    That is artifacts, checkpoints and logs, and with --keep-versions old versions, too.
    """
    with user_errors_without_warnings():
        from tokenmill.metadata.garbage_collection import collect_garbage, find_garbage
        from tokenmill.metadata.output_directory import correct_paths, open_runs

        open_runs(run_directory, example=["runs/demo"])  # or one message, before a lock is left
        with run_lock(run_directory):
            correct_paths(run_directory)
            metadata = open_runs(run_directory)
            garbage = find_garbage(metadata, run_directory, keep, keep_versions)
            if not garbage.directories:
                collect_garbage(metadata.store, garbage)  # records of what is gone already
                click.echo("Nothing to remove.")
                return
            for directory in garbage.directories:
                click.echo(os.path.relpath(directory, run_directory))
            size = f"{len(garbage.directories)} directories, {garbage.size_bytes / 1e6:,.1f} MB"
            if not yes and not click.confirm(f"Remove {size}?"):
                raise SystemExit(1)
            collect_garbage(metadata.store, garbage)
    click.echo(f"Removed {size}.")
