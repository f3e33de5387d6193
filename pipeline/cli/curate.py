"""`tokenmill curate`: the rules, what they would do to a corpus, and what they did in a run."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from pipeline.cli.errors import user_errors_only
from pipeline.cli.options import config_options, json_option
from tokenmill.errors import TokenmillError

_WIDTH = 100  # of a pipe, which has none of its own


@click.group()
def curate() -> None:
    """The quality rules: list them, try them on files, look at what they dropped.

    \b
    tokenmill curate rules
    tokenmill curate preview my_texts/ --rules web --set curate.min_words=20
    tokenmill curate inspect runs/demo --reason near_duplicate
    """  # noqa: D301  (click wants the backspace)


@curate.command()
@click.option("--rules", "rule_set", metavar="SET", help="Only the rules of one set.")
def rules(rule_set: str | None) -> None:
    """List all rules: reason, setting, threshold by set, source."""
    with user_errors_only():
        if rule_set is not None:
            _check_rule_set(rule_set)
        _print_rules(_console(), rule_set)


@curate.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--rules", "rule_set", metavar="SET", help="The rule set (curate.rules).")
@config_options
@click.option(
    "--sample", "size", type=click.IntRange(1), default=5000, show_default=True, metavar="N",
    help="Judge N documents, chosen by a hash: the same every time.",
)  # fmt: skip
@click.option("--reason", metavar="REASON", help="Only this reason, with more of its documents.")
@json_option
def preview(
    paths: Sequence[str],
    rule_set: str | None,
    overrides: Sequence[str],
    config_path: str | None,
    preset: str,
    size: int,
    reason: str | None,
    as_json: bool,
) -> None:
    """Judge a sample of files by language and rules, and show where thresholds lie.

    Copies, overlaps and boilerplate lines need all documents; only a run finds them.
    """
    with user_errors_only():
        from components.curate import preview as previews
        from pipeline.loader import load_config

        if rule_set is not None:
            _check_rule_set(rule_set)
            overrides = (*overrides, f"curate.rules={rule_set}")
        config = load_config(preset, config_path, overrides)
        if reason is not None:
            _check_choice("--reason", reason, previews.REASONS, "There are")
        reading = _Reading(config.corpus)
        documents = previews.sample(reading.documents(paths), size)
        if not documents:
            raise TokenmillError(
                f"no document can be read from {', '.join(paths)}.", reading.first_bad
            )
        result = previews.preview(documents, config.curate, examples=10 if reason else 2)
        facts = {
            "files": reading.files,
            "documents_read": reading.read,
            "unreadable_records": reading.bad,
            "first_unreadable": reading.first_bad,
            "rules": config.curate.rules,
        }
        found = {**facts, **previews.as_json(result, config.curate, reason)}
        if as_json:
            click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        else:
            _print_preview(_console(), found, reason)


@curate.command()
@click.argument("run_dir")
@click.option("--reason", metavar="REASON", help="Only documents dropped for this reason.")
@click.option("--source", metavar="SOURCE", help="Only documents of this source.")
@click.option(
    "--limit", type=click.IntRange(1), default=3, show_default=True, metavar="N",
    help="Show N documents of each reason, chosen by a hash.",
)  # fmt: skip
def inspect(run_dir: str, reason: str | None, source: str | None, limit: int) -> None:
    """Show documents that the newest run in RUN_DIR dropped, and why.

    RUN_DIR is a run's output directory, as runs/demo.
    """
    with user_errors_only():
        uri, run_id = _newest_dropped(run_dir)
        from components.curate.counts import samples_by_reason
        from tokenmill.contracts.curation import CURATION_NAME, read_curation, read_dropped

        report_path = os.path.join(uri, CURATION_NAME)
        if not os.path.exists(report_path):
            raise TokenmillError(f"{report_path} is gone: the artifact was removed.", "Run again.")
        curation = read_curation(uri)
        sources = sorted({s for split in curation.splits.values() for s in split.by_source})
        if source is not None:
            _check_choice("--source", source, sources, f"{run_dir} has")
        counts = curation.dropped_by_reason(source)
        where = f"run {run_id}" + (f", source {source}" if source else "")
        if reason is not None:
            _check_choice("--reason", reason, list(counts), f"In {where} there are")
        found = samples_by_reason(read_dropped(uri), reason, source, limit)
        _print_dropped(_console(), where, counts, found)


class _Reading:
    """Reads files as the ingest step does, and counts.

    Args:
        corpus: The [corpus] section.
    """

    def __init__(self, corpus: Any):
        self._corpus = corpus
        self.files = self.read = self.bad = 0
        self.first_bad = ""

    def documents(self, paths: Sequence[str]) -> Iterator[tuple[bytes, bytes, bytes]]:
        """(id, source, text) of each document of the files."""
        from components.ingest.manifest import list_inputs
        from components.ingest.readers import read_file
        from tokenmill.contracts.ingest import BadRecord

        files = list_inputs(paths, "PATH")
        self.files = len(files)
        for file in files:
            for item in read_file(file, self._corpus):
                if isinstance(item, BadRecord):
                    self.bad += 1
                    self.first_bad = self.first_bad or str(item)
                else:
                    self.read += 1
                    yield item.doc_id, item.source, item.text


def _newest_dropped(run_dir: str) -> tuple[str, str]:
    """(URI of the dropped documents, run) of the newest run whose Curator finished."""
    from tokenmill.metadata.output_directory import open_runs
    from tokenmill.metadata.run_history import step_records

    for run, record in step_records(open_runs(run_dir, example=["runs/demo"]), "Curator"):
        if record.outputs.get("dropped"):
            return record.one("dropped").uri, run
    raise TokenmillError(
        f"{run_dir}: no run here has come through its curate step.",
        "Run the pipeline: tokenmill run.",
    )


def _check_rule_set(rule_set: str) -> None:
    from components.curate.rules import RULE_SETS

    _check_choice("--rules", rule_set, RULE_SETS, "There are")


def _check_choice(option: str, value: str, allowed: Sequence[str], there_are: str) -> None:
    if value in allowed:
        return
    import difflib

    close = difflib.get_close_matches(value, allowed, n=1)
    suggestion = f" (did you mean {close[0]}?)" if close else ""
    shown = ", ".join(allowed[:40]) + (f" and {len(allowed) - 40} more" if allowed[40:] else "")
    raise TokenmillError(
        f"{option} {value}: there is no such one{suggestion}.",
        f"{there_are}: {shown or 'none'}.",
    )


def _console() -> Any:
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDTH
    return Console(highlight=False, width=width)


# ---- what is printed


def _table(*columns: str, left: int = 1) -> Any:
    """A plain table; the columns after the first `left` hold numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", overflow="fold")
    return table


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:,.3g}k"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _share(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.1%}" if value >= 0.0005 else "<0.1%"


