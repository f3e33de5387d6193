"""Quality of a model in the measure of its task: a table, and a few words."""

from typing import NamedTuple

from rich.table import Table

from components.evaluate.metrics import HIGH, LOW
from tokenmill.contracts.cost_report import (
    FORGETTING_MEASURES,
    CostReport,
    EvaluationSummary,
    Forgetting,
    Metrics,
    Quality,
)
from tokenmill.contracts.evaluation import FEW_DOCUMENTS
from tokenmill.contracts.training import Losses

# What is said of each task's model, in this order, where it was measured.
MEASURES = (
    ("accuracy", ".1%", "accuracy {}"),
    ("macro_f1", ".3f", "macro F1 {}"),
    ("auc", ".3f", "AUC {}"),
    ("masked_perplexity", ",.1f", "masked-token perplexity {}"),
    ("masked_token_accuracy", ".1%", "accuracy {}"),
    ("bits_per_byte", ".3f", "{} bits per byte"),
    ("perplexity", ".1f", "perplexity {}"),
    ("token_accuracy", ".1%", "accuracy {}"),
)
_WITH_INTERVAL = {"accuracy", "masked_perplexity", "bits_per_byte"}
_SLICES_SHOWN = 5


def describe_quality(metrics: Metrics) -> str:
    """Describe the Evaluator's metrics of all documents in a few words."""
    return (", ".join(quality_parts(metrics)) or "nothing could be measured") + _of_few(metrics)


def quality_parts(metrics: Metrics) -> list[str]:
    """Return what was measured, the measure of the task first, a few words each."""
    return [
        words.format(metric_with_interval(metrics, name, spec))
        for name, spec, words in MEASURES
        if name in metrics
    ]


def quality_line(quality: Quality) -> str:
    """Say in a line how good the model is, beside the baseline and the model before training."""
    total = quality.evaluation.total
    verdict = "not blessed" if quality.evaluation.failures else "blessed"
    # Perplexity says the same as bits per byte.
    parts = quality_parts({n: v for n, v in total.items() if n != "perplexity"} or total)
    measure = compared_measure(quality)
    if measure is not None and measure.beside:
        parts[0] += f" ({', '.join(measure.beside)})"
    return f"{', '.join(parts) or 'nothing could be measured'}{_of_few(total)}: {verdict}"


class ComparedMeasure(NamedTuple):
    """The measure of a task.

    Attributes:
        name: Its key in the metrics.
        value: As it is written.
        beside: The baseline's and the value before training, in a few words each.
    """

    name: str
    value: str
    beside: list[str]


def compared_measure(quality: Quality) -> ComparedMeasure | None:
    """Return the measure of the task with what it is held against; None if not measured."""
    total, before = quality.evaluation.total, quality.eval_before
    for name, spec, baseline, of_baseline, of_start in (
        ("bits_per_byte", ".3f", "unigram", quality.unigram_bits_per_byte, before.bits_per_byte),
        ("masked_perplexity", ",.1f", "unigram", quality.unigram_perplexity, before.perplexity),
        ("accuracy", ".1%", "most frequent class", quality.majority_accuracy, before.accuracy),
    ):
        if name in total:
            beside = [
                f"{what} {format(number, spec)}"
                for what, number in ((baseline, of_baseline), (_start(quality), of_start))
                if number is not None
            ]
            return ComparedMeasure(name, format(total[name], spec), beside)
    return None


def _of_few(metrics: Metrics) -> str:
    documents = metrics.get("evaluated_documents", FEW_DOCUMENTS)
    if documents >= FEW_DOCUMENTS:
        return ""
    return f" (of {documents:,.0f} document{'' if documents == 1 else 's'} only)"


def metric_with_interval(metrics: Metrics, name: str, spec: str) -> str:
    """Return a metric with its interval, where it has one: one document has none."""
    value = format(metrics[name], spec)
    low, high = metrics.get(name + LOW), metrics.get(name + HIGH)
    if name not in _WITH_INTERVAL or low is None or high is None:
        return value
    half = (high - low) / 2
    if abs((high + low) / 2 - metrics[name]) > 0.2 * half:
        return f"{value} ({format(low, spec)} to {format(high, spec)})"
    return f"{value} ± {format(half, spec)}"


def quality_warnings(evaluation: EvaluationSummary) -> list[str]:
    """Say what about the measurement needs something to be done."""
    if not _of_few(evaluation.total):
        return []
    return [
        f"Held-out text{_of_few(evaluation.total)}: a single one may turn these numbers. "
        "Give more text, or hold out more of it: --set corpus.eval_fraction=0.2"
    ]


def quality_notes(evaluation: EvaluationSummary) -> list[str]:
    """Say what was forgotten, and which slices have too few documents to mean much."""
    few = evaluation.few_documents
    found = []
    if evaluation.forgetting is not None:
        found.append(describe_forgetting(evaluation.forgetting))
    found += quality_warnings(evaluation)
    if few and not _of_few(evaluation.total):
        named = ", ".join(few[:_SLICES_SHOWN])
        more = f" and {len(few) - _SLICES_SHOWN:,} more" if len(few) > _SLICES_SHOWN else ""
        found.append(
            f"Fewer than {FEW_DOCUMENTS} held-out documents have {named}{more}: the numbers of "
            "such a slice are rough."
        )
    return found


