"""Files for the ingest tests: bytes of each format made by hand, and a reader of one file."""

import csv
import io
import struct

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from components.ingest.config import CorpusConfig
from components.ingest.manifest import list_inputs
from components.ingest.readers import read_file
from components.ingest.records import Document
from tokenmill.contracts.ingest import BadRecord

MEGABYTE = 1_000_000


def read(path, data=None, max_document_bytes=10 * MEGABYTE, **keys):
    """Writes `data`, reads the file: (documents, bad records)."""
    if data is not None:
        path.write_bytes(data)
    read_settings = CorpusConfig(max_document_bytes=max_document_bytes, eval_fraction=0.05, **keys)
    items = list(read_file(list_inputs([str(path)])[0], read_settings))
    documents = [item for item in items if isinstance(item, Document)]
    return documents, [item for item in items if isinstance(item, BadRecord)]


def csv_bytes(*rows, **options):
    """Rows as the csv module writes them."""
    out = io.StringIO(newline="")
    csv.writer(out, **options).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogateescape")


def parquet_bytes(columns, **options):
    """A Parquet file of these columns."""
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def masked(data):
    """TFRecord's checksum, written out anew from TensorFlow's crc32c.h."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) % 2**32)


def framed(data):
    """One record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def example(**features):
    """A serialized tf.Example of strings, bytes, whole numbers, or lists of these."""
    message = tf.train.Example()
    for name, value in features.items():
        for single in value if isinstance(value, list) else [value]:
            if isinstance(single, int):
                message.features.feature[name].int64_list.value.append(single)
            else:
                single = single.encode() if isinstance(single, str) else single
                message.features.feature[name].bytes_list.value.append(single)
    return message.SerializeToString()
