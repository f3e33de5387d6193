"""CSV and TSV (RFC 4180): a header row, then a document a row; quoted line feeds are text."""

import csv
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from components.ingest.config import CorpusConfig
from components.ingest.conversations import conversations_of
from components.ingest.declared import DeclaredFields
from components.ingest.encoding import BOM
from components.ingest.file_names import bare_suffix
from components.ingest.lines import TooLong, bounded_lines
from components.ingest.manifest import InputFile
from components.ingest.records import (
    Document,
    default_source,
    file_id,
    make_document,
    missing_text,
    to_bytes,
    too_large,
    wrong_columns,
)
from tokenmill.contracts.ingest import BadRecord

_MAX_FIELD = 2**31 - 1  # of the csv module; `_Lines` bounds the row


class _LineTooLong(Exception):
    def __init__(self, number: int, size_bytes: int):
        super().__init__()
        self.number = number
        self.size_bytes = size_bytes


class _Lines:
    """The lines that csv.reader pulls; those of the current row can be put back.

    A quote that is never closed would else swallow the rest of the file: its row is given up, and
    reading starts again with the line after the one that the row began in.
    """

    def __init__(self, handle: BinaryIO, max_bytes: int):
        self._source = enumerate(bounded_lines(handle, max_bytes), start=1)
        self._max_bytes = max_bytes
        self._again: deque[tuple[int, str]] = deque()
        self._row: list[tuple[int, str]] = []
        self._size = 0
        self.has_bom = False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self._again:
            number, text = self._again.popleft()
        else:
            number, line = next(self._source)
            if isinstance(line, TooLong):
                raise _LineTooLong(self._row[0][0] if self._row else number, line.size_bytes)
            if number == 1 and line.startswith(BOM):
                line, self.has_bom = line[len(BOM) :], True
            # Bytes that are not UTF-8 pass through, for the field's own repair.
            text = line.decode("utf-8", "surrogateescape") + "\n"
        self._row.append((number, text))
        self._size += len(text)
        if "\0" in text:  # Python 3.11 and newer would take it
            raise csv.Error("line contains NUL")
        if self._size > self._max_bytes and len(self._row) > 1:
            raise csv.Error(f"a quote is open for more than {self._max_bytes:,} characters")
        return text

    def begin_row(self) -> None:
        """Forget the lines of the row before."""
        self._row = []
        self._size = 0

    def give_up_row(self) -> None:
        """Put back the lines of the current row, but for the first."""
        self._again.extendleft(reversed(self._row[1:]))

    @property
    def first_line(self) -> int:
        """Number of the line that the current row began in."""
        return self._row[0][0]

    @property
    def first_size(self) -> int:
        """Length of that line."""
        return len(self._row[0][1])

    @property
    def row_size(self) -> int:
        """Length of the current row."""
        return self._size


def read_delimited(
    handle: BinaryIO, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord]:
    """Yield a document for each row; rows that do not fit the header are bad records."""
    csv.field_size_limit(_MAX_FIELD)
    lines = _Lines(handle, settings.max_record_bytes)
    is_tsv = bare_suffix(file.path) == ".tsv"
    reader = csv.reader(lines, delimiter="\t" if is_tsv else settings.csv_delimiter, strict=True)
    source_name, name = default_source(file), file_id(file)
    header: list[str] = []
    declared_fields, declared_at = DeclaredFields(settings), {}
    conversations = conversations_of(settings)
    content_at: dict[str, int] = {}
    text_at = 0
    id_at = source_at = label_at = -1
    repaired: tuple[str, ...] = ()
    while True:
        lines.begin_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except _LineTooLong as error:
            number = error.number if header else 0  # without a header the file is lost
            yield too_large(file, number, error.size_bytes, settings)
            row = []
            if not header:
                return
        except csv.Error as error:
            size = lines.first_size
            number = lines.first_line if header else 0
            yield BadRecord(file.path, number, "malformed_row", str(error)[:500], size)
            if not header:
                return  # without it, no column has a name
            lines.give_up_row()
            row = []
        if not row:
            continue
        number = lines.first_line
        if not header:
            header = [column.strip() for column in row]
            others = (settings.id_field, settings.source_field, settings.label_field)
            if wrong := wrong_columns(header, settings.content_fields, others):
                yield missing_text(file, 0, file.size_bytes, wrong)
                return
            content_at = {field: header.index(field) for field in settings.content_fields}
            text_at = content_at[settings.content_fields[0]]
            if settings.id_field in header:
                id_at = header.index(settings.id_field)
            if settings.source_field in header:
                source_at = header.index(settings.source_field)
            if settings.label_field and settings.label_field in header:
                label_at = header.index(settings.label_field)
            # Of two columns of a name nobody knows which is meant.
            declared_at = {
                field: header.index(field)
                for field in declared_fields.names
                if header.count(field) == 1
            }
            repaired = ("bom",) if lines.has_bom else ()
            continue
        if len(row) != len(header):
            detail = f"{len(row)} fields, the header has {len(header)}"
            yield BadRecord(file.path, number, "malformed_row", detail, lines.row_size)
            continue
        origin = (
            (to_bytes(row[id_at]) if id_at >= 0 else None) or b"%b:%d" % (name, number),
            (to_bytes(row[source_at]) if source_at >= 0 else None) or source_name,
            file,
            number,
        )
        label = to_bytes(row[label_at]) if label_at >= 0 else None
        declared = declared_fields.read({field: row[at] for field, at in declared_at.items()}.get)
        if conversations is not None:
            value_of = {field: row[at] for field, at in content_at.items()}.get
            yield conversations.document(
                value_of, *origin, lines.row_size, repaired, label, declared
            )
        else:
            text = row[text_at].encode("utf-8", "surrogateescape")
            yield make_document(text, *origin, settings, repaired, label, declared)
        repaired = ()  # the mark is the file's: counted once, with its first document
