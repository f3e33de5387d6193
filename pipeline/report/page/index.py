"""index.html of an output directory: all its runs side by side, their loss curves in one plot."""

import os

from pipeline.report.page.charts import COLORS
from pipeline.report.page.content import Figure, Section, table_of_screen
from pipeline.report.page.headline import Headline
from pipeline.report.page.render import INDEX_NAME, PAGE_NAME
from pipeline.report.page.run_documents import log_directory_of
from pipeline.report.page.template import render
from pipeline.report.page.training import compare_losses
from pipeline.report.run_comparison import describe_changes, runs_table
from tokenmill.contracts.training import Telemetry, read_telemetry
from tokenmill.errors import TokenmillError
from tokenmill.files import write_text
from tokenmill.metadata.output_directory import RunMetadata
from tokenmill.metadata.run_history import compare_runs, step_records
from tokenmill.number_format import count


def write_index(metadata: RunMetadata, directory: str) -> str:
    """Write index.html of an output directory, with links to the pages of its runs.

    Args:
        metadata: Of the runs in `directory`.
        directory: The output directory.

    Returns:
        Its path.
    """
    directory = os.path.abspath(directory)
    found = compare_runs(metadata)
    table, changes = table_of_screen(runs_table(found)), describe_changes(found)
    links = {}
    for i, run in enumerate(metadata.runs()):
        logs = log_directory_of(directory, run.create_time_since_epoch / 1000)
        page = os.path.join(logs, PAGE_NAME)
        if os.path.exists(page):
            links[i, 0] = "./" + os.path.relpath(page, directory)
    section = Section(
        "runs",
        "Runs, the oldest first",
        sentences=[f"Set otherwise than in the run before: {line}" for line in changes],
        figures=_curves(metadata),
        tables=[("Estimate and outcome", table._replace(links=links))],
    )
    head = Headline(
        name=os.path.basename(directory),
        run_id="",
        what=[f"{count(len(found))} run{'' if len(found) == 1 else 's'} in {directory}."],
        kind="plain",
        verdict="Runs side by side",
        reasons=[],
        numbers=[],
    )
    path = os.path.join(directory, INDEX_NAME)
    write_text(path, str(render("page.html.j2", head=head, sections=[section], index="")))
    return path


def _curves(metadata: RunMetadata) -> list[Figure]:
    """Draw the loss of the newest trainings; nothing where there are no two."""
    trained: list[tuple[str, Telemetry]] = []
    for run_id, record in step_records(metadata, "Trainer"):
        if len(trained) == COLORS:
            break
        if record.cached or not record.outputs.get("model_run"):
            continue
        try:
            trained.append((run_id[:19], read_telemetry(record.one("model_run").uri)))
        except (OSError, TokenmillError):
            continue  # its artifacts were removed, or it failed before it wrote them
    trained.reverse()
    return list(compare_losses(trained))
