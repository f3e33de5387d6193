"""What became of a document, or what a packed row holds."""

import json
from typing import Any

from pipeline.report.keep_document import how_to_keep
from pipeline.report.tables import echo
from tokenmill.contracts.document_status import DroppedDocument, KeptDocument
from tokenmill.contracts.training import read_telemetry
from tokenmill.errors import TokenmillError
from tokenmill.metadata.output_directory import open_runs
from tokenmill.metadata.run_history import TrainedModel, models_trained_on, newest_ledger
from tokenmill.provenance.document_index import DocumentIndex
from tokenmill.provenance.explain import (
    Explanation,
    RowDocument,
    explain_document,
    explain_row,
    times_trained,
)
from tokenmill.provenance.rows import Placement
from tokenmill.records.document_metadata import METADATA_FIELDS
from tokenmill.text.language import language_label
from tokenmill.visible import visible

_PLACEMENTS_SHOWN = 10


def print_document_or_row(
    run_dir: str, doc_id: str | None, row: int | None, split: str, as_json: bool
) -> None:
    """Print what became of a document, or without one what a row of a split holds.

    Raises:
        TokenmillError: There is no such run, document, split or row.
    """
    metadata = open_runs(run_dir)
    run = newest_ledger(metadata, run_dir)
    index = _open_index(run.ledger_uri)
    rows_uri = run.packed_rows.uri
    found: list[Explanation] | list[RowDocument]
    asked = {} if row is None else {"split": split, "row": row}
    if row is not None:
        found = in_row = explain_row(index, rows_uri, split, row)
        numbers = [row] if split == "train" else []
    else:
        found = documents = explain_document(index, rows_uri, str(doc_id))
        numbers = sorted(
            {place.row for d in documents if getattr(d.status, "split", "") == "train"
             for place in d.placements or []}
        )  # fmt: skip
    models = _models(models_trained_on(metadata.store, run.packed_rows), rows_uri, numbers)
    if as_json:
        shown = {"documents": [d.to_json() for d in found], "models": models}
        echo(json.dumps({"run": run.run_id, **asked, **shown}, ensure_ascii=False, indent=2))
        return
    echo(f"in run {run.run_id} of {visible(run_dir)}")
    if row is not None:
        echo(f"row {row} of the {split} split", bold=True)
        _print_row(in_row)
        print_models(models)
    else:
        print_documents(documents)
        print_models(models)


def print_quarantine(run_dir: str, as_json: bool) -> None:
    """Print what ingest could not read, by file and place.

    Raises:
        TokenmillError: There is no such run.
    """
    run = newest_ledger(open_runs(run_dir), run_dir)
    records = list(_open_index(run.ledger_uri).quarantined())
    if as_json:
        shown = {"run": run.run_id, "quarantined": records}
        echo(json.dumps(shown, ensure_ascii=False, indent=2))
        return
    files = len({record["file"] for record in records})
    echo(f"{len(records):,} records of {files:,} files could not be read", bold=True)
    for record in records:
        echo(visible(f"  {record['doc_id']}: {record['reason']}: {record['detail']}"))


def _open_index(ledger_uri: str) -> DocumentIndex:
    try:
        return DocumentIndex(ledger_uri)
    except FileNotFoundError as error:
        raise TokenmillError(f"{error} is gone: the artifact was removed.", "Run again.") from None


def _models(models: list[TrainedModel], rows_uri: str, rows: list[int]) -> list[dict[str, Any]]:
    """List the models with how often the training of each read the rows."""
    if not rows:
        return []
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


