"""`tokenmill ingest`: what files give, before a run."""

import json
from collections.abc import Sequence

import click

from pipeline.cli.errors import user_errors_only
from pipeline.cli.options import json_option, run_config_options
from tokenmill.visible import visible_lines


@click.group()
def ingest() -> None:
    """Try on files what a run would read of them.

    \b
    tokenmill ingest preview my_texts/ crawl.warc.gz
    """  # noqa: D301  (click wants the backspace)


@ingest.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@run_config_options
@click.option(
    "--files", "most_files", type=click.IntRange(1), default=200, show_default=True, metavar="N",
    help="Read N files of each format, chosen by a hash: the same every time.",
)  # fmt: skip
@json_option
def preview(
    paths: Sequence[str],
    overrides: Sequence[str],
    config_path: str | None,
    preset: str | None,
    most_files: int,
    as_json: bool,
) -> None:
    """Read files and show by format what they give, what is left out and what is quarantined."""
    with user_errors_only():
        from pipeline.report.ingest_preview import preview_ingest, print_ingest_preview

        found = preview_ingest(paths, overrides, config_path, preset, most_files)
        if as_json:
            click.echo(visible_lines(json.dumps(found, ensure_ascii=False, indent=2)))
        else:
            print_ingest_preview(found)
