"""A preview of curation: what the rules would do to a sample of files."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console

from components.curate.preview import REASONS, SampledDocument, as_json, preview, sample
from components.curate.quality.selection import LOW_QUALITY
from components.curate.quality.view import view_scores
from components.curate.rules import RULE_SETS
from components.ingest.manifest import list_inputs
from pipeline.config import Config
from pipeline.input_documents import InputDocuments
from pipeline.loader import load_run_config
from pipeline.report.curation import check_choice, number, print_document
from pipeline.report.curation_scores import print_scores
from pipeline.report.tables import escape, plain_table, share_text, stdout_console
from tokenmill.errors import TokenmillError
from tokenmill.text.chat import Chat


class Sampling(NamedTuple):
    """Which documents of which files, and the configuration they are judged by.

    Attributes:
        paths: Files, directories or globs.
        rule_set: The set of rules; None for the configuration's.
        overrides: SECTION.KEY=VALUE.
        config_path: A TOML configuration.
        preset: A preset.
        size: How many documents.
    """

    paths: Sequence[str]
    rule_set: str | None
    overrides: Sequence[str]
    config_path: str | None
    preset: str | None
    size: int

    def read(self) -> tuple[list[SampledDocument], Config, InputDocuments, Chat | None]:
        """Read the documents; return the configuration, what was read, and the chat, too.

        Raises:
            TokenmillError: An option names what is not there, or no document can be read.
        """
        check_choice("--rules", self.rule_set, RULE_SETS, "There are")
        rules = (f"curate.rules={self.rule_set}",) if self.rule_set is not None else ()
        list_inputs(self.paths, "PATH")  # the configuration looks at them, and knows no PATH
        config, _ = load_run_config(
            self.preset, self.config_path, (*self.overrides, *rules), self.paths
        )
        reading = InputDocuments(config.corpus)
        read = (
            (item.doc_id, item.source, item.text, item.language, item.metadata, item.messages)
            for item in reading.read_documents(self.paths)
        )
        documents = sample(read, self.size)
        if not documents:
            paths = ", ".join(self.paths)
            raise TokenmillError(f"no document can be read from {paths}.", reading.first_bad)
        return documents, config, reading, _chat_of(config)


def _chat_of(config: Config) -> Chat | None:
    """Return what writes a run's conversations; None where documents are texts."""
    if not config.corpus.holds_conversations:
        return None
    # TensorFlow takes seconds, and texts do without it.
    from components.tokenize.chat_format import resolve_chat_format
    from components.tokenize.import_model import resolve_model

    is_base = config.model.base_model is not None
    resolved = resolve_model(config.tokenizer, config.train.task, is_base)
    return Chat(resolve_chat_format(resolved.config, resolved.content))


def preview_files(sampling: Sampling, reason: str | None) -> dict[str, Any]:
    """Judge documents of files; return the JSON of what was found.

    Raises:
        TokenmillError: An option names what is not there, or no document can be read.
    """
    check_choice("--reason", reason, REASONS, "There are")
    documents, config, reading, chat = sampling.read()
    trained = None
    if config.curate.quality.is_used:
        # Beam takes seconds, and rules do without it.
        from pipeline.input_scorer import train_input_scorer

        trained = train_input_scorer(config, sampling.paths)
    scorer = None if trained is None else trained[1]
    result = preview(documents, config.curate, 10 if reason else 2, chat, scorer)
    quality = {}
    if trained is not None:
        columns = (result.scores, result.sizes, result.sources)
        quality["quality"] = view_scores(trained[0], config.curate.quality, *columns)
    return {
        "files": reading.files,
        "documents_read": reading.read,
        "unreadable_records": reading.bad,
        "first_unreadable": reading.first_bad,
        "rules": config.curate.rules,
        **as_json(result, config.curate, reason),
        **quality,
    }


def print_preview(found: dict[str, Any], reason: str | None) -> None:
    """Print what `preview_files` found."""
    console = stdout_console()
    sampled = found["sample"]
    console.print(
        f"{sampled['documents']:,} of {found['documents_read']:,} documents in "
        f"{found['files']:,} file(s), {sampled['bytes']:,} bytes; rules: {found['rules']}"
    )
    if found["unreadable_records"]:
        first = escape(found["first_unreadable"])
        console.print(f"{found['unreadable_records']:,} records cannot be read; first: {first}")
    table = plain_table("", "documents", "", "bytes", "")
    for name, numbers in [("kept", found["kept"]), *found["dropped"].items()]:
        if reason in (None, name):
            cells = (
                f"{numbers['documents']:,}",
                share_text(numbers["documents"] / sampled["documents"]),
                f"{numbers['bytes']:,}",
                share_text(numbers["bytes"] / max(1, sampled["bytes"])),
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
            print_document(console, example, name)
    _print_tuning(console, found["tuning"])
    if "quality" in found and reason in (None, LOW_QUALITY):
        print_scores(console, found["quality"])
    for remark in found["remarks"]:
        console.print(f"[yellow]![/] {escape(remark)}")


def _print_tuning(console: Console, rules: Sequence[dict[str, Any]]) -> None:
    if not rules:
        return
    signs = {"below": "<", "above": ">"}
    percentiles = [f"{q}%" for q in rules[0]["quantiles"]]
    console.print("\n[bold]Values in the sample[/] (of 100 documents, so many have at most this)")
    table = plain_table("", *percentiles)
    for rule in rules:
        table.add_row(rule["reason"], *map(number, rule["quantiles"].values()))
    console.print(table)
    console.print("\n[bold]What a threshold drops[/] by itself (share of documents, of bytes)")
    table = plain_table("", "drops if", "docs", "bytes", "looser", "docs", "bytes",
                   "stricter", "docs", "bytes")  # fmt: skip
    for rule in rules:
        cells = []
        for which in ("threshold", "looser", "stricter"):
            it = rule[which]
            if it is None:
                cells += ["–", "", ""]
            else:
                sign = signs[rule["drop_if"]]
                value = (
                    f"{sign} {number(it['value'])}" if it["value"] is not None else "by language"
                )
                cells += [value, share_text(it["documents"]), share_text(it["bytes"])]
        table.add_row(rule["reason"], *cells)
    console.print(table)
