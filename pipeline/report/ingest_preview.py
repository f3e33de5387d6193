"""A preview of ingest: what files give, by format, without a run."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from components.ingest.manifest import InputFile, describe_left_out, list_inputs
from components.ingest.readers import kind_of, read_file
from components.ingest.records import Document, LeftOut, file_id
from pipeline.loader import load_run_config
from pipeline.report.console import largest_counts
from pipeline.report.tables import escape, plain_table, stdout_console
from tokenmill.contracts.ingest import BadRecord
from tokenmill.records.document_metadata import METADATA_FIELDS, decode_metadata
from tokenmill.records.keys import stable_hash

_SHOWN_CHARACTERS = 240
_SHOWN_BAD = 3
_SHOWN_SOURCES = 5


@dataclasses.dataclass
class _Format:
    files: int = 0
    documents: int = 0
    bytes: int = 0
    quarantined: int = 0
    sources: Counter[str] = dataclasses.field(default_factory=Counter)
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    by_reason: Counter[str] = dataclasses.field(default_factory=Counter)
    first: dict[str, str] = dataclasses.field(default_factory=dict)
    bad: list[str] = dataclasses.field(default_factory=list)


def preview_ingest(
    paths: Sequence[str],
    overrides: Sequence[str],
    config_path: str | None,
    preset: str | None,
    most_files: int,
) -> dict[str, Any]:
    """Read files as a run does, `most_files` of each format; return the JSON of what they give.

    Raises:
        TokenmillError: A path matches nothing, or an option is none.
    """
    left_out: Counter[str] = Counter()
    files = list_inputs(paths, "PATH", left_out=left_out)
    config, _ = load_run_config(preset, config_path, overrides, paths)
    by_format: dict[str, list[InputFile]] = {}
    for file in files:
        by_format.setdefault(kind_of(file, config.corpus), []).append(file)
    formats = {}
    for kind, of_kind in sorted(by_format.items()):
        chosen = sorted(of_kind, key=lambda f: stable_hash(file_id(f)))[:most_files]
        found = _Format(files=len(of_kind))
        for file in sorted(chosen, key=lambda f: f.name):
            for item in read_file(file, config.corpus):
                _count(found, item)
        counts = {name: dict(v) if isinstance(v, Counter) else v for name, v in vars(found).items()}
        formats[kind] = {"files_read": len(chosen), **counts}
    return {"files": len(files), "left_out": dict(+left_out), "formats": formats}


def _count(found: _Format, item: Document | BadRecord | LeftOut) -> None:
    if isinstance(item, Document):
        found.documents += 1
        found.bytes += len(item.text)
        found.sources[item.source.decode()] += 1
        if not found.first:
            text = item.text.decode()[:_SHOWN_CHARACTERS]
            declared = {"language": item.language.decode(), **decode_metadata(item.metadata)}
            found.first = {"doc_id": item.doc_id.decode(), "text": text, **declared}
    elif isinstance(item, BadRecord):
        found.quarantined += 1
        found.by_reason[item.reason] += 1
        if len(found.bad) < _SHOWN_BAD:
            found.bad.append(str(item))
    else:
        found.left_out[item.why] += 1


def print_ingest_preview(found: dict[str, Any]) -> None:
    """Print what `preview_ingest` found."""
    console = stdout_console()
    table = plain_table("format", "files", "read", "documents", "bytes", "quarantined", "left out")
    for kind, numbers in found["formats"].items():
        cells = ("files", "files_read", "documents", "bytes", "quarantined")
        left_out = sum(numbers["left_out"].values())
        table.add_row(kind, *(f"{numbers[cell]:,}" for cell in cells), f"{left_out:,}")
    console.print(table)
    for kind, numbers in found["formats"].items():
        console.print(f"\n[bold]{kind}[/]")
        for word, counts in (
            ("left out", numbers["left_out"]),
            ("quarantined", numbers["by_reason"]),
        ):
            if counts:
                console.print(f"  {word}: {escape(largest_counts(counts, len(counts)))}")
        if numbers["sources"]:
            # A misspelled corpus.source_field is seen here: its documents are their file's.
            largest = largest_counts(numbers["sources"], _SHOWN_SOURCES)
            console.print(f"  sources: {escape(largest)}", soft_wrap=True)
        for line in numbers["bad"]:
            console.print(f"  [yellow]![/] {escape(line)}")
        if numbers["first"]:
            text = " ".join(numbers["first"]["text"].split())
            console.print(f"  {escape(numbers['first']['doc_id'])}: {escape(text)}")
            for name in ("language", *METADATA_FIELDS):
                if value := numbers["first"].get(name):
                    console.print(f"    {name}: {escape(value)}", soft_wrap=True)
    if sentence := describe_left_out(Counter(found["left_out"])):
        console.print(f"\n{escape(sentence)}")
