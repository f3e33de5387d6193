"""Summaries of each step's counts in a few words, read from its outputs in ML Metadata."""

import os
from collections.abc import Callable

from tfx.utils import path_utils

from components.train.telemetry.metrics_log import METRICS_NAME
from components.train.telemetry.metrics_log import read_metrics as read_metrics_log
from components.validate.statistics import summarize_statistics
from pipeline.report.console import largest_counts
from pipeline.report.experts import describe_dead, expert_loads
from pipeline.report.open_model import describe_pooling
from pipeline.report.quality import quality_parts
from tokenmill.contracts.calibration import read_calibration
from tokenmill.contracts.cost_report import read_cost_report
from tokenmill.contracts.curation import read_curation
from tokenmill.contracts.evaluation import WHOLE, read_metrics
from tokenmill.contracts.ingest import read_ingest_counts
from tokenmill.contracts.ledger import read_ledger
from tokenmill.contracts.packed_rows import LEFT_OUT_REASONS
from tokenmill.contracts.quality_model import point_of_recall, read_quality_model
from tokenmill.contracts.served_model import read_served_model
from tokenmill.contracts.training import read_telemetry
from tokenmill.metadata.step_records import StepRecord
from tokenmill.number_format import (
    byte_size,
    count,
    decimal,
    duration,
    flops_per_second,
    usd,
)
from tokenmill.records.splits import SPLITS


def summarize_step(node_id: str, record: StepRecord) -> list[str]:
    """Return what a step counted, in words, the most important first; empty if nothing."""
    summary = _SUMMARIES.get(node_id)
    return summary(record) if summary else []


def step_remarks(node_id: str, record: StepRecord) -> list[str]:
    """Return what a person has to see of a step, below its line."""
    remarks = _REMARKS.get(node_id)
    return remarks(record) if remarks else []


def _ingest(record: StepRecord) -> list[str]:
    documents = count(record.number("examples", "documents"))
    size = byte_size(record.number("examples", "bytes"))
    bad = record.number("quarantine", "records")
    counts = read_ingest_counts(record.one("quarantine").uri)
    by_format = {name: amount.documents for name, amount in counts.formats.items()}
    repaired = [f"{count(number)} {kind}" for kind, number in counts.repaired.items()]
    return [
        f"{documents} documents, {size}, {count(bad)} records quarantined",
        *([f"of {largest_counts(by_format, 6)}"] if len(by_format) > 1 else []),
        *([f"repaired {', '.join(repaired)}"] if repaired else []),
        *([f"{count(counts.shared_ids)} shared ids"] if counts.shared_ids else []),
        *([f"left out {largest_counts(counts.left_out, 6)}"] if counts.left_out else []),
    ]


def _statistics(record: StepRecord) -> list[str]:
    splits = {split: summarize_statistics(record.one("statistics").uri, split) for split in SPLITS}
    counts = " and ".join(f"{count(s.documents)} {split}" for split, s in splits.items())
    sizes = splits["train"].byte_count
    return [
        f"{counts} documents",
        f"median {byte_size(sizes.p50)}",
        f"most {byte_size(sizes.max)}",
    ]


def _schema(record: StepRecord) -> list[str]:
    import tensorflow_data_validation as tfdv

    schema = tfdv.load_schema_text(os.path.join(record.one("schema").uri, "schema.pbtxt"))
    first, *others = [f.name for f in schema.feature] or ["none"]
    return [f"{len(schema.feature)} features: {first}", *others]


def _gate(record: StepRecord) -> list[str]:
    return [f"{count(record.number('decision', 'anomalies'))} anomalies"]


def _curate(record: StepRecord) -> list[str]:
    curation = read_curation(record.one("dropped").uri)
    total = curation.total
    kept = f"{count(total.kept.documents)} kept, {byte_size(total.kept.bytes)}"
    largest = sorted(total.dropped.items(), key=lambda item: (-item[1].documents, item[0]))
    if not largest:
        return [kept]
    first, *others = [f"{count(amount.documents)} {reason}" for reason, amount in largest]
    return [f"{kept}; dropped {first}", *others]


