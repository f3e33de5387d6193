"""The model and its text: parameters and memory by part, lengths, languages, vocabulary."""

from collections.abc import Callable, Iterator

from rich.table import Table

from pipeline.report.languages import languages_by_tokens, languages_table
from pipeline.report.page.charts import Bar, Interval, bar_chart, interval_chart
from pipeline.report.page.content import (
    DataTable,
    Figure,
    Section,
    optional_tables,
    shorten,
    table_of_screen,
    words,
)
from pipeline.report.page.run_documents import RunDocuments
from pipeline.report.run import statistics_table
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.tokenizer import TokenizerDescription
from tokenmill.contracts.validation import SplitSummary
from tokenmill.number_format import byte_size, count
from tokenmill.text.language import language_label

_BARS_DRAWN = 13


def text_section(run: RunDocuments) -> Section:
    """Show lengths and languages of the text, and the vocabulary."""
    tables: list[tuple[str, Table | None]] = []
    if run.ledger is not None:
        tables.append(("Training text by language", languages_table(run.ledger, run.cost_report)))
    sentences = [_vocabulary(run.tokenizer)] if run.tokenizer else []
    figures = [_lengths(run.statistics)] if run.statistics else []
    if run.ledger is not None:
        figures += [*_languages(run.ledger), _bytes_per_token(run.ledger)]
    return Section("text", "Text and vocabulary", sentences, figures, optional_tables(tables))


def _lengths(statistics: dict[str, SplitSummary]) -> Figure:
    """Draw the median length of each split between its first and its ninth decile."""
    lengths = {split: summary.byte_count for split, summary in statistics.items()}
    return Figure(
        "Length of a document: median, first to ninth decile",
        interval_chart([Interval(split, of.p50, of.p10, of.p90, byte_size(of.p50))
                        for split, of in lengths.items()]),
        "; ".join(f"{split}: a median of {byte_size(of.p50)}, eight of ten between "
                  f"{byte_size(of.p10)} and {byte_size(of.p90)}"
                  for split, of in lengths.items()),
        table_of_screen(statistics_table(statistics)),
    )  # fmt: skip


def _languages(ledger: Ledger) -> Iterator[Figure]:
    """Draw the tokens of each language to train on; nothing where there is but one."""
    ordered = languages_by_tokens(ledger)
    if len(ordered) < 2:
        return
    named = [(language_label(code), of) for code, of in ordered]
    yield Figure(
        "Tokens to train on, by language",
        bar_chart([Bar(name, [float(of.train.tokens)], count(of.train.tokens))
                   for name, of in named[:_BARS_DRAWN]]),
        f"Bars, one a language: the largest is {named[0][0]} with "
        f"{named[0][1].token_share:.1%} of the tokens.",
        DataTable(("language", "tokens", "of all"),
                  [(shorten(name), count(of.train.tokens), f"{of.token_share:.1%}")
                   for name, of in named]),
    )  # fmt: skip


def _vocabulary(tokenizer: TokenizerDescription) -> str:
    if tokenizer.path is not None:
        return f"A vocabulary of {count(tokenizer.tokens)} tokens, taken from {tokenizer.path}."
    size = sum(sample.bytes for sample in tokenizer.sample.values())
    documents = sum(sample.documents for sample in tokenizer.sample.values())
    return (
        f"A {tokenizer.model_type} vocabulary of {count(tokenizer.tokens)} tokens, trained on "
        f"{byte_size(size)} of {count(documents)} documents."
    )


def _bytes_per_token(ledger: Ledger) -> Figure:
    sources = sorted(
        ledger.funnel.by_source.items(), key=lambda item: (-item[1].curated.bytes, item[0])
    )
    named = [("all", ledger.funnel.total), *sources]
    return Figure(
        "Bytes of text a token, by source",
        bar_chart([Bar(name, [of.bytes_per_token], f"{of.bytes_per_token:.2f}")
                   for name, of in named[:_BARS_DRAWN]]),
        f"Bars; all text has {ledger.funnel.total.bytes_per_token:.2f} bytes a token.",
        DataTable(
            ("source", "bytes a token", "bytes kept", "tokens"),
            [(shorten(name), f"{of.bytes_per_token:.2f}", byte_size(of.curated.bytes),
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
        f"{byte_size(memory.bytes_per_device)} a device by parts, {memory.precision}, "
        f"{count(memory.sequences_per_device)} rows at a time"
        + (f"; it has {byte_size(memory.capacity_bytes)}." if memory.capacity_bytes else ".")
    ]
    if memory.process_bytes is not None:
        sentences.append(f"The Calibrator's process held {byte_size(memory.process_bytes)}.")
    if memory.checkpoint_copy_bytes is not None:
        copied = byte_size(memory.checkpoint_copy_bytes)
        sentences.append(f"While a checkpoint is written, a copy takes {copied} of the host.")
    if run.telemetry is not None and run.telemetry.peak_process_bytes is not None:
        held = byte_size(run.telemetry.peak_process_bytes)
        sentences.append(f"The trainer's process held {held} at most, export included.")
    return Section(
        "memory",
        title,
        sentences,
        [
            *_parts("Memory of training by part", memory.bytes_by_part, byte_size),
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
