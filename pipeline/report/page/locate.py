"""Which run a path on the command line names: that of an output directory, or of one log."""

import os
from typing import NamedTuple

from pipeline.report.page.run_documents import log_directory_of
from tokenmill.errors import TokenmillError
from tokenmill.metadata.output_directory import RunMetadata, has_runs, open_runs


class LocatedRun(NamedTuple):
    """A run, with what its documents are read from.

    Attributes:
        metadata: Of the runs in the output directory.
        directory: The output directory.
        run_id: TFX's id of the run; None for the newest.
    """

    metadata: RunMetadata
    directory: str
    run_id: str | None


def locate_run(path: str) -> LocatedRun:
    """Find the run that a path names.

    Args:
        path: An output directory, for the newest run in it, or the directory of one run's log
            in it, logs/<time>.

    Raises:
        TokenmillError: There is no run.
    """
    logs, name = os.path.split(os.path.abspath(path))
    directory, folder = os.path.split(logs)
    if has_runs(path) or folder != "logs" or not has_runs(directory):
        return LocatedRun(open_runs(path, example=["runs/demo"]), path, None)
    metadata = open_runs(directory, example=["runs/demo"])
    wanted = os.path.join(logs, name)
    for run in reversed(metadata.runs()):
        if log_directory_of(directory, run.create_time_since_epoch / 1000) == wanted:
            return LocatedRun(metadata, directory, run.name)
    raise TokenmillError(
        f"{path}: no run of {directory} has its log here.",
        f"Give one of the directories in {logs} that holds the log of a run, or {directory} for "
        "the newest run.",
    )