def _quality_model(record: StepRecord) -> list[str]:
    model = read_quality_model(record.one("quality_model").uri)
    if model.classifier is not None:
        return [f"scores by a classifier: {', '.join(model.classifier.labels)}"]
    examples = (
        f"{count(model.positive.documents)} positive and {count(model.negative.documents)} "
        "negative examples"
    )
    if (held_out := model.held_out) is None:
        return [examples]
    point = point_of_recall(held_out, 0.9)
    return [
        f"held out, precision {point.precision:.1%} at recall {point.recall:.0%}",
        examples,
    ]


def _tokenizer(record: StepRecord) -> list[str]:
    parts = [f"{count(record.number('tokenizer', 'tokens'))} tokens in the vocabulary"]
    properties = record.one("tokenizer").custom_properties
    if "cut_words" in properties and properties["cut_words"].int_value:
        parts.append(f"{count(properties['cut_words'].int_value)} overlong words cut to train it")
    return parts


def _tokenizer_remarks(record: StepRecord) -> list[str]:
    """Say what of the text or of a conversation the vocabulary cannot hold."""
    properties, remarks = record.one("tokenizer").custom_properties, []
    if "lossy_fraction" in properties and properties["lossy_fraction"].double_value:
        lost = properties["lossy_fraction"].double_value
        remarks.append(
            f"the tokenizer is lossy: {lost:.1%} of the documents do not come back from their "
            "tokens. tokenizer.path names another; without it one is trained."
        )
    if "answers_end" in properties and not properties["answers_end"].int_value:
        remarks.append(
            "the chat template ends an answer by no token, so the model learns no end; "
            "another template: --set tokenizer.chat_template=chatml"
        )
    return remarks


def _transform(record: StepRecord) -> list[str]:
    documents = count(record.number("transformed_examples", "documents"))
    return [f"{documents} documents, {byte_size(record.number('transformed_examples', 'bytes'))}"]


def _pack(record: StepRecord) -> list[str]:
    def number(name: str) -> float:
        return record.number("packed_rows", name)

    filled = 1 - number("padding_slots") / number("slots")
    parts = [
        f"{count(number('tokens'))} tokens in {count(number('rows'))} rows, {filled:.2%} filled"
    ]
    properties = record.one("packed_rows").custom_properties
    for name, what in (
        *((f"dropped_{reason}", words) for reason, words in LEFT_OUT_REASONS.items()),
        ("prompt_tokens", "tokens of prompts, which bear no loss"),
        ("truncated_tokens", "tokens cut off"),
        ("truncated_conversations", "conversations cut at a turn (model.sequence_length)"),
    ):
        if name in properties and properties[name].int_value:
            parts.append(f"{count(properties[name].int_value)} {what}")
    return parts


def _calibrate(record: StepRecord) -> list[str]:
    calibration = read_calibration(record.one("calibration").uri)
    speed = flops_per_second(calibration.achieved_flops_per_second)
    parts = [
        f"{count(calibration.tokens_per_second)} tokens/s, {speed}",
        f"compiling takes {duration(calibration.compile_seconds)}",
    ]
    cpu = calibration.step_cpu_seconds
    if cpu is not None and calibration.peak_flops_per_second is not None:  # this machine's cores
        parts.append(f"{cpu / calibration.step_seconds:.1f} of {calibration.vcpus} cores")
    return parts


def _calibrate_remarks(record: StepRecord) -> list[str]:
    """Say where something else seemed to run on this machine's cores."""
    calibration = read_calibration(record.one("calibration").uri)
    cpu = calibration.step_cpu_seconds
    if cpu is None or calibration.peak_flops_per_second is None:
        return []
    cores = cpu / calibration.step_seconds
    if cores >= _BUSY * calibration.vcpus:
        return []
    return [
        f"calibration had {cores:.1f} of {calibration.vcpus} cores: if other work runs here, the "
        "forecast is too long"
    ]


def _ledger(record: StepRecord) -> list[str]:
    ledger = read_ledger(record.one("ledger").uri)
    took, money = duration(ledger.cost.wall_seconds), usd(ledger.cost.compute_usd)
    return [
        f"{count(ledger.training.effective_tokens)} effective tokens",
        f"about {took} and {money} to train",
    ]


