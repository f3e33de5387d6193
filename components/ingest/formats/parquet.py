"""Parquet and Arrow: a document a row."""

import datetime
from collections.abc import Iterator

import pyarrow as pa

from components.ingest.config import CorpusConfig
from components.ingest.conversations import conversations_of
from components.ingest.declared import DeclaredFields
from components.ingest.formats import parquet_process
from components.ingest.formats.process import ProcessDied, ask
from components.ingest.manifest import InputFile
from components.ingest.records import (
    Document,
    default_source,
    file_id,
    make_document,
    missing_text,
    source_or_none,
    to_bytes,
    wrong_columns,
)
from tokenmill.contracts.ingest import BadRecord

_EPOCH = datetime.datetime(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}


def read_parquet(
    path: str, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord]:
    """Yield a document for each row of a local file, `path`."""
    conversations = conversations_of(settings)
    content = settings.content_fields
    others = (settings.id_field, settings.source_field, settings.label_field)
    fields = (*content, *others)
    declared_fields = DeclaredFields(settings)
    declared_names = tuple(sorted(declared_fields.names))
    named = tuple(field for field in dict.fromkeys(fields) if field)
    batches = _decode(path, named, declared_names)
    schema = next(batches)
    wrong = wrong_columns(schema.names, content, others)
    if not wrong and settings.messages_field is None:
        wrong = next(filter(None, (_wrong_type(schema, field) for field in content)), "")
    if wrong:
        yield missing_text(file, 0, file.size_bytes, wrong)
        for _ in batches:  # no rows: the process is free again
            pass
        return
    source_name, name = default_source(file), file_id(file)
    row = 0
    for batch in batches:
        columns_of_batch = (_values(batch, field) for field in others)
        contents = {field: _content(batch, field) for field in content}
        declared_columns = {field: _values(batch, field) for field in declared_names}
        if declared_fields.date in batch.schema.names:
            declared_columns[declared_fields.date] = _dates(batch, declared_fields.date)
        for place, (doc_id, source, label) in enumerate(zip(*columns_of_batch, strict=True)):
            row += 1
            text = contents[content[0]][place]
            if text is None:
                detail = f"null in column {content[0]!r}"
                yield missing_text(file, row, 0, detail)
                continue
            origin = (
                to_bytes(doc_id) or b"%b:%d" % (name, row),
                source_or_none(source) or source_name,
                file,
                row,
            )
            declared = declared_fields.read({f: c[place] for f, c in declared_columns.items()}.get)
            if conversations is not None:
                value_of = {field: column[place] for field, column in contents.items()}.get
                yield conversations.document(
                    value_of, *origin, 0, label=to_bytes(label), declared=declared
                )
                continue
            yield make_document(text, *origin, settings, label=to_bytes(label), declared=declared)


def _decode(
    path: str, fields: tuple[str, ...], optional: tuple[str, ...]
) -> Iterator[pa.Schema | pa.RecordBatch]:
    """Yield the schema of a local file, then its columns `fields` in small batches.

    No batches come if one of `fields` is there more than once; of `optional`, such a field is left
    out.

    Raises:
        ValueError: The file cannot be decoded, or decoding it ended the process.
    """
    try:
        for kind, data in ask(parquet_process.__file__, (path, fields, optional)):
            if kind == b"S":
                yield pa.ipc.read_schema(pa.py_buffer(data))
            else:
                yield from pa.ipc.open_stream(data)
    except ProcessDied as died:
        raise ValueError(
            f"Arrow's reader died of it ({died}): damaged, or made to unpack to gigabytes"
        ) from None


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_binary,
        pa.types.is_large_binary,
    )
    return any(check(kind) for check in checks)


def _wrong_type(schema: pa.Schema, field: str) -> str:
    """Say that the text column holds no text, or nothing."""
    kind = schema.field(field).type
    return "" if _is_text(kind) else f"column {field!r} is {kind}, not text"


def _content(batch: pa.RecordBatch, field: str) -> list:
    """Return a column of texts as bytes, one of conversations as lists of objects."""
    column = batch.column(batch.schema.get_field_index(field))
    nested = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    return column.to_pylist() if nested else _values(batch, field)


def _dates(batch: pa.RecordBatch, field: str) -> list:
    """Return a column as `_values` does, but dates and timestamps in ISO 8601, to the second."""
    column = batch.column(batch.schema.get_field_index(field))
    kind = column.type
    if pa.types.is_date32(kind):
        days = column.cast(pa.int32()).to_pylist()
        return [day if day is None else _iso(day * 86_400, "")[:10] for day in days]
    if not (pa.types.is_timestamp(kind) or pa.types.is_date64(kind)):
        return _values(batch, field)
    per_second = _PER_SECOND[kind.unit] if pa.types.is_timestamp(kind) else 1000
    zone = "Z" if pa.types.is_timestamp(kind) and kind.tz else ""  # stored as UTC
    numbers = column.cast(pa.int64()).to_pylist()
    return [number if number is None else _iso(number // per_second, zone) for number in numbers]


def _iso(seconds: int, zone: str) -> str:
    """Return the time so many seconds after 1970; empty for one beyond Python's years."""
    try:
        return (_EPOCH + datetime.timedelta(seconds=seconds)).isoformat() + zone
    except OverflowError:
        return ""


def _values(batch: pa.RecordBatch, field: str | None) -> list:
    """Return a column as bytes, numbers, bools and None."""
    index = batch.schema.get_field_index(field) if field else -1
    if index < 0:
        return [None] * batch.num_rows
    column = batch.column(index)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):  # as bytes: what is declared a string need not be UTF-8
        return column.cast(pa.large_binary()).to_pylist()
    kinds = (
        pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating, pa.types.is_decimal
    )  # fmt: skip
    is_plain = any(is_kind(column.type) for is_kind in kinds)
    return column.to_pylist() if is_plain else [None] * batch.num_rows
