"""What decodes Parquet and Arrow, in a process: a hostile file ends that, and not the run.

Arrow's C++ aborts (or reads where nothing is) on some files, and takes as much memory as a file of
a kilobyte asks for. Here both are errors of one file. A request is a path, the fields, and those
that are left out where there are several of a name; frames
(components/ingest/formats/process.py) are S, the schema, and B, a record batch as an Arrow stream.
"""

import io
import os
from collections.abc import Callable

import pyarrow as pa

_BATCH_ROWS = 64  # few: a dictionary page of some kB can stand for a long text in every row
_SENT_BYTES = 16 << 20  # at once, unless a row has more
_BUFFER_BYTES = 1 << 20  # pages as they come, not whole row groups
# What a column unpacks to in a row group, over what it takes in the file: text has 3 to 10.
_MAX_RATIO = 200
_SMALL_BYTES = 8 << 20
_MAX_ROWS_PER_BYTE = 1000


def answer(request: list, send: Callable[[bytes, bytes], None]) -> None:
    """Send the schema of a file, then its batches."""
    path, *fields = request
    with open(path, "rb") as opened:
        head = opened.read(8)
    if head[:4] == b"PAR1":
        _decode_parquet(path, fields, send)
        return
    with pa.memory_map(path) as source:  # as `datasets` writes them: a stream, else a file
        if head[:6] == b"ARROW1":
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            reader = batches = pa.ipc.open_stream(source)
        if columns := _columns(reader.schema, fields, send):
            for batch in batches:
                batch.validate()
                for start in range(0, batch.num_rows, _BATCH_ROWS):
                    _send(batch.slice(start, _BATCH_ROWS), columns, send)


def _decode_parquet(path: str, fields: list[list[str]], send) -> None:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES)
    columns = _columns(file.schema_arrow, fields, send)
    if not columns:
        return
    # Of short values, such as licenses, all may be the same: only the others are looked at.
    texts = [column for column in columns if column in fields[0]]
    if wrong := _out_of_proportion(file.metadata, texts, os.path.getsize(path)):
        raise ValueError(wrong)
    rows = 0
    for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
        rows += batch.num_rows
        _send(batch, columns, send)
    if rows != file.metadata.num_rows:
        raise ValueError(f"holds {rows:,} of the {file.metadata.num_rows:,} rows that it says")


def _columns(schema: pa.Schema, fields: list[list[str]], send) -> list[str]:
    """Send the schema, with what lies within structs by its path; return what is to be read.

    Nothing if one of the first fields is there more than once.
    """
    found = []
    pending = [(field.name, field.type) for field in reversed(schema)]
    while pending:
        name, kind = pending.pop()
        found.append((name, kind))
        if pa.types.is_struct(kind):
            inner = [(f"{name}.{kind[i].name}", kind[i].type) for i in range(kind.num_fields)]
            pending += reversed(inner)
    send(b"S", pa.schema(found).serialize().to_pybytes())
    names = [name for name, _ in found]
    required, optional = fields
    columns = [field for field in required if field in names]
    if any(names.count(field) > 1 for field in columns):
        return []
    others = [field for field in optional if names.count(field) == 1 and field not in columns]
    return columns + others


def _send(batch: pa.RecordBatch, columns: list[str], send) -> None:
    arrays = [_at(batch, column) for column in columns]
    batch = pa.RecordBatch.from_arrays(arrays, columns)
    few = max(1, batch.num_rows * _SENT_BYTES // max(1, batch.nbytes))
    for start in range(0, batch.num_rows, few):
        send(b"B", _stream(batch.slice(start, few)))


def _at(batch: pa.RecordBatch, column: str) -> pa.Array:
    """Return a column, which may lie within structs."""
    import pyarrow.compute as pc

    names = batch.schema.names
    if column in names:
        return batch.column(names.index(column))
    whole, _, rest = column.partition(".")
    while whole not in names:
        name, _, rest = rest.partition(".")
        whole += f".{name}"
    array = batch.column(names.index(whole))
    for name in rest.split("."):
        array = pc.struct_field(array, [array.type.get_field_index(name)])
    return array


def _out_of_proportion(metadata, columns: list[str], file_bytes: int) -> str:
    """Say which column unpacks to far more than text does, by the footer; empty for none."""
    if metadata.num_rows > _MAX_ROWS_PER_BYTE * file_bytes:
        return f"{metadata.num_rows:,} rows in {file_bytes:,} bytes"
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            packed, unpacked = column.total_compressed_size, column.total_uncompressed_size
            name = column.path_in_schema
            wanted = any(name == c or name.startswith(f"{c}.") for c in columns)
            if wanted and unpacked > max(_SMALL_BYTES, _MAX_RATIO * packed):
                return (
                    f"column {name!r} of row group {group} unpacks from {packed:,} to "
                    f"{unpacked:,} bytes: no text does"
                )
    return ""


def _stream(batch: pa.RecordBatch) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()
