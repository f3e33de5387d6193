"""What magnitude pruning took from a model: a table, and a sentence."""

from rich.table import Table

from pipeline.report.quality import metric_with_interval
from tokenmill.contracts.cost_report import Metrics, Quality
from tokenmill.contracts.training import Losses, Pruning
from tokenmill.number_format import byte_size, count

_SERVED_DENSE = (
    "A zero is multiplied like any other weight, by TensorFlow Serving too: pruning saves disk and "
    "transfer, compressed, and neither memory nor time."
)


def pruning_table(quality: Quality) -> Table | None:
    """Compare the dense model, before pruning began, with the pruned and the pushed one.

    None if nothing was pruned.
    """
    if (pruning := quality.pruning) is None:
        return None
    name = _measure(quality.eval_after)
    sizes = [
        "" if size is None else byte_size(size)
        for size in (pruning.weight_bytes, pruning.compressed_bytes)
    ]
    share = f"{pruning.sparsity:.1%}"
    table = Table(box=None)
    table.add_column("")
    for column in ("share of zeros", name, "weight files", "gzip -1"):
        table.add_column(column, justify="right")
    table.add_row(
        f"dense, after step {count(pruning.first_step)}, rows",
        "0.0%",
        _value(pruning.eval_before, name),
    )
    table.add_row("pruned, after the last step, rows", share, _value(quality.eval_after, name))
    table.add_row(
        "pushed model, from raw text", share, _evaluated(quality.evaluation.total, name), *sizes
    )
    table.caption = f"{describe_pruning(pruning)} {_SERVED_DENSE}"
    table.caption_justify = "left"
    return table


def describe_pruning(pruning: Pruning) -> str:
    """Say in a sentence or two what was pruned, and how large the weight files are."""
    pattern = " in the pattern 2:4" if pruning.pattern == "2:4" else ""
    said = (
        f"Pruned: {pruning.sparsity:.1%} of the {count(pruning.params)} weights of attention and "
        f"MLP are 0{pattern}, from step {count(pruning.first_step)} to {count(pruning.last_step)}."
    )
    if pruning.weight_bytes is None or pruning.compressed_bytes is None:
        return said
    return (
        f"{said} The weight files have {byte_size(pruning.weight_bytes)}, compressed (gzip -1) "
        f"{byte_size(pruning.compressed_bytes)}."
    )


def _measure(losses: Losses) -> str:
    """Return the words for what the trainer's losses of a task are told in."""
    if losses.accuracy is not None:
        return "accuracy"
    return "masked-token perplexity" if losses.bits_per_byte is None else "bits per byte"


def _evaluated(metrics: Metrics, name: str) -> str:
    """Return the Evaluator's figure of the same measure, with its interval."""
    metric, spec = {
        "accuracy": ("accuracy", ".1%"),
        "bits per byte": ("bits_per_byte", ".3f"),
        "masked-token perplexity": ("masked_perplexity", ",.1f"),
    }[name]
    if metric not in metrics:
        return "not measured"
    return metric_with_interval(metrics, metric, spec)


def _value(losses: Losses | None, name: str) -> str:
    if losses is None:
        return "not measured"
    if name == "accuracy":
        return "" if losses.accuracy is None else f"{losses.accuracy:.1%}"
    if name == "bits per byte":
        return "" if losses.bits_per_byte is None else f"{losses.bits_per_byte:.3f}"
    return "" if losses.perplexity is None else f"{losses.perplexity:,.1f}"
