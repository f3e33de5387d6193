"""Documents that the curation of a run dropped, by reason."""

import os

from components.curate.counts import samples_by_reason
from pipeline.report.curation import check_choice, print_document
from pipeline.report.tables import escape, plain_table, stdout_console
from tokenmill.contracts.curation import CURATION_NAME, read_curation, read_dropped
from tokenmill.errors import TokenmillError
from tokenmill.metadata.output_directory import open_runs
from tokenmill.metadata.run_history import never_finished, step_records


def print_dropped(run_dir: str, reason: str | None, source: str | None, limit: int) -> None:
    """Print what the newest run dropped: counts, and `limit` documents of each reason.

    Raises:
        TokenmillError: There is no such run, reason or source, or the artifact was removed.
    """
    uri, run_id = _newest_dropped(run_dir)
    report_path = os.path.join(uri, CURATION_NAME)
    if not os.path.exists(report_path):
        raise TokenmillError(f"{report_path} is gone: the artifact was removed.", "Run again.")
    curation = read_curation(uri)
    sources = sorted({s for split in curation.splits.values() for s in split.by_source})
    check_choice("--source", source, sources, f"{run_dir} has")
    counts = curation.dropped_by_reason(source)
    where = f"run {run_id}" + (f", source {source}" if source else "")
    check_choice("--reason", reason, list(counts), f"In {where} there are")
    found = samples_by_reason(read_dropped(uri), reason, source, limit)
    console = stdout_console()
    table = plain_table("", "documents", "bytes")
    for name, amount in counts.items():
        table.add_row(name, f"{amount.documents:,}", f"{amount.bytes:,}")
    console.print(escape(f"Dropped in {where}:" if counts else f"Nothing was dropped in {where}."))
    console.print(table)
    for name, records in found.items():
        console.print(f"\n[bold]{name}[/]")
        for record in records:
            print_document(console, record.to_json(), name)


def _newest_dropped(run_dir: str) -> tuple[str, str]:
    """Return (URI of the dropped documents, run) of the newest run whose Curator finished."""
    metadata = open_runs(run_dir, example=["runs/demo"])
    for run, record in step_records(metadata, "Curator"):
        if record.outputs.get("dropped"):
            return record.one("dropped").uri, run
    raise never_finished(metadata, run_dir, "Curator")
