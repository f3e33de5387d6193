"""The origins of a pushed model, printed."""

import datetime

import click

from pipeline.report.quality import describe_quality
from tokenmill.cost.pricing import usd
from tokenmill.metadata.lineage import Lineage


def print_lineage(traced: Lineage) -> None:
    """Print the files, tokens, cost, quality and artifacts of a model."""
    total, actual = traced.ledger.funnel.total, traced.cost_report.actual
    evaluation = traced.cost_report.quality.evaluation.total
    click.echo(f"{traced.model}\n  pushed by run {traced.run_id}")
    click.echo(f"  read {len(traced.inputs)} file(s):")
    for file in traced.inputs:
        modified = datetime.datetime.fromtimestamp(file["modified"], datetime.timezone.utc)
        click.echo(
            f"    {file['path']}  {file['size_bytes']:,} bytes, of {modified:%Y-%m-%d %H:%M} UTC"
        )
    click.echo(
        f"  {total.raw.documents:,} documents, {total.curated.documents:,} after "
        f"curation, {total.train.tokens:,} tokens to train on, "
        f"{traced.ledger.training.effective_tokens:,.0f} effective"
    )
    click.echo(
        f"  {usd(actual.compute_usd)} for {actual.chip_hours:.3g} chip-hours; "
        f"{describe_quality(evaluation)} on held-out text"
    )
    click.echo("  artifacts:")
    for name, directory in traced.artifacts.items():
        click.echo(f"    {name}: {directory}")
    click.echo("  the whole configuration: tokenmill lineage --json, key config_toml")
