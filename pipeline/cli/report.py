"""`tokenmill report`: the page of a run, written anew."""

import pathlib
import webbrowser

import click

from pipeline.cli.errors import user_errors_only
from tokenmill.errors import TokenmillError


@click.command()
@click.argument("run_directory", metavar="RUN")
@click.option("--open", "open_page", is_flag=True, help="Show it in the browser, too.")
def report(run_directory: str, open_page: bool) -> None:
    """Write report.html of the newest run in the output directory RUN, and say where it is.

    It is one file with tokens, cost and quality, to be read in a browser without a network.
    """
    with user_errors_only():
        from pipeline.report.page.write import write_page

        path = write_page(run_directory)
        if open_page and not webbrowser.open(pathlib.Path(path).absolute().as_uri()):
            raise TokenmillError(
                f"{path} is written, but no browser was found to open it.",
                "Open the file yourself, or name a browser in the environment variable BROWSER.",
            )
    click.echo(path)
