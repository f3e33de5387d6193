"""Write the page of a run beside the run's log."""

import os

from pipeline.report.page.index import write_index
from pipeline.report.page.render import PAGE_NAME, render_page
from pipeline.report.page.run_documents import read_run
from tokenmill.files import write_text
from tokenmill.metadata.output_directory import open_runs


def write_page(directory: str, run_id: str | None = None) -> str:
    """Write report.html of a run, and index.html of all runs of the output directory.

    Args:
        directory: The output directory.
        run_id: The run; None for the newest.

    Returns:
        The path of report.html: beside the run's log.

    Raises:
        TokenmillError: There is no such run.
    """
    metadata = open_runs(directory, example=["runs/demo"])
    run = read_run(metadata, directory, run_id)
    path = os.path.join(run.log_directory, PAGE_NAME)
    write_text(path, render_page(run))
    write_index(metadata, directory)
    return path
