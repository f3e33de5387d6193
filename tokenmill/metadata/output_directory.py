"""Metadata of the runs in one output directory, wherever it is kept.

Without `run.metadata_url` it is a SQLite file there. With it, it is on a server, and each run
leaves metadata_server.json (tokenmill/contracts/metadata_server.py) in its output directory.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from tokenmill.contracts.metadata_server import (
    METADATA_SERVER_NAME,
    MetadataServer,
    read_metadata_server,
    write_metadata_server,
)
from tokenmill.errors import TokenmillError
from tokenmill.metadata.store import open_store

SQLITE_NAME = "metadata.sqlite"


@dataclass(frozen=True)
class RunMetadata:
    """A metadata store, and which of its pipelines belong to an output directory.

    Attributes:
        store: ML Metadata.
        pipelines: Names of the pipelines; None means all that the store has.
    """

    store: mlmd.MetadataStore
    pipelines: tuple[str, ...] | None = None

    def nodes(self, node_id: str) -> list[metadata_store_pb2.Context]:
        """Return the contexts of a node such as "Curator", one for each pipeline."""
        end = f".{node_id}"
        return [
            context
            for context in self.store.get_contexts_by_type("node")
            if context.name.endswith(end)
            and (self.pipelines is None or context.name.removesuffix(end) in self.pipelines)
        ]

    def runs(self) -> list[metadata_store_pb2.Context]:
        """Return the contexts of the runs, the oldest first."""
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


def record_metadata_server(run_directory: str, metadata_url: str | None, pipeline: str) -> None:
    """Write metadata_server.json, or remove it where the metadata is the directory's own file.

    Args:
        run_directory: The output directory.
        metadata_url: Address of the server; it holds no password. None if there is none.
        pipeline: Name of the pipeline that runs.
    """
    if metadata_url is None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(run_directory, METADATA_SERVER_NAME))
        return
    known = read_metadata_server(run_directory)
    names = {pipeline, *(known.pipelines if known and known.url == metadata_url else ())}
    write_metadata_server(run_directory, MetadataServer(url=metadata_url, pipelines=sorted(names)))


def has_runs(run_directory: str) -> bool:
    """Return whether a run has left its metadata, or where it is, in this directory."""
    names = (METADATA_SERVER_NAME, SQLITE_NAME)
    return any(os.path.isfile(os.path.join(run_directory, name)) for name in names)


def open_runs(run_directory: str, example: Sequence[str] = ("--run", "runs/demo")) -> RunMetadata:
    """Open the metadata of the runs in an output directory.

    Args:
        run_directory: The output directory.
        example: Words of a command line that name one, for the error message.

    Raises:
        TokenmillError: There is none, or the server does not answer.
    """
    if not has_runs(run_directory):  # opening would make a file
        raise TokenmillError(
            f"{run_directory}: there is no run here (no {SQLITE_NAME} or {METADATA_SERVER_NAME}).",
            f"Give a run's output directory, as {' '.join(example)}.",
        )
    server = read_metadata_server(run_directory)
    if server is None:
        return RunMetadata(open_store(os.path.abspath(os.path.join(run_directory, SQLITE_NAME))))
    return RunMetadata(open_store(server.url), tuple(server.pipelines))
