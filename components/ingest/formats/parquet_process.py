"""The process that decodes Parquet files: damaged or hostile ones end it, and not the run.

Arrow's C++ aborts (or reads where nothing is) on some files, and takes as much memory as a file of
a kilobyte asks for. Here both are errors of one file. A request is a path and the fields; frames
(components/ingest/formats/process.py) are S, the schema, and B, a record batch as an Arrow stream.
"""

import io
import json
import os
import resource
import signal
import struct
import sys

import pyarrow as pa

_FRAME = struct.Struct("<Qc")
_BATCH_ROWS = 64  # few: a dictionary page of some kB can stand for a long text in every row
_SENT_BYTES = 16 << 20  # at once, unless a row has more
_BUFFER_BYTES = 1 << 20  # pages as they come, not whole row groups
_MAX_MEMORY_BYTES = 3 << 30
# What a column unpacks to in a row group, over what it takes in the file: text has 3 to 10.
_MAX_RATIO = 200
_SMALL_BYTES = 8 << 20
_MAX_ROWS_PER_BYTE = 1000


def _decode(path: str, fields: list[str], send) -> None:
    """Send the batches of a file, in the process."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES)
    schema = file.schema_arrow
    send(b"S", schema.remove_metadata().serialize().to_pybytes())
    columns = [field for field in fields if field in schema.names]
    if not columns or any(schema.names.count(field) > 1 for field in columns):
        return
    if wrong := _out_of_proportion(file.metadata, columns, os.path.getsize(path)):
        raise ValueError(wrong)
    rows = 0
    for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
        rows += batch.num_rows
        few = max(1, batch.num_rows * _SENT_BYTES // max(1, batch.nbytes))
        for start in range(0, batch.num_rows, few):
            send(b"B", _stream(batch.slice(start, few)))
    if rows != file.metadata.num_rows:
        raise ValueError(f"holds {rows:,} of the {file.metadata.num_rows:,} rows that it says")


def _out_of_proportion(metadata, columns: list[str], file_bytes: int) -> str:
    """Say which column unpacks to far more than text does, by the footer; empty for none."""
    if metadata.num_rows > _MAX_ROWS_PER_BYTE * file_bytes:
        return f"{metadata.num_rows:,} rows in {file_bytes:,} bytes"
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            packed, unpacked = column.total_compressed_size, column.total_uncompressed_size
            name = column.path_in_schema.split(".")[0]
            if name in columns and unpacked > max(_SMALL_BYTES, _MAX_RATIO * packed):
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


def main() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; then the input ends
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = sys.stdout.buffer

    def send(kind: bytes, data: bytes) -> None:
        answers.write(_FRAME.pack(len(data), kind))
        answers.write(data)
        answers.flush()

    for line in sys.stdin:
        path, fields = json.loads(line)
        try:
            _decode(path, fields, send)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
            send(b"E", f"{kind}{error}"[:400].encode())
        else:
            send(b"D", b"")


if __name__ == "__main__":
    main()
