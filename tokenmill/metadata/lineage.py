"""From a pushed model back to what it was made of, and what no run needs any more.

Reads ML Metadata only; imports no TFX and no TensorFlow.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_metadata as mlmd
import tomli
from ml_metadata.proto import metadata_store_pb2

from tokenmill.contracts.names import TELEMETRY_NAME
from tokenmill.errors import TokenmillError
from tokenmill.metadata.output_directory import RunMetadata, open_runs
from tokenmill.metadata.step_records import CONFIG_PROPERTY, step_record
from tokenmill.metadata.store import open_store

_Artifact = metadata_store_pb2.Artifact


@dataclass(frozen=True)
class Lineage:
    """What a pushed model was made of.

    Attributes:
        model: The pushed directory.
        run_id: The run that trained and pushed it.
        inputs: The files that were read: name, path, size_bytes, modified (seconds since 1970).
        artifacts: Directory by step and output key.
        ledger: ledger.json: tokens and the estimate.
        cost_report: cost_report.json: the bill and the quality.
        config_toml: The whole configuration.
    """

    model: str
    run_id: str
    inputs: list[dict[str, Any]]
    artifacts: dict[str, str]
    ledger: dict[str, Any]
    cost_report: dict[str, Any]
    config_toml: str


def trace_model(
    model: str, run_directory: str | None = None, metadata_url: str | None = None
) -> Lineage:
    """Finds the run that pushed a model, and reads what it recorded.

    Args:
        model: A pushed version, or the directory of versions: then the newest.
        run_directory: The run's output directory; by default the one that the model lies in.
        metadata_url: The server of ML Metadata, where it is not a file of the run directory.

    Raises:
        TokenmillError: No run there pushed this model.
    """
    model = os.path.abspath(model)
    versions = [name for name in _names(model) if name.isdigit()]
    if versions:
        model = os.path.join(model, max(versions, key=int))
    if run_directory is None:
        run_directory = os.path.dirname(os.path.dirname(model))
    store = open_store(metadata_url) if metadata_url else open_runs(run_directory).store
    for artifact in store.get_artifacts_by_type("PushedModel"):
        pushed = artifact.custom_properties["pushed_destination"].string_value
        if pushed == model:
            return _describe(store, model, *_run_of(store, artifact.id))
    raise TokenmillError(
        f"no run recorded in {run_directory} pushed {model}.",
        "Name the run's output directory with --run.",
    )


def _names(directory: str) -> list[str]:
    return os.listdir(directory) if os.path.isdir(directory) else []


def _run_of(store: mlmd.MetadataStore, artifact_id: int) -> tuple[str, str, str]:
    """(pipeline, run id, configuration) of the run whose step made an artifact, not reused it."""
    executions = [
        event.execution_id
        for event in store.get_events_by_artifact_ids([artifact_id])
        if event.type == metadata_store_pb2.Event.OUTPUT
    ]
    first = min(executions)
    contexts = {c.type: c for c in store.get_contexts_by_execution(first)}
    run = contexts["pipeline_run"]
    config = run.custom_properties[CONFIG_PROPERTY].string_value
    return contexts["pipeline"].name, run.name, config


def _describe(
    store: mlmd.MetadataStore, model: str, pipeline: str, run_id: str, config_toml: str
) -> Lineage:
    artifacts: dict[str, str] = {}
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    nodes = {
        context.name.removeprefix(f"{pipeline}.")
        for execution in store.get_executions_by_context(run.id)
        for context in store.get_contexts_by_execution(execution.id)
        if context.type == "node"
    }
    for node in sorted(nodes):
        record = step_record(store, pipeline, run_id, node)
        for key, made in record.outputs.items() if record else ():
            if made:
                artifacts[f"{node}.{key}"] = made[0].uri
    return Lineage(
        model=model,
        run_id=run_id,
        inputs=list(_inputs(store, run.id)),
        artifacts=artifacts,
        ledger=_json(artifacts["TokenLedger.ledger"], "ledger.json"),
        cost_report=_json(artifacts["CostReport.cost_report"], "cost_report.json"),
        config_toml=config_toml,
    )


def _json(directory: str, name: str) -> dict[str, Any]:
    path = os.path.join(directory, name)
    try:
        with open(path, encoding="utf-8") as source:
            return json.load(source)
    except FileNotFoundError:
        raise TokenmillError(f"{path} is gone; the run's artifacts were removed.") from None


def _inputs(store: mlmd.MetadataStore, run_context_id: int) -> Iterator[dict[str, Any]]:
    for execution in store.get_executions_by_context(run_context_id):
        base = execution.custom_properties["input_base"].string_value
        for name in _names(base):
            with open(os.path.join(base, name), encoding="utf-8") as lines:
                yield from map(json.loads, lines)


@dataclass(frozen=True)
class Garbage:
    """Artifacts and trainings' checkpoints that no kept run refers to.

    Attributes:
        artifact_ids: In ML Metadata.
        directories: Where they lie, and the directories of old trainings.
        size_bytes: Of all of them.
    """

    artifact_ids: list[int]
    directories: list[str]
    size_bytes: int


def find_garbage(metadata: RunMetadata, run_directory: str, keep: int) -> Garbage:
    """What the newest runs do not use; models that are being served, and theirs, are used.

    Args:
        metadata: Of the runs in this directory.
        run_directory: Only what lies under its `artifacts` and `training` is looked at.
        keep: How many of the newest runs keep all their artifacts.
    """
    store, runs = metadata.store, metadata.runs()
    kept = {run.id for run in runs[-keep:]} if keep else set()
    for pushed in store.get_artifacts_by_type("PushedModel"):
        destination = pushed.custom_properties["pushed_destination"].string_value
        if destination and os.path.isdir(destination):
            _, run_id, _ = _run_of(store, pushed.id)
            kept.add(store.get_context_by_type_and_name("pipeline_run", run_id).id)
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
    directories += _old_trainings(store, run_directory, runs[-keep:], kept, needed)
    return Garbage(
        [artifact.id for artifact in unused], directories, sum(map(_size_bytes, directories))
    )


def _old_trainings(
    store: mlmd.MetadataStore,
    run_directory: str,
    newest_runs: list[Any],
    kept: set[int],
    needed: set[str],
) -> list[str]:
    """Training directories that no kept run made, reads or can still continue.

    Args:
        store: The metadata store.
        run_directory: Trainings lie under its `training`.
        newest_runs: Contexts of the newest runs, the oldest of them first.
        kept: Context ids of all runs that are kept.
        needed: Directories of the artifacts that they use.
    """
    referred: set[str] = set()
    for uri in needed:
        if os.path.exists(os.path.join(uri, TELEMETRY_NAME)):
            training = _json(uri, TELEMETRY_NAME)["training_directory"]
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
    directories = [os.path.join(root, name) for name in sorted(_names(root))]
    return [
        directory
        for directory in directories
        if os.path.isdir(directory) and directory not in referred
        if _last_written(directory) < started
    ]


def _last_written(directory: str) -> float:
    """When the newest file was written, seconds since 1970."""
    paths = [os.path.join(parent, n) for parent, _, names in os.walk(directory) for n in names]
    return max(map(os.path.getmtime, [directory, *paths]))


def _size_bytes(directory: str) -> int:
    return sum(
        os.path.getsize(os.path.join(parent, name))
        for parent, _, names in os.walk(directory)
        for name in names
    )


def collect_garbage(store: mlmd.MetadataStore, garbage: Garbage) -> None:
    """Removes the directories; ML Metadata keeps the records, marked as deleted.

    A step whose outputs are gone runs anew when it is needed: TFX's cache looks for the files.
    """
    for directory in garbage.directories:
        # Renamed first: an artifact is there whole or not at all, also if this is interrupted.
        os.rename(directory, f"{directory}.removing")
        shutil.rmtree(f"{directory}.removing")
    artifacts = store.get_artifacts_by_id(garbage.artifact_ids)
    for artifact in artifacts:
        artifact.state = _Artifact.DELETED
    store.put_artifacts(artifacts)
