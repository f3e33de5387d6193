"""The funnel from raw text to effective tokens by source, and what was dropped, with samples."""

from collections.abc import Iterator

from pipeline.report.console import count, megabytes
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
    words,
)
from pipeline.report.page.run_documents import RECORDS_READ, RunDocuments
from pipeline.report.run import dropped_table
from pipeline.report.sources import sources_table
from pipeline.report.tables import largest
from tokenmill.contracts.curation import DroppedDocument
from tokenmill.contracts.ledger import Funnel
from tokenmill.text.language import language_label

# The last color is for all that have none of their own.
_SOURCES_DRAWN = COLORS - 1
_REASONS_DRAWN = 12


def funnel_section(run: RunDocuments) -> Section:
    """Draw the stages from raw text to effective tokens."""
    if run.ledger is None:
        return Section("funnel", "From raw text to effective tokens")
    tables = optional_tables(
        [("Stages", stages_table(run.ledger)), ("By source", sources_table(run.ledger.funnel))]
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
    title = "What was dropped, and why"
    unfoldings = list(_samples(run))
    sentences = []
    if unfoldings:
        sentences = [f"Samples are of the first {RECORDS_READ:,} documents that were dropped; "
                     "tokenmill curate dropped shows more."]  # fmt: skip
    remarks = list(run.curation.remarks) if run.curation else []
    figures, tables = [], []
    if run.ledger is not None and run.ledger.funnel.total.dropped:
        tables = optional_tables([("Dropped, by reason", dropped_table(run.ledger))])
    if run.curation is not None and (dropped := run.curation.dropped_by_reason()):
        ordered = sorted(dropped.items(), key=lambda item: (-item[1].bytes, item[0]))
        figures.append(
            Figure(
                "Text that was dropped, by reason",
                bar_chart([Bar(words(reason), [float(amount.bytes)], megabytes(amount.bytes))
                           for reason, amount in ordered[:_REASONS_DRAWN]]),
                f"Bars, one a reason: the largest is {words(ordered[0][0])} with "
                f"{megabytes(ordered[0][1].bytes)}.",
                DataTable(("reason", "documents", "bytes"),
                          [(words(reason), count(amount.documents), megabytes(amount.bytes))
                           for reason, amount in ordered]),
            )
        )  # fmt: skip
    return Section("dropped", title, [*remarks, *sentences], figures, tables, unfoldings)


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
        f"{megabytes(document.raw_bytes)}",
        f"language {language_label(document.language)}" if document.language else "",
        f"value {document.value:g}, limit {document.threshold:g}" if document.threshold else "",
        f"the text that stays: {shorten(record['kept_copy'])}" if record["kept_copy"] else "",
        f"shares “{' '.join(record['shared'].split())}”" if record["shared"] else "",
        f"matched {record['matched']}" if record["matched"] else "",
    ]
    text = record["excerpt"]
    return Excerpt(shorten(record["doc_id"]), tuple(fact for fact in facts if fact), text)
