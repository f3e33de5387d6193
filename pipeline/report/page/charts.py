"""Charts as SVG that take their colors from the page, in light and in dark, on a screen and paper.

Templates of our own, not matplotlib: its colors are fixed, and a chart of it is ten times as large.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.text import Text

from pipeline.report.page.content import Legend
from pipeline.report.page.template import render

COLORS = 8
"""Colors of the page, --c0 to --c7."""

_WIDTH = 480
_LABEL_WIDTH = 176
_VALUE_WIDTH = 96
_ROW_HEIGHT = 26
_LABEL_CHARACTERS = 22
_TICKS = 5
_DOT_RADIUS = 4.0
# Where an interval is much wider than the values lie apart, it is cut off, or they would not be.
_MOST_OF_SPAN = 2.0


class Line(NamedTuple):
    """A curve: points by x, drawn as a line or as dots.

    Attributes:
        name: What it is.
        points: Its points.
        dots: Whether they are dots.
        weights: What a dot stands for, by which its area grows; empty for dots of one size.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False
    weights: Sequence[float] = ()


class Bar(NamedTuple):
    """A bar: its label, its parts from the left, and the number that is written beside it."""

    label: str
    parts: Sequence[float]
    value: str


class Interval(NamedTuple):
    """A value with its confidence interval; None where there is none."""

    label: str
    value: float
    low: float | None
    high: float | None
    shown: str


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    show_y: Callable[[float], str],
    from_zero: bool = False,
    show_x: Callable[[float], str] | None = None,
) -> tuple[str, tuple[Legend, ...]]:
    """Draw curves over one axis.

    Args:
        lines: The curves; those without a finite point are left out.
        x_label: What the horizontal axis counts.
        show_y: Writes a value of the vertical axis.
        from_zero: Whether the vertical axis begins at 0.
        show_x: Writes a value of the horizontal axis; None if it counts.

    Returns:
        The picture, and what its colors mean.
    """
    left, top, width, height = 54.0, 10.0, _WIDTH - 74.0, 190.0
    finite = [
        line._replace(points=[p for p in line.points if all(map(math.isfinite, p))])
        for line in lines
    ]
    drawn = [(i, line) for i, line in enumerate(finite) if line.points]
    xs = [x for _, line in drawn for x, _ in line.points]
    ys = [y for _, line in drawn for _, y in line.points]
    x_ticks = ticks(min(xs), max(xs), whole=show_x is None)
    y_ticks = ticks(0 if from_zero else min(ys), max(ys))
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-12)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        return left + across * width, top + height - (y - y_low) / (y_high - y_low) * height

    svg = render(
        "lines.svg.j2",
        width=_WIDTH,
        height=top + height + 40,
        left=left,
        bottom=top + height,
        right=left + width,
        x_ticks=[(place(x, y_low)[0], show_x(x) if show_x else f"{x:,.0f}") for x in x_ticks
                 if x_low <= x <= x_high],
        y_ticks=[(place(x_low, y)[1], show_y(y)) for y in y_ticks],
        lines=[(i % COLORS, line.dots or len(line.points) == 1,
                [(*place(*p), radius) for p, radius in zip(line.points, _radii(line), strict=True)])
               for i, line in drawn],
        x_label=x_label,
    )  # fmt: skip
    return svg, tuple(Legend(line.name, i % COLORS) for i, line in drawn if len(drawn) > 1)


def _radii(line: Line) -> list[float]:
    """Return the radius of each dot of a line."""
    if not line.weights:
        return [_DOT_RADIUS] * len(line.points)
    most = max(line.weights)
    return [_DOT_RADIUS / 2 + 2 * _DOT_RADIUS * math.sqrt(each / most) for each in line.weights]


def bar_chart(bars: Sequence[Bar], colors: Sequence[int] | None = None) -> str:
    """Draw horizontal bars, one below the other, each with its number.

    Args:
        bars: The bars; their parts are drawn beside each other.
        colors: Color of each bar, where the colors tell bars and not parts apart.
    """
    longest = max((sum(bar.parts) for bar in bars), default=0) or 1
    scale = (_WIDTH - _LABEL_WIDTH - _VALUE_WIDTH) / longest
    rows = []
    for i, bar in enumerate(bars):
        x, parts = float(_LABEL_WIDTH), []
        for k, part in enumerate(bar.parts):
            if part > 0:
                color = colors[i] if colors else k % COLORS
                parts.append((x, max(part * scale, 0.5), color))
                x += part * scale
        label = shorten_label(bar.label)
        rows.append((i * _ROW_HEIGHT, label, parts, max(x, float(_LABEL_WIDTH)) + 6, bar.value))
    return render(
        "bars.svg.j2", width=_WIDTH, height=len(bars) * _ROW_HEIGHT, rows=rows,
        label_right=_LABEL_WIDTH - 8,
    )  # fmt: skip


def interval_chart(intervals: Sequence[Interval]) -> str:
    """Draw values as dots with their intervals; an interval that leaves the picture is cut off."""
    values = [each.value for each in intervals]
    span = max(max(values) - min(values), abs(max(values)) * 0.1, 1e-9) * _MOST_OF_SPAN
    lows = [max(min(values) - span, x) for each in intervals if (x := each.low) is not None]
    highs = [min(max(values) + span, x) for each in intervals if (x := each.high) is not None]
    low, high = min([*values, *lows]), max([*values, *highs])
    margin = ((high - low) or abs(high) or 1.0) * 0.04
    low, high = low - margin, high + margin
    scale = (_WIDTH - _LABEL_WIDTH - _VALUE_WIDTH) / (high - low)

    def place(x: float) -> float:
        return _LABEL_WIDTH + (min(max(x, low), high) - low) * scale

    rows = [
        (
            i * _ROW_HEIGHT,
            shorten_label(each.label),
            None if each.low is None or each.high is None else (place(each.low), place(each.high)),
            place(each.value),
            each.shown,
        )
        for i, each in enumerate(intervals)
    ]
    return render(
        "intervals.svg.j2", width=_WIDTH, height=len(rows) * _ROW_HEIGHT, rows=rows,
        label_right=_LABEL_WIDTH - 8, value_left=_WIDTH - _VALUE_WIDTH + 8,
    )  # fmt: skip


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Return some round numbers from at or below `low` to at or above `high`."""
    if high <= low:
        low, high = (low - 0.5, low + 0.5) if low else (0.0, 1.0)
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(first, last + 1)]


def shorten_label(label: str) -> str:
    """Return a label that fits beside a bar; a wide character, such as 語, takes two places."""
    shown = Text(label)
    shown.truncate(_LABEL_CHARACTERS, overflow="ellipsis")
    return shown.plain
