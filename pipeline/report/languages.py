"""Tokens, money and quality by language; nothing where there is but one."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from pipeline.report.quality import MEASURES
from pipeline.report.tables import escape, largest
from tokenmill.contracts.cost_report import CostReport, Metrics
from tokenmill.contracts.ledger import LanguageText, Ledger
from tokenmill.number_format import byte_size, count, usd
from tokenmill.text.language import language_label

_LANGUAGES_SHOWN = 8


def languages_by_tokens(ledger: Ledger) -> list[tuple[str, LanguageText]]:
    """Return the languages with their code, that with most training tokens first."""
    return sorted(ledger.by_language.items(), key=lambda item: (-item[1].train.tokens, item[0]))


def languages_table(ledger: Ledger, cost: CostReport | None) -> Table | None:
    """Show the training text of the largest languages, and what of the cost falls to each.

    Args:
        ledger: The estimate.
        cost: The cost report; None before training.

    Returns:
        None if all text is of one language.
    """
    if len(ledger.by_language) < 2:
        return None
    table = _table(
        "language", "documents", "bytes", "tokens", "bytes per token", "of tokens", "estimated",
        *(() if cost is None else ("actual",)),
    )  # fmt: skip
    actual = None if cost is None else cost.actual.compute_usd
    ordered = languages_by_tokens(ledger)
    shown, rest = largest(ordered, _LANGUAGES_SHOWN)
    for code, text in shown:
        table.add_row(escape(language_label(code)), *_cells([text], actual))
    if rest:
        table.add_row(f"{count(len(rest))} others", *_cells([text for _, text in rest], actual))
    table.add_section()
    table.add_row("all", *_cells([text for _, text in ordered], actual), style="bold")
    return table


def _cells(texts: Sequence[LanguageText], actual_usd: float | None) -> list[str]:
    """Return the cells of a row, in which these languages are added up."""
    both = [part for text in texts for part in (text.train, text.eval)]
    tokens = sum(part.tokens for part in both)
    cells = [
        count(sum(text.train.documents for text in texts)),
        byte_size(sum(text.train.bytes for text in texts)),
        count(sum(text.train.tokens for text in texts)),
        f"{sum(part.bytes for part in both) / tokens:.2f}" if tokens else "",
        f"{sum(text.token_share for text in texts):.1%}",
        usd(sum(text.compute_usd for text in texts)),
    ]
    if actual_usd is not None:
        cells.append(usd(actual_usd * sum(text.cost_share for text in texts)))
    return cells


def language_quality_table(cost: CostReport) -> Table | None:
    """Show the model's quality on the held-out text of the languages with most documents.

    Returns:
        None if all that was evaluated is of one language.
    """
    evaluation = cost.quality.evaluation
    if len(evaluation.by_language) < 2:
        return None
    measures = [(name, spec) for name, spec, _ in MEASURES if name in evaluation.total]
    headings = [name.replace("_", " ") for name, _ in measures]
    table = _table("language", "documents", *headings)
    ordered = sorted(
        evaluation.by_language.items(),
        key=lambda item: (-_documents([item[1]]), item[0]),
    )
    shown, rest = largest(ordered, _LANGUAGES_SHOWN)
    for code, metrics in shown:
        table.add_row(
            escape(language_label(code)),
            count(_documents([metrics])),
            *(format(metrics[name], spec) if name in metrics else "" for name, spec in measures),
        )
    if rest:  # what theirs together would be, their metrics do not say
        others = count(_documents(metrics for _, metrics in rest))
        table.add_row(f"{count(len(rest))} others", others)
    return table


def _documents(languages: Iterable[Metrics]) -> float:
    return sum(metrics.get("evaluated_documents", 0.0) for metrics in languages)


def _table(*columns: str) -> Table:
    table = Table(box=None)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    return table
