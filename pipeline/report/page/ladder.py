"""ladder.html: the points of a ladder and their law, the prediction, and what to buy next."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from pipeline.report.ladder import (
    PURCHASE_WORDS,
    batch_words,
    law_lines,
    points_table,
    prediction_table,
    purchase_table,
    text_price_words,
)
from pipeline.report.ladder_loss import author, span
from pipeline.report.page.charts import COLORS, Interval, Line, interval_chart, line_chart
from pipeline.report.page.content import (
    DataTable,
    Figure,
    Legend,
    Section,
    table_of_screen,
)
from pipeline.report.page.headline import BigNumber, Headline
from pipeline.report.page.law import law_table
from pipeline.report.page.template import render
from tokenmill.contracts.ladder import Ladder, LadderPoint
from tokenmill.cost.ladder_fit import fit_of
from tokenmill.cost.scaling import expected_loss
from tokenmill.files import write_text
from tokenmill.number_format import count, duration, usd, with_letter

PAGE_NAME = "ladder.html"

_CURVE_POINTS = 24


def write_ladder_page(ladder: Ladder, directory: str) -> str:
    """Write the page into a directory; return its path."""
    path = os.path.join(directory, PAGE_NAME)
    write_text(path, render_ladder(ladder))
    return path


def render_ladder(ladder: Ladder) -> str:
    """Return the page; the same document gives the same bytes."""
    made = (_points_section(ladder), _law_section(ladder), _prediction_section(ladder),
            _purchase_section(ladder), _method_section(ladder))  # fmt: skip
    sections = [section for section in made if not section.is_empty]
    return str(render("page.html.j2", head=_headline(ladder), sections=sections, index=""))


def _headline(ladder: Ladder) -> Headline:
    planned, spent = ladder.prediction, ladder.spending
    what = [
        f"{len(ladder.points)} small trainings on {with_letter(ladder.text.unique_tokens, 3)} "
        f"tokens of text, for {duration(spent.seconds)} and {usd(spent.usd)}, stand for a training "
        f"of {with_letter(planned.params, 3)} {'active ' * planned.is_sparse}parameters on "
        f"{with_letter(planned.tokens, 3)} tokens."
    ]
    numbers = []
    if planned.bits_per_byte is not None:
        numbers.append(
            BigNumber(
                "bits per byte expected",
                f"{planned.bits_per_byte.value:.3f}",
                f"{ladder.level:.0%} {span(planned.bits_per_byte, 3)}",
            )
        )
        numbers.append(BigNumber("compute", usd(planned.usd), duration(planned.seconds)))
    if (best := ladder.best_plan) is not None:
        numbers.append(
            BigNumber(
                "best for this money",
                f"{with_letter(best.params, 3)} parameters",
                f"{with_letter(best.tokens, 3)} tokens, {best.bits_per_byte.value:.3f} bits per "
                "byte",
            )
        )
    verdict = "The fit holds"
    if ladder.fit is None:
        verdict = "No fit: the points do not bear one"
    elif planned.bits_per_byte is None:
        verdict = "The fit holds, but the target is too far"
    reasons = [*ladder.problems, *([planned.words] if planned.words else []), *ladder.cautions]
    return Headline(
        name="ladder",
        run_id="",
        what=what,
        kind="good" if planned.bits_per_byte is not None else "bad",
        verdict=verdict,
        reasons=reasons,
        numbers=numbers,
    )


def _points_section(ladder: Ladder) -> Section:
    """Draw the points, a color a size, and the law through them."""
    if not ladder.points:
        return Section("points", "The small trainings")
    return Section(
        "points",
        "The small trainings",
        figures=[_points_figure(ladder)],
        tables=[("All small trainings", table_of_screen(points_table(ladder)))],
    )


def _points_figure(ladder: Ladder) -> Figure:
    by_size: dict[int, list[LadderPoint]] = {}
    for point in ladder.points:
        by_size.setdefault(point.params, []).append(point)
    sizes = sorted(by_size)[:COLORS]
    dots = [
        Line(
            with_letter(size, 3),
            [(math.log10(point.comparable_tokens), point.bits_per_byte) for point in by_size[size]],
            dots=True,
        )
        for size in sizes
    ]
    # Colors go round, so that a size's curve has the color of its dots.
    gap = [Line("", [])] * (COLORS - len(dots))
    curves = [Line(with_letter(size, 3), list(_curve(ladder, size))) for size in sizes]
    svg, _ = line_chart(
        [*dots, *gap, *curves],
        "tokens, as many at the configured batch size (logarithmic)",
        lambda loss: f"{loss:.2f}",
        show_x=lambda x: with_letter(10**x, 2),
    )
    rows = [
        (with_letter(point.params, 3), count(point.tokens), f"{point.bits_per_byte:.4f}")
        for size in sizes
        for point in by_size[size]
    ]
    legend = tuple(Legend(f"{line.name} parameters", i) for i, line in enumerate(dots))
    return Figure(
        "Loss on held-out text, by size and tokens"
        + ("; curves are the law" if ladder.fit is not None else ""),
        svg,
        f"Dots: bits per byte of {len(rows)} small trainings, which fall with tokens and size.",
        DataTable(("parameters", "tokens", "bits per byte"), rows),
        legend,
    )


def _curve(ladder: Ladder, size: int) -> Iterator[tuple[float, float]]:
    """Yield points of the law over the tokens of all points."""
    if ladder.fit is None:
        return
    law = fit_of(ladder.fit).best
    logs = [math.log10(point.comparable_tokens) for point in ladder.points]
    low, high = min(logs), max(logs)
    for i in range(_CURVE_POINTS + 1):
        x = low + (high - low) * i / _CURVE_POINTS
        yield x, expected_loss(size, 10**x, law)


def _law_section(ladder: Ladder) -> Section:
    """Show the constants beside the published ones, and how larger runs were predicted."""
    title, figures = "The law of this text", []
    tables: list[tuple[str, DataTable]] = []
    if ladder.fit is not None:
        found = ladder.fit.constants
        tables.append(law_table(found, ladder.published, ladder.level))
    if ladder.backtests:
        figures.append(_backtests(ladder))
    sentences = law_lines(ladder)
    if ladder.critical_batch is not None:
        sentences[-1] = batch_words(ladder.critical_batch)
    return Section("law", title, sentences, figures, tables)


def _backtests(ladder: Ladder) -> Figure:
    drawn, rows = [], []
    for test in ladder.backtests:
        name = f"{with_letter(test.params, 3)} at {with_letter(test.tokens, 3)}"
        off = test.measured / test.predicted.value - 1
        low, high = (
            end / test.predicted.value - 1 for end in (test.predicted.low, test.predicted.high)
        )
        drawn.append(Interval(name, off, low, high, f"{off:+.1%}"))
        rows.append((name, f"{test.times_compute:.1f}", f"{test.predicted.value:.3f}",
                     span(test.predicted, 3), f"{test.measured:.3f}", f"{off:+.1%}"))  # fmt: skip
    return Figure(
        "Larger runs, predicted from smaller ones: how far off they were",
        interval_chart(drawn),
        "Dots: measured over predicted loss less one; lines: what the interval let pass.",
        DataTable(("run", "times the compute", "predicted", "interval", "measured", "off"), rows),
    )


def _prediction_section(ladder: Ladder) -> Section:
    if ladder.prediction.bits_per_byte is None:
        return Section("prediction", "The large training")
    entries = [("as configured", ladder.prediction.bits_per_byte)]
    if ladder.best_plan is not None:
        entries.append(("best for this money", ladder.best_plan.bits_per_byte))
    drawn = [
        Interval(name, found.value, found.low, found.high, f"{found.value:.3f}")
        for name, found in entries
    ]
    drawn += [
        Interval(author(law), law.bits_per_byte, None, None,
                 f"{law.bits_per_byte:.3f}")
        for law in ladder.published
    ]  # fmt: skip
    rows = [(each.label, each.shown) for each in drawn]
    figure = Figure(
        "Expected bits per byte",
        interval_chart(drawn),
        f"Dots with intervals: {rows[0][1]} bits per byte are expected as configured.",
        DataTable(("", "bits per byte"), rows),
    )
    table = table_of_screen(prediction_table(ladder))
    sentence = (
        "The published laws are of other data, vocabularies and far larger models: an order of "
        "magnitude, for comparison."
    )
    if note := ladder.published[0].note:
        sentence += f" Of them {note}."
    return Section("prediction", "The large training", [sentence], [figure],
                   [("Configured, and best for its money", table)])  # fmt: skip


def _purchase_section(ladder: Ladder) -> Section:
    if not ladder.purchases:
        return Section("purchases", "The next purchase")
    best = ladder.purchases[0]
    first = (
        f"From the configured training on, {PURCHASE_WORDS[best.name]} lowers the loss most for a "
        f"dollar, in {best.wins:.0%} of the laws that the points leave open."
    )
    return Section(
        "purchases",
        "The next purchase",
        [first, text_price_words(ladder)],
        tables=[("One thing doubled", table_of_screen(purchase_table(ladder)))],
    )


def _method_section(ladder: Ladder) -> Section:
    held_out = ladder.held_out
    sentences = [
        f"Losses are of {count(held_out.documents)} held-out documents, {count(held_out.bytes)} "
        f"bytes; the tokens' frequencies alone cost {held_out.unigram_bits_per_byte:.3f} bits per "
        "byte on the eval split.",
        f"An interval covers what it is of in {ladder.level:.0%} of the cases: it holds the noise "
        "of one more training, what the points leave open of the constants, and what the form "
        "missed where runs were left out.",
        "A size is one training at a constant learning rate, from which branches decay at an "
        "eighth, a quarter, a half and all of its tokens.",
    ]
    return Section("method", "How it was measured", sentences)
