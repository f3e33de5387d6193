"""Queries over the runs of an output directory: newest ledger, trained models, comparison."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ml_metadata as mlmd
import tomli
from ml_metadata.proto import metadata_store_pb2

from tokenmill.errors import TokenmillError
from tokenmill.metadata.output_directory import RunMetadata
from tokenmill.metadata.step_records import CONFIG_PROPERTY, StepRecord, outputs_of, step_record

_INPUT, _OUTPUT = metadata_store_pb2.Event.INPUT, metadata_store_pb2.Event.OUTPUT


@dataclass(frozen=True)
class LedgerRun:
    """The newest run of a directory that has a ledger.

    Attributes:
        run_id: TFX's id of the run.
        ledger_uri: The ledger artifact, with the index of documents.
        packed_rows: The artifact of packed rows that it counted.
    """

    run_id: str
    ledger_uri: str
    packed_rows: metadata_store_pb2.Artifact


@dataclass(frozen=True)
class TrainedModel:
    """A model that was trained on an artifact of rows.

    Attributes:
        uri: Directory of the model artifact.
        run_uri: Directory of the trainer's ModelRun artifact.
        run_ids: Ids of the runs that trained it or took it from the cache.
        seed: Seed of the order in which rows were read.
        pushed_to: Directories that versions of it were pushed to.
    """

    uri: str
    run_uri: str
    run_ids: tuple[str, ...]
    seed: int
    pushed_to: tuple[str, ...]


def newest_ledger(metadata: RunMetadata, run_dir: str) -> LedgerRun:
    """Find the newest run whose TokenLedger finished.

    Raises:
        TokenmillError: There is none.
    """
    for run_id, record in step_records(metadata, "TokenLedger"):
        if record.outputs.get("ledger"):
            artifact = record.one("ledger")
            (packed,) = _inputs_of_maker(metadata.store, artifact, "packed_rows")
            return LedgerRun(run_id, artifact.uri, packed)
    raise never_finished(metadata, run_dir, "TokenLedger")


def never_finished(metadata: RunMetadata, run_dir: str, node_id: str) -> TokenmillError:
    """Return the error that no run of a directory has come through a step, with how it ended."""
    runs = metadata.runs()
    end = describe_end(metadata.store, runs[-1]) if runs else ""
    return TokenmillError(
        f"{run_dir}: no run here has come through {node_id}{f'; the newest {end}' if end else ''}.",
        f"What ended it stands in tokenmill.log and report.html under {run_dir}/logs; run it again "
        "with what is said there. Before that, `tokenmill curate preview INPUT` shows what the "
        "rules of curation drop, and `tokenmill ingest preview INPUT` what cannot be read.",
    )


def step_records(metadata: RunMetadata, node_id: str) -> Iterator[tuple[str, StepRecord]]:
    """Yield (run id, record) of a step such as "Curator" in each run, newest run first."""
    end = f".{node_id}"
    pipelines = [context.name.removesuffix(end) for context in metadata.nodes(node_id)]
    for run in reversed(metadata.runs()):
        for pipeline in pipelines:
            record = step_record(metadata.store, pipeline, run.name, node_id)
            if record is not None:
                yield run.name, record


def _inputs_of_maker(
    store: mlmd.MetadataStore, artifact: metadata_store_pb2.Artifact, key: str
) -> list[metadata_store_pb2.Artifact]:
    """Return the artifacts under an input key of the execution that made an artifact."""
    events = store.get_events_by_artifact_ids([artifact.id])
    maker = min(e.execution_id for e in events if e.type == _OUTPUT)
    ids = [
        e.artifact_id
        for e in store.get_events_by_execution_ids([maker])
        if e.type == _INPUT and any(step.key == key for step in e.path.steps)
    ]
    return list(store.get_artifacts_by_id(ids))


def models_trained_on(
    store: mlmd.MetadataStore, rows: metadata_store_pb2.Artifact
) -> list[TrainedModel]:
    """Return every model whose trainer read these rows, in order of training."""
    models = []
    for execution in _consumers(store, rows, "Trainer"):
        outputs = outputs_of(store, execution.id)
        if "model" not in outputs or "model_run" not in outputs:
            continue  # it failed
        if execution.last_known_state == metadata_store_pb2.Execution.CACHED:
            continue  # listed with the execution that made it
        (model,) = outputs["model"]
        properties = execution.custom_properties
        seed = json.loads(properties["job"].string_value)["seed"]
        if "seed" in properties:  # an engine's runtime parameter wins
            seed = int(properties["seed"].double_value)
        runs = {
            context.name
            for event in store.get_events_by_artifact_ids([model.id])
            if event.type == _OUTPUT
            for context in store.get_contexts_by_execution(event.execution_id)
            if store.get_context_types_by_id([context.type_id])[0].name == "pipeline_run"
        }
        pushed = {
            pushed_model.custom_properties["pushed_destination"].string_value
            for push in _consumers(store, model, "Pusher")
            for pushed_model in outputs_of(store, push.id).get("pushed_model", ())
        }
        models.append(
            TrainedModel(
                uri=model.uri,
                run_uri=outputs["model_run"][0].uri,
                run_ids=tuple(sorted(runs)),
                seed=seed,
                pushed_to=tuple(sorted(pushed - {""})),
            )
        )
    return models


def _consumers(
    store: mlmd.MetadataStore, artifact: metadata_store_pb2.Artifact, kind: str
) -> list[metadata_store_pb2.Execution]:
    """Return the executions of a kind of step that read an artifact."""
    events = store.get_events_by_artifact_ids([artifact.id])
    ids = sorted({e.execution_id for e in events if e.type == _INPUT})
    return [
        execution
        for execution in store.get_executions_by_id(ids)
        if store.get_execution_types_by_id([execution.type_id])[0].name.endswith(kind)
    ]


# Custom properties that an artifact has of a run; the columns of `tokenmill runs`.
_COLUMNS = {
    ("TokenLedger", "ledger"): (
        "effective_tokens", "epochs", "params_total", "params_active", "total_flops",
        "chip_hours", "compute_usd", "mfu", "curation_saved_usd",
    ),
    ("CostReport", "cost_report"): (
        "chip_hours", "compute_usd", "mfu", "goodput", "training_seconds", "bits_per_byte",
        "masked_perplexity", "accuracy",
        "training_seconds_actual_over_estimated", "pipeline_usd", "curation_cost_usd",
    ),
}  # fmt: skip


# Of these, what was spent: a run that took the step from the cache spent nothing on it.
_TRAINING_BILL = {
    "chip_hours", "compute_usd", "mfu", "goodput", "training_seconds",
    "training_seconds_actual_over_estimated",
}  # fmt: skip
_STEPS_BILL = {"pipeline_usd", "curation_cost_usd"}


@dataclass
class RunNumbers:
    """Headline numbers of one run.

    Attributes:
        run: TFX's id of the run.
        ended: Where it failed or was killed; empty if it came to its end.
        changed: Keys of the configuration that the run before had otherwise, with the new value;
            None for a key that is gone.
        estimated: The TokenLedger's numbers by name; empty if the run did not come so far.
        actual: The CostReport's numbers by name; without what an earlier run was billed for.
        trained: Whether the Trainer ran, not its output taken from the cache; None if the run did
            not come so far.
    """

    run: str
    ended: str = ""
    changed: dict[str, Any] = field(default_factory=dict)
    estimated: dict[str, float] = field(default_factory=dict)
    actual: dict[str, float] = field(default_factory=dict)
    trained: bool | None = None


def compare_runs(metadata: RunMetadata) -> list[RunNumbers]:
    """Return the headline numbers of every run, oldest first, from custom properties alone."""
    runs: dict[str, RunNumbers] = {}
    before: dict[str, Any] = {}
    for run in metadata.runs():
        config = flat_config(tomli.loads(run.custom_properties[CONFIG_PROPERTY].string_value))
        keys = sorted({*before, *config}) if before and config else ()
        changed = {k: config.get(k) for k in keys if before.get(k) != config.get(k)}
        runs[run.name] = RunNumbers(run.name, describe_end(metadata.store, run), changed)
        before = config or before
    for run_id, record in step_records(metadata, "Trainer"):
        runs[run_id].trained = not record.cached
    for (node, key), names in _COLUMNS.items():
        for run_id, record in step_records(metadata, node):
            if not record.outputs.get(key):
                continue
            numbers, properties = runs[run_id], record.one(key).custom_properties
            spent = set() if numbers.trained else _TRAINING_BILL
            if node == "TokenLedger":
                side, spent = numbers.estimated, set()
            else:
                side, spent = numbers.actual, spent | (_STEPS_BILL if record.cached else set())
            side.update(
                (name, properties[name].double_value)
                for name in names
                if name in properties and name not in spent
            )
    return list(runs.values())


def flat_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a configuration as section.key."""
    return {f"{section}.{key}": value for section, keys in config.items()
            for key, value in keys.items()}  # fmt: skip


def describe_end(store: mlmd.MetadataStore, run: metadata_store_pb2.Context) -> str:
    """Say where a run failed or was killed; empty if it came to its end."""
    steps = {}  # a benchmark of the pushed model is an execution, too, and no step
    for execution in store.get_executions_by_context(run.id):
        for context in store.get_contexts_by_execution(execution.id):
            if context.type == "node":
                steps[execution.id] = execution, context.name.rpartition(".")[2]
    if not steps:
        return "ended before its first step"
    last, node = steps[max(steps)]
    if last.last_known_state == metadata_store_pb2.Execution.FAILED:
        return f"failed at {node}"
    if last.last_known_state == metadata_store_pb2.Execution.RUNNING:
        return f"running, or killed, at {node}"
    if last.last_known_state == metadata_store_pb2.Execution.CANCELED:
        return f"stopped at {node}"
    return "" if node in ("Pusher", "VertexRegistrar", "ReportPage") else f"ended after {node}"
