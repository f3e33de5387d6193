"""Documents and tokens by source, from raw text to what is trained on."""

from collections.abc import Sequence

from rich.table import Table

from components.curate.decontaminate import CONTAMINATED
from components.curate.deduplicate import EXACT_DUPLICATE, NEAR_DUPLICATE
from pipeline.report.measured import multiplier_words
from pipeline.report.tables import escape, largest
from tokenmill.contracts.ledger import Funnel, Ledger, SourceFunnel
from tokenmill.number_format import byte_size, count, usd

_SOURCES_SHOWN = 20


def sources_table(funnel: Funnel) -> Table:
    """Fill the table of sources: the largest, the rest as one row, and all."""
    table = Table(box=None)
    table.add_column("source")
    for name in ("raw docs", "raw bytes", "~ tokens", "low quality", "copies", "contaminated",
                 "curated docs", "tokens", "effective"):  # fmt: skip
        table.add_column(name, justify="right")
    accounts = sorted(funnel.by_source.items(), key=lambda item: (-item[1].raw.bytes, item[0]))
    shown, rest = largest(accounts, _SOURCES_SHOWN)
    for source, account in shown:
        table.add_row(escape(source), *_cells(_funnel_numbers(account)))
    if rest:
        numbers = [_funnel_numbers(account) for _, account in rest]
        sums = [sum(column) for column in zip(*numbers, strict=True)]
        table.add_row(f"{count(len(rest))} others", *_cells(sums))
    table.add_section()
    table.add_row("all", *_cells(_funnel_numbers(funnel.total)), style="bold")
    return table


def source_costs_table(ledger: Ledger) -> Table:
    """Fill the table of what each source is worth: tokens, cost, and value where it was measured.

    The cost of training falls to a source by its share of the effective tokens.
    """
    measured = ledger.measured.sources if ledger.measured else {}
    table = Table(box=None)
    table.add_column("source")
    for name in ("tokens", "effective", "share", "cost of training"):
        table.add_column(name, justify="right")
    if measured:
        table.add_column("a token is worth (measured)", justify="right")
        table.add_column("")
    total = ledger.training.effective_tokens or 1.0
    ordered = sorted(
        ledger.funnel.by_source.items(),
        key=lambda item: (-item[1].train.effective_tokens, item[0]),
    )
    shown, rest = largest(ordered, _SOURCES_SHOWN)
    rows = [
        (
            escape(source),
            account.curated.tokens,
            account.train.effective_tokens,
            measured.get(source),
        )
        for source, account in shown
    ]
    if rest:
        curated = sum(account.curated.tokens for _, account in rest)
        effective = sum(account.train.effective_tokens for _, account in rest)
        rows.append((f"{count(len(rest))} others", curated, effective, None))
    for name, curated, effective, value in rows:
        share = effective / total
        cells = [count(curated), count(effective), f"{share:.1%}",
                 usd(share * ledger.cost.compute_usd)]  # fmt: skip
        if measured and value is not None:
            cells += [escape(multiplier_words(value.worth)), value.verdict or ""]
        table.add_row(name, *cells)
    return table


def _funnel_numbers(account: SourceFunnel) -> list[float]:
    """Return the numbers of a row of the table of sources."""
    raw, dropped = account.raw, account.dropped
    by_kind = {
        "copies": (EXACT_DUPLICATE, NEAR_DUPLICATE),
        "contaminated": (CONTAMINATED,),
    }
    named = {reason for reasons in by_kind.values() for reason in reasons}
    by_kind = {"low quality": tuple(r for r in dropped if r not in named), **by_kind}
    gone = [sum(dropped[r].documents for r in rs if r in dropped) for rs in by_kind.values()]
    curated = account.curated
    return [raw.documents, raw.bytes, raw.tokens_estimated, *gone, curated.documents,
            curated.tokens, account.train.effective_tokens]  # fmt: skip


def _cells(numbers: Sequence[float]) -> list[str]:
    documents, size, tokens, *gone, curated, curated_tokens, effective = numbers
    return [
        count(documents),
        byte_size(size),
        count(tokens),
        *(f"-{count(lost)}" if lost else "" for lost in gone),
        *map(count, (curated, curated_tokens, effective)),
    ]
