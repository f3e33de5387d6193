"""Metadata of the runs in one output directory, wherever it is kept.

Without `run.metadata_url` it is a SQLite file there. With it, it is on a server, and each run
leaves metadata_server.json (tokenmill/contracts/metadata_server.py) in its output directory.
"""

import contextlib
import os
import secrets
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
from tokenmill.contracts.step_execution import EXECUTIONS_NAME
from tokenmill.errors import TokenmillError
from tokenmill.metadata.engine_runs import open_engine_runs
from tokenmill.metadata.relocation import Move, read_as_moved, recorded_directory, relocate
from tokenmill.metadata.step_records import DIRECTORY_PROPERTY
from tokenmill.metadata.store import open_store

SQLITE_NAME = "metadata.sqlite"


@dataclass(frozen=True)
class RunMetadata:
    """A metadata store, and what in it belongs to an output directory.

    Attributes:
        store: ML Metadata, with the paths of artifacts as they are now.
        server: What the directory knows of its server; None where all of the store is its own.
    """

    store: mlmd.MetadataStore
    server: MetadataServer | None = None

    def nodes(self, node_id: str) -> list[metadata_store_pb2.Context]:
        """Return the contexts of a node such as "Curator", one for each pipeline."""
        end = f".{node_id}"
        return [
            context
            for context in self.store.get_contexts_by_type("node")
            if context.name.endswith(end)
            and (self.server is None or context.name.removesuffix(end) in self.server.pipelines)
        ]

    def executions(self, node_id: str) -> list[metadata_store_pb2.Execution]:
        """Return a node's executions in the runs of this directory, the oldest first."""
        found = {e.id: e for n in self.nodes(node_id) for e in
                 self.store.get_executions_by_context(n.id)}  # fmt: skip
        if self.server is not None:  # a pipeline of this name may have run elsewhere
            mine = {e.id for r in self.runs() for e in self.store.get_executions_by_context(r.id)}
            found = {id: e for id, e in found.items() if id in mine}
        return [found[id] for id in sorted(found)]

    def runs(self) -> list[metadata_store_pb2.Context]:
        """Return the contexts of the runs, the oldest first."""
        runs = self.store.get_contexts_by_type("pipeline_run")
        if self.server is not None:
            mine = self.server.directory_id
            runs = [r for r in runs if r.custom_properties[DIRECTORY_PROPERTY].string_value == mine]
        return sorted(runs, key=lambda context: context.id)


def claim_directory(run_directory: str, metadata_url: str | None, pipeline: str) -> str:
    """Record that a pipeline runs here, and correct the records of a directory that was moved.

    A copy of a directory on a server starts without runs: those are the original's. A copy of one
    with a metadata file of its own has them.

    Args:
        run_directory: The output directory, absolute; the caller holds its lock.
        metadata_url: Address of the server; it holds no password. None if there is none.
        pipeline: Name of the pipeline that runs.

    Returns:
        The id of the directory on the server; empty without one.
    """
    if metadata_url is None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(run_directory, METADATA_SERVER_NAME))
        correct_paths(run_directory)
        return ""
    known = None
    with contextlib.suppress(TokenmillError):  # of an older release: the runs before are lost
        known = read_metadata_server(run_directory)
    if known is None or known.url != metadata_url or _is_copy(run_directory, known):
        known = MetadataServer(url=metadata_url, pipelines=[], directory_id=secrets.token_hex(8),
                               output_dir=run_directory)  # fmt: skip
    else:
        correct_paths(run_directory)
    pipelines = sorted({pipeline, *known.pipelines})
    updates = {"pipelines": pipelines, "output_dir": run_directory}
    write_metadata_server(run_directory, known.model_copy(update=updates))
    return known.directory_id


def correct_paths(run_directory: str) -> None:
    """Correct ML Metadata's paths, if this directory was moved; the caller holds its lock.

    Raises:
        TokenmillError: The runs are on a server, and those of the directory this is a copy of.
    """
    if not has_runs(run_directory):
        return
    store, server = _open(run_directory)
    if server and _is_copy(run_directory, server):
        raise TokenmillError(
            f"{run_directory} is a copy: its runs on {server.url} are those of "
            f"{server.output_dir}.",
            "Use that directory, or run here first.",
        )
    if move := _move_of(run_directory, store, server):
        relocate(store, move)


def _open(run_directory: str) -> tuple[mlmd.MetadataStore, MetadataServer | None]:
    server = read_metadata_server(run_directory)
    path = os.path.abspath(os.path.join(run_directory, SQLITE_NAME))
    return open_store(server.url if server else path), server


def _move_of(
    run_directory: str, store: mlmd.MetadataStore, server: MetadataServer | None
) -> Move | None:
    before = server.output_dir if server else recorded_directory(store)
    now = os.path.abspath(run_directory)
    return Move(before, now) if before and before != now else None


def _is_copy(run_directory: str, server: MetadataServer) -> bool:
    """Return whether the directory whose runs are on the server is there beside this one."""
    original = server.output_dir
    if original == os.path.abspath(run_directory) or not os.path.isdir(original):
        return False
    other = read_metadata_server(original)
    return (
        other is not None
        and other.directory_id == server.directory_id
        and not os.path.samefile(original, run_directory)
    )


def has_runs(run_directory: str) -> bool:
    """Return whether a run has left its metadata, or where it is, in this directory."""
    names = (METADATA_SERVER_NAME, SQLITE_NAME)
    return any(os.path.isfile(os.path.join(run_directory, name)) for name in names)


def open_runs(run_directory: str, example: Sequence[str] = ("--run", "runs/demo")) -> RunMetadata:
    """Open the metadata of the runs in an output directory, or below an engine's pipeline root.

    Args:
        run_directory: The output directory, or the root.
        example: Words of a command line that name one, for the error message.

    Raises:
        TokenmillError: There is none, or the server does not answer.
    """
    if not has_runs(run_directory):  # opening would make a file
        if (of_engine := open_engine_runs(run_directory)) is not None:
            return RunMetadata(of_engine)
        raise TokenmillError(
            f"{run_directory}: there is no run here (no {SQLITE_NAME}, {METADATA_SERVER_NAME} or "
            f"{EXECUTIONS_NAME}).",
            f"Give a run's output directory, as {' '.join(example)}, or an engine's pipeline root.",
        )
    store, server = _open(run_directory)
    return RunMetadata(read_as_moved(store, _move_of(run_directory, store, server)), server)
