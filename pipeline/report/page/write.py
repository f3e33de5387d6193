"""Render the page of a run and write it beside the run's log."""

import os

from pipeline.report.page.cost import cost_section
from pipeline.report.page.funnel import dropped_section, funnel_section
from pipeline.report.page.headline import headline
from pipeline.report.page.index import INDEX_NAME, write_index
from pipeline.report.page.model import memory_section, text_section
from pipeline.report.page.origin import origin_section
from pipeline.report.page.quality import quality_section
from pipeline.report.page.run_documents import RunDocuments, read_run
from pipeline.report.page.template import render
from pipeline.report.page.training import training_section
from tokenmill.files import write_text
from tokenmill.metadata.output_directory import open_runs

PAGE_NAME = "report.html"

_SECTIONS = (
    funnel_section,
    dropped_section,
    training_section,
    cost_section,
    quality_section,
    text_section,
    memory_section,
    origin_section,
)


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
    write_index(metadata, directory, PAGE_NAME)
    return path


def render_page(run: RunDocuments) -> str:
    """Return the page; the same documents give the same bytes."""
    sections = [section for make in _SECTIONS if not (section := make(run)).is_empty]
    index = os.path.relpath(os.path.join(run.directory, INDEX_NAME), run.log_directory)
    return str(render("page.html.j2", head=headline(run), sections=sections, index=f"./{index}"))
