"""The schema of a run or a file, printed; how a run's schema is frozen and changed."""

import difflib
import os
import sys
from typing import Any

import click
from rich.table import Table
from tensorflow_metadata.proto.v0 import schema_pb2

from components.validate.history import newest_gate, newest_inferred
from components.validate.schema import (
    SCHEMA_NAME,
    accept_statistics,
    find_anomalies,
    freeze_schema,
    frozen_header,
    header_of,
    read_schema,
    schema_text,
    write_schema,
)
from components.validate.statistics import read_statistics, statistics_page, summarize_statistics
from pipeline.report.tables import echo, escape, stdout_console
from tokenmill.contracts.validation import SplitSummary
from tokenmill.files import write_text
from tokenmill.records.splits import SPLITS
from tokenmill.visible import visible


def freeze_newest(run_dir: str, output: str, open_sources: bool) -> None:
    """Write and print the schema that the newest run inferred, made to hold for the next data."""
    record = newest_inferred(run_dir)
    inferred, _ = read_schema(os.path.join(record.schema_uri, SCHEMA_NAME))
    train, eval_statistics = (read_statistics(record.statistics_uri, s) for s in ("train", "eval"))
    frozen = freeze_schema(inferred, train, eval_statistics, open_sources)
    write_schema(output, frozen, frozen_header(os.path.abspath(run_dir), train, eval_statistics))
    _print_schema(frozen)
    if not open_sources and not any(f.name == "source" and f.domain for f in frozen.feature):
        echo("\nMore sources than TFDV takes for a list (100): any source may come.")


def show_schema(file_or_run: str, html: str | None) -> None:
    """Print a schema file, or a run's schema and statistics; write the latter's page to `html`."""
    path, record = file_or_run, None
    if os.path.isdir(file_or_run):
        record = newest_gate(file_or_run)
        path = os.path.join(record.schema_uri, SCHEMA_NAME)
    shown, _ = read_schema(path)
    echo(f"{path}\n")
    _print_schema(shown)
    if record is not None:
        for split in SPLITS:
            _print_summary(split, summarize_statistics(record.statistics_uri, split))
        echo(f"\nStatistics: {record.statistics_uri}")
        if html:
            write_text(html, statistics_page(record.statistics_uri))
            echo(f"TFDV's viewer: {html}")


def accept_newest(run_dir: str, schema_file: str, yes: bool) -> bool:
    """Change a schema file to accept the newest run's data, if the user agrees to the difference.

    Returns:
        Whether there was something to accept. A user who disagrees ends the process.
    """
    pinned, before = read_schema(schema_file)
    record = newest_gate(run_dir)
    statistics = {split: read_statistics(record.statistics_uri, split) for split in SPLITS}
    earlier = record.previous_statistics
    previous = read_statistics(earlier, "train") if earlier else None
    found = find_anomalies(pinned, statistics, previous)
    if not found:
        echo(f"Nothing to accept: {schema_file} fits the newest run in {run_dir}.")
        return False
    echo(f"{len(found)} anomalies of the newest run in {run_dir}:")
    for anomaly in found:
        echo(f"  {visible(str(anomaly))}")
    accepted = accept_statistics(pinned, statistics, previous)
    header = header_of(before)
    _print_diff(before, schema_text(accepted, header), schema_file)
    if not yes and not click.confirm(f"\nWrite {schema_file}?"):
        echo("Nothing was changed.")
        sys.exit(1)
    write_schema(schema_file, accepted, header)
    return True


def _print_schema(shown: schema_pb2.Schema) -> None:
    domains = {domain.name: list(domain.value) for domain in shown.string_domain}
    table = Table("feature", "type", "expected", "drift at most", "skew at most", box=None)
    for feature in shown.feature:
        if feature.lifecycle_stage == schema_pb2.DEPRECATED:
            expected = "not expected any more"
        else:
            expected = _expectation(feature, domains)
        table.add_row(
            escape(feature.name),
            schema_pb2.FeatureType.Name(feature.type),
            escape(expected),
            _threshold(feature.drift_comparator),
            _threshold(feature.skew_comparator),
        )
    # In a file or a pipe, one line a feature.
    stdout_console(200, highlight=True).print(table)
    comparator = shown.dataset_constraints.num_examples_drift_comparator
    if comparator.min_fraction_threshold:
        echo(f"documents: at least {comparator.min_fraction_threshold:g} times as many as before")


def _expectation(feature: schema_pb2.Feature, domains: dict[str, list[str]]) -> str:
    parts = ["in every document" if feature.presence.min_fraction == 1 else "optional"]
    if feature.HasField("int_domain"):
        limits = feature.int_domain
        parts.append(f"at least {limits.min:,}")
        if limits.max:
            parts.append(f"at most {limits.max:,}")
    elif feature.domain:
        values = domains.get(feature.domain, [])
        rest = f", and {len(values) - 8} more" if len(values) > 8 else ""
        parts.append(f"one of {', '.join(values[:8])}{rest}")
        mass = feature.distribution_constraints.min_domain_mass
        if feature.HasField("distribution_constraints") and mass < 1:
            parts.append(f"in {mass:.0%} of the documents")
    return ", ".join(parts)


def _threshold(comparator: Any) -> str:
    if comparator.HasField("infinity_norm"):
        return f"{comparator.infinity_norm.threshold:g} L-infinity"
    if comparator.HasField("jensen_shannon_divergence"):
        return f"{comparator.jensen_shannon_divergence.threshold:g} Jensen-Shannon"
    return ""


def _print_summary(split: str, summary: SplitSummary) -> None:
    echo(f"\n{split}: {summary.documents:,} documents")
    for name in ("byte_count", "characters", "words"):
        numbers = ", ".join(f"{key} {value:,.0f}" for key, value in getattr(summary, name))
        echo(f"  {name}: {numbers}")
    for name in ("sources", "languages"):
        if (most := getattr(summary, name)) is not None:
            top = ", ".join(f"{visible(value)} {documents:,}" for value, documents in most)
            echo(f"  {name}: {top}")


def _print_diff(before: str, after: str, name: str) -> None:
    colors = {"+": "green", "-": "red"}
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), name, f"{name} (accepted)", lineterm=""
    )
    echo()
    for line in lines:
        echo(line, fg=colors.get(line[:1]))
