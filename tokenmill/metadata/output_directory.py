"""The metadata of one output directory, wherever it is kept.

Without `run.metadata_url` it is a SQLite file there. With it, each run leaves a note in its output
directory of the server and of the pipelines that ran, since a server holds those of others, too.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_metadata as mlmd

from tokenmill.errors import TokenmillError
from tokenmill.metadata.store import open_store

SQLITE_NAME = "metadata.sqlite"
NOTE_NAME = "metadata_server.json"


@dataclass(frozen=True)
class RunMetadata:
    """A store, and which of its pipelines are meant.

    Attributes:
        store: ML Metadata.
        pipelines: Names; None means all that the store has.
    """

    store: mlmd.MetadataStore
    pipelines: tuple[str, ...] | None = None

    def nodes(self, node_id: str) -> list[Any]:
        """The contexts of a node such as "Curator", one for each pipeline."""
        end = f".{node_id}"
        return [
            context
            for context in self.store.get_contexts_by_type("node")
            if context.name.endswith(end)
            and (self.pipelines is None or context.name.removesuffix(end) in self.pipelines)
        ]

    def runs(self) -> list[Any]:
        """The contexts of the runs, the oldest first."""
        runs = self.store.get_contexts_by_type("pipeline_run")
        if self.pipelines is not None:
            mine = set()
            for name in self.pipelines:
                pipeline = self.store.get_context_by_type_and_name("pipeline", name)
                if pipeline is None:  # no step of it has begun
                    continue
                for execution in self.store.get_executions_by_context(pipeline.id):
                    mine |= {c.id for c in self.store.get_contexts_by_execution(execution.id)}
            runs = [run for run in runs if run.id in mine]
        return sorted(runs, key=lambda context: context.id)


def note_store(run_directory: str, metadata_url: str | None, pipeline: str) -> None:
    """Leaves the note, or takes it away where the metadata is the directory's own file.

    Args:
        run_directory: The output directory.
        metadata_url: The server; it holds no password.
        pipeline: Which pipeline runs.
    """
    path = os.path.join(run_directory, NOTE_NAME)
    if metadata_url is None:
        if os.path.exists(path):
            os.remove(path)
        return
    known = _read_note(path)
    names = {pipeline, *(known["pipelines"] if known["url"] == metadata_url else ())}
    note = {"url": metadata_url, "pipelines": sorted(names)}
    with open(f"{path}.writing", "w", encoding="utf-8") as out:
        json.dump(note, out, indent=2)
    os.replace(f"{path}.writing", path)


def _read_note(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as source:
            return json.load(source)
    except FileNotFoundError:
        return {"url": None, "pipelines": []}


def has_runs(run_directory: str) -> bool:
    """Whether a run has left its metadata, or where it is, in this directory."""
    return any(os.path.isfile(os.path.join(run_directory, n)) for n in (NOTE_NAME, SQLITE_NAME))


def open_runs(run_directory: str, example: Sequence[str] = ("--run", "runs/demo")) -> RunMetadata:
    """The metadata of the runs in an output directory.

    Args:
        run_directory: The output directory.
        example: How the command at hand is told of one.

    Raises:
        TokenmillError: There is none, or the server does not answer.
    """
    if not has_runs(run_directory):  # opening would make a file
        raise TokenmillError(
            f"{run_directory}: there is no run here (no {SQLITE_NAME} or {NOTE_NAME}).",
            f"Give a run's output directory, as {' '.join(example)}.",
        )
    note = _read_note(os.path.join(run_directory, NOTE_NAME))
    if note["url"] is None:
        return RunMetadata(open_store(os.path.abspath(os.path.join(run_directory, SQLITE_NAME))))
    return RunMetadata(open_store(note["url"]), tuple(note["pipelines"]))
