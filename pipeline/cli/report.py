"""`tokenmill report`: the page of a run, written anew, or several runs on one page."""

import pathlib
import webbrowser
from collections.abc import Sequence

import click

from pipeline.cli.errors import user_errors_only
from tokenmill.errors import TokenmillError


@click.command()
@click.argument("runs", metavar="RUN", nargs=-1, required=True)
@click.option(
    "--output",
    metavar="FILE",
    help="Where several runs go side by side.  [default: comparison.html]",
)
@click.option("--open", "open_page", is_flag=True, help="Show it in the browser, too.")
def report(runs: Sequence[str], output: str | None, open_page: bool) -> None:
    """Write report.html of a RUN, or one page of several, and say where it is.

    A RUN is an output directory, for the newest run there, or the directory of one run's log in
    it, logs/<time>. The page is one file with tokens, cost and quality, to be read in a browser
    without a network; that of one run lies beside its log.
    """
    with user_errors_only():
        if len(runs) == 1 and output is not None:
            raise TokenmillError(
                f"--output {output} is for several runs: report.html lies beside the run's log, "
                "to which its links lead.",
                "Leave --output out, and copy the file.",
            )
        path = _write(runs, output)
        if open_page and not webbrowser.open(pathlib.Path(path).absolute().as_uri()):
            raise TokenmillError(
                f"{path} is written, but no browser was found to open it.",
                "Open the file yourself, or name a browser in the environment variable BROWSER.",
            )
        try:
            click.echo(path)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise TokenmillError(
                f"{path} is written; standard output does not take its path: {error.strerror}.",
                "Send the output to where there is room.",
            ) from None


def _write(runs: Sequence[str], output: str | None) -> str:
    """Write the page of one run or of several; return its path."""
    try:
        if len(runs) == 1:
            from pipeline.report.page.write import write_page

            return write_page(runs[0])
        from pipeline.report.page.comparison import COMPARISON_NAME, write_comparison

        return write_comparison(runs, output or COMPARISON_NAME)
    except OSError as error:
        where = error.filename2 or error.filename
        place = "copy the run's directory to where you may write, and give the copy"
        if len(runs) > 1:
            place = "give another --output"
        raise TokenmillError(
            f"the page cannot be written{f' to {where}' if where else ''}: {error.strerror}.",
            f"Make room or give yourself the right to write there, or {place}.",
        ) from error
