"""What text is worth as it was measured, in words: x1.31 [1.18, 1.45], -0.043 [-0.055, -0.031]."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from pipeline.report.tables import escape, largest
from tokenmill.contracts.ledger import Ledger, MeasuredTokens
from tokenmill.contracts.value import Difference, Multiplier, SourceValue
from tokenmill.number_format import byte_size, count, usd
from tokenmill.visible import visible

_SOURCES_SHOWN, _SOURCES_ON_SCREEN = 20, 9


def multiplier_words(ratio: Multiplier | None) -> str:
    """Write a ratio of tokens with its interval; an end beyond what could be told is said so."""
    if ratio is None:
        return "no number"
    low = f"<{ratio.least:.2f}" if ratio.low is None else f"{ratio.low:.2f}"
    high = f">{ratio.most:.2f}" if ratio.high is None else f"{ratio.high:.2f}"
    if ratio.value is not None:
        return f"x{ratio.value:.2f} [{low}, {high}]"
    if ratio.low is None and ratio.high is None:
        return "cannot be told"
    if ratio.high is None:
        beyond = f"over x{ratio.most:.2f}"
        certain = ratio.low is not None and ratio.low >= ratio.most
    else:
        beyond, certain = f"under x{ratio.least:.2f}", ratio.high <= ratio.least
    return beyond if certain else f"{beyond} [{low}, {high}]"


def difference_words(difference: Difference | None) -> str:
    """Write a difference in bits per byte with its interval."""
    if difference is None:
        return "no number"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def plus_minus(difference: Difference | None) -> str:
    """Write a difference in bits per byte with half its interval, where room is scarce."""
    if difference is None:
        return "no number"
    return f"{difference.mean:+.3f} ± {(difference.high - difference.low) / 2:.3f}"


def effective_rows(ledger: Ledger) -> Iterator[tuple[str, str]]:
    """Yield labels and numbers: effective tokens by definition, and as they were measured."""
    yield "effective tokens", count(ledger.training.effective_tokens)
    measured = ledger.measured
    if measured is not None and measured.multiplier is not None:
        tokens = measured.effective_tokens
        label = f"effective tokens (measured {multiplier_words(measured.multiplier)})"
        yield label, "" if tokens is None else count(tokens)


def measured_notes(measured: MeasuredTokens) -> Iterator[str]:
    """Say what was measured of a run's text, and what that is worth in its training."""
    against = f"Measured against {visible(measured.reference)} by models of "
    against += f"{count(measured.proxy_params)} parameters"
    if measured.difference is not None:
        yield (
            f"{against}: {difference_words(measured.difference)} bits per byte at equal tokens; a "
            f"token is worth {multiplier_words(measured.multiplier)} of its tokens."
        )
    if (saved := measured.saved_usd) is not None:
        ends = [measured.saved_usd_low, measured.saved_usd_high]
        interval = ", ".join("open" if end is None else usd(end) for end in ends)
        yield (
            f"For the same loss {visible(measured.reference)} would need {usd(saved)} "
            f"[{interval}] more compute than this training."
        )
    if measured.note:
        lead = "cost.value" if measured.difference is None else against
        yield f"{lead}: {measured.note}."


def source_values_table(sources: dict[str, SourceValue], wide: bool = True) -> Table:
    """Fill the table of what each source is worth: tokens, cost, measured value.

    Args:
        sources: By name.
        wide: Whether there is room for all columns; a screen has 100.
    """
    table = Table(box=None)
    table.add_column("source", max_width=None if wide else 18, no_wrap=True, overflow="ellipsis")
    more = ("documents", "bytes") if wide else ()
    costs = ("preparing", "training") if wide else ("cost",)
    for name in (*more, "tokens", "share", *costs, "without it", "", "a token's worth"):
        table.add_column(name, justify="right" if name else "left")
    ordered = sorted(sources.items(), key=lambda item: (-item[1].unique_tokens, item[0]))
    shown, rest = largest(ordered, _SOURCES_SHOWN if wide else _SOURCES_ON_SCREEN)

    def cells(group: Sequence[SourceValue]) -> list[str]:
        size = [count(sum(s.documents for s in group)), byte_size(sum(s.bytes for s in group))]
        preparing = sum(source.preparation_usd for source in group)
        training = sum(source.training_usd for source in group)
        return [
            *(size if wide else []),
            count(sum(source.unique_tokens for source in group)),
            f"{sum(source.share for source in group):.1%}",
            *((usd(preparing), usd(training)) if wide else (usd(preparing + training),)),
        ]

    for name, source in shown:
        measured = ["", "not measured", ""]
        if source.verdict is not None:
            measured = [
                difference_words(source.without) if wide else plus_minus(source.without),
                source.verdict,
                escape(multiplier_words(source.worth)),
            ]
        table.add_row(escape(name), *cells([source]), *measured)
    if rest:
        table.add_row(f"{count(len(rest))} others", *cells([source for _, source in rest]))
    return table
