"""What a run left in ML Metadata, in its artifacts and beside its log, read for its page."""

import datetime
import itertools
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from ml_metadata.proto import metadata_store_pb2

from components.curate.counts import samples_by_reason
from components.train.telemetry.metrics_log import METRICS_NAME, read_metrics
from components.validate.statistics import summarize_statistics
from pipeline.report.experts import expert_loads
from pipeline.runners.logs import REPORT_NAME
from tokenmill.contracts.base import read_document
from tokenmill.contracts.cost_report import CostReport, read_cost_report
from tokenmill.contracts.curation import Curation, DroppedDocument, read_curation, read_dropped
from tokenmill.contracts.ledger import Ledger, read_ledger
from tokenmill.contracts.samples import Samples, find_samples
from tokenmill.contracts.tokenizer import DESCRIPTION_NAME, TokenizerDescription
from tokenmill.contracts.training import ExpertLoads, Telemetry, read_telemetry
from tokenmill.contracts.validation import SplitSummary
from tokenmill.errors import TokenmillError
from tokenmill.library_logs import LOG_TIME_FORMAT
from tokenmill.metadata.lineage import input_files
from tokenmill.metadata.output_directory import RunMetadata
from tokenmill.metadata.run_history import describe_end
from tokenmill.metadata.step_records import CONFIG_PROPERTY, StepRecord, step_record
from tokenmill.records.splits import SPLITS

SAMPLES_A_REASON = 3
# Samples are of the first so many records: a large corpus drops millions, and a page shows three.
RECORDS_READ = 20_000

_INPUT = metadata_store_pb2.Event.INPUT
_Read = TypeVar("_Read")


class StepLinks(NamedTuple):
    """A step in the lineage.

    Attributes:
        node: Name of the step.
        cached: Whether its outputs are an earlier run's.
        outputs: URI by output key.
        reads: Names of the steps whose outputs it read.
        versions: Versions of TFX that its artifacts are of.
    """

    node: str
    cached: bool
    outputs: dict[str, str]
    reads: list[str]
    versions: tuple[str, ...] = ()


@dataclass
class RunDocuments:
    """All that the page of a run is drawn from; what the run did not come to is None or empty.

    Attributes:
        run_id: TFX's id of the run; empty where an engine does not tell it.
        directory: Output directory of the run, absolute; empty where it is not known.
        log_directory: Directory of its log and its page; empty where there is none.
        ended: Where it failed or was stopped; empty if it came to its end.
        config_toml: The whole configuration.
        records: The steps that ran, by name, in their order.
        over_budget: Whether the ledger stopped the run: it is in report.json alone.
        gone: Artifacts that the run recorded and that are no longer there.
    """

    run_id: str
    directory: str = ""
    log_directory: str = ""
    ended: str = ""
    config_toml: str = ""
    records: dict[str, StepRecord] = field(default_factory=dict)
    links: list[StepLinks] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    statistics: dict[str, SplitSummary] = field(default_factory=dict)
    curation: Curation | None = None
    samples: dict[str, list[DroppedDocument]] = field(default_factory=dict)
    tokenizer: TokenizerDescription | None = None
    ledger: Ledger | None = None
    over_budget: bool = False
    telemetry: Telemetry | None = None
    held_out: Samples | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    expert_loads: list[ExpertLoads] = field(default_factory=list)
    cost_report: CostReport | None = None
    pushed_to: str = ""
    gone: list[str] = field(default_factory=list)


def read_run(metadata: RunMetadata, directory: str, run_id: str | None = None) -> RunDocuments:
    """Read what the page of a run shows.

    Args:
        metadata: Of the runs in `directory`.
        directory: The output directory.
        run_id: The run; None for the newest.

    Raises:
        TokenmillError: There is no such run.
    """
    runs = metadata.runs()
    run = next((r for r in reversed(runs) if run_id in (None, r.name)), None)
    if run is None:
        raise TokenmillError(
            f"{directory}: there is no run{f' {run_id}' if run_id else ''} here.",
            "Run the pipeline: tokenmill run.",
        )
    directory = os.path.abspath(directory)
    found = RunDocuments(
        run_id=run.name,
        directory=directory,
        log_directory=log_directory_of(directory, run.create_time_since_epoch / 1000),
        ended=describe_end(metadata.store, run),
        config_toml=run.custom_properties[CONFIG_PROPERTY].string_value,
    )
    _read_steps(metadata, run, found)
    read_outputs(found)
    if made := found.records.get("Pusher", StepRecord(False, {})).outputs.get("pushed_model"):
        found.pushed_to = made[0].custom_properties["pushed_destination"].string_value
    found.inputs = list(input_files(metadata.store, run.id))
    return found


