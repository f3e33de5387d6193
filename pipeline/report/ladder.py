"""A ladder on the screen: law, prediction, best model and next purchase, in some twenty lines."""

from __future__ import annotations

from rich.table import Table

from pipeline.report.console import RunConsole
from pipeline.report.ladder_loss import author, span
from pipeline.report.lines import shown_path
from pipeline.report.tables import plain_table
from tokenmill.contracts.ladder import CriticalBatch, Ladder
from tokenmill.number_format import approximate, decimal, duration, usd, with_letter

PURCHASE_WORDS = {
    "larger model": "a model twice as large",
    "more epochs": "twice the passes over this text",
    "more text": "twice the text, read as often",
}


def print_ladder(screen: RunConsole, ladder: Ladder, path: str, page: str) -> None:
    """Print what a ladder found.

    Args:
        screen: Of the study.
        ladder: Its document.
        path: Where that lies.
        page: ladder.html.
    """
    screen.say("")
    for line in law_lines(ladder):
        screen.paragraph(line)
    for problem in ladder.problems:
        screen.paragraph(problem, "[red]No fit:[/] ")
    if ladder.fit is not None and ladder.prediction.words:
        screen.paragraph(ladder.prediction.words, "[red]No prediction:[/] ")
    if ladder.prediction.bits_per_byte is not None:
        _print_table(screen, prediction_table(ladder))
    if ladder.purchases:
        _print_table(screen, purchase_table(ladder))
        screen.paragraph(text_price_words(ladder))
    if ladder.cautions:
        rest = len(ladder.cautions) - 1
        more = f" And {rest} more, on the page." if rest else ""
        screen.paragraph(f"{ladder.cautions[0]}{more}", "[yellow]![/] ")
    spent = ladder.spending
    screen.paragraph(
        f"The small trainings took {duration(spent.seconds)}, {usd(spent.usd)}; "
        f"preparing the text {duration(ladder.text.prepare_seconds)}."
    )
    screen.say(f"Report: {shown_path(page)}", markup=False)
    screen.say(f"For tokenmill plan --ladder and cost.ladder: {shown_path(path)}", markup=False)


def _print_table(screen: RunConsole, table: Table) -> None:
    with screen.showing("a table"):
        screen.console.print(table)


def law_lines(ladder: Ladder) -> list[str]:
    """Return the law, published exponents beside it, and what the checks say of it."""
    lines = []
    if ladder.fit is not None:
        found = ladder.fit.constants
        joint = f"{found.gamma.value:.2f}"
        lines.append(
            f"Law of this text, bits per byte: L = {found.e.value:.3f} + "
            f"(({approximate(found.a.value)} / N^{found.alpha.value:.3f})^(1/{joint}) + "
            f"({approximate(found.b.value)} / D^{found.beta.value:.3f})^(1/{joint}))^{joint}"
        )
        law = ladder.published[0]
        lines.append(
            f"  {ladder.level:.0%}: E {span(found.e)}, exponents of N {span(found.alpha)}, of D "
            f"{span(found.beta)}; published {law.alpha:.2f}, {law.beta:.2f}"
        )
        if law.note:
            lines.append(f"Of the published laws {law.note}.")
        used = sum(not point.left_out for point in ladder.points)
        noise = (ladder.fit.trunk_noise**2 + ladder.fit.point_noise**2) ** 0.5
        lines.append(f"{used} points, noise {noise:.1%}{_backtest_words(ladder)}.")
    if ladder.rate_check is not None:
        lines.append(f"Learning rate: {ladder.rate_check.words}.")
    if ladder.critical_batch is not None:
        lines.append(f"Batch: {ladder.critical_batch.words}.")
    else:
        lines.append("Batch: no training was long enough to tell its gradients from their noise.")
    return lines


