"""Quality of a model in the measure of its task: a table, and a few words."""

from rich.table import Table

from components.evaluate.metrics import HIGH, LOW
from tokenmill.contracts.cost_report import CostReport, Metrics, Quality
from tokenmill.contracts.training import Losses


def describe_quality(metrics: Metrics) -> str:
    """Describe the Evaluator's metrics of all documents in a few words."""
    if "accuracy" in metrics:
        return (
            f"accuracy {_with_interval(metrics, 'accuracy', '.1%')}, "
            f"macro F1 {metrics['macro_f1']:.3f}, AUC {metrics['auc']:.3f}"
        )
    if "masked_perplexity" in metrics:
        return (
            f"masked-token perplexity {_with_interval(metrics, 'masked_perplexity', ',.1f')}, "
            f"accuracy {metrics['masked_token_accuracy']:.1%}"
        )
    return (
        f"{_with_interval(metrics, 'bits_per_byte', '.3f')} bits per byte, "
        f"perplexity {metrics['perplexity']:.1f}, accuracy {metrics['token_accuracy']:.1%}"
    )


def _with_interval(metrics: Metrics, name: str, spec: str) -> str:
    """Return a metric with half its interval's width, which a single document does not have."""
    value = format(metrics[name], spec)
    if name + LOW not in metrics or name + HIGH not in metrics:
        return value
    return f"{value} ± {format((metrics[name + HIGH] - metrics[name + LOW]) / 2, spec)}"


def quality_table(cost: CostReport) -> Table:
    """Compare the untrained, the baseline's, the trained and the pushed model's quality."""
    quality = cost.quality
    if "accuracy" in quality.evaluation.total:
        return _class_table(quality)
    masked = "masked_perplexity" in quality.evaluation.total
    return _masked_table(quality) if masked else _causal_table(quality)


def _causal_table(quality: Quality) -> Table:
    before, after = quality.eval_before, quality.eval_after
    total = quality.evaluation.total
    table = _table("bits per byte", "perplexity", "token accuracy")
    table.add_row("untrained", f"{before.bits_per_byte:.3f}", f"{before.perplexity:,.1f}", "")
    table.add_row("unigram baseline", f"{quality.unigram_bits_per_byte:.3f}", "", "")
    table.add_row("trained", f"{after.bits_per_byte:.3f}", f"{after.perplexity:,.1f}", "")
    table.add_row(
        "pushed model, from raw text",
        f"{total['bits_per_byte']:.3f}",
        f"{total['perplexity']:,.1f}",
        f"{total['token_accuracy']:.1%}",
    )
    return table


def _masked_table(quality: Quality) -> Table:
    before, after = quality.eval_before, quality.eval_after
    total = quality.evaluation.total
    table = _table("masked-token perplexity", "masked-token accuracy", "hidden tokens")

    def rows(name: str, losses: Losses) -> None:
        table.add_row(name, f"{losses.perplexity:,.1f}", "", f"{losses.loss_tokens:,.0f}")

    rows("untrained, rows", before)
    table.add_row("unigram baseline", f"{quality.unigram_perplexity:,.1f}", "", "")
    rows("trained, rows", after)
    table.add_row(
        "pushed model, from raw text",
        f"{total['masked_perplexity']:,.1f}",
        f"{total['masked_token_accuracy']:.1%}",
        f"{total['evaluated_tokens']:,.0f}",
    )
    return table


def _class_table(quality: Quality) -> Table:
    before, after = quality.eval_before, quality.eval_after
    total = quality.evaluation.total
    table = _table("accuracy", "log loss", "macro F1", "AUC", "documents")
    for name, losses in (("untrained, rows", before), ("trained, rows", after)):
        documents = f"{losses.loss_tokens:,.0f}"
        table.add_row(name, f"{losses.accuracy:.1%}", f"{losses.loss:.3f}", "", "", documents)
        if losses is before:
            table.add_row(
                "the most frequent class; class shares",
                f"{quality.majority_accuracy:.1%}",
                f"{quality.prior_log_loss:.3f}",
            )
    table.add_row(
        "pushed model, from raw text",
        f"{total['accuracy']:.1%}",
        f"{total['log_loss']:.3f}",
        f"{total['macro_f1']:.3f}",
        f"{total['auc']:.3f}",
        f"{total['evaluated_documents']:,.0f}",
    )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    return table
