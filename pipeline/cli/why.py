"""`tokenmill why`: what became of a document; `tokenmill runs`: runs side by side."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.errors import user_errors_only
from tokenmill.errors import TokenmillError

if TYPE_CHECKING:
    from tokenmill.contracts.document_status import DroppedDocument
    from tokenmill.metadata.run_history import RunNumbers
    from tokenmill.provenance.explain import Explanation, RowDocument
    from tokenmill.provenance.rows import Placement

_DEFAULT_RUN = "runs/demo"
_PLACEMENTS_SHOWN = 10


@click.command()
@click.argument("doc_id", required=False)
@click.option(
    "--run", "run_dir", default=_DEFAULT_RUN, show_default=True, metavar="DIR",
    help="A run's output directory; its newest run is asked.",
)  # fmt: skip
@click.option("--row", type=int, metavar="N", help="The other way: the documents of packed row N.")
@click.option("--split", default="train", show_default=True, help="Of --row: train or eval.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def why(doc_id: str | None, run_dir: str, row: int | None, split: str, as_json: bool) -> None:
    """Say what became of the document DOC_ID: kept or dropped, by which rule, in which rows.

    \b
    tokenmill why numpy/numpy/ma/core.py:sum
    tokenmill why --row 12
    """  # noqa: D301  (click wants the backspace)
    with user_errors_only():
        if (doc_id is None) == (row is None):
            raise TokenmillError("give a DOC_ID, or a row by --row N.", "See tokenmill why --help.")
        from tokenmill.metadata.output_directory import open_runs
        from tokenmill.metadata.run_history import models_trained_on, newest_ledger

        metadata = open_runs(run_dir)
        run = newest_ledger(metadata, run_dir)
        from tokenmill.provenance import explain as answers
        from tokenmill.provenance.document_index import DocumentIndex

        try:
            index = DocumentIndex(run.ledger_uri)
        except FileNotFoundError as error:
            raise TokenmillError(
                f"{error} is gone: the artifact was removed.", "Run again."
            ) from None
        rows_uri = run.packed_rows.uri
        found: list[Explanation] | list[RowDocument]
        asked = {} if row is None else {"split": split, "row": row}
        if row is not None:
            found = in_row = answers.explain_row(index, rows_uri, split, row)
            numbers = [row] if split == "train" else []
        else:
            found = documents = answers.explain_document(index, rows_uri, str(doc_id))
            numbers = sorted(
                {place.row for d in documents if getattr(d.status, "split", "") == "train"
                 for place in d.placements or []}
            )  # fmt: skip
        models = _models(models_trained_on(metadata.store, run.packed_rows), rows_uri, numbers)
        if as_json:
            shown = {"documents": [d.to_json() for d in found], "models": models}
            click.echo(
                json.dumps({"run": run.run_id, **asked, **shown}, ensure_ascii=False, indent=2)
            )
        elif row is not None:
            click.secho(f"row {row} of the {split} split", bold=True)
            _print_row(in_row)
            _print_models(models)
        else:
            _print_documents(documents)
            _print_models(models)


def _models(models: list[Any], rows_uri: str, rows: list[int]) -> list[dict[str, Any]]:
    """List the models with how often the training of each read the rows."""
    if not rows:
        return []
    from tokenmill.contracts.training import read_telemetry
    from tokenmill.provenance.explain import times_trained

    found = []
    for model in models:
        telemetry = read_telemetry(model.run_uri)
        times = times_trained(
            rows_uri, rows, telemetry.steps, telemetry.global_batch_size, model.seed
        )
        found.append(
            {
                "model": model.uri,
                "runs": list(model.run_ids),
                "pushed_to": list(model.pushed_to),
                "times_trained_by_row": {str(row): times[row] for row in rows},
            }
        )
    return found


def _print_documents(found: list["Explanation"]) -> None:
    for document, placements in found:
        click.secho(document.doc_id, bold=True)
        if document.status == "quarantined":
            click.echo(f"  quarantined: {document.reason}: {document.detail}")
            click.echo(f"  file {document.file}, record {document.record}")
        elif document.status == "dropped":
            click.echo(f"  source {document.source}, {document.split} split, "
                       f"{document.raw_bytes:,} bytes")  # fmt: skip
            click.echo(f"  dropped by curation: {_reason(document)}")
            if document.kept_copy:
                click.echo(f"  the text that stays: {document.kept_copy}")
            click.echo(f"  its text begins: {' '.join(document.excerpt.split())[:120]}")
        else:
            click.echo(f"  source {document.source}, {document.split} split, "
                       f"{document.byte_count:,} bytes: kept")  # fmt: skip
            _print_placements(placements or [])


# What the value of a rule is, where the rule's name does not say it.
_VALUES = {
    "near_duplicate": "Jaccard similarity",
    "contaminated": "n-grams shared with held-out or benchmark text",
}


def _reason(document: "DroppedDocument") -> str:
    """Say the rule, its value and its limit in words."""
    if document.reason == "exact_duplicate":
        return "exact_duplicate: the same text, once normalized, is there already"
    measure = _VALUES.get(document.reason, "value")
    return f"{document.reason}: {measure} {document.value:g}, limit {document.threshold:g}"


def _print_placements(placements: list["Placement"]) -> None:
    if not placements:
        click.echo("  in no row: it has no token or, to classify, no label that training knows; "
                   "the ledger's funnel counts such documents")  # fmt: skip
    for place in placements[:_PLACEMENTS_SHOWN]:
        end = place.document_token_start + place.length
        click.echo(f"  row {place.row}, slots {place.row_offset} to "
                   f"{place.row_offset + place.length - 1}: its tokens "
                   f"{place.document_token_start} to {end - 1}")  # fmt: skip
    if len(placements) > _PLACEMENTS_SHOWN:
        click.echo(f"  and {len(placements) - _PLACEMENTS_SHOWN} more (--json has all)")


def _print_row(found: list["RowDocument"]) -> None:
    for place, source in found:
        click.echo(f"  slots {place.row_offset} to {place.row_offset + place.length - 1}: "
                   f"{place.doc_id.decode()} (source {source}), from its token "
                   f"{place.document_token_start}")  # fmt: skip


def _print_models(models: list[dict[str, Any]]) -> None:
    for model in models:
        times = model["times_trained_by_row"].values()
        low, high = min(times), max(times)
        if not high:
            click.echo(f"  model {model['model']} was not trained on it: its steps ended before")
            continue
        often = f"{low}" if low == high else f"{low} to {high}"
        click.echo(f"  model {model['model']} read {'it' if len(times) == 1 else 'its rows'} "
                   f"{often} time{'' if high == 1 else 's'}")  # fmt: skip
        for place in model["pushed_to"]:
            click.echo(f"    pushed to {place}")


@click.command()
@click.option(
    "--run", "run_dir", default=_DEFAULT_RUN, show_default=True, metavar="DIR",
    help="A run's output directory.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def runs(run_dir: str, as_json: bool) -> None:
    """Compare the runs of a directory: tokens, FLOPs, cost and quality, estimated and actual."""
    with user_errors_only():
        from tokenmill.metadata.output_directory import open_runs
        from tokenmill.metadata.run_history import compare_runs

        found = compare_runs(open_runs(run_dir))
        if as_json:
            known = [
                {name: value for name, value in vars(run).items() if value is not None}
                for run in found
            ]
            click.echo(json.dumps(known, indent=2))
        else:
            _print_runs(found)


def _print_runs(found: list["RunNumbers"]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    columns = (
        ("effective tokens", "estimated", "effective_tokens", ",.0f"),
        ("epochs", "estimated", "epochs", ".2f"),
        ("parameters", "estimated", "params_total", ",.0f"),
        ("FLOPs", "estimated", "total_flops", ".2e"),
        ("USD est.", "estimated", "compute_usd", ".3g"),
        ("USD", "actual", "compute_usd", ".3g"),
        ("MFU", "actual", "mfu", ".1%"),
        ("goodput", "actual", "goodput", ".1%"),
        ("time/est.", "actual", "training_seconds_actual_over_estimated", ".2f"),
        ("bits/byte", "actual", "bits_per_byte", ".3f"),
        ("masked ppl", "actual", "masked_perplexity", ".1f"),
        ("accuracy", "actual", "accuracy", ".1%"),
    )
    table.add_column("run")
    for title, *_ in columns:
        table.add_column(title, justify="right")
    table.add_column("")
    for run in found:
        sides = {"estimated": run.estimated, "actual": run.actual}
        cells = [
            format(sides[side][name], spec) if name in sides[side] else ""
            for _, side, name, spec in columns
        ]
        note = "" if run.trained else "trainer cached"
        note = "stopped before training" if run.trained is None else note
        table.add_row(run.run[:19], *cells, note)
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(table)