def _print_rules(console: Any, rule_set: str | None) -> None:
    from components.curate.rules import LINE_RULES, RULE_SETS, RULES

    # A column for c4 does not fit: it is a part of web, and one rule.
    sets = [s for s in RULE_SETS if s not in ("c4", "none")] if rule_set is None else [rule_set]
    headers = [s.replace("-", "-\n") for s in sets]
    table = _table("reason", "setting (curate.)", *headers, left=2)
    source = ""
    for rule in (*LINE_RULES, *RULES):
        if rule_set is not None and rule_set not in rule.thresholds:
            continue
        if rule.source != source:
            source = rule.source
            table.add_row("", f"[dim]{source}[/]")
        sign = "<" if rule.drop_if == "below" else ">"
        shown = [
            f"{sign} {_number(rule.thresholds[s])}" if s in rule.thresholds else "off" for s in sets
        ]
        table.add_row(rule.reason, rule.setting, *shown)
    console.print(table)
    console.print(
        '\n"< 50" drops documents with less than 50, "> 0.3" those with more than 0.3. A document '
        "is\ndropped for the first rule, in this order, that drops it; before, the rules called "
        "line_... remove\nsingle lines. The set c4 has the rules of Raffel et al. only (--rules c4 "
        "lists them), none has none."
    )


