"""Runs of an engine as ML Metadata, made anew in memory from what each step left of itself.

What asks ML Metadata about a run on this machine asks this of a run on Kubeflow or Vertex AI.
"""

from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from tokenmill.contracts.step_execution import ArtifactVersion, StepExecution, read_step_executions
from tokenmill.metadata.step_records import CONFIG_PROPERTY

_STATES = {
    "running": metadata_store_pb2.Execution.RUNNING,
    "complete": metadata_store_pb2.Execution.COMPLETE,
    "failed": metadata_store_pb2.Execution.FAILED,
}
_CONFIG_STEP, _CONFIG_KEY = "ReportPage", "config_toml"


def open_engine_runs(root: str) -> mlmd.MetadataStore | None:
    """Return a store of the runs below a pipeline root; None if no step left a record there.

    A step that an engine took from its cache left none in that run: it is added as a cached one,
    where another step of the run read what it once made.
    """
    executions = read_step_executions(root)
    if not executions:
        return None
    config = metadata_store_pb2.ConnectionConfig()
    config.fake_database.SetInParent()  # SQLite in memory
    writer = _Writer(mlmd.MetadataStore(config))
    runs: dict[str, list[StepExecution]] = defaultdict(list)
    for execution in executions:
        runs[execution.run_id].append(execution)
    makers = {
        artifact.uri: execution
        for execution in executions
        for artifacts in execution.outputs.values()
        for artifact in artifacts
    }
    for steps in sorted(runs.values(), key=lambda steps: min(step.started for step in steps)):
        writer.write_run(steps, _cached(steps, makers))
    return writer.store


def _cached(
    steps: list[StepExecution], makers: Mapping[str, StepExecution]
) -> dict[str, StepExecution]:
    """Return, by name, the steps of other runs whose outputs the steps of a run read."""
    own, found = {step.step for step in steps}, {}
    asked = list(steps)
    while asked:
        for uri in (uri for uris in asked.pop().inputs.values() for uri in uris):
            maker = makers.get(uri)
            if maker is not None and maker.step not in own and maker.step not in found:
                found[maker.step] = maker
                asked.append(maker)
    return found


class _Writer:
    """Writes executions into a store; an artifact is known by its URI."""

    def __init__(self, store: mlmd.MetadataStore):
        self.store = store
        self._artifacts: dict[str, int] = {}
        self._types: dict[tuple[type, str], int] = {}

    def write_run(self, steps: list[StepExecution], cached: Mapping[str, StepExecution]) -> None:
        """Write the steps of a run in the order in which they ended; what did not end is last."""
        shown = [step.properties for step in steps if step.step == _CONFIG_STEP]
        config_toml = str(shown[0].get(_CONFIG_KEY, "")) if shown else ""
        run = self._put_context("pipeline_run", steps[0].run_id, {CONFIG_PROPERTY: config_toml})
        contexts = [self._put_context("pipeline", steps[0].pipeline), run]
        for step in sorted(cached.values(), key=_end):
            self._write(step, contexts, metadata_store_pb2.Execution.CACHED)
        for step in sorted(steps, key=_end):
            self._write(step, contexts, _STATES[step.state])

    def _write(
        self, step: StepExecution, contexts: list[metadata_store_pb2.Context], state: int
    ) -> None:
        execution = metadata_store_pb2.Execution(
            type_id=self._type(metadata_store_pb2.ExecutionType, step.step), last_known_state=state
        )
        _set(execution, step.properties)
        events = [
            (self._artifact(key, ArtifactVersion(uri=uri, properties={})), _event(True, key, i))
            for key, uris in step.inputs.items()
            for i, uri in enumerate(uris)
        ]
        events += [
            (self._artifact(key, artifact), _event(False, key, i))
            for key, artifacts in step.outputs.items()
            for i, artifact in enumerate(artifacts)
        ]
        node = self._put_context("node", f"{step.pipeline}.{step.step}")
        _, artifacts, _ = self.store.put_execution(execution, events, [*contexts, node])
        for (artifact, _), number in zip(events, artifacts, strict=True):
            self._artifacts[artifact.uri] = number

    def _artifact(self, key: str, version: ArtifactVersion) -> metadata_store_pb2.Artifact:
        if version.uri in self._artifacts:
            (known,) = self.store.get_artifacts_by_id([self._artifacts[version.uri]])
            _set(known, version.properties)
            return known
        artifact = metadata_store_pb2.Artifact(
            type_id=self._type(metadata_store_pb2.ArtifactType, key), uri=version.uri
        )
        _set(artifact, version.properties)
        return artifact

    def _put_context(
        self, kind: str, name: str, properties: Mapping[str, float | str] = MappingProxyType({})
    ) -> metadata_store_pb2.Context:
        type_id = self._type(metadata_store_pb2.ContextType, kind)
        known = self.store.get_context_by_type_and_name(kind, name)
        if known is not None:
            return known
        context = metadata_store_pb2.Context(type_id=type_id, name=name)
        _set(context, properties)
        (context.id,) = self.store.put_contexts([context])
        return context

    def _type(self, kind: type, name: str) -> int:
        if (kind, name) not in self._types:
            put = {
                metadata_store_pb2.ArtifactType: self.store.put_artifact_type,
                metadata_store_pb2.ExecutionType: self.store.put_execution_type,
                metadata_store_pb2.ContextType: self.store.put_context_type,
            }[kind]
            self._types[kind, name] = put(kind(name=name))
        return self._types[kind, name]


def _end(step: StepExecution) -> tuple[bool, float]:
    return step.state != "complete", step.started if step.ended is None else step.ended


def _event(is_input: bool, key: str, index: int) -> metadata_store_pb2.Event:
    kinds = metadata_store_pb2.Event
    event = metadata_store_pb2.Event(type=kinds.INPUT if is_input else kinds.OUTPUT)
    event.path.steps.add().key = key
    event.path.steps.add().index = index
    return event


def _set(
    node: metadata_store_pb2.Artifact | metadata_store_pb2.Execution | metadata_store_pb2.Context,
    properties: Mapping[str, float | str],
) -> None:
    for name, value in properties.items():
        if isinstance(value, str):
            node.custom_properties[name].string_value = value
        else:
            node.custom_properties[name].double_value = value
