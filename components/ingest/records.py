"""What reading gives: `Document` or `BadRecord`, and the checks that every format's text passes."""

import decimal
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

from components.ingest.config import CorpusConfig
from components.ingest.encoding import decode_error, repair
from components.ingest.manifest import InputFile
from tokenmill.contracts.ingest import BadRecord

# Escape sequences of ISO-2022-JP, -KR and -CN, whose bytes are all ASCII.
_ISO_2022 = re.compile(rb"\x1b(?:\$[@AB]|\$\([C-D]|\$\)[ACG])")
_NAME_ENCODING = "if it is another encoding, name it: --set corpus.encoding=shift_jis, .."


class Document(NamedTuple):
    """A document as read.

    Attributes:
        doc_id: Its id in the input, or file:record.
        source: Where it came from.
        text: Valid UTF-8, not blank.
        repaired: What was repaired: bom, utf-16, utf-32, cp1252, mojibake.
        label: Its class; empty if it has none.
        language: ISO 639, as the input says; empty if it does not.
        metadata: A JSON object with sorted keys (title, url, date, license); empty for none.
        messages: The turns of a conversation, JSON (tokenmill/records/conversations.py); empty for
            none.
    """

    doc_id: bytes
    source: bytes
    text: bytes
    repaired: tuple[str, ...] = ()
    label: bytes = b""
    language: bytes = b""
    metadata: bytes = b""
    messages: bytes = b""


class LeftOut(NamedTuple):
    """A record that is no text, such as a picture in a web archive.

    Attributes:
        why: What it is: a media type, "wiki redirect", ..
    """

    why: str


def make_document(
    text: bytes,
    doc_id: bytes,
    source: bytes,
    file: InputFile,
    record: int,
    settings: CorpusConfig,
    repaired: tuple[str, ...] = (),
    label: bytes | None = None,
    declared: tuple[bytes, bytes] = (b"", b""),
) -> Document | BadRecord:
    """Make a document of `text`, its encoding repaired where safe, or say what is wrong with it.

    `declared` are its language and metadata (components/ingest/declared.py).
    """
    if len(text) > settings.max_document_bytes:
        return too_large(file, record, len(text), settings)
    size = len(text)
    if settings.encoding:  # a value of Parquet or tf.Example; whole files are transcoded
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            try:
                text = text.decode(settings.encoding).encode("utf-8")
            except UnicodeError:
                detail = f"not UTF-8, nor {settings.encoding}"
                return BadRecord(file.path, record, "not_utf8", detail, size)
            repaired = (*repaired, settings.encoding)
    if b"\x1b" in text and (found := _ISO_2022.search(text)):
        detail = f"escape sequences of ISO-2022 at byte {found.start()}; {_NAME_ENCODING}"
        return BadRecord(file.path, record, "not_utf8", detail, size)
    if not text.isascii():
        fixed = repair(text, settings.repair_encoding)
        if fixed is None:
            return not_utf8(file, record, text, settings)
        text, kinds = fixed
        if kinds:
            repaired = (*repaired, *(kind for kind in kinds if kind not in repaired))
            if len(text) > settings.max_document_bytes:
                return too_large(file, record, len(text), settings)
    if not text or text.isspace():
        return BadRecord(file.path, record, "empty_text", "only blanks", len(text))
    return Document(doc_id, source, text, repaired, label or b"", *declared)


def not_utf8(file: InputFile, record: int, data: bytes, settings: CorpusConfig) -> BadRecord:
    """Make the bad record of bytes that are not UTF-8, and that nothing else is known about."""
    hint = "" if settings.encoding else f"; {_NAME_ENCODING}"
    return BadRecord(file.path, record, "not_utf8", f"{decode_error(data)}{hint}", len(data))


def too_large(
    file: InputFile, record: int, size: int, settings: CorpusConfig, hint: str = ""
) -> BadRecord:
    """Make the bad record of a text that is longer than allowed."""
    limit = settings.max_document_bytes
    detail = f"{size:,} bytes, corpus.max_document_bytes is {limit:,}{hint}"
    return BadRecord(file.path, record, "too_large", detail, size)


def missing_text(file: InputFile, record: int, size: int, detail: str) -> BadRecord:
    """Make the bad record of a record, or a file, without the text field."""
    return BadRecord(file.path, record, "missing_text", detail[:500], size)


def wrong_columns(names: Sequence[str], needed: Sequence[str], others: Sequence[str | None]) -> str:
    """Say what is wrong with a table's column names, or nothing.

    Args:
        names: Of all columns.
        needed: Those that have to be there: the text's.
        others: Those that are read where they are there.
    """
    for name in needed:
        if name not in names:
            return f"no column {name!r}; found {list(names[:10])}: {_naming(names, name)}"
    twice = [name for name in (*needed, *others) if name and names.count(name) > 1]
    if twice:
        return f"{names.count(twice[0])} columns are called {twice[0]!r}; which one is meant?"
    return ""


def _naming(names: Sequence[str], needed: str) -> str:
    """Say what to set, or to do, for a table in which a column was not found."""
    only = names[0] if len(names) == 1 else ""
    if "\t" in only:
        return "tabs part its columns: call the file .tsv"
    for delimiter in ";|":
        if delimiter in only:
            return f"do its columns end at {delimiter!r}? --set 'corpus.csv_delimiter={delimiter}'"
    return f"--set corpus.text_field=COLUMN (or the key that says {needed!r}) names another"


def to_bytes(value: object) -> bytes | None:
    """Return an id, source or label as UTF-8; None if it is no text and no whole number, or empty.

    True and False are "true" and "false", 1.0 is "1".

    Undecodable bytes and lone surrogates become question marks: they do not cost the document.
    """
    if isinstance(value, str):
        data = value.encode("utf-8", "replace")
    elif isinstance(value, bytes):
        data = value if value.isascii() else value.decode("utf-8", "replace").encode("utf-8")
    elif isinstance(value, bool):
        data = b"true" if value else b"false"
    elif isinstance(value, int):
        data = str(value).encode()
    elif _is_whole(value):
        data = str(int(value)).encode()
    else:
        return None
    return data or None


def value_at(record: dict[str, Any], field: str) -> Any:
    """Return the value of a field, which may lie within others (payload.body); None for none."""
    if field in record:
        return record[field]
    value: Any = record
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _is_whole(value: object) -> TypeGuard[float | decimal.Decimal]:
    if not isinstance(value, float | decimal.Decimal):
        return False
    return math.isfinite(value) and value == int(value)


def source_or_none(value: object) -> bytes | None:
    """Return a source as `to_bytes` does; None for a number."""
    return to_bytes(value) if isinstance(value, str | bytes) else None


def file_id(file: InputFile) -> bytes:
    """Return the id of a file's only document; with :record it is that of one of several."""
    return file.name.encode("utf-8", "replace")


def default_source(file: InputFile) -> bytes:
    """Return the source of a file's documents that name none."""
    return file.source.encode("utf-8", "replace")
