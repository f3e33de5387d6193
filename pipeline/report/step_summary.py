"""Summaries of each step's counts in a few words, read from its outputs in ML Metadata."""

import os
from collections.abc import Callable

from tfx.utils import path_utils

from components.validate.statistics import summarize_statistics
from pipeline.report.console import largest_counts
from pipeline.report.open_model import describe_pooling
from pipeline.report.quality import describe_quality
from tokenmill.contracts.calibration import read_calibration
from tokenmill.contracts.cost_report import read_cost_report
from tokenmill.contracts.curation import read_curation
from tokenmill.contracts.evaluation import WHOLE, read_metrics
from tokenmill.contracts.ingest import read_ingest_counts
from tokenmill.contracts.ledger import read_ledger
from tokenmill.contracts.packed_rows import LEFT_OUT_REASONS
from tokenmill.contracts.served_model import read_served_model
from tokenmill.contracts.training import read_telemetry
from tokenmill.metadata.step_records import StepRecord
from tokenmill.number_format import (
    byte_size,
    count,
    decimal,
    duration,
    flops_per_second,
    power_of_ten,
    usd,
)
from tokenmill.records.splits import SPLITS


def summarize_step(node_id: str, record: StepRecord) -> str:
    """Return the words after a step's name on the screen; empty if there is nothing to count."""
    summary = _SUMMARIES.get(node_id)
    return summary(record) if summary else ""


def step_remarks(node_id: str, record: StepRecord) -> list[str]:
    """Return what a person has to see of a step, below its line."""
    remarks = _REMARKS.get(node_id)
    return remarks(record) if remarks else []


def _ingest(record: StepRecord) -> str:
    documents = count(record.number("examples", "documents"))
    size = byte_size(record.number("examples", "bytes"))
    bad = record.number("quarantine", "records")
    counts = read_ingest_counts(record.one("quarantine").uri)
    by_format = {name: amount.documents for name, amount in counts.formats.items()}
    repaired = [f"{count(number)} {kind}" for kind, number in counts.repaired.items()]
    return ", ".join(
        (
            f"{documents} documents, {size}, {count(bad)} records quarantined",
            *([f"of {largest_counts(by_format, 6)}"] if len(by_format) > 1 else []),
            *([f"repaired {', '.join(repaired)}"] if repaired else []),
            *([f"{count(counts.shared_ids)} shared ids"] if counts.shared_ids else []),
            *([f"left out {largest_counts(counts.left_out, 6)}"] if counts.left_out else []),
        )
    )


def _statistics(record: StepRecord) -> str:
    splits = {split: summarize_statistics(record.one("statistics").uri, split) for split in SPLITS}
    counts = " and ".join(f"{count(s.documents)} {split}" for split, s in splits.items())
    sizes = splits["train"].byte_count
    return (
        f"{counts} documents; bytes a document: median {count(sizes.p50)}, most {count(sizes.max)}"
    )


def _schema(record: StepRecord) -> str:
    import tensorflow_data_validation as tfdv

    schema = tfdv.load_schema_text(os.path.join(record.one("schema").uri, "schema.pbtxt"))
    return f"{len(schema.feature)} features: {', '.join(f.name for f in schema.feature)}"


def _gate(record: StepRecord) -> str:
    return f"{count(record.number('decision', 'anomalies'))} anomalies"


def _curate(record: StepRecord) -> str:
    curation = read_curation(record.one("dropped").uri)
    total = curation.total
    kept = f"{count(total.kept.documents)} documents kept, {byte_size(total.kept.bytes)}"
    dropped = ", ".join(
        f"{count(amount.documents)} {reason}" for reason, amount in total.dropped.items()
    )
    return f"{kept}; dropped {dropped}" if dropped else kept


def _tokenizer(record: StepRecord) -> str:
    words = f"{count(record.number('tokenizer', 'tokens'))} tokens in the vocabulary"
    properties = record.one("tokenizer").custom_properties
    if "cut_words" in properties and properties["cut_words"].int_value:
        words += f"; {count(properties['cut_words'].int_value)} overlong words cut to train it"
    if "lossy_fraction" in properties and properties["lossy_fraction"].double_value:
        lost = properties["lossy_fraction"].double_value
        words += f"; lossy: {lost:.1%} of the documents do not come back from their tokens"
    if "answers_end" in properties and not properties["answers_end"].int_value:
        words += "; the chat template ends an answer by no token, so the model learns no end"
    return words


def _transform(record: StepRecord) -> str:
    documents = count(record.number("transformed_examples", "documents"))
    return f"{documents} documents, {byte_size(record.number('transformed_examples', 'bytes'))}"