def _train(record: StepRecord) -> list[str]:
    telemetry = read_telemetry(record.one("model_run").uri)
    before, after, rate = (
        telemetry.eval_before.loss,
        telemetry.eval_after.loss,
        telemetry.tokens_per_second,
    )
    parts = [f"{count(telemetry.steps)} steps, held-out loss {before:.2f} → {after:.2f}"]
    if rate:
        parts.append(f"{count(rate)} tokens/s")
    if examples := telemetry.examples_per_second:
        parts.append(f"{examples:,.1f} examples/s")
    return parts


def _train_remarks(record: StepRecord) -> list[str]:
    """Say what a base model brought to the training and what it did not, and of dead experts."""
    remarks = []
    uri = record.one("model_run").uri
    loads = expert_loads(uri, read_metrics_log(os.path.join(uri, METRICS_NAME)))
    if loads and (dead := describe_dead(loads[-1])):
        remarks.append(f"after {count(loads[-1].step)} steps {dead}")
    if new := read_telemetry(uri).new_variables:
        parts = ", ".join(dict.fromkeys(path.split("/")[1] for path in new))
        remarks.append(f"model.base_model has no weights for {parts}: they started at random")
    model = read_served_model(path_utils.serving_model_path(record.one("model").uri))
    if (pooling := model.pooling) is not None:
        words = f"embed is that of model.base_model: {describe_pooling(pooling)}"
        if (context := model.model_shape.sequence_length) < pooling.max_tokens:
            words += f", here {context:,} (model.sequence_length)"
        remarks.append(f"{words}; training has moved its vectors")
    return remarks


def _evaluate(record: StepRecord) -> list[str]:
    metrics = read_metrics(record.one("evaluation").uri)[WHOLE]
    blessed = record.one("blessing").custom_properties["blessed"].int_value
    first, *others = quality_parts(metrics) or ["nothing could be measured"]
    return [f"{'blessed' if blessed else 'not blessed'}: {first}", *others]


def _cost_report(record: StepRecord) -> list[str]:
    report = read_cost_report(record.one("cost_report").uri)
    return [
        f"{usd(report.actual.compute_usd)} for {decimal(report.actual.chip_hours)} chip-hours",
        f"training took {report.training_seconds_actual_over_estimated:.2f} x the estimate",
    ]


def _push(record: StepRecord) -> list[str]:
    properties = record.one("pushed_model").custom_properties
    if not properties["pushed"].int_value:
        return ["not pushed: the model is not blessed"]
    return [f"version {os.path.basename(properties['pushed_destination'].string_value)}"]


def _register(record: StepRecord) -> list[str]:
    name = record.one("registered_model").custom_properties["resource_name"].string_value
    return [name or "nothing was pushed"]


def _page(record: StepRecord) -> list[str]:
    return [byte_size(os.path.getsize(os.path.join(record.one("page").uri, "report.html")))]


# Cores that the steps had, by those of the machine, below which something else seems to run there.
_BUSY = 0.6
_REMARKS: dict[str, Callable[[StepRecord], list[str]]] = {
    "Curator": lambda record: list(read_curation(record.one("dropped").uri).remarks),
    "TokenizerTrainer": _tokenizer_remarks,
    "Calibrator": _calibrate_remarks,
    "Trainer": _train_remarks,
}
_SUMMARIES: dict[str, Callable[[StepRecord], list[str]]] = {
    "CorpusExampleGen": _ingest,
    "StatisticsGen": _statistics,
    "SchemaGen": _schema,
    "ImportSchemaGen": _schema,
    "AnomalyGate": _gate,
    "QualityTrainer": _quality_model,
    "Curator": _curate,
    "TokenizerTrainer": _tokenizer,
    "Transform": _transform,
    "Packer": _pack,
    "Calibrator": _calibrate,
    "TokenLedger": _ledger,
    "Trainer": _train,
    "Evaluator": _evaluate,
    "CostReport": _cost_report,
    "Pusher": _push,
    "VertexRegistrar": _register,
    "ReportPage": _page,
}
