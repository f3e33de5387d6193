"""The origins of a pushed model, printed."""

import datetime

from pipeline.report.benchmark import benchmark_rows
from pipeline.report.quality import describe_quality
from pipeline.report.tables import echo
from tokenmill.metadata.lineage import Lineage
from tokenmill.number_format import decimal, usd
from tokenmill.visible import visible


def print_lineage(traced: Lineage) -> None:
    """Print the files, tokens, cost, quality and artifacts of a model."""
    total, actual = traced.ledger.funnel.total, traced.cost_report.actual
    evaluation = traced.cost_report.quality.evaluation.total
    echo(f"{traced.model}\n  pushed by run {traced.run_id}")
    echo(f"  read {len(traced.inputs)} file(s):")
    for file in traced.inputs:
        modified = datetime.datetime.fromtimestamp(file["modified"], datetime.timezone.utc)
        size = f"{file['size_bytes']:,} bytes"
        echo(f"    {visible(file['path'])}  {size}, of {modified:%Y-%m-%d %H:%M} UTC")
    echo(
        f"  {total.raw.documents:,} documents, {total.curated.documents:,} after "
        f"curation, {total.train.tokens:,} tokens to train on, "
        f"{traced.ledger.training.effective_tokens:,.0f} effective"
    )
    echo(
        f"  {usd(actual.compute_usd)} for {decimal(actual.chip_hours)} chip-hours; "
        f"{describe_quality(evaluation)} on held-out text"
    )
    for task, metric, value, *_ in benchmark_rows(traced.benchmarks):
        echo(f"  benchmark {visible(task)}: {visible(metric)} {value}")
    echo("  artifacts:")
    for name, directory in traced.artifacts.items():
        echo(f"    {name}: {directory}")
    echo("  the whole configuration: tokenmill lineage --json, key config_toml")
