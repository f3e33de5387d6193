"""Heat maps as SVG: a square matrix with words beside it, and small ones in rows."""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.report.page.template import render

Matrix = Sequence[Sequence[float]]

_WIDTH, _LABELS, _GAP, _TITLE = 480, 92, 14.0, 20.0
_SMALL_IN_A_ROW = 4
_LABEL_CHARACTERS = 11
_SHADES = 20
# Of weights, shades of the square root, so that small ones are seen beside a large one.
_OF_WEIGHTS, _OF_SHARES = 0.5, 1.0


class _Map(NamedTuple):
    title: str
    x: float
    y: float
    cell: tuple[float, float]
    columns: int
    rows: int
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
    maps = [_Map("", float(_LABELS), 0.0, (cell, cell), count, count, _levels(large, _OF_WEIGHTS))]
    below, height = _small_maps(small, bottom + _LABELS, _OF_WEIGHTS)
    return render(
        "heat_maps.svg.j2",
        width=_WIDTH,
        height=height,
        rows=[(_LABELS - 6, round(cell * (i + 0.5) + 4), labels[i]) for i in range(count)],
        columns=[(round(_LABELS + cell * (i + 0.5) + 4), round(bottom + 6), labels[i])
                 for i in range(count)],
        maps=[*maps, *below],
    )  # fmt: skip


def small_heat_maps(maps: Sequence[tuple[str, Matrix]]) -> str:
    """Draw matrices of any shape as small pictures of one size, four in a row.

    Args:
        maps: Matrices with their titles; values from 0 to 1.
    """
    drawn, height = _small_maps(maps, 0.0, _OF_SHARES)
    return render("heat_maps.svg.j2", width=_WIDTH, height=height, rows=[], columns=[], maps=drawn)


def _small_maps(
    small: Sequence[tuple[str, Matrix]], top: float, power: float
) -> tuple[list[_Map], int]:
    """Place small pictures below `top`; return them and where they end."""
    size = (_WIDTH - _GAP * (_SMALL_IN_A_ROW - 1)) / _SMALL_IN_A_ROW
    top += _TITLE
    maps = []
    for i, (title, matrix) in enumerate(small):
        row, column = divmod(i, _SMALL_IN_A_ROW)
        x, y = column * (size + _GAP), top + row * (size + _GAP + _TITLE)
        columns, rows = len(matrix[0]), len(matrix)
        cell = size / columns, size / rows
        maps.append(_Map(title, x, y, cell, columns, rows, _levels(matrix, power)))
    rows_of_maps = -(-len(small) // _SMALL_IN_A_ROW)
    return maps, round(top + rows_of_maps * (size + _GAP + _TITLE))


def _levels(matrix: Matrix, power: float) -> list[tuple[str, str]]:
    """Return an opacity and a path for each shade that occurs; cells of one shade are one path."""
    cells: dict[int, list[str]] = {}
    for y, row in enumerate(matrix):
        for x, value in enumerate(row):
            shade = round(max(0.0, min(1.0, value)) ** power * _SHADES)
            if shade:
                cells.setdefault(shade, []).append(f"M{x} {y}h1v1h-1z")
    return [(f"{shade / _SHADES:g}", "".join(paths)) for shade, paths in sorted(cells.items())]
