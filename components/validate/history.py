"""Past validations as ML Metadata has them: statistics, schema and settings of each gate."""

import os
from dataclasses import dataclass
from typing import Any

from ml_metadata.proto import metadata_store_pb2

from tokenmill.errors import TokenmillError
from tokenmill.files import absolute_path
from tokenmill.metadata.output_directory import RunMetadata, has_runs, open_runs

_PASSED = (metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED)

OFF, LATEST = "off", "latest"


@dataclass(frozen=True)
class GateRecord:
    """One execution of the anomaly gate.

    Attributes:
        passed: Whether it let the run go on.
        statistics_uri: The statistics it judged.
        schema_uri: The schema it judged them by.
        inferred: Whether that schema was inferred from the run itself.
        previous_statistics: The earlier statistics it compared with; empty if none.
        manifest: The directory of the list of input files, which is named by its content.
    """

    passed: bool
    statistics_uri: str
    schema_uri: str
    inferred: bool
    previous_statistics: str
    manifest: str


def gate_records(run_directory: str) -> list[GateRecord]:
    """List every execution of the gate in an output directory, the newest first.

    Raises:
        TokenmillError: There is no metadata.
    """
    return _History(open_runs(run_directory, example=["runs/demo"])).gates()


def newest_gate(run_directory: str) -> GateRecord:
    """Return the gate's newest execution.

    Raises:
        TokenmillError: No run got that far.
    """
    records = gate_records(run_directory)
    if not records:
        raise TokenmillError(
            f"no run in {run_directory} came as far as data validation.",
            "Run the pipeline first: tokenmill run",
        )
    return records[0]


def newest_inferred(run_directory: str) -> GateRecord:
    """Return the gate's newest execution with an inferred schema.

    Raises:
        TokenmillError: There is none.
    """
    record = next((r for r in gate_records(run_directory) if r.inferred), None)
    if record is None:
        raise TokenmillError(
            f"no run in {run_directory} inferred a schema.",
            "Run once without validate.schema_path: tokenmill run",
        )
    return record


def resolve_previous(setting: str, run_directory: str, manifest_directory: str) -> str:
    """Find the statistics to compare this run with; empty if none.

    They are looked up before the run starts and given to the gate as a path. A TFX Resolver would
    do it inside the run; it takes the newest statistics there are, so a second run of the same
    input would be compared with its own first run and, with a new input, miss the cache.
    Statistics of the same input files are passed over here, so that run's answer stays the same
    until a run of other files passes the gate.

    Args:
        setting: validate.previous_statistics: "off", "latest", the output directory of another
            run, or a directory of statistics.
        run_directory: This run's output directory.
        manifest_directory: The list of this run's input files.

    Raises:
        TokenmillError: The setting names neither.
    """
    if setting == OFF:
        return ""
    if setting == LATEST:
        if not has_runs(run_directory):
            return ""
        this = os.path.abspath(manifest_directory)
        records = gate_records(run_directory)
        return next((r.statistics_uri for r in records if r.passed and r.manifest != this), "")
    path = absolute_path(setting)
    if has_runs(path):
        records = gate_records(path)
        found = next((r.statistics_uri for r in records if r.passed), "")
        if not found:
            raise TokenmillError(
                f"validate.previous_statistics: no run in {path} passed data validation.",
                'Name another directory, or "off" to compare with nothing.',
            )
        return found
    from components.validate.statistics import read_statistics

    try:
        read_statistics(path, "train")
    except TokenmillError as error:
        raise TokenmillError(
            f"validate.previous_statistics = {setting}: {error.message}",
            'Give "latest", another run\'s output directory, or its StatisticsGen artifact.',
        ) from None
    return path


class _History:
    """Queries of ML Metadata; each step's artifacts hang on its executions by events."""

    def __init__(self, metadata: RunMetadata):
        self._metadata, self._store = metadata, metadata.store

    def gates(self) -> list[GateRecord]:
        """List all executions of nodes called AnomalyGate, the newest first."""
        executions = reversed(self._metadata.executions("AnomalyGate"))
        records = map(self._gate, executions)
        return [record for record in records if record is not None]

    def _gate(self, execution: Any) -> GateRecord | None:
        inputs = self._inputs(execution.id)
        if not {"statistics", "schema"} <= set(inputs):
            return None  # of an older release
        properties = execution.custom_properties
        return GateRecord(
            passed=execution.last_known_state in _PASSED,
            statistics_uri=inputs["statistics"].uri,
            schema_uri=inputs["schema"].uri,
            inferred=not properties["schema_path"].string_value,
            previous_statistics=properties["previous_statistics"].string_value,
            manifest=self._manifest(inputs["statistics"]),
        )

    def _manifest(self, statistics: Any) -> str:
        """Go from the statistics back to the examples, and to what ingest read."""
        statistics_gen = self._producer(statistics.id)
        examples = self._inputs(statistics_gen).get("examples") if statistics_gen else None
        ingest = self._producer(examples.id) if examples is not None else None
        if not ingest:
            return ""
        (execution,) = self._store.get_executions_by_id([ingest])
        return os.path.abspath(execution.custom_properties["input_base"].string_value)

    def _inputs(self, execution_id: int) -> dict[str, Any]:
        events = [
            event
            for event in self._store.get_events_by_execution_ids([execution_id])
            if event.type == metadata_store_pb2.Event.INPUT
        ]
        artifacts = {
            a.id: a for a in self._store.get_artifacts_by_id([e.artifact_id for e in events])
        }
        keys = (next(s.key for s in event.path.steps if s.HasField("key")) for event in events)
        return {k: artifacts[e.artifact_id] for k, e in zip(keys, events, strict=True)}

    def _producer(self, artifact_id: int) -> int | None:
        """Find the execution that made an artifact, not one that took it from the cache."""
        makers = [
            event.execution_id
            for event in self._store.get_events_by_artifact_ids([artifact_id])
            if event.type == metadata_store_pb2.Event.OUTPUT
        ]
        return min(makers, default=None)
