"""Runs and their steps in ML Metadata: read back by name, and the configuration recorded there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

CONFIG_PROPERTY = "resolved_config"
DIRECTORY_PROPERTY = "directory_id"


class Run(NamedTuple):
    """A run in ML Metadata.

    Attributes:
        pipeline: Name of its pipeline.
        context: Its context; the name is TFX's id of the run.
        config_toml: The whole configuration.
    """

    pipeline: str
    context: metadata_store_pb2.Context
    config_toml: str


@dataclass(frozen=True)
class StepRecord:
    """One step of one run, as ML Metadata recorded it.

    Attributes:
        cached: Whether an earlier execution's outputs were taken.
        outputs: Artifacts by output key.
    """

    cached: bool
    outputs: dict[str, list[metadata_store_pb2.Artifact]]

    def one(self, key: str) -> metadata_store_pb2.Artifact:
        """Return the only artifact under this key."""
        (artifact,) = self.outputs[key]
        return artifact

    def number(self, key: str, name: str) -> float:
        """Return a numeric custom property of the only artifact under a key; 0 if absent."""
        value = self.one(key).custom_properties[name]
        return value.int_value or value.double_value


def step_record(
    store: mlmd.MetadataStore, pipeline_name: str, run_id: str, node_id: str
) -> StepRecord | None:
    """Return the newest execution of a step in a run; None if it did not run."""
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    node = store.get_context_by_type_and_name("node", f"{pipeline_name}.{node_id}")
    if run is None or node is None:
        return None
    in_run = {e.id for e in store.get_executions_by_context(run.id)}
    executions = [e for e in store.get_executions_by_context(node.id) if e.id in in_run]
    if not executions:
        return None
    execution = max(executions, key=lambda e: e.id)
    return StepRecord(
        cached=execution.last_known_state == metadata_store_pb2.Execution.CACHED,
        outputs=outputs_of(store, execution.id),
    )


def run_that_made(store: mlmd.MetadataStore, artifact_id: int) -> Run:
    """Return the run whose step made an artifact, not one that took it from the cache."""
    maker = min(
        event.execution_id
        for event in store.get_events_by_artifact_ids([artifact_id])
        if event.type == metadata_store_pb2.Event.OUTPUT
    )
    return _run_of(store, maker)


def recorded_run(store: mlmd.MetadataStore, run_id: str) -> Run | None:
    """Return the run of this id; None if it is not there or no step of it began."""
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    executions = store.get_executions_by_context(context.id) if context is not None else []
    return _run_of(store, executions[0].id) if executions else None


def _run_of(store: mlmd.MetadataStore, execution_id: int) -> Run:
    contexts = {c.type: c for c in store.get_contexts_by_execution(execution_id)}
    run = contexts["pipeline_run"]
    config_toml = run.custom_properties[CONFIG_PROPERTY].string_value
    return Run(contexts["pipeline"].name, run, config_toml)


def outputs_of(store: mlmd.MetadataStore, execution_id: int) -> dict[str, list[Any]]:
    """Return the artifacts that an execution left, by output key."""
    events = [
        event
        for event in store.get_events_by_execution_ids([execution_id])
        if event.type == metadata_store_pb2.Event.OUTPUT
    ]
    artifacts = {a.id: a for a in store.get_artifacts_by_id([e.artifact_id for e in events])}
    outputs: dict[str, list[Any]] = {}
    for event in sorted(events, key=lambda e: e.artifact_id):
        outputs.setdefault(_key_of(event.path.steps), []).append(artifacts[event.artifact_id])
    return outputs


def _key_of(steps: Sequence[Any]) -> str:
    return next(step.key for step in steps if step.HasField("key"))


def record_run(store: mlmd.MetadataStore, run_id: str, config_toml: str, directory_id: str) -> None:
    """Record a run before its first step, so that one that is killed is known, too.

    Args:
        store: The metadata store.
        run_id: TFX's id of the run; TFX finds the context by it.
        config_toml: The whole configuration.
        directory_id: Of the output directory on a server; empty without one.
    """
    if store.get_context_by_type_and_name("pipeline_run", run_id) is not None:
        return
    kind = metadata_store_pb2.ContextType(name="pipeline_run")
    type_id = store.put_context_type(kind, can_add_fields=True, can_omit_fields=True)
    run = metadata_store_pb2.Context(type_id=type_id, name=run_id)
    run.custom_properties[CONFIG_PROPERTY].string_value = config_toml
    run.custom_properties[DIRECTORY_PROPERTY].string_value = directory_id
    store.put_contexts([run])