def log_directory_of(directory: str, started: float) -> str:
    """Return the directory of a run's log, or if it was removed the one it would have now.

    Args:
        directory: The output directory.
        started: When the run was recorded, seconds since 1970.
    """
    logs = os.path.join(directory, "logs")
    begun: dict[float, str] = {}
    for name in os.listdir(logs) if os.path.isdir(logs) else ():
        try:
            time = datetime.datetime.strptime(name, LOG_TIME_FORMAT)
        except ValueError:
            continue
        begun[time.replace(tzinfo=datetime.timezone.utc).timestamp()] = name
    earlier = [time for time in begun if time <= started]
    if earlier:
        return os.path.join(logs, begun[max(earlier)])
    own = datetime.datetime.fromtimestamp(started, datetime.timezone.utc)
    return os.path.join(logs, own.strftime(LOG_TIME_FORMAT))


def _read_steps(metadata: RunMetadata, run: Any, found: RunDocuments) -> None:
    """Read the records of the steps and what each of them read."""
    store = metadata.store
    made_by: dict[int, str] = {}
    executions = sorted(store.get_executions_by_context(run.id), key=lambda e: e.id)
    for execution in executions:
        contexts = {c.type: c.name for c in store.get_contexts_by_execution(execution.id)}
        if "node" not in contexts:
            continue  # a benchmark of the pushed model
        pipeline, _, node = contexts["node"].rpartition(".")
        record = step_record(store, pipeline, run.name, node)
        if record is None:
            continue
        found.records[node] = record
        artifacts = [artifact for made in record.outputs.values() for artifact in made]
        made_by.update((artifact.id, node) for artifact in artifacts)
        read = [e.artifact_id for e in store.get_events_by_execution_ids([execution.id])
                if e.type == _INPUT]  # fmt: skip
        found.links.append(
            StepLinks(
                node=node,
                cached=record.cached,
                outputs={key: made[0].uri for key, made in record.outputs.items() if made},
                reads=sorted({made_by[number] for number in read if number in made_by}),
                versions=tuple(sorted({a.custom_properties["tfx_version"].string_value
                                       for a in artifacts} - {""})),
            )
        )  # fmt: skip


def read_outputs(found: RunDocuments) -> None:
    """Read the documents in the outputs of the run's steps (`records`)."""

    def read(node: str, key: str, reader: Callable[[str], _Read]) -> _Read | None:
        """Read a document of an output; None if the step did not make it or it was removed."""
        record = found.records.get(node)
        made = record.outputs.get(key) if record else None
        if not made:
            return None
        try:
            return reader(made[0].uri)
        except (OSError, TokenmillError):
            if not describes_failure(found, node):
                logging.exception("%s of %s could not be read for report.html", key, node)
                found.gone.append(f"{node}.{key}")
            return None

    found.statistics = read("StatisticsGen", "statistics", _summaries) or {}
    found.curation = read("Curator", "dropped", read_curation)
    found.samples = read("Curator", "dropped", _samples) or {}
    found.tokenizer = read("TokenizerTrainer", "tokenizer", _tokenizer)
    found.ledger = read("TokenLedger", "ledger", read_ledger)
    if found.ledger is None:
        found.ledger = _ledger_of_report(found)
        found.over_budget = found.ledger is not None
    found.telemetry = read("Trainer", "model_run", read_telemetry)
    found.held_out = read("Trainer", "model_run", find_samples)
    found.metrics = read("Trainer", "model_run", _metrics) or []
    found.expert_loads = (
        read("Trainer", "model_run", lambda uri: expert_loads(uri, found.metrics)) or []
    )
    found.cost_report = read("CostReport", "cost_report", read_cost_report)


def describes_failure(found: RunDocuments, node: str) -> bool:
    """Return whether a step is the one at which the run ended before its end."""
    return found.ended.endswith(f" at {node}")


def _summaries(uri: str) -> dict[str, SplitSummary]:
    return {split: summarize_statistics(uri, split) for split in SPLITS}


def _samples(uri: str) -> dict[str, list[DroppedDocument]]:
    records = itertools.islice(read_dropped(uri), RECORDS_READ)
    return samples_by_reason(records, None, None, SAMPLES_A_REASON)


def _tokenizer(uri: str) -> TokenizerDescription:
    return read_document(os.path.join(uri, DESCRIPTION_NAME), TokenizerDescription)


def _metrics(uri: str) -> list[dict[str, Any]]:
    return read_metrics(os.path.join(uri, METRICS_NAME))


def _ledger_of_report(found: RunDocuments) -> Ledger | None:
    """Read the ledger that a run over its budget left in report.json alone."""
    try:
        with open(os.path.join(found.log_directory, REPORT_NAME), encoding="utf-8") as source:
            numbers: Mapping[str, Any] = json.load(source)
        return Ledger.model_validate(numbers["ledger"])
    except (OSError, ValueError, KeyError, TypeError, TokenmillError):
        return None  # the run ended before its ledger
