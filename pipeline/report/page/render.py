"""Render the page of a run from its documents."""

import os

from pipeline.report.page.cost import cost_section
from pipeline.report.page.experts import experts_section
from pipeline.report.page.funnel import dropped_section, funnel_section
from pipeline.report.page.headline import headline
from pipeline.report.page.model import memory_section, text_section
from pipeline.report.page.origin import origin_section
from pipeline.report.page.quality import quality_section
from pipeline.report.page.run_documents import RunDocuments
from pipeline.report.page.samples import attention_section, samples_section
from pipeline.report.page.template import render
from pipeline.report.page.training import training_section

PAGE_NAME = "report.html"
INDEX_NAME = "index.html"

_SECTIONS = (
    funnel_section,
    dropped_section,
    training_section,
    experts_section,
    cost_section,
    quality_section,
    samples_section,
    attention_section,
    text_section,
    memory_section,
    origin_section,
)


def render_page(run: RunDocuments) -> str:
    """Return the page; the same documents give the same bytes."""
    sections = [section for make in _SECTIONS if not (section := make(run)).is_empty]
    index = ""
    if run.log_directory:
        relative = os.path.relpath(os.path.join(run.directory, INDEX_NAME), run.log_directory)
        index = f"./{relative}"
    return str(render("page.html.j2", head=headline(run), sections=sections, index=index))
