"""Benchmarks in ML Metadata: of the run that pushed the version, the newest first."""

import pytest
from ml_metadata.proto import metadata_store_pb2

from tokenmill.contracts.benchmark import (
    BenchmarkMetric,
    BenchmarkReport,
    BenchmarkTaskResult,
    write_benchmark,
)
from tokenmill.contracts.model_origin import ModelOrigin
from tokenmill.errors import TokenmillError
from tokenmill.metadata.benchmark_records import newest_benchmark, record_benchmark
from tokenmill.metadata.run_history import describe_end
from tokenmill.metadata.step_records import record_run, recorded_run, step_record
from tokenmill.metadata.store import open_store


def report(value):
    metric = BenchmarkMetric(value=value, standard_error=None, chance=0.25, higher_is_better=True)
    task = BenchmarkTaskResult(items=4, version="1", metrics={"acc": metric}, samples="s.jsonl")
    return BenchmarkReport(model="/m/7", harness="0.4.13", seconds=1.0, tasks={"cloze": task})


def measured(directory, value):
    directory.mkdir()
    found = report(value)
    write_benchmark(str(directory), found)
    return str(directory), found


@pytest.fixture
def store(tmp_path):
    """A store with one run, whose Pusher has pushed a version, as TFX records it."""
    store = open_store(str(tmp_path / "metadata.sqlite"))
    record_run(store, "run-1", "", "")
    contexts = [store.get_context_by_type_and_name("pipeline_run", "run-1")]
    for kind, name in (("pipeline", "demo"), ("node", "demo.Pusher")):
        type_id = store.put_context_type(metadata_store_pb2.ContextType(name=kind))
        contexts.append(metadata_store_pb2.Context(type_id=type_id, name=name))
    step = metadata_store_pb2.Execution(
        type_id=store.put_execution_type(metadata_store_pb2.ExecutionType(name="Pusher")),
        last_known_state=metadata_store_pb2.Execution.COMPLETE,
    )
    model = metadata_store_pb2.Artifact(
        type_id=store.put_artifact_type(metadata_store_pb2.ArtifactType(name="PushedModel")),
        uri="/pushed",
    )
    path = metadata_store_pb2.Event.Path(
        steps=[
            metadata_store_pb2.Event.Path.Step(key="pushed_model"),
            metadata_store_pb2.Event.Path.Step(index=0),
        ]
    )
    event = metadata_store_pb2.Event(type=metadata_store_pb2.Event.OUTPUT, path=path)
    store.put_execution(step, [(model, event)], contexts)
    return store


ORIGIN = ModelOrigin(run_id="run-1", version="7")


def test_the_newest_of_a_version_that_is_still_there_is_found(store, tmp_path):
    assert newest_benchmark(store, ORIGIN) is None
    for number, value in enumerate((0.25, 0.5)):
        record_benchmark(store, ORIGIN, *measured(tmp_path / str(number), value))
    other = ModelOrigin(run_id="run-1", version="8")
    record_benchmark(store, other, *measured(tmp_path / "other", 0.75))
    assert newest_benchmark(store, ORIGIN) == report(0.5)
    assert newest_benchmark(store, other) == report(0.75)
    assert newest_benchmark(store, ModelOrigin(run_id="run-2", version="7")) is None
    (tmp_path / "1" / "benchmark.json").unlink()
    assert newest_benchmark(store, ORIGIN) == report(0.25)


def test_numbers_are_custom_properties_and_the_pushed_model_is_the_input(store, tmp_path):
    directory, found = measured(tmp_path / "one", 0.5)
    record_benchmark(store, ORIGIN, directory, found)
    (artifact,) = store.get_artifacts_by_type("components.Benchmark")
    assert artifact.uri == directory
    assert artifact.custom_properties["cloze/acc"].double_value == 0.5
    (event,) = store.get_events_by_artifact_ids([artifact.id])
    inputs = [
        each.artifact_id
        for each in store.get_events_by_execution_ids([event.execution_id])
        if each.type == metadata_store_pb2.Event.INPUT
    ]
    assert [a.uri for a in store.get_artifacts_by_id(inputs)] == ["/pushed"]


def test_a_benchmark_is_no_step_of_the_run(store, tmp_path):
    before = step_record(store, "demo", "run-1", "Pusher")
    run = store.get_context_by_type_and_name("pipeline_run", "run-1")
    assert describe_end(store, run) == ""
    record_benchmark(store, ORIGIN, *measured(tmp_path / "one", 0.5))
    assert describe_end(store, run) == ""
    assert step_record(store, "demo", "run-1", "Pusher") == before
    assert recorded_run(store, "run-1").pipeline == "demo"


def test_a_run_that_is_not_there_is_an_error(store, tmp_path):
    with pytest.raises(TokenmillError, match="no run elsewhere"):
        record_benchmark(
            store, ModelOrigin(run_id="elsewhere", version="7"), *measured(tmp_path / "x", 0.5)
        )
