"""Heat maps of square matrices as SVG: one with words beside it, others small below."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.report.page.template import render

Matrix = Sequence[Sequence[float]]

_WIDTH, _LABELS, _GAP, _TITLE = 480, 92, 14.0, 20.0
_SMALL_IN_A_ROW = 4
_LABEL_CHARACTERS = 11
# Shades of the square root, so that small weights are seen beside a large one.
_SHADES = 20


class _Map(NamedTuple):
    title: str
    x: float
    y: float
    cell: float
    cells: int
    levels: list[tuple[str, str]]


def heat_maps(large: Matrix, small: Sequence[tuple[str, Matrix]], words: Sequence[str]) -> str:
    """Draw a matrix with its words, and others without them, as small pictures below.

    Args:
        large: Values from 0 to 1; row i and column i belong to word i.
        small: Matrices with their titles.
        words: As many as rows; one that is long is cut off.
    """
    count = len(words)
    cell = (_WIDTH - _LABELS) / max(count, 8)
    bottom = cell * count
    labels = [
        word if len(word) <= _LABEL_CHARACTERS else f"{word[: _LABEL_CHARACTERS - 1]}…"
        for word in words
    ]
    maps = [_Map("", float(_LABELS), 0.0, cell, count, _levels(large))]
    size = (_WIDTH - _GAP * (_SMALL_IN_A_ROW - 1)) / _SMALL_IN_A_ROW
    top = bottom + _LABELS + _TITLE
    for i, (title, matrix) in enumerate(small):
        row, column = divmod(i, _SMALL_IN_A_ROW)
        x, y = column * (size + _GAP), top + row * (size + _GAP + _TITLE)
        maps.append(_Map(title, x, y, size / count, count, _levels(matrix)))
    rows = -(-len(small) // _SMALL_IN_A_ROW)
    return render(
        "heat_maps.svg.j2",
        width=_WIDTH,
        height=round(top + rows * (size + _GAP + _TITLE)),
        rows=[(_LABELS - 6, round(cell * (i + 0.5) + 4), labels[i]) for i in range(count)],
        columns=[(round(_LABELS + cell * (i + 0.5) + 4), round(bottom + 6), labels[i])
                 for i in range(count)],
        maps=maps,
    )  # fmt: skip


def _levels(matrix: Matrix) -> list[tuple[str, str]]:
    """Return an opacity and a path for each shade that occurs; cells of one shade are one path."""
    cells: dict[int, list[str]] = {}
    for y, row in enumerate(matrix):
        for x, value in enumerate(row):
            shade = round(max(0.0, min(1.0, value)) ** 0.5 * _SHADES)
            if shade:
                cells.setdefault(shade, []).append(f"M{x} {y}h1v1h-1z")
    return [(f"{shade / _SHADES:g}", "".join(paths)) for shade, paths in sorted(cells.items())]