def _backtest_words(ladder: Ladder) -> str:
    if not ladder.backtests:
        return ""
    within = sum(
        test.predicted.low <= test.measured <= test.predicted.high for test in ladder.backtests
    )
    most = max(abs(test.measured / test.predicted.value - 1) for test in ladder.backtests)
    return (
        f"; larger runs predicted from smaller ones: {within} of {len(ladder.backtests)} within, "
        f"at most {most:.1%} off"
    )


def batch_words(batch: CriticalBatch) -> str:
    """Say how large the critical batch is, by the noise and by the losses."""
    words = (
        f"The critical batch is {with_letter(batch.tokens, 2)} ± "
        f"{with_letter(batch.standard_error, 2)} tokens by the noise of gradients at "
        f"{with_letter(batch.params, 3)} parameters"
    )
    if batch.fitted is not None:
        low, high = with_letter(batch.fitted.low, 2), with_letter(batch.fitted.high, 2)
        words += f", {with_letter(batch.fitted.value, 2)} [{low}, {high}] by the losses"
    return f"{words}; {batch.words}."


def prediction_table(ladder: Ladder) -> Table:
    """Return the configured training beside the best one for its money."""
    planned = ladder.prediction
    table = plain_table(
        "", f"{'active ' * planned.is_sparse}parameters", "tokens", "epochs", "compute",
        "bits per byte", f"{ladder.level:.0%}",
    )  # fmt: skip
    if planned.bits_per_byte is not None:
        table.add_row(
            "as configured", with_letter(planned.params, 3), with_letter(planned.tokens, 3),
            decimal(planned.epochs, 2), usd(planned.usd), f"{planned.bits_per_byte.value:.3f}",
            span(planned.bits_per_byte, 3),
        )  # fmt: skip
    if (best := ladder.best_plan) is not None:
        table.add_row(
            "best for this money", with_letter(best.params, 3), with_letter(best.tokens, 3),
            decimal(best.epochs, 2), usd(best.usd), f"{best.bits_per_byte.value:.3f}",
            span(best.bits_per_byte, 3),
        )  # fmt: skip
    for law in ladder.published[:1]:
        table.add_row(
            f"by {author(law)}", "", "", "", "", f"{law.bits_per_byte:.3f}", "", style="dim"
        )
    return table


def purchase_table(ladder: Ladder) -> Table:
    """Return what doubling one thing brings and costs, the best for its money first."""
    table = plain_table(
        "next purchase", "bits per byte", f"{ladder.level:.0%}", "costs", "per dollar", "best in"
    )
    for each in ladder.purchases:
        table.add_row(
            PURCHASE_WORDS[each.name],
            f"{-each.gain.value:+.3f}",
            f"[{-each.gain.high:+.3f}, {-each.gain.low:+.3f}]",
            usd(each.usd),
            approximate(-each.gain_per_usd),
            f"{each.wins:.0%}",
        )
    return table


def text_price_words(ladder: Ladder) -> str:
    """Say up to what price new text is the best purchase."""
    price = ladder.text_usd_per_megabyte
    if price is None:
        return "More text of this kind pays less than the others even where it costs nothing."
    return (
        f"More text of this kind is the best of them up to a price of {usd(price)} a megabyte, "
        "beyond preparing it."
    )


def points_table(ladder: Ladder) -> Table:
    """Return the small trainings, each with what the fit says of it."""
    table = plain_table(
        "", "layers x width", "tokens", "epochs", "steps", "rate", "bits per byte", "by the fit"
    )
    for point in ladder.points:
        fitted = point.fitted_bits_per_byte
        table.add_row(
            f"{with_letter(point.params, 3)}"
            + ("" if point.purpose == "ladder" else f", {point.purpose}"),
            f"{point.layers} x {point.d_model}",
            with_letter(point.tokens, 3),
            decimal(point.tokens / ladder.text.unique_tokens, 2),
            f"{point.steps:,}",
            f"{point.learning_rate:g}",
            f"{point.bits_per_byte:.3f}",
            f"{fitted:.3f}" if fitted is not None else point.left_out or "no fit",
        )
    return table
