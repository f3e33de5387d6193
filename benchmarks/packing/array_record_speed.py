"""Rows at random from array_record files, to compare with ours; run it in a venv of its own.

python -m venv V && V/bin/pip install array_record==0.8.1
V/bin/python benchmarks/packing/array_record_speed.py SPLIT

SPLIT is a directory of packed rows (Split-train). The rows are written to array_record files and
read in batches of 16 in a random order; best of five rounds. Ours: benchmarks/packing/measure.py.
"""

import os
import pathlib
import random
import struct
import sys
import tempfile
import time

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

BATCH = 16


def records(directory: str) -> list[bytes]:
    """The payloads of all TFRecord files, without TensorFlow."""
    found = []
    for path in sorted(pathlib.Path(directory).glob("*.tfrecord")):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (size,) = struct.unpack_from("<Q", data, place)
            found.append(data[place + 12 : place + 12 + size])
            place += size + 16
    return found


def main() -> None:
    rows = records(sys.argv[1])
    order = list(range(len(rows)))
    random.Random(1).shuffle(order)
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    for options in ("group_size:1,uncompressed", "group_size:1", "group_size:16"):
        with tempfile.TemporaryDirectory() as home:
            path = os.path.join(home, "rows.array_record")
            writer = ArrayRecordWriter(path, options)
            for row in rows:
                writer.write(row)
            writer.close()
            reader = ArrayRecordReader(path)
            best = float("inf")
            for _ in range(5):
                started = time.process_time()
                for batch in batches:
                    reader.read(batch)
                best = min(best, time.process_time() - started)
            microseconds = 1e6 * best / len(rows)
            size = os.path.getsize(path)
            print(f"{options}: {len(rows)} rows, {size} bytes, {microseconds:.1f} CPU us a row")


if __name__ == "__main__":
    main()
