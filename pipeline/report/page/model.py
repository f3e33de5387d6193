"""The model and its text: parameters and memory by part, lengths, languages, vocabulary."""

from collections.abc import Callable, Iterator

from rich.table import Table

from pipeline.report.console import count, megabytes
from pipeline.report.languages import languages_table
from pipeline.report.page.charts import Bar, bar_chart
from pipeline.report.page.content import (
    DataTable,
    Figure,
    Section,
    optional_tables,
    shorten,
    words,
)
from pipeline.report.page.run_documents import RunDocuments
from pipeline.report.run import statistics_table
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.tokenizer import TokenizerDescription


def text_section(run: RunDocuments) -> Section:
    """Show lengths and languages of the text, and the vocabulary."""
    tables: list[tuple[str, Table | None]] = []
    if run.statistics:
        tables.append(("Documents as they came in", statistics_table(run.statistics)))
    if run.ledger is not None:
        tables.append(("Training text by language", languages_table(run.ledger, run.cost_report)))
    sentences = [_vocabulary(run.tokenizer)] if run.tokenizer else []
    figures = [_bytes_per_token(run.ledger)] if run.ledger else []
    return Section("text", "Text and vocabulary", sentences, figures, optional_tables(tables))


def _vocabulary(tokenizer: TokenizerDescription) -> str:
    if tokenizer.path is not None:
        return f"A vocabulary of {count(tokenizer.tokens)} tokens, taken from {tokenizer.path}."
    size = sum(sample.bytes for sample in tokenizer.sample.values())
    documents = sum(sample.documents for sample in tokenizer.sample.values())
    return (
        f"A {tokenizer.model_type} vocabulary of {count(tokenizer.tokens)} tokens, trained on "
        f"{megabytes(size)} of {count(documents)} documents."
    )


def _bytes_per_token(ledger: Ledger) -> Figure:
    sources = sorted(
        ledger.funnel.by_source.items(), key=lambda item: (-item[1].curated.bytes, item[0])
    )
    named = [("all", ledger.funnel.total), *sources]
    return Figure(
        "Bytes of text a token, by source",
        bar_chart([Bar(name, [of.bytes_per_token], f"{of.bytes_per_token:.2f}")
                   for name, of in named[:13]]),
        f"Bars; all text has {ledger.funnel.total.bytes_per_token:.2f} bytes a token.",
        DataTable(
            ("source", "bytes a token", "bytes kept", "tokens"),
            [(shorten(name), f"{of.bytes_per_token:.2f}", megabytes(of.curated.bytes),
              count(of.curated.tokens)) for name, of in named],
        ),
    )  # fmt: skip


def memory_section(run: RunDocuments) -> Section:
    """Show the memory of training by part, and the parameters."""
    title = "Parameters and memory"
    if run.ledger is None:
        return Section("memory", title)
    memory, model = run.ledger.memory, run.ledger.model
    sentences = [
        f"{megabytes(memory.bytes_per_device)} a device by parts, {memory.precision}, "
        f"{count(memory.sequences_per_device)} rows at a time"
        + (f"; it has {megabytes(memory.capacity_bytes)}." if memory.capacity_bytes else ".")
    ]
    if memory.process_bytes is not None:
        sentences.append(f"The Calibrator's process held {megabytes(memory.process_bytes)}.")
    if run.telemetry is not None and run.telemetry.peak_process_bytes is not None:
        held = megabytes(run.telemetry.peak_process_bytes)
        sentences.append(f"The trainer's process held {held} at most, export included.")
    return Section(
        "memory",
        title,
        sentences,
        [
            *_parts("Memory of training by part", memory.bytes_by_part, megabytes),
            *_parts("Parameters by part", model.params_by_part, count),
        ],
    )


def _parts(title: str, parts: dict[str, int], show: Callable[[float], str]) -> Iterator[Figure]:
    """Draw a bar a part; nothing where there is no part."""
    ordered = sorted(
        ((name, number) for name, number in parts.items() if number),
        key=lambda item: (-item[1], item[0]),
    )
    if not ordered:
        return
    (largest, most), *_ = ordered
    yield Figure(
        title,
        bar_chart([Bar(words(name), [float(number)], show(number)) for name, number in ordered]),
        f"Bars, one a part: the largest is {words(largest)} with {show(most)}.",
        DataTable(("part", "amount"), [(words(name), show(number)) for name, number in ordered]),
    )
