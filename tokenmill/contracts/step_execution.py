"""Contract executions/<run>/<step>.json: what a step did on an engine, below its pipeline root.

Kubeflow and Vertex AI have metadata stores of their own, which a command here does not reach, or
none. So each container leaves what ML Metadata would have recorded of its step: `why`, `runs` and
`lineage` read it (tokenmill/metadata/engine_runs.py).
"""

from __future__ import annotations

import glob
import os
from typing import Literal

from tokenmill.contracts.base import Document, Number, Part, key, read_document, write_document

EXECUTIONS_NAME = "executions"


class ArtifactVersion(Part):
    """An artifact that a step read or wrote."""

    uri: str = key("Where it is.")
    properties: dict[str, Number | str] = key("Its properties and custom properties, by name.")


class StepExecution(Document):
    """One step of one run; a repeated step replaces the record of the try before."""

    pipeline: str = key("Name of the pipeline (run.name).")
    run_id: str = key("The run's name in the paths of its artifacts.")
    step: str = key("The step, such as TokenLedger.")
    state: Literal["running", "complete", "failed"] = key(
        "Whether it came to its end; one that was killed stays running."
    )
    started: float = key("When its process began; seconds since 1970.")
    ended: float | None = key("When it came to its end; seconds since 1970. None while it runs.")
    inputs: dict[str, list[str]] = key("URIs of the artifacts that it read, by input key.")
    outputs: dict[str, list[ArtifactVersion]] = key("What it wrote, by output key.")
    properties: dict[str, Number | str] = key("Its execution properties, by name.")


def write_step_execution(root: str, execution: StepExecution) -> None:
    """Write the record of a step below a pipeline root."""
    path = os.path.join(root, EXECUTIONS_NAME, execution.run_id, f"{execution.step}.json")
    write_document(path, execution)


def read_step_executions(root: str) -> list[StepExecution]:
    """Read the records of all steps of all runs below a pipeline root; none, if there are none."""
    parts = (EXECUTIONS_NAME, "*", "*.json")
    if "://" not in root:
        paths = glob.glob(os.path.join(glob.escape(root), *parts))
    else:
        from apache_beam.io.filesystems import FileSystems

        found = FileSystems.match([os.path.join(root, *parts)])[0].metadata_list
        paths = [file.path for file in found]
    return [read_document(path, StepExecution) for path in sorted(paths)]
