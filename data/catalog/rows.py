"""Rows of the CSV files beside this module, with errors that say where."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path


class Row:
    """One row of a CSV file, whose errors say where it stands."""

    def __init__(self, file: Path, line: int, cells: dict[str, str]):
        self.file, self.line, self.cells = file, line, cells

    def text(self, column: str) -> str:
        """Return a cell, stripped; empty where it is unknown."""
        try:
            return (self.cells[column] or "").strip()
        except KeyError:
            raise ValueError(
                f"{self.file.name}: column {column!r} = missing: expected it in the heading; "
                "restore the file from version control."
            ) from None

    def number(self, column: str) -> float | None:
        """Return a positive number; None where it is unknown."""
        text = self.text(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < float("inf"):
            raise ValueError(
                f"{self.file.name} line {self.line}: {column} = {text!r}: expected a positive "
                "number, or nothing where it is unknown; correct the file."
            )
        return value

    def needed(self, column: str) -> float:
        """Return a positive number that must be there."""
        value = self.number(column)
        if value is None:
            raise ValueError(
                f"{self.file.name} line {self.line}: {column} = '': expected a positive number; "
                "fill it in with its source."
            )
        return value

    def whole(self, column: str) -> int | None:
        """Return a positive number without its fraction; None where it is unknown."""
        value = self.number(column)
        return None if value is None else int(value)


def read_rows(file: Path) -> Iterator[Row]:
    """Read the rows of a CSV file with a heading, in its order."""
    with file.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        for cells in reader:
            if None in cells:
                raise ValueError(
                    f"{file.name} line {reader.line_num}: {len(cells[None])} cells more than the "
                    "heading has: expected one a column; quote the cell that has a comma in it."
                )
            yield Row(file, reader.line_num, cells)


def times(value: float | None, factor: float) -> float | None:
    """Multiply a number by a factor; None stays None."""
    return None if value is None else value * factor


def slug_of(name: str) -> str:
    """Make a short lower-case name with dashes, without what stands in brackets."""
    plain = re.sub(r"\(.*?\)", "", name).strip().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def catalog_file(name: str) -> Path:
    """Return the path of a table of this folder, such as "hardware.csv"."""
    return Path(__file__).with_name(name)
