"""Lineage of a pushed model: the run, files, artifacts, ledger and bill that it was made with.

Reads ML Metadata only; imports no TFX and no TensorFlow.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import ml_metadata as mlmd

from tokenmill.contracts.benchmark import BenchmarkTaskResult
from tokenmill.contracts.cost_report import CostReport, read_cost_report
from tokenmill.contracts.ledger import Ledger, read_ledger
from tokenmill.contracts.model_origin import ORIGIN_PATH, ModelOrigin, read_origin
from tokenmill.errors import TokenmillError
from tokenmill.files import absolute_path, list_files, open_file
from tokenmill.metadata.benchmark_records import newest_benchmark
from tokenmill.metadata.output_directory import open_runs
from tokenmill.metadata.step_records import Run, recorded_run, step_record
from tokenmill.metadata.store import open_store

_Document = TypeVar("_Document", Ledger, CostReport)


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
        benchmarks: What benchmark tasks measured of it, by task: the newest `tokenmill benchmark`,
            and what the run's evaluation has beside.
    """

    model: str
    run_id: str
    inputs: list[dict[str, Any]]
    artifacts: dict[str, str]
    ledger: Ledger
    cost_report: CostReport
    config_toml: str
    benchmarks: dict[str, BenchmarkTaskResult]

    def to_json(self) -> dict[str, Any]:
        """Return everything, for a JSON document."""
        benchmarks = {name: result.to_json() for name, result in self.benchmarks.items()}
        documents = {"ledger": self.ledger.to_json(), "cost_report": self.cost_report.to_json()}
        return {**vars(self), **documents, "benchmarks": benchmarks}


def trace_model(
    model: str, run_directory: str | None = None, metadata_url: str | None = None
) -> Lineage:
    """Find the run that pushed a model, and read what it recorded.

    Args:
        model: A pushed version, or the directory of versions: then the newest.
        run_directory: The run's output directory; by default the one that the model lies in.
        metadata_url: The server of ML Metadata, where it is not a file of the run directory.

    Raises:
        TokenmillError: No run there pushed this model.
    """
    model = absolute_path(model).rstrip("/")
    versions = _versions(model)
    if versions:
        model = os.path.join(model, max(versions, key=int))
    elif "://" not in model and not os.path.isdir(model):
        raise TokenmillError(
            f"{model}: there is no such directory.",
            "Give a pushed version, or the directory of versions, as runs/demo/serving_model.",
        )
    origin = read_origin(model)
    if origin is None:
        raise TokenmillError(
            f"{model} has no {ORIGIN_PATH}: no run pushed it, or one of an older tokenmill.",
            "Give a pushed version, or push again: tokenmill run --no-cache.",
        )
    if run_directory is None:
        run_directory = os.path.dirname(os.path.dirname(model))
    if metadata_url:
        store, where = open_store(metadata_url), metadata_url
    else:
        store, where = open_runs(run_directory).store, run_directory
    run = recorded_run(store, origin.run_id)
    if run is None:
        raise TokenmillError(
            f"{model} was pushed by the run {origin.run_id}, which {where} does not have.",
            "Name the run's output directory with --run.",
        )
    return _describe(store, model, run, origin)


def _versions(directory: str) -> list[str]:
    """List the numbers of the versions in a directory, on disk or in a bucket."""
    if "://" not in directory:
        names = os.listdir(directory) if os.path.isdir(directory) else []
        return [name for name in names if name.isdigit()]
    from apache_beam.io.filesystems import FileSystems

    found = FileSystems.match([f"{directory}/*/{ORIGIN_PATH}"])[0].metadata_list
    names = [file.path.removeprefix(directory).split("/")[1] for file in found]
    return [name for name in names if name.isdigit()]


def _describe(store: mlmd.MetadataStore, model: str, run: Run, origin: ModelOrigin) -> Lineage:
    artifacts: dict[str, str] = {}
    nodes = {
        context.name.removeprefix(f"{run.pipeline}.")
        for execution in store.get_executions_by_context(run.context.id)
        for context in store.get_contexts_by_execution(execution.id)
        if context.type == "node"
    }
    for node in sorted(nodes):
        record = step_record(store, run.pipeline, run.context.name, node)
        for key, made in record.outputs.items() if record else ():
            if made:
                artifacts[f"{node}.{key}"] = made[0].uri
    for name in ("TokenLedger.ledger", "CostReport.cost_report"):
        if name not in artifacts:
            raise TokenmillError(
                f"the run {run.context.name} has no record of {name}.",
                "Ask again when the run has ended, or of another version.",
            )
    cost_report = _present(read_cost_report, artifacts["CostReport.cost_report"])
    benchmark = newest_benchmark(store, origin)
    return Lineage(
        model=model,
        run_id=run.context.name,
        inputs=list(input_files(store, run.context.id)),
        artifacts=artifacts,
        ledger=_present(read_ledger, artifacts["TokenLedger.ledger"]),
        cost_report=cost_report,
        config_toml=run.config_toml,
        benchmarks={
            **cost_report.quality.evaluation.benchmarks,
            **(benchmark.tasks if benchmark else {}),
        },
    )


def _present(read: Callable[[str], _Document], directory: str) -> _Document:
    """Read a document of an artifact that may have been removed."""
    try:
        return read(directory)
    except FileNotFoundError as error:
        path = error.filename or directory
        raise TokenmillError(
            f"{path} is gone; the run's artifacts were removed.",
            "Ask of another version: tokenmill gc keeps the runs of all that are there.",
        ) from None


def input_files(store: mlmd.MetadataStore, run_context_id: int) -> Iterator[dict[str, Any]]:
    """Yield the files that a run read: name, path, size_bytes, modified (seconds since 1970)."""
    for execution in store.get_executions_by_context(run_context_id):
        base = execution.custom_properties["input_base"].string_value
        for path in list_files(base) if base else ():
            with open_file(path) as lines:
                yield from map(json.loads, lines)