def quality_table(cost: CostReport) -> Table:
    """Compare the untrained, the baseline's, the trained and the pushed model's quality."""
    quality = cost.quality
    if quality.eval_after.accuracy is not None:
        return _class_table(quality)
    if quality.eval_after.bits_per_byte is None:
        return _masked_table(quality)
    return _causal_table(quality)


def _start(quality: Quality) -> str:
    """Return what the model was before training."""
    return "untrained" if quality.base_model is None else "base model"


def _on_general_text(evaluation: EvaluationSummary) -> list[tuple[str, Metrics]]:
    """Return both models' metrics on the general text; none where none was given."""
    if (forgetting := evaluation.forgetting) is None:
        return []
    return [
        ("general text, base model", forgetting.before),
        ("general text, trained", forgetting.after),
    ]


def describe_forgetting(forgetting: Forgetting) -> str:
    """Say in a sentence what training has done to the quality on the general text."""
    documents = forgetting.documents
    text = f"On the general text ({documents:,} document{'' if documents == 1 else 's'})"
    increase = forgetting.increase
    if increase is None:
        return f"{text} the base model has no number to compare with."
    found = [
        describe_quality({name: metrics[name] for name in FORGETTING_MEASURES if name in metrics})
        for metrics in (forgetting.before, forgetting.after)
    ]
    change = f"{abs(increase):.1%} {'worse' if increase > 0 else 'better'}"
    return f"{text} the base model has {found[0]}, the trained one {found[1]}: {change}."


def _shown(value: float | None, spec: str) -> str:
    """Format a number; one that could not be measured is left blank."""
    return "" if value is None else format(value, spec)


def _causal_table(quality: Quality) -> Table:
    before, after = quality.eval_before, quality.eval_after
    table = _table("bits per byte", "perplexity", "token accuracy")
    table.add_row(
        _start(quality), _shown(before.bits_per_byte, ".3f"), _shown(before.perplexity, ",.1f"), ""
    )
    table.add_row("unigram baseline", _shown(quality.unigram_bits_per_byte, ".3f"), "", "")
    table.add_row(
        "trained", _shown(after.bits_per_byte, ".3f"), _shown(after.perplexity, ",.1f"), ""
    )
    for name, metrics in _evaluated(quality.evaluation):
        table.add_row(
            name,
            _shown(metrics.get("bits_per_byte"), ".3f"),
            _shown(metrics.get("perplexity"), ",.1f"),
            _shown(metrics.get("token_accuracy"), ".1%"),
        )
    if quality.lossy_fraction:
        table.caption = (
            f"The tokenizer is lossy ({quality.lossy_fraction:.1%} of the documents): its bits per "
            "byte are of less than the text, and compare with no other tokenizer's."
        )
    return table


def _evaluated(evaluation: EvaluationSummary) -> list[tuple[str, Metrics]]:
    """Return what was evaluated from raw text, by the words for it."""
    return [("pushed model, from raw text", evaluation.total), *_on_general_text(evaluation)]


def _masked_table(quality: Quality) -> Table:
    before, after = quality.eval_before, quality.eval_after
    table = _table("masked-token perplexity", "masked-token accuracy", "hidden tokens")

    def rows(name: str, losses: Losses) -> None:
        table.add_row(
            name, _shown(losses.perplexity, ",.1f"), "", _shown(losses.loss_tokens, ",.0f")
        )

    rows(f"{_start(quality)}, rows", before)
    table.add_row("unigram baseline", _shown(quality.unigram_perplexity, ",.1f"), "", "")
    rows("trained, rows", after)
    for name, metrics in _evaluated(quality.evaluation):
        table.add_row(
            name,
            _shown(metrics.get("masked_perplexity"), ",.1f"),
            _shown(metrics.get("masked_token_accuracy"), ".1%"),
            _shown(metrics.get("evaluated_tokens"), ",.0f"),
        )
    return table


def _class_table(quality: Quality) -> Table:
    before, after = quality.eval_before, quality.eval_after
    total = quality.evaluation.total
    table = _table("accuracy", "log loss", "macro F1", "AUC", "documents")
    for name, losses in ((f"{_start(quality)}, rows", before), ("trained, rows", after)):
        documents = _shown(losses.loss_tokens, ",.0f")
        table.add_row(
            name, _shown(losses.accuracy, ".1%"), _shown(losses.loss, ".3f"), "", "", documents
        )
        if losses is before:
            table.add_row(
                "the most frequent class; class shares",
                _shown(quality.majority_accuracy, ".1%"),
                _shown(quality.prior_log_loss, ".3f"),
            )
    table.add_row(
        "pushed model, from raw text",
        _shown(total.get("accuracy"), ".1%"),
        _shown(total.get("log_loss"), ".3f"),
        _shown(total.get("macro_f1"), ".3f"),
        _shown(total.get("auc"), ".3f"),
        _shown(total.get("evaluated_documents"), ",.0f"),
    )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    return table
