"""TFRecord files of tf.Examples: a document an example."""

import functools
from collections.abc import Iterator
from typing import BinaryIO

from google.protobuf.message import DecodeError

from components.ingest.config import CorpusConfig
from components.ingest.conversations import conversations_of
from components.ingest.declared import DeclaredFields
from components.ingest.manifest import InputFile
from components.ingest.records import (
    Document,
    default_source,
    file_id,
    make_document,
    missing_text,
    source_or_none,
    to_bytes,
    too_large,
)
from tokenmill.contracts.ingest import BadRecord
from tokenmill.records.tfrecord import scan_tfrecords


def read_tfrecord(
    handle: BinaryIO, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord]:
    """Yield a document for each tf.Example.

    A record whose content fails its checksum is quarantined and the next one read; one whose
    length fails it ends the file, since nothing says where the next one begins.
    """
    import tensorflow as tf  # 2 s and 500 MB: other formats do without

    source_name, name = default_source(file), file_id(file)
    declared_fields = DeclaredFields(settings)
    conversations = conversations_of(settings)
    for number, record in enumerate(scan_tfrecords(handle, settings.max_record_bytes), 1):
        if record.data is None:
            yield too_large(file, number, record.size, settings)
            continue
        if not record.sound:
            detail = "the content fails its CRC-32C"
            yield BadRecord(file.path, number, "bad_checksum", detail, record.size)
            continue
        try:
            features = tf.train.Example.FromString(record.data).features.feature
        except DecodeError as error:
            yield BadRecord(file.path, number, "invalid_example", str(error)[:500], record.size)
            continue
        origin = (
            to_bytes(_value(features, settings.id_field)) or b"%b:%d" % (name, number),
            source_or_none(_value(features, settings.source_field)) or source_name,
            file,
            number,
        )
        value_of = functools.partial(_value, features)
        label = to_bytes(_value(features, settings.label_field)) if settings.label_field else None
        declared = declared_fields.read(value_of)
        if conversations is not None:
            yield conversations.document(
                value_of, *origin, record.size, label=label, declared=declared
            )
            continue
        text = _value(features, settings.text_field)
        if not isinstance(text, bytes):
            detail = f"not one string in feature {settings.text_field!r}; found {_found(features)}"
            yield missing_text(file, number, record.size, detail)
            continue
        yield make_document(text, *origin, settings, label=label, declared=declared)


def _value(features, name: str | None) -> bytes | int | None:
    """Return the only value of a feature; None if it is absent, or has no or several values."""
    if not name or name not in features:  # indexing would add it
        return None
    feature = features[name]
    kind = feature.WhichOneof("kind")
    if kind not in ("bytes_list", "int64_list"):
        return None
    values = getattr(feature, kind).value
    return values[0] if len(values) == 1 else None


def _found(features) -> str:
    names = sorted(features)[:10]
    kinds = (features[name].WhichOneof("kind") or "empty" for name in names)
    return ", ".join(f"{name} ({kind})" for name, kind in zip(names, kinds, strict=True)) or "none"
