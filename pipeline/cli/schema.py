"""`tokenmill schema`: pin the schema that data must fit, look at it, accept what a run found."""

import os

import click

from pipeline.cli.errors import user_errors_without_warnings
from tokenmill.errors import TokenmillError


@click.group()
def schema() -> None:
    """The schema that documents must fit: freeze, show, accept.

    \b
    tokenmill schema freeze runs/demo --output schema.pbtxt
    tokenmill run --set validate.schema_path=schema.pbtxt
    tokenmill schema accept runs/demo schema.pbtxt      if that run was stopped and is right
    """  # noqa: D301  (click wants the backspace)


@schema.command()
@click.argument("run_dir")
@click.option("--output", required=True, metavar="FILE", help="Where to write the schema.")
@click.option("--open-sources", is_flag=True, help="Let new sources in.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def freeze(run_dir: str, output: str, open_sources: bool, force: bool) -> None:
    """Pin the schema that the newest run in RUN_DIR inferred from its data."""
    with user_errors_without_warnings():
        if os.path.exists(output) and not force:
            raise TokenmillError(
                f"{output} exists.",
                f"Change it with: tokenmill schema accept {run_dir} {output}; or --force.",
            )
        from pipeline.report.schema import freeze_newest

        freeze_newest(run_dir, output, open_sources)
    click.echo(f"\nWrote {output}. Keep it with your code, and use it:")
    click.echo(f"  tokenmill run --set validate.schema_path={output}")
    click.echo("To be told when the next data differs from the data before, add:")
    click.echo("  --set validate.previous_statistics=latest")


@schema.command()
@click.argument("file_or_run")
@click.option("--html", metavar="FILE", help="Write a run's statistics as TFDV's viewer.")
def show(file_or_run: str, html: str | None) -> None:
    """Show a schema file, or the schema and statistics of the newest run in a directory."""
    with user_errors_without_warnings():
        if html and not os.path.isdir(file_or_run):
            raise TokenmillError("--html shows a run's statistics.", "Give a run's directory.")
        from pipeline.report.schema import show_schema

        show_schema(file_or_run, html)


@schema.command()
@click.argument("run_dir")
@click.argument("schema_file")
@click.option("--yes", is_flag=True, help="Do not ask.")
def accept(run_dir: str, schema_file: str, yes: bool) -> None:
    """Change SCHEMA_FILE so that it accepts what the newest run in RUN_DIR found."""
    with user_errors_without_warnings():
        from pipeline.report.schema import accept_newest

        if not accept_newest(run_dir, schema_file, yes):
            return
    click.echo(f"Wrote {schema_file}. Run again:")
    click.echo(f"  tokenmill run ... --set validate.schema_path={schema_file}")