def _print_preview(console: Any, found: dict[str, Any], reason: str | None) -> None:
    from rich.markup import escape

    sampled = found["sample"]
    console.print(
        f"{sampled['documents']:,} of {found['documents_read']:,} documents in "
        f"{found['files']:,} file(s), {sampled['bytes']:,} bytes; rules: {found['rules']}"
    )
    if found["unreadable_records"]:
        first = escape(found["first_unreadable"])
        console.print(f"{found['unreadable_records']:,} records cannot be read; first: {first}")
    table = _table("", "documents", "", "bytes", "")
    for name, numbers in [("kept", found["kept"]), *found["dropped"].items()]:
        if reason in (None, name):
            cells = (
                f"{numbers['documents']:,}",
                _share(numbers["documents"] / sampled["documents"]),
                f"{numbers['bytes']:,}",
                _share(numbers["bytes"] / max(1, sampled["bytes"])),
            )
            table.add_row(f"[bold]{name}[/]" if name == "kept" else name, *cells)
    console.print()
    console.print(table)
    if found["masked"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in found["masked"].items())
        console.print(f"masked: {kinds}")
    for name, numbers in found["removed_lines"].items():
        console.print(f"{name}: {numbers['lines']:,} lines removed, {numbers['bytes']:,} bytes")
    for name, examples in found["examples"].items():
        console.print(f"\n[bold]{name}[/]")
        for example in examples:
            _print_document(console, example, name)
    _print_tuning(console, found["tuning"])


def _print_tuning(console: Any, rules: Sequence[dict[str, Any]]) -> None:
    if not rules:
        return
    signs = {"below": "<", "above": ">"}
    percentiles = [f"{q}%" for q in rules[0]["quantiles"]]
    console.print("\n[bold]Values in the sample[/] (of 100 documents, so many have at most this)")
    table = _table("", *percentiles)
    for rule in rules:
        table.add_row(rule["reason"], *map(_number, rule["quantiles"].values()))
    console.print(table)
    console.print("\n[bold]What a threshold drops[/] by itself (share of documents, of bytes)")
    table = _table("", "drops if", "docs", "bytes", "looser", "docs", "bytes",
                   "stricter", "docs", "bytes")  # fmt: skip
    for rule in rules:
        cells = []
        for which in ("threshold", "looser", "stricter"):
            it = rule[which]
            if it is None:
                cells += ["–", "", ""]
            else:
                value = f"{signs[rule['drop_if']]} {_number(it['value'])}"
                cells += [value, _share(it["documents"]), _share(it["bytes"])]
        table.add_row(rule["reason"], *cells)
    console.print(table)


def _print_dropped(console: Any, where: str, counts: dict[str, Any], found: dict[str, Any]) -> None:
    table = _table("", "documents", "bytes")
    for name, amount in counts.items():
        table.add_row(name, f"{amount.documents:,}", f"{amount.bytes:,}")
    console.print(f"Dropped in {where}:" if counts else f"Nothing was dropped in {where}.")
    console.print(table)
    for name, records in found.items():
        console.print(f"\n[bold]{name}[/]")
        for record in records:
            _print_document(console, record.to_json(), name)


def _print_document(console: Any, record: dict[str, Any], reason: str) -> None:
    """Which document, why, and how its text begins."""
    from rich.markup import escape
    from rich.text import Text

    from components.curate.rules import RULES

    signs = {rule.reason: "<" if rule.drop_if == "below" else ">" for rule in RULES}
    signs |= {"wrong_language": "<", "contaminated": ">", "near_duplicate": ">="}
    why = []
    if reason in signs:  # the numbers of other reasons say nothing
        why.append(f"{_number(record['value'])} {signs[reason]} {_number(record['threshold'])}")
    if record.get("kept_copy"):
        why.append(f"copy of {record['kept_copy']}")
    where = f"{record['source']}, {record['split']}" if "split" in record else record["source"]
    console.print(escape(f"  {record['doc_id']}  ({where})"), soft_wrap=True)
    if why:
        console.print(escape(f"    {', '.join(why)}"), soft_wrap=True)
    excerpt = Text("    " + " ".join(record["excerpt"].split()), style="dim")
    excerpt.truncate(console.width, overflow="ellipsis")
    console.print(excerpt)
