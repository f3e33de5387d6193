"""Write the page of a run beside the run's log."""

import os

from pipeline.report.page.index import write_index
from pipeline.report.page.locate import locate_run
from pipeline.report.page.render import PAGE_NAME, render_page
from pipeline.report.page.run_documents import read_run
from tokenmill.files import write_text


def write_page(path: str, run_id: str | None = None) -> str:
    """Write report.html of a run, and index.html of all runs of the output directory.

    Args:
        path: The output directory, or the directory of one run's log in it.
        run_id: The run; None for the one that the path names.

    Returns:
        The path of report.html: beside the run's log.

    Raises:
        TokenmillError: There is no such run.
    """
    found = locate_run(path)
    run = read_run(found.metadata, found.directory, run_id or found.run_id)
    page = os.path.join(run.log_directory, PAGE_NAME)
    write_text(page, render_page(run))
    write_index(found.metadata, found.directory)
    return page
