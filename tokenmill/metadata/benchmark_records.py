"""Benchmarks of pushed models in ML Metadata: recorded beside the run that pushed, and found again.

Reads and writes ML Metadata only; imports no TFX and no TensorFlow.
"""

from __future__ import annotations

import os

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from tokenmill.contracts.benchmark import BENCHMARK_NAME, BenchmarkReport, read_benchmark
from tokenmill.contracts.model_origin import ModelOrigin
from tokenmill.errors import TokenmillError
from tokenmill.metadata.step_records import step_record

_ARTIFACT_TYPE = "components.Benchmark"
_EXECUTION_TYPE = "pipeline.cli.benchmark"
_VERSION = "model_version"


def record_benchmark(
    store: mlmd.MetadataStore, origin: ModelOrigin, directory: str, report: BenchmarkReport
) -> None:
    """Record a benchmark of a pushed version as an execution and an artifact of its run.

    Args:
        store: ML Metadata; the caller holds the directory's lock.
        origin: The run that pushed the version, and as which.
        directory: Where benchmark.json and the samples are; absolute.
        report: What was measured; each number is a custom property, too ("cloze/acc").

    Raises:
        TokenmillError: The store does not have the run.
    """
    run = store.get_context_by_type_and_name("pipeline_run", origin.run_id)
    steps = store.get_executions_by_context(run.id) if run is not None else []
    pipelines = [
        context
        for step in steps[:1]
        for context in store.get_contexts_by_execution(step.id)
        if context.type == "pipeline"
    ]
    if run is None or not pipelines:
        raise TokenmillError(
            f"ML Metadata has no run {origin.run_id}, which pushed the model.",
            "Name the run's output directory with --run.",
        )
    execution = metadata_store_pb2.Execution(
        type_id=store.put_execution_type(
            metadata_store_pb2.ExecutionType(name=_EXECUTION_TYPE), can_add_fields=True
        ),
        last_known_state=metadata_store_pb2.Execution.COMPLETE,
    )
    execution.custom_properties["harness"].string_value = report.harness
    artifact = metadata_store_pb2.Artifact(
        type_id=store.put_artifact_type(
            metadata_store_pb2.ArtifactType(name=_ARTIFACT_TYPE), can_add_fields=True
        ),
        uri=directory,
        state=metadata_store_pb2.Artifact.LIVE,
    )
    artifact.custom_properties[_VERSION].string_value = origin.version
    for name, task in report.tasks.items():
        for metric, number in task.metrics.items():
            if number.value is not None:
                artifact.custom_properties[f"{name}/{metric}"].double_value = number.value
    made = [(artifact, _event(metadata_store_pb2.Event.OUTPUT, "benchmark"))]
    pushed = step_record(store, pipelines[0].name, run.name, "Pusher")
    for model in pushed.outputs.get("pushed_model", ()) if pushed else ():
        made.append((model, _event(metadata_store_pb2.Event.INPUT, "pushed_model")))
    store.put_execution(execution, made, [run, pipelines[0]])


def _event(kind: metadata_store_pb2.Event.Type, key: str) -> metadata_store_pb2.Event:
    steps = [
        metadata_store_pb2.Event.Path.Step(key=key),
        metadata_store_pb2.Event.Path.Step(index=0),
    ]
    return metadata_store_pb2.Event(type=kind, path=metadata_store_pb2.Event.Path(steps=steps))


def newest_benchmark(store: mlmd.MetadataStore, origin: ModelOrigin) -> BenchmarkReport | None:
    """Return what the newest recorded benchmark of a version measured; None if there is none.

    Args:
        store: ML Metadata.
        origin: The run that pushed the version, and as which.
    """
    run = store.get_context_by_type_and_name("pipeline_run", origin.run_id)
    # The version's number alone may be another run's, in another directory of versions.
    executions = {e.id for e in store.get_executions_by_context(run.id)} if run else set()
    of_run = {
        event.artifact_id
        for event in store.get_events_by_execution_ids(list(executions))
        if event.type == metadata_store_pb2.Event.OUTPUT
    }
    for artifact in sorted(store.get_artifacts_by_type(_ARTIFACT_TYPE), key=lambda a: -a.id):
        if (
            artifact.id in of_run
            and artifact.custom_properties[_VERSION].string_value == origin.version
            and os.path.exists(os.path.join(artifact.uri, BENCHMARK_NAME))
        ):
            return read_benchmark(artifact.uri)
    return None
