"""The funnel from raw text to effective tokens by source, and what was dropped, with samples."""

from collections.abc import Iterator

from pipeline.report.cost import stages_table
from pipeline.report.page.charts import COLORS, Bar, bar_chart
from pipeline.report.page.content import (
    DataTable,
    Excerpt,
    Figure,
    Legend,
    Section,
    Unfolding,
    optional_tables,
    shorten,
    table_of_screen,
    words,
)
from pipeline.report.page.run_documents import RECORDS_READ, RunDocuments
from pipeline.report.run import dropped_table
from pipeline.report.sources import source_costs_table, sources_table
from pipeline.report.tables import largest
from tokenmill.contracts.curation import DroppedDocument
from tokenmill.contracts.ingest import Amount
from tokenmill.contracts.ledger import Funnel, Ledger
from tokenmill.number_format import byte_size, count
from tokenmill.text.language import language_label

# The last color is for all that have none of their own.
_SOURCES_DRAWN = COLORS - 1
_REASONS_DRAWN = 12


def funnel_section(run: RunDocuments) -> Section:
    """Draw the stages from raw text to effective tokens."""
    if run.ledger is None:
        return Section("funnel", "From raw text to effective tokens")
    tables = optional_tables(
        [
            ("Stages", stages_table(run.ledger)),
            ("By source", sources_table(run.ledger.funnel)),
            ("What each source costs, and is worth", source_costs_table(run.ledger)),
        ]
    )
    return Section(
        "funnel",
        "From raw text to effective tokens",
        figures=[_funnel(run.ledger.funnel)],
        tables=tables,
    )


def _funnel(funnel: Funnel) -> Figure:
    """Draw a bar a stage, in which each source has its part."""
    ordered = sorted(funnel.by_source.items(), key=lambda item: (-item[1].raw.bytes, item[0]))
    shown, rest = largest(ordered, _SOURCES_DRAWN)
    names = [source for source, _ in shown] + ([f"{count(len(rest))} others"] if rest else [])
    bars, rows = [], []
    for i, stage in enumerate(funnel.total.stages):
        parts = [float(account.stages[i].tokens) for _, account in shown if account.stages]
        if rest:
            parts.append(float(sum(account.stages[i].tokens for _, account in rest)))
        about = "~ " if stage.tokens_are == "estimated" else ""
        # A parted sum of estimates is not the sum's estimate; nothing to part: one bar.
        drawn = parts if len(parts) > 1 else [float(stage.tokens)]
        bars.append(Bar(words(stage.stage), drawn, about + count(stage.tokens)))
        rows.append((words(stage.stage), about + count(stage.tokens), *map(count, parts)))
    first, last = funnel.total.stages[0], funnel.total.stages[-1]
    legend = tuple(Legend(shorten(name), i % COLORS) for i, name in enumerate(names))
    return Figure(
        "Tokens that are left after each stage",
        bar_chart(bars),
        f"Bars, one a stage: {count(first.tokens)} tokens are {words(first.stage)}, "
        f"{count(last.tokens)} are left at {words(last.stage)}.",
        DataTable(("stage", "all tokens", *map(shorten, names)), rows),
        legend if len(legend) > 1 else (),
    )


def dropped_section(run: RunDocuments) -> Section:
    """Show what curation dropped, by reason, with samples."""
    title, curation = "What was dropped, and why", run.curation
    if curation is None:  # it was removed, or the run ended before it
        table = None if run.ledger is None else dropped_table(run.ledger)
        return Section("dropped", title, tables=optional_tables([("By reason", table)]))
    dropped = curation.dropped_by_reason()
    sentences = list(curation.remarks)
    if sum(amount.documents for amount in dropped.values()) > RECORDS_READ:
        sentences.append(f"Samples are of the first {RECORDS_READ:,} documents that were dropped.")
    figures = [_dropped(dropped, run.ledger)] if dropped else []
    return Section("dropped", title, sentences, figures, (), list(_samples(run)))


def _dropped(dropped: dict[str, Amount], ledger: Ledger | None) -> Figure:
    """Draw a bar a reason; its data are the screen's table where there is a ledger."""
    ordered = sorted(dropped.items(), key=lambda item: (-item[1].bytes, item[0]))
    if ledger is not None and ledger.funnel.total.dropped:
        data = table_of_screen(dropped_table(ledger))
    else:
        rows = [(words(reason), count(amount.documents), byte_size(amount.bytes))
                for reason, amount in ordered]  # fmt: skip
        data = DataTable(("reason", "documents", "bytes"), rows)
    bars = [Bar(words(reason), [float(amount.bytes)], byte_size(amount.bytes))
            for reason, amount in ordered[:_REASONS_DRAWN]]  # fmt: skip
    (largest_reason, most), *_ = ordered
    said = f"the largest is {words(largest_reason)} with {byte_size(most.bytes)}"
    title = "Text that was dropped, by reason"
    return Figure(title, bar_chart(bars), f"Bars, one a reason: {said}.", data)


def _samples(run: RunDocuments) -> Iterator[Unfolding]:
    for reason, documents in run.samples.items():
        excerpts = tuple(_excerpt(document) for document in documents)
        number = f"{len(excerpts)} sample{'' if len(excerpts) == 1 else 's'}"
        yield Unfolding(f"{words(reason)}: {number}", excerpts)


def _excerpt(document: DroppedDocument) -> Excerpt:
    """Return what a person needs to judge whether it was right to drop a document."""
    record = document.shortened().to_json()
    facts = [
        f"source {shorten(record['source'])}, {document.split} split",
        f"{byte_size(document.raw_bytes)}",
        f"language {language_label(document.language)}" if document.language else "",
        f"value {document.value:g}, limit {document.threshold:g}" if document.threshold else "",
        f"the text that stays: {shorten(record['kept_copy'])}" if record["kept_copy"] else "",
        f"shares “{' '.join(record['shared'].split())}”" if record["shared"] else "",
        f"matched {record['matched']}" if record["matched"] else "",
    ]
    text = record["excerpt"]
    return Excerpt(shorten(record["doc_id"]), tuple(fact for fact in facts if fact), text)
