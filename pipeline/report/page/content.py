"""What a section of the page is made of: sentences, figures with their data, tables, texts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

NAME_CHARACTERS = 120
"""Characters of a name in a cell or a label: a source or an id may be of any length."""


class DataTable(NamedTuple):
    """A table of the page; all cells are text as a person reads it.

    Attributes:
        headings: Of the columns; the first column holds names.
        rows: As many cells each.
        caption: A sentence below it; empty for none.
        links: Address by row and column, of cells that are links.
    """

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""
    links: dict[tuple[int, int], str] = {}


class Legend(NamedTuple):
    """What a color of a figure means."""

    name: str
    color: int


@dataclass(frozen=True)
class Figure:
    """A picture with its text alternative and its data.

    Attributes:
        title: What it shows.
        svg: The picture, markup.
        alternative: What a reader who does not see it is told.
        data: Its numbers.
        legend: What the colors mean; empty for one color.
    """

    title: str
    svg: str
    alternative: str
    data: DataTable
    legend: tuple[Legend, ...] = ()


class Excerpt(NamedTuple):
    """The beginning of a document, with what is said of it."""

    heading: str
    facts: tuple[str, ...]
    text: str


class Unfolding(NamedTuple):
    """What stands behind a line that can be unfolded: excerpts, or a long text."""

    summary: str
    excerpts: tuple[Excerpt, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: Its name in addresses.
        title: Its heading.
        sentences: Paragraphs below the heading.
        figures: Pictures.
        tables: Titles and tables.
        unfoldings: What can be unfolded.
    """

    anchor: str
    title: str
    sentences: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[tuple[str, DataTable]] = ()
    unfoldings: Sequence[Unfolding] = field(default=())

    @property
    def is_empty(self) -> bool:
        """Return whether the section has nothing to show."""
        return not (self.sentences or self.figures or self.tables or self.unfoldings)


def table_of_screen(table: Table) -> DataTable:
    """Return a table of the screen as one of the page, so that no number is computed twice."""
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    return DataTable(
        headings=tuple(_plain(column.header) for column in table.columns),
        rows=[tuple(cells) for cells in zip(*columns, strict=True)],
        caption=_plain(table.caption or ""),
    )


def optional_tables(pairs: Iterable[tuple[str, Table | None]]) -> list[tuple[str, DataTable]]:
    """Return the tables of the screen that have rows, with their titles."""
    return [(title, table_of_screen(table)) for title, table in pairs if table and table.row_count]


def _plain(cell: object) -> str:
    """Return a cell without rich's markup; the indentation that shows a part of a sum stays."""
    text = cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
    shown = text.lstrip(" ")
    return "\u2003" * min(2, (len(text) - len(shown) + 1) // 2) + shown


def shorten(text: str, characters: int = NAME_CHARACTERS) -> str:
    """Return a text, or its beginning and how long it is."""
    if len(text) <= characters:
        return text
    return f"{text[:characters]}… ({len(text):,} characters)"


def words(name: str) -> str:
    """Return a key such as near_duplicate as words."""
    return name.replace("_", " ")
