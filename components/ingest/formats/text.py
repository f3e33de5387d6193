"""Plain text: a document a file, or a document a paragraph."""

from collections.abc import Iterator
from typing import BinaryIO

from components.ingest.config import CorpusConfig
from components.ingest.encoding import BOM
from components.ingest.lines import TooLong, bounded_lines
from components.ingest.manifest import InputFile
from components.ingest.records import Document, default_source, file_id, make_document, too_large
from tokenmill.contracts.ingest import BadRecord


def read_text(
    handle: BinaryIO, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord]:
    """Yield the file, or its paragraphs, as `settings.text_unit` says."""
    if settings.text_unit == "paragraph":
        yield from _read_paragraphs(handle, file, settings)
        return
    # One byte more than allowed is enough to know; the rest of a huge file is never read.
    text = handle.read(settings.max_document_bytes + 1)
    if len(text) > settings.max_document_bytes:
        hint = "; --set corpus.text_unit=paragraph makes a document of each paragraph"
        yield too_large(file, 0, max(file.size_bytes, len(text)), settings, hint)
    else:
        yield make_document(text, file_id(file), default_source(file), file, 0, settings)


def _read_paragraphs(
    handle: BinaryIO, file: InputFile, settings: CorpusConfig
) -> Iterator[Document | BadRecord]:
    """Yield runs of lines between blank lines, named by their first line."""
    source, name, max_bytes = default_source(file), file_id(file), settings.max_document_bytes
    kept: list[bytes] = []
    start = size = 0  # size counts a line feed after every line

    def paragraph() -> Document | BadRecord:
        if size - 1 > max_bytes:
            return too_large(file, start, size - 1, settings)
        text = b"\n".join(kept).rstrip(b"\r")
        return make_document(text, b"%b:%d" % (name, start), source, file, start, settings)

    for number, line in enumerate(bounded_lines(handle, settings.max_record_bytes), start=1):
        if not isinstance(line, TooLong):
            content = line.removeprefix(BOM) if number == 1 else line
            if not content or content.isspace():
                if size:
                    yield paragraph()
                kept, size = [], 0
                continue
        start = start if size else number
        size += (line.size_bytes if isinstance(line, TooLong) else len(line)) + 1
        if isinstance(line, TooLong) or size - 1 > max_bytes:
            kept.clear()
        else:
            kept.append(line)
    if size:
        yield paragraph()
