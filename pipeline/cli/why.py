"""`tokenmill why`: what became of a document; `tokenmill runs`: runs side by side."""

import click

from pipeline.cli.errors import user_errors_only
from pipeline.cli.options import json_option
from tokenmill.errors import TokenmillError

_DEFAULT_RUN = "runs/demo"


@click.command()
@click.argument("doc_id", required=False)
@click.option(
    "--run", "run_dir", default=_DEFAULT_RUN, show_default=True, metavar="DIR",
    help="A run's output directory; its newest run is asked.",
)  # fmt: skip
@click.option("--row", type=int, metavar="N", help="The other way: the documents of packed row N.")
@click.option("--split", default="train", show_default=True, help="Of --row: train or eval.")
@click.option("--quarantine", is_flag=True, help="List all that could not be read, and why.")
@json_option
def why(
    doc_id: str | None, run_dir: str, row: int | None, split: str, quarantine: bool, as_json: bool
) -> None:
    """Say what became of the document DOC_ID: kept or dropped, by which rule, in which rows.

    DOC_ID may be a file, too, or file:record: what of it could not be read.

    \b
    tokenmill why numpy/numpy/ma/core.py:sum
    tokenmill why --row 12
    tokenmill why --quarantine
    """  # noqa: D301  (click wants the backspace)
    with user_errors_only():
        if (doc_id is not None) + (row is not None) + quarantine != 1:
            raise TokenmillError(
                "give a DOC_ID, a row by --row N, or --quarantine.", "See tokenmill why --help."
            )
        from pipeline.report.document import print_document_or_row, print_quarantine

        if quarantine:
            print_quarantine(run_dir, as_json)
            return
        print_document_or_row(run_dir, doc_id, row, split, as_json)


@click.command()
@click.option(
    "--run", "run_dir", default=_DEFAULT_RUN, show_default=True, metavar="DIR",
    help="A run's output directory.",
)  # fmt: skip
@json_option
def runs(run_dir: str, as_json: bool) -> None:
    """Compare the runs of a directory: tokens, FLOPs, cost and quality, estimated and actual."""
    with user_errors_only():
        from pipeline.report.run_comparison import print_runs

        print_runs(run_dir, as_json)
