"""Formats whose text has to be extracted: web pages, their archives, wikis, mail, office, PDF."""

import json
from collections.abc import Iterator

from components.ingest.config import CorpusConfig
from components.ingest.declared import declare
from components.ingest.file_names import MEDIA_TYPES
from components.ingest.formats import extraction_process
from components.ingest.formats.process import ProcessDied, ask
from components.ingest.manifest import InputFile
from components.ingest.records import (
    Document,
    LeftOut,
    default_source,
    file_id,
    make_document,
    too_large,
)
from tokenmill.contracts.ingest import BadRecord

EXTRACTED = ("html", "warc", "mediawiki", "mbox", "eml", *MEDIA_TYPES)
# Formats of one document a file; others have many, which are named or numbered.
_WHOLE_FILES = ("html", "eml", *MEDIA_TYPES)
# A file with so many records that end the process is not read on.
_MOST_DEATHS = 20


def read_extracted(
    kind: str, path: str, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord | LeftOut]:
    """Yield the documents of a local file, `path`, and what is none.

    Args:
        kind: One of EXTRACTED.
        path: Where it lies; `file` names it.
        file: What the user named.
        settings: How records become documents.

    Raises:
        ValueError: The file, or the rest of it, cannot be read.
    """
    number = deaths = 0
    reader, media = ("document", MEDIA_TYPES[kind]) if kind in MEDIA_TYPES else (kind, "")
    while True:
        reached, is_answered = number, False
        try:
            most = settings.max_record_bytes
            request = (reader, path, most, number, media, settings.encoding)
            for frame, data in ask(extraction_process.__file__, request):
                if frame == b"N":
                    number, is_answered = int(data), False
                    continue
                is_answered = True
                yield _item(frame, data, 0 if kind in _WHOLE_FILES else number, file, settings)
            return
        except ProcessDied as died:
            deaths += 1
            detail = (
                f"reading it ended the process ({died}): damaged, or it takes over a minute or "
                "gigabytes"
            )
            if kind in _WHOLE_FILES or number == reached:
                raise ValueError(detail) from None
            if deaths == _MOST_DEATHS:
                raise ValueError(f"{deaths} records ended the process that reads it") from None
            if not is_answered:  # else it was killed from outside, between two records
                yield BadRecord(file.path, number, "extraction_failed", detail, 0)


def _item(
    frame: bytes, data: bytes, record: int, file: InputFile, settings: CorpusConfig
) -> Document | BadRecord | LeftOut:
    if frame == b"L":
        return LeftOut(data.decode())
    if frame == b"B":
        reason, detail, size = json.loads(data)
        if reason == "too_large":
            return too_large(file, record, size, settings, f"; {detail}")
        return BadRecord(file.path, record, reason, detail, size)
    head, _, text = data.partition(b"\n")
    known = json.loads(head)
    name = known.pop("name")
    doc_id = file_id(file)
    if name:
        doc_id = name.encode("utf-8", "replace")
    elif record:
        doc_id = b"%b:%d" % (doc_id, record)
    return make_document(
        text, doc_id, default_source(file), file, record, settings, declared=declare(known)
    )