def _pack(record: StepRecord) -> str:
    def number(name: str) -> float:
        return record.number("packed_rows", name)

    filled = 1 - number("padding_slots") / number("slots")
    words = f"{count(number('tokens'))} tokens in {count(number('rows'))} rows, {filled:.2%} filled"
    properties = record.one("packed_rows").custom_properties
    for name, what in (
        *((f"dropped_{reason}", words) for reason, words in LEFT_OUT_REASONS.items()),
        ("prompt_tokens", "tokens of prompts, which bear no loss"),
        ("truncated_tokens", "tokens cut off"),
        ("truncated_conversations", "conversations cut at a turn (model.sequence_length)"),
    ):
        if name in properties and properties[name].int_value:
            words += f", {count(properties[name].int_value)} {what}"
    return words


def _calibrate(record: StepRecord) -> str:
    calibration = read_calibration(record.one("calibration").uri)
    words = (
        f"{count(calibration.tokens_per_second)} tokens/s over {calibration.steps} steps, "
        f"{flops_per_second(calibration.achieved_flops_per_second)}; compiling takes "
        f"{duration(calibration.compile_seconds)}"
    )
    cpu = calibration.step_cpu_seconds
    if cpu is None or calibration.peak_flops_per_second is None:  # not on this machine's cores
        return words
    cores = cpu / calibration.step_seconds
    words += f"; {cores:.1f} of {calibration.vcpus} cores"
    if cores < _BUSY * calibration.vcpus:
        words += ": if other work runs here, the forecast is too long"
    return words


def _ledger(record: StepRecord) -> str:
    ledger = read_ledger(record.one("ledger").uri)
    return (
        f"{count(ledger.training.effective_tokens)} effective tokens, "
        f"{power_of_ten(ledger.flops.total_exact)} FLOPs, about "
        f"{duration(ledger.cost.wall_seconds)} and {usd(ledger.cost.compute_usd)} to train"
    )


def _train(record: StepRecord) -> str:
    telemetry = read_telemetry(record.one("model_run").uri)
    before, after, rate = (
        telemetry.eval_before.loss,
        telemetry.eval_after.loss,
        telemetry.tokens_per_second,
    )
    speed = f", {count(rate)} tokens/s" if rate else ""
    if examples := telemetry.examples_per_second:
        speed += f", {examples:,.1f} examples/s"
    return f"{count(telemetry.steps)} steps, held-out loss {before:.2f} → {after:.2f}{speed}"


def _train_remarks(record: StepRecord) -> list[str]:
    """Say what a base model brought to the training and what it did not."""
    remarks = []
    if new := read_telemetry(record.one("model_run").uri).new_variables:
        parts = ", ".join(dict.fromkeys(path.split("/")[1] for path in new))
        remarks.append(f"model.base_model has no weights for {parts}: they started at random")
    model = read_served_model(path_utils.serving_model_path(record.one("model").uri))
    if (pooling := model.pooling) is not None:
        words = f"embed is that of model.base_model: {describe_pooling(pooling)}"
        if (context := model.model_shape.sequence_length) < pooling.max_tokens:
            words += f", here {context:,} (model.sequence_length)"
        remarks.append(f"{words}; training has moved its vectors")
    return remarks


def _evaluate(record: StepRecord) -> str:
    metrics = read_metrics(record.one("evaluation").uri)[WHOLE]
    blessed = record.one("blessing").custom_properties["blessed"].int_value
    return f"{describe_quality(metrics)}: {'blessed' if blessed else 'not blessed'}"


def _cost_report(record: StepRecord) -> str:
    report = read_cost_report(record.one("cost_report").uri)
    return (
        f"{usd(report.actual.compute_usd)} for {decimal(report.actual.chip_hours)} chip-hours; "
        f"training took {report.training_seconds_actual_over_estimated:.2f} x the estimate"
    )


def _push(record: StepRecord) -> str:
    properties = record.one("pushed_model").custom_properties
    if not properties["pushed"].int_value:
        return "not pushed: the model is not blessed"
    return properties["pushed_destination"].string_value


def _register(record: StepRecord) -> str:
    name = record.one("registered_model").custom_properties["resource_name"].string_value
    return name or "nothing was pushed"


def _page(record: StepRecord) -> str:
    return byte_size(os.path.getsize(os.path.join(record.one("page").uri, "report.html")))


# Cores that the steps had, by those of the machine, below which something else seems to run there.
_BUSY = 0.6
_REMARKS: dict[str, Callable[[StepRecord], list[str]]] = {
    "Curator": lambda record: list(read_curation(record.one("dropped").uri).remarks),
    "Trainer": _train_remarks,
}
_SUMMARIES: dict[str, Callable[[StepRecord], str]] = {
    "CorpusExampleGen": _ingest,
    "StatisticsGen": _statistics,
    "SchemaGen": _schema,
    "ImportSchemaGen": _schema,
    "AnomalyGate": _gate,
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