def print_documents(found: list[Explanation]) -> None:
    """Print the last step of each document, and its rows if it was kept."""
    for document, placements in found:
        echo(visible(document.doc_id), bold=True)
        if document.status == "quarantined":
            echo(f"  quarantined: {document.reason}: {visible(document.detail)}")
            echo(f"  file {visible(document.file)}, record {document.record}")
        elif document.status == "dropped":
            echo(f"  source {visible(document.source)}, {document.split} split, "
                       f"{document.raw_bytes:,} bytes")  # fmt: skip
            echo(f"  dropped by curation: {_reason(document)}")
            if document.shared:
                words = visible(" ".join(document.shared.split()))
                echo(f"  shares “{words}” with {visible(document.kept_copy)}")
            elif document.kept_copy:
                echo(f"  the text that stays: {visible(document.kept_copy)}")
            if settings := how_to_keep(document):
                echo(f"  to keep such: {settings}")
            _print_known(document)
            echo(f"  its text begins: {visible(' '.join(document.excerpt.split())[:120])}")
        else:
            echo(f"  source {visible(document.source)}, {document.split} split, "
                       f"{document.byte_count:,} bytes: kept")  # fmt: skip
            _print_known(document)
            if document.quality_score is not None:
                echo(f"  quality: score {document.quality_score:.3f}")
            _print_placements(placements or [])


def _print_known(document: KeptDocument | DroppedDocument) -> None:
    """Print the language of a document, and what its record says of it."""
    echo(f"  language: {language_label(document.language)}")
    for name in METADATA_FIELDS:
        if value := document.metadata.get(name):
            echo(f"  {name}: {visible(value)}")


# What the value of a rule is, where the rule's name does not say it.
_VALUES = {
    "low_quality": "score",
    "near_duplicate": "Jaccard similarity",
    "contaminated": "n-grams shared with the other split or a benchmark",
}

# What it means to be on a list of the configuration, or on none.
_LISTED = {
    "denied_url": "its URL is on the list curate.deny_urls",
    "no_url": "nothing says its URL, and curate.urls lists those to keep",
    "url_not_allowed": "its URL is not on the list curate.urls",
    "denied_license": "its license is on the list curate.deny_licenses",
    "no_license": "nothing says its license, and curate.licenses lists those to keep",
    "license_not_allowed": "its license is not on the list curate.licenses",
    "denied_word": "it has a word of the list curate.deny_words",
}


def _reason(document: DroppedDocument) -> str:
    """Say the rule, its value and its limit in words."""
    if document.reason == "exact_duplicate":
        return "exact_duplicate: the same text, once normalized, is there already"
    if document.reason in _LISTED:
        listed = f": {visible(document.matched)}" if document.matched else ""
        return f"{document.reason}: {_LISTED[document.reason]}{listed}"
    if document.reason == "chat_template":
        return f"chat_template: {visible(document.matched)}"
    measure = _VALUES.get(document.reason, "value")
    return f"{document.reason}: {measure} {document.value:g}, limit {document.threshold:g}"


def _print_placements(placements: list[Placement]) -> None:
    if not placements:
        echo("  in no row: it has no token, no label that training knows or, of a conversation, "
                   "no answer that fits; the ledger's funnel counts such documents")  # fmt: skip
    for place in placements[:_PLACEMENTS_SHOWN]:
        end = place.document_token_start + place.length
        echo(f"  row {place.row}, slots {place.row_offset} to "
                   f"{place.row_offset + place.length - 1}: its tokens "
                   f"{place.document_token_start} to {end - 1}")  # fmt: skip
    if len(placements) > _PLACEMENTS_SHOWN:
        echo(f"  and {len(placements) - _PLACEMENTS_SHOWN} more (--json has all)")


def _print_row(found: list[RowDocument]) -> None:
    for place, source in found:
        echo(f"  slots {place.row_offset} to {place.row_offset + place.length - 1}: "
                   f"{visible(place.doc_id.decode())} (source {visible(source)}), from its token "
                   f"{place.document_token_start}")  # fmt: skip


def print_models(models: list[dict[str, Any]]) -> None:
    """Print how often the training of each model read the rows."""
    for model in models:
        times = model["times_trained_by_row"].values()
        low, high = min(times), max(times)
        if not high:
            echo(f"  model {model['model']} was not trained on it: its steps ended before")
            continue
        often = f"{low}" if low == high else f"{low} to {high}"
        echo(f"  model {model['model']} read {'it' if len(times) == 1 else 'its rows'} "
                   f"{often} time{'' if high == 1 else 's'}")  # fmt: skip
        for place in model["pushed_to"]:
            echo(f"    pushed to {place}")
