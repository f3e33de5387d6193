"""Removal of artifacts and training directories that no kept run and no served model needs.

Looks at ML Metadata and the output directory only; imports no TFX and no TensorFlow.
"""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import ml_metadata as mlmd
import tomli
from ml_metadata.proto import metadata_store_pb2

from tokenmill.contracts.training import TELEMETRY_NAME
from tokenmill.metadata.output_directory import RunMetadata
from tokenmill.metadata.step_records import CONFIG_PROPERTY, run_that_made


@dataclass(frozen=True)
class Garbage:
    """Artifacts and trainings' checkpoints that no kept run refers to.

    Attributes:
        artifact_ids: Ids of the artifacts in ML Metadata.
        directories: Directories of these artifacts and of old trainings.
        size_bytes: Size of all files in these directories.
    """

    artifact_ids: list[int]
    directories: list[str]
    size_bytes: int


def find_garbage(metadata: RunMetadata, run_directory: str, keep: int) -> Garbage:
    """Find what neither the newest runs nor the runs of served models use.

    Args:
        metadata: Metadata of the runs in this directory.
        run_directory: Output directory; only its `artifacts` and `training` are searched.
        keep: Number of newest runs that keep all their artifacts.
    """
    store, runs = metadata.store, metadata.runs()
    newest = runs[-keep:] if keep else []
    kept = {run.id for run in newest}
    for pushed in store.get_artifacts_by_type("PushedModel"):
        destination = pushed.custom_properties["pushed_destination"].string_value
        if destination and os.path.isdir(destination):
            kept.add(run_that_made(store, pushed.id).context.id)
    executions = [e.id for run in kept for e in store.get_executions_by_context(run)]
    used = {event.artifact_id for event in store.get_events_by_execution_ids(executions)}
    root = os.path.join(os.path.abspath(run_directory), "artifacts")
    artifacts = store.get_artifacts()
    # A directory may stand in ML Metadata twice: it is used if either is.
    needed = {artifact.uri for artifact in artifacts if artifact.id in used}
    unused = [
        artifact
        for artifact in artifacts
        if artifact.uri.startswith(root + os.sep)
        and artifact.uri not in needed
        and os.path.isdir(artifact.uri)
    ]
    directories = sorted({artifact.uri for artifact in unused})
    directories += _find_old_trainings(store, run_directory, newest, kept, needed)
    return Garbage(
        [artifact.id for artifact in unused], directories, sum(map(_size_bytes, directories))
    )


def _find_old_trainings(
    store: mlmd.MetadataStore,
    run_directory: str,
    newest_runs: Sequence[metadata_store_pb2.Context],
    kept: set[int],
    needed: Iterable[str],
) -> list[str]:
    """Return the training directories that no kept run made, reads or can still continue.

    Args:
        store: The metadata store.
        run_directory: Output directory; trainings lie under its `training`.
        newest_runs: Contexts of the newest runs, the oldest of them first.
        kept: Context ids of all runs that are kept.
        needed: Directories of the artifacts that kept runs use.
    """
    referred: set[str] = set()
    for uri in needed:
        path = os.path.join(uri, TELEMETRY_NAME)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as source:
                training = json.load(source)["training_directory"]
            if training:
                referred.add(os.path.abspath(training))
    for run in store.get_contexts_by_id(kept):
        config = tomli.loads(run.custom_properties[CONFIG_PROPERTY].string_value)
        resumed = config.get("train", {}).get("resume_from")
        if resumed:  # <training>/checkpoints
            referred.add(os.path.dirname(os.path.abspath(resumed)))
    # A training that has not ended is named nowhere yet; a kept run has written into it.
    started = newest_runs[0].create_time_since_epoch / 1000 if newest_runs else 0.0
    root = os.path.join(os.path.abspath(run_directory), "training")
    names = os.listdir(root) if os.path.isdir(root) else []
    return [
        directory
        for directory in sorted(os.path.join(root, name) for name in names)
        if os.path.isdir(directory) and directory not in referred
        if _last_written(directory) < started
    ]


def _last_written(directory: str) -> float:
    """Return when the newest file was written, seconds since 1970."""
    return max(map(os.path.getmtime, [directory, *_files(directory)]))


def _size_bytes(directory: str) -> int:
    return sum(map(os.path.getsize, _files(directory)))


def _files(directory: str) -> list[str]:
    """Return the paths of all files below a directory."""
    return [os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names]


def collect_garbage(store: mlmd.MetadataStore, garbage: Garbage) -> None:
    """Remove the directories; mark the artifacts as deleted in ML Metadata, which keeps them.

    A step whose outputs are gone runs anew when it is needed: TFX's cache looks for the files.
    """
    for directory in garbage.directories:
        # Renamed first: an artifact is there whole or not at all, also if this is interrupted.
        os.rename(directory, f"{directory}.removing")
        shutil.rmtree(f"{directory}.removing")
    artifacts = store.get_artifacts_by_id(garbage.artifact_ids)
    for artifact in artifacts:
        artifact.state = metadata_store_pb2.Artifact.DELETED
    store.put_artifacts(artifacts)
