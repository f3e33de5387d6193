"""value.html: the page of `tokenmill value`."""

from collections.abc import Iterator

from pipeline.report.measured import difference_words, multiplier_words, source_values_table
from pipeline.report.page.charts import Interval, Line, interval_chart, line_chart
from pipeline.report.page.content import (
    DataTable,
    Figure,
    Section,
    optional_tables,
    table_of_screen,
)
from pipeline.report.page.headline import BigNumber, Headline
from pipeline.report.page.template import render
from pipeline.report.value import (
    mean_loss,
    mixture_sentences,
    prices_table,
    sentences,
    sets_table,
    title,
    variants_table,
    weights_table,
)
from tokenmill.contracts.value import Value
from tokenmill.number_format import count, duration, usd

VALUE_PAGE_NAME = "value.html"
_CURVE_POINTS = 60


def render_value_page(value: Value) -> str:
    """Return the page; the same document gives the same bytes."""
    made = (_variants(value), _sources(value), _mixture(value), _curve(value), _held_out(value))
    sections = [section for section in made if not section.is_empty]
    return str(render("page.html.j2", head=_headline(value), sections=sections, index=""))


def _headline(value: Value) -> Headline:
    if value.sources:
        verdict = "What each source is worth"
    elif len(value.variants) == 2:
        other = value.variants[1]
        verdict = f"{other.name}: {other.verdict}"
    else:
        verdict = f"{len(value.variants)} variants, measured"
    numbers = [
        BigNumber(
            variant.name,
            multiplier_words(variant.multiplier),
            f"{difference_words(variant.differences.get('all'))} bits per byte: {variant.verdict}",
        )
        for variant in value.variants[1:4]
        if variant.verdict and not value.sources
    ]
    numbers.append(BigNumber("cost of measuring", usd(value.usd), duration(value.seconds)))
    return Headline("value", "", [f"{title(value)}."], "plain", verdict, [], numbers)


def _variants(value: Value) -> Section:
    """Show what was compared, and what it is worth."""
    others = [v for v in value.variants if v.verdict is not None]
    figures = []
    if others:
        intervals = [
            Interval(v.name, d.mean, d.low, d.high, f"{d.mean:+.3f}")
            for v in others
            if (d := v.differences.get("all")) is not None
        ]
        figures.append(
            Figure(
                f"Bits per byte less those of {value.reference}",
                interval_chart(intervals),
                "Dots with intervals, below 0 better: "
                + "; ".join(f"{v.name} {difference_words(v.differences['all'])}" for v in others),
                table_of_screen(variants_table(value)),
            )
        )
    changes = [
        (v.name, "; ".join(v.changes) or "the configuration as it is") for v in value.variants
    ]
    tables = optional_tables(
        [
            ("Variants", variants_table(value)),
            ("What the gain costs, USD per million tokens", prices_table(value)),
            ("Difference by held-out set", sets_table(value)),
        ]
    )
    tables.append(("What each variant is", DataTable(("variant", "what it changes"), changes)))
    return Section("variants", "Variants", list(sentences(value)), figures, tables)


def _sources(value: Value) -> Section:
    if not value.sources:
        return Section("sources", "Sources")
    table = table_of_screen(source_values_table(value.sources))
    return Section(
        "sources",
        "What each source is worth",
        [
            "Without a source, as many tokens are read of the others. What one of its tokens is "
            "worth, in tokens of the whole mixture, follows from what the text without it is worth."
        ],
        tables=[("Sources", table)],
    )  # fmt: skip


def _mixture(value: Value) -> Section:
    if (mixture := value.mixture) is None:
        return Section("mixture", "Mixture")
    names = list(mixture.natural)
    rows = [
        (*(f"{run.weights[name]:.1%}" for name in names), f"{run.bits_per_byte:.4f}")
        for run in sorted(mixture.runs, key=lambda run: run.bits_per_byte)
    ]
    tables = [
        ("Natural and proposed shares", table_of_screen(weights_table(mixture))),
        ("Random mixtures, the best first", DataTable((*names, "bits per byte"), rows)),
    ]
    said = [*mixture_sentences(mixture), f"The regression: {mixture.regression}."]
    return Section("mixture", "Mixture of the sources", said, tables=tables)


def _curve(value: Value) -> Section:
    """Draw the reference's loss by its tokens, with the variants' points."""
    points = [(p.loss_tokens, p.bits_per_byte) for p in value.curve_points]
    lines = [Line(value.reference, points, dots=True)]
    if value.curve is not None:
        low, high = points[0][0], points[-1][0]
        xs = [low * (high / low) ** (i / _CURVE_POINTS) for i in range(_CURVE_POINTS + 1)]
        curve = value.curve
        lines.append(Line("its curve", [(x, curve.e + curve.b / x**curve.beta) for x in xs]))
    for variant in value.variants[1:7]:
        tokens = sum(run.loss_tokens for run in variant.runs) / len(variant.runs)
        lines.append(Line(variant.name, [(tokens, mean_loss(variant))], dots=True))
    svg, legend = line_chart(lines, "loss tokens", lambda y: f"{y:.2f}")
    rows = [(count(x), f"{y:.4f}") for x, y in points]
    said = "no curve lies through its points"
    if value.curve is not None:
        said = f"E {value.curve.e:.3f}, B {value.curve.b:.4g}, beta {value.curve.beta:.3f}"
    return Section(
        "curve",
        "How the loss falls with tokens",
        figures=[
            Figure(
                f"Loss of {value.reference} by tokens",
                svg,
                f"Dots and a curve: bits per byte fall with tokens; {said}.",
                DataTable(("loss tokens", "bits per byte"), rows),
                legend,
            )
        ],
    )


def _held_out(value: Value) -> Section:
    rows = [
        (name, count(each.documents), count(each.bytes), each.origin)
        for name, each in value.held_out.items()
    ]
    table = DataTable(("set", "documents", "bytes", "origin"), rows)
    runs = DataTable(
        ("variant", "seed", "loss tokens", "bits per byte", "time"), list(_runs(value))
    )
    return Section(
        "held-out", "Held-out texts and trainings", tables=[("Sets", table), ("Trainings", runs)]
    )


def _runs(value: Value) -> Iterator[tuple[str, ...]]:
    for variant in value.variants:
        for run in variant.runs:
            yield (
                variant.name,
                str(run.seed),
                count(run.loss_tokens),
                f"{run.bits_per_byte['all']:.4f}",
                duration(run.seconds),
            )
