"""JSON lines: an object a line; in .json files also an array of objects, or ones of many lines."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import orjson

from components.ingest.config import CorpusConfig
from components.ingest.conversations import conversations_of
from components.ingest.declared import NOTHING, DeclaredFields
from components.ingest.encoding import BOM, decode_other
from components.ingest.file_names import bare_suffix
from components.ingest.formats.json_values import begins_pretty, json_values
from components.ingest.lines import TooLong, bounded_lines
from components.ingest.manifest import InputFile
from components.ingest.records import (
    Document,
    default_source,
    file_id,
    make_document,
    missing_text,
    not_utf8,
    source_or_none,
    to_bytes,
    too_large,
    value_at,
)
from tokenmill.contracts.ingest import BadRecord


def read_json_lines(
    handle: BinaryIO, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord]:
    """Yield a document for each line, or JSON value, that is an object with the text field."""
    declared_fields = DeclaredFields(settings)
    if bare_suffix(file.path) == ".json" and begins_pretty(handle):
        for number, record, size in json_values(handle, settings.max_record_bytes):
            yield _from_record(record, number, size, file, settings, declared_fields)
        return
    loads: Callable[[Any], Any] = orjson.loads
    text_field, id_field = settings.text_field, settings.id_field
    source_field, max_bytes = settings.source_field, settings.max_document_bytes
    label_field = settings.label_field
    fields = (text_field, id_field, source_field, label_field or "", *declared_fields.names)
    is_nested = any("." in field for field in fields)
    look_up: Callable[[Any, str], Any] = value_at if is_nested else dict.get
    declares_nothing = declared_fields.names.isdisjoint
    file_source, name = default_source(file), file_id(file)
    holds_texts = not settings.holds_conversations
    for number, line in enumerate(bounded_lines(handle, settings.max_record_bytes), start=1):
        # This loop is what ingest's throughput hangs on: the usual case first, and inline.
        try:
            record = loads(line) if holds_texts else {}
            text = look_up(record, text_field).encode()
            doc_id = look_up(record, id_field)
            source = look_up(record, source_field)
        # What orjson refuses (a byte order mark, lone surrogates, NaN), and what is no object.
        except (ValueError, TypeError, AttributeError):
            if isinstance(line, TooLong):
                yield too_large(file, number, line.size_bytes, settings)
            elif line and not line.isspace():
                yield _carefully(line, number, file, settings, declared_fields)
            continue
        if isinstance(doc_id, float):  # a whole number of 65 bits and more, to orjson
            yield _carefully(line, number, file, settings, declared_fields)  # type: ignore[arg-type]
            continue
        doc_id = to_bytes(doc_id) or b"%b:%d" % (name, number)
        source = source_or_none(source) or file_source
        label = (to_bytes(look_up(record, label_field)) or b"") if label_field else b""
        declared = (
            NOTHING
            if declares_nothing(record) and not is_nested
            else declared_fields.read(functools.partial(look_up, record))
        )
        sound = text.isascii() and b"\x1b" not in text and not text.isspace()
        if sound and 0 < len(text) <= max_bytes:
            yield Document(doc_id, source, text, (), label, *declared)
        else:
            yield make_document(
                text, doc_id, source, file, number, settings, label=label, declared=declared
            )


def _carefully(
    line: bytes,
    number: int,
    file: InputFile,
    settings: CorpusConfig,
    declared_fields: DeclaredFields,
) -> Document | BadRecord:
    """Parse a line by the standard library, which takes all that JSON allows, and repair it."""
    repaired: tuple[str, ...] = ()
    size = len(line)
    if line.startswith(BOM):
        line, repaired = line[len(BOM) :], ("bom",)
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        decoded = decode_other(line) if settings.repair_encoding else None
        if decoded is None:
            return not_utf8(file, number, line, settings)
        text, repaired = decoded[0], (*repaired, decoded[1])
    try:
        record: Any = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
        return BadRecord(file.path, number, "invalid_json", str(error)[:500], size)
    return _from_record(record, number, size, file, settings, declared_fields, repaired)


def _from_record(
    record: Any,
    number: int,
    size: int,
    file: InputFile,
    settings: CorpusConfig,
    declared_fields: DeclaredFields,
    repaired: tuple[str, ...] = (),
) -> Document | BadRecord:
    """Make a document of a parsed JSON value, or say what is wrong with it."""
    conversations = conversations_of(settings)
    fields = settings.content_fields
    value = value_at(record, fields[0]) if isinstance(record, dict) else None
    if value is None or (conversations is None and not isinstance(value, str)):
        found = str(sorted(record)[:10] if isinstance(record, dict) else type(record).__name__)
        if isinstance(record, list) and record and isinstance(record[0], dict):
            found += " of objects, which is read from a file that is called .json"
        detail = f"{'no string' if conversations is None else 'nothing'} under {fields[0]!r}"
        return missing_text(file, number, size, f"{detail}; found {found}")
    doc_id = to_bytes(value_at(record, settings.id_field)) or b"%b:%d" % (file_id(file), number)
    source = source_or_none(value_at(record, settings.source_field)) or default_source(file)
    label = to_bytes(value_at(record, settings.label_field)) if settings.label_field else None
    value_of = functools.partial(value_at, record)
    declared = declared_fields.read(value_of)
    if conversations is not None:
        return conversations.document(
            value_of, doc_id, source, file, number, size, repaired, label, declared
        )
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:  # a lone surrogate, "\ud800", is legal JSON
        return BadRecord(file.path, number, "not_utf8", str(error)[:500], size)
    return make_document(data, doc_id, source, file, number, settings, repaired, label, declared)
