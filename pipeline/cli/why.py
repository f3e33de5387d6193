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
@json_option
def why(doc_id: str | None, run_dir: str, row: int | None, split: str, as_json: bool) -> None:
    """Say what became of the document DOC_ID: kept or dropped, by which rule, in which rows.

    \b
    tokenmill why numpy/numpy/ma/core.py:sum
    tokenmill why --row 12
    """  # noqa: D301  (click wants the backspace)
    with user_errors_only():
        if (doc_id is None) == (row is None):
            raise TokenmillError("give a DOC_ID, or a row by --row N.", "See tokenmill why --help.")
        from pipeline.report.document import print_document_or_row

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
