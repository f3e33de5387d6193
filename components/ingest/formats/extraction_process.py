"""What extracts text from web pages, their archives, wikis, mail, office documents and PDF.

What parses them is native code, or takes what memory and time the file asks for: in a process of
its own a crash, an endless loop or a gigabyte is the error of one record. A request is [kind, path,
the largest record in bytes, the number of the record to go on behind, the file's media type, the
encoding of what names none]. Frames (components/ingest/formats/process.py), for records from 1 in
the order of the file:

- N, the number of the record that is worked on
- T, its text: a line of JSON (name and, where they are known, title, url, date, license, language)
  and the text as UTF-8
- L, it is no text and left out: why
- B, it cannot be read: a line of JSON [reason, detail, size in bytes]
"""

import contextlib
import email.message
import email.policy
import gzip
import io
import json
import mailbox
import os
import re
import signal
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Literal, NamedTuple, cast
from xml.etree import ElementTree

_RECORD_SECONDS = 60
_HEADER_BYTES = 1 << 16

# What stands around the text of pages, by the elements, roles and the commonest names of classes.
_NAVIGATION = [
    "nav", "aside", "form", "button", "body > header", "body > footer",
    "body > div > header", "body > div > footer",
    "[role=navigation]", "[role=banner]", "[role=contentinfo]", "[role=search]",
    "[role=complementary]", "[class*=navheader]", "[class*=navfooter]",
    ".docnav", "[class*=breadcrumb]",
    "[class*=cookie]", ".nav", ".navbar", ".navigation", ".menu", ".related", ".sphinxsidebar",
    "#sidebar", "#nav", "#navigation", "#menu", "#header", "#footer",
]  # fmt: skip
# What the names of a page's <meta> say: Open Graph, Dublin Core, schema.org.
_META = {
    "article:published_time": "date", "datepublished": "date", "date": "date", "dc.date": "date",
    "dc.date.issued": "date", "dcterms.date": "date", "dcterms.issued": "date",
    "license": "license", "dcterms.license": "license", "dc.rights.license": "license",
    "content-language": "language",
}  # fmt: skip
_HTML = ("text/html", "application/xhtml+xml")
# Namespaces of MediaWiki whose links show nothing in the text: files and categories.
_INVISIBLE_NAMESPACES = ("6", "14")
# What no text has but by accident, as in components/ingest/content.py: a picture or program that is
# called a page.
_CONTROL = re.compile("[\x00-\x07\x10-\x1a\x1c-\x1f]")
_MAX_CONTROL = 0.01  # of the first characters
_HEAD_CHARACTERS = 1 << 16
_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")


class _Text(NamedTuple):
    """The text of a record, its name, and what is known of it, by name; empty is not known."""

    text: str
    name: str = ""
    known: dict[str, str] = {}


class _LeftOut(NamedTuple):
    why: str


class _Bad(NamedTuple):
    reason: str
    detail: str
    size_bytes: int


_Record = Callable[[], _Text | _LeftOut | _Bad]


def extract_page(data: bytes, charset: str | None, name: str = "") -> _Text:
    """Return the text of a page, without its navigation, and what its head says of it."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    page = _decoded(data, charset)
    tree = HTMLTree.parse(page)
    known = _known_of_page(tree, "license" in page)
    text = extract_plain_text(tree, main_content=False, alt_texts=False, skip_elements=_NAVIGATION)
    return _Text(text, name, known)


def _known_of_page(tree, has_license: bool) -> dict[str, str]:
    """Return title, language, canonical URL, date and license as a page's head says them.

    Args:
        tree: The page.
        has_license: Whether to look for a license, also in the whole page.
    """
    known = {"title": tree.title or ""}
    root, head = tree.document.query_selector("html"), tree.head
    if root is not None:
        known["language"] = root.getattr("lang") or root.getattr("xml:lang") or ""
    for element in head.query_selector_all("meta[content], link[href]") if head else ():
        if element.tag == "link":
            kinds = (element.getattr("rel") or "").lower().split()
            url = element.getattr("href") or ""
            if "canonical" in kinds and url.startswith(("https://", "http://")):
                known.setdefault("url", url)
            continue
        names = (element.getattr(name) for name in ("name", "property", "itemprop", "http-equiv"))
        name = _META.get(next(filter(None, names), "").lower())
        if name and not known.get(name):
            known[name] = element.getattr("content") or ""
    if has_license:
        link = tree.document.query_selector("[rel~=license][href]")
        if link is not None:
            known["license"] = link.getattr("href") or ""
    return known


def _decoded(data: bytes, charset: str | None) -> str:
    """Decode a page: UTF-8 if it is that, else as its server or its head says, else by its look."""
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    if data.startswith((b"<\0", b"\0<")):  # UTF-16 without its mark; valid UTF-8, if it is ASCII
        return data.decode("utf-16-le" if data[0] else "utf-16-be", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        charset = _known_charset(charset) or detect_encoding(data, from_html_meta=True)
        return bytes_to_str(data, charset or "windows-1252", errors="replace")


def _known_charset(charset: str | None) -> str | None:
    """Return what Python calls the charset that a server or mail names; None if there is none."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    try:
        b"a".decode(charset or "", "replace")
        return charset
    except (LookupError, ValueError):  # x-sjis, iso-8859-8-i; or utf8mb4, unknown-8bit
        found = map_encoding_to_html5(charset or "", fallback_utf8=False)
        # "unicode" is UTF-16 by the HTML standard, and anything by those who write it.
        return None if found == "utf-16-le" else found


def _html(path: str, most: int, media: str, encoding: str | None) -> Iterator[_Record]:
    def read() -> _Text | _Bad:
        if (size := os.path.getsize(path)) > most:
            return _Bad("too_large", f"{size:,} bytes of HTML", size)
        with open(path, "rb") as file:
            return extract_page(file.read(), encoding)

    yield read


def _warc(path: str, most: int, media: str, encoding: str | None) -> Iterator[_Record]:
    from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

    def read(record: WarcRecord) -> _Text | _LeftOut | _Bad:
        if record.record_type not in (
            WarcRecordType.response, WarcRecordType.resource, WarcRecordType.conversion
        ):  # fmt: skip
            return _LeftOut(f"WARC {record.headers.get('WARC-Type') or 'record'}"[:80])
        if record.content_length > most:
            return _Bad("too_large", f"{record.content_length:,} bytes", record.content_length)
        url = (record.headers.get("WARC-Target-URI") or "").strip("<>")
        known = {"url": url, "date": record.headers.get("WARC-Date") or ""}
        # Common Crawl's, of plain texts.
        language = record.headers.get("WARC-Identified-Content-Language") or ""
        content = record.reader.read()
        response, data = _http_body(content, most) if record.is_http else (None, content)
        if response is not None:
            if response.http_headers.status_code != 200:
                return _LeftOut(f"HTTP status {response.http_headers.status_code}")
            kind, charset = (response.http_content_type or "").lower(), response.http_charset
            language = response.http_headers.get("Content-Language") or ""
        else:
            kind = (record.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
            charset = None
        if kind not in (*_HTML, "text/plain"):
            return _LeftOut(kind[:80] or "no media type")
        if len(data) > most:
            return _Bad("too_large", f"{url}: over {most:,} bytes", len(data))
        charset = charset or encoding
        if kind == "text/plain":
            return _Text(_decoded(data, charset), url, {**known, "language": language})
        page = extract_page(data, charset, url)
        language = page.known.get("language") or language
        return page._replace(known={**page.known, **known, "language": language})

    with open(path, "rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        stream = _Ending(cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file)
        for record in ArchiveIterator(
            stream,
            record_types=WarcRecordType.any_type,
            parse_http=False,
            max_header_len=_HEADER_BYTES,
        ):
            yield lambda record=record: read(record)  # type: ignore[misc]
        if stream.last != b"\r\n\r\n":
            raise ValueError("the archive breaks off: its last record has no end")


def _http_body(content: bytes, most: int) -> tuple[Any, bytes]:
    """Parse an HTTP response; return its record, None if it is none, and `most` + 1 bytes of body.

    In a record of its own: FastWARC gives no further records of an archive after an error in one.
    Crawlers often unpack a body and keep the header that says how it was packed: one that begins
    as a page does is then taken as it is.

    Raises:
        OSError: The head is damaged, or the body, and it is no page as it is.
    """
    from fastwarc.warc import WarcRecord

    def parse(auto_decode: Literal["none", "all"]) -> tuple[Any, bytes]:
        response = WarcRecord()
        response.set_bytes_content(content)
        response.is_http = True
        response.parse_http(auto_decode=auto_decode, max_header_len=_HEADER_BYTES)
        return response if response.http_headers else None, response.reader.read(most + 1)

    try:
        return parse("all")
    except OSError:
        response, body = parse("none")
        if not body.lstrip().startswith(b"<"):
            raise
        return response, body


class _Ending(io.RawIOBase):
    """Reads a stream and keeps its last four bytes: half an archive is a whole one for FastWARC."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._place = 0
        self.last = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        # read1: an error in mid-file then loses nothing that came before it.
        data = self._stream.read1(size)  # type: ignore[attr-defined]
        self._place += len(data)
        self.last = (self.last + data[-4:])[-4:]
        return data

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on by reading, as FastWARC does over what it does not want."""
        left = offset - (self._place if whence == io.SEEK_SET else 0)
        if left < 0 or whence == io.SEEK_END:
            raise io.UnsupportedOperation("back, or to the end")
        while left and (data := self.read(min(left, 1 << 20))):
            left -= len(data)
        return self._place


def _mediawiki(path: str, most: int, media: str, encoding: str | None) -> Iterator[_Record]:
    """Yield the pages of a dump (XML, schema export-0.x), of which the articles are read."""
    names = {"file", "image", "category"}
    language = base = ""

    def read(page: ElementTree.Element) -> _Text | _LeftOut | _Bad:
        found = {child.tag.rpartition("}")[2]: child for child in page}  # the last revision
        title = found["title"].text or "" if "title" in found else ""
        namespace = found["ns"].text if "ns" in found else "0"
        if namespace != "0":
            return _LeftOut(f"wiki namespace {namespace}")
        if "redirect" in found:
            return _LeftOut("wiki redirect")
        if "revision" not in found:
            return _Bad("missing_text", f"{title}: no revision", 0)
        texts = {e.tag.rpartition("}")[2]: e.text or "" for e in found["revision"]}
        model = texts.get("model", "wikitext")
        if model != "wikitext":
            return _LeftOut(f"wiki model {model}")
        text = texts.get("text", "")
        if len(text) > most:
            return _Bad("too_large", f"{title}: {len(text):,} characters", len(text))
        known = {"title": title, "date": texts.get("timestamp", ""), "language": language}
        if title and "?" not in base and "/" in base:
            path = urllib.parse.quote(title.replace(" ", "_"), safe=";@$!*(),/~:")
            known["url"] = f"{base.rpartition('/')[0]}/{path}"
        return _Text(_wikitext(text, names), title, known)

    with open(path, "rb") as file:
        root = None
        for event, element in ElementTree.iterparse(file, events=("start", "end")):
            tag = element.tag.rpartition("}")[2]
            if root is None:
                root = element
                language = root.get("{http://www.w3.org/XML/1998/namespace}lang") or ""
                if tag != "mediawiki":
                    raise ValueError(f"XML with the root {tag!r:.80}, and no MediaWiki dump")
            elif event == "end" and tag == "namespace":
                if element.get("key") in _INVISIBLE_NAMESPACES and element.text:
                    names.add(element.text.lower())
            elif event == "end" and tag == "base":  # the URL of the main page
                base = element.text or ""
            elif event == "end" and tag == "page":
                yield lambda page=element: read(page)  # type: ignore[misc]
                root.clear()


def _wikitext(text: str, invisible: set[str]) -> str:
    """Return what a reader sees of wikitext: no templates, references, files and categories."""
    import mwparserfromhell

    code = mwparserfromhell.parse(text)
    for link in code.filter_wikilinks():
        namespace, colon, _ = str(link.title).partition(":")
        if colon and namespace.strip().lower() in invisible:
            _remove(code, link)
    for tag in code.filter_tags(matches=lambda tag: str(tag.tag).lower() == "ref"):
        _remove(code, tag)
    return code.strip_code(normalize=True, collapse=True)


def _remove(code, node) -> None:
    with contextlib.suppress(ValueError):  # it went with the one that it was in
        code.remove(node)


def _mbox(path: str, most: int, media: str, encoding: str | None) -> Iterator[_Record]:
    box = mailbox.mbox(path, create=False)
    if not len(box) and os.path.getsize(path):
        raise ValueError("no mailbox: no line begins with From and a blank")
    for key in box.iterkeys():
        yield lambda key=key: _mail(box.get_bytes(key), most, encoding)  # type: ignore[misc]


def _eml(path: str, most: int, media: str, encoding: str | None) -> Iterator[_Record]:
    def read() -> _Text | _LeftOut | _Bad:
        with open(path, "rb") as file:
            return _mail(file.read(), most, encoding)

    yield read


def _mail(data: bytes, most: int, encoding: str | None) -> _Text | _LeftOut | _Bad:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, email.message.EmailMessage)
    body = message.get_body(("plain", "html"))
    name = str(message.get("Message-ID", "")).strip().strip("<>")
    known = {
        "title": str(message.get("Subject", "")),
        "date": _mail_date(message),
        "language": str(message.get("Content-Language", "")),
    }
    if body is None:
        return _LeftOut(f"mail of {message.get_content_type()}")
    content = body.get_payload(decode=True)
    if not isinstance(content, bytes):
        return _LeftOut(f"mail of {message.get_content_type()}")
    if len(content) > most:
        return _Bad("too_large", f"{name}: {len(content):,} bytes", len(content))
    charset = body.get_content_charset() or encoding
    if body.get_content_subtype() == "html":
        page = extract_page(content, charset)
        known["language"] = known["language"] or page.known.get("language", "")
        return _Text(page.text, name, known)
    return _Text(_decoded(content, charset), name, known)


def _mail_date(message: email.message.EmailMessage) -> str:
    """Return the date of a mail in ISO 8601; empty if there is none, or none that is a date."""
    with contextlib.suppress(Exception):  # headers that are hostile raise what they like
        return message["Date"].datetime.isoformat()
    return ""


def _document(path: str, most: int, media: str, encoding: str | None) -> Iterator[_Record]:
    import kreuzberg

    def read() -> _Text | _Bad:
        with open(path, "rb") as file:
            if media == "application/rtf" and not file.read(5).startswith(b"{\\rtf"):
                return _Bad("unreadable_file", "this is no RTF document", os.path.getsize(path))
        config = kreuzberg.ExtractionConfig(use_cache=False)  # and no OCR
        size = os.path.getsize(path)
        try:
            found = kreuzberg.extract_file_sync(path, media, config)
        except kreuzberg.KreuzbergError as error:
            return _Bad("unreadable_file", str(error)[:400], size)
        if not found.content.strip():
            return _Bad("empty_text", "no text in it (pictures of pages have none)", size)
        return _Text(found.content, "", _known_of_file(dict(found.metadata or {})))

    yield read


def _known_of_file(metadata: dict) -> dict[str, str]:
    """Return title, language, date and license of what kreuzberg knows of a file."""
    keys = {"title": "title", "language": "language", "date": "created_at", "license": "rights"}
    found = {name: metadata.get(key) for name, key in keys.items()}
    return {name: value for name, value in found.items() if isinstance(value, str)}


_READERS: dict[str, Callable[[str, int, str, str | None], Iterator[_Record]]] = {
    "html": _html,
    "warc": _warc,
    "mediawiki": _mediawiki,
    "mbox": _mbox,
    "eml": _eml,
    "document": _document,
}


def answer(request: list, send: Callable[[bytes, bytes], None]) -> None:
    """Send the records of a file; one that takes over a minute ends the process."""
    try:
        _extract(request, send)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _extract(request: list, send: Callable[[bytes, bytes], None]) -> None:
    kind, path, most, behind, media, encoding = request
    records = _READERS[kind](path, most, media, encoding)
    number = 0
    while True:
        signal.setitimer(signal.ITIMER_REAL, _RECORD_SECONDS)  # ends the process
        if number >= behind:
            send(b"N", b"%d" % (number + 1))
        record = next(records, None)
        if record is None:
            return
        number += 1
        if number <= behind:
            continue
        try:
            found = record()
        except Exception as error:  # parsers raise what they like
            found = _Bad("extraction_failed", f"{type(error).__name__}: {error}"[:400], 0)
        if isinstance(found, _Text) and kind != "document" and (wrong := _no_text(found.text)):
            found = _Bad("extraction_failed", wrong, len(found.text))
        if isinstance(found, _Text):
            head = json.dumps({"name": found.name, **found.known}).encode()
            text = _BLANK_LINES.sub("\n\n", found.text).strip()
            send(b"T", head + b"\n" + text.encode("utf-8", "replace"))
        elif isinstance(found, _LeftOut):
            send(b"L", found.why.encode("utf-8", "replace"))
        else:
            send(b"B", json.dumps(found).encode())


def _no_text(text: str) -> str:
    """Say why what was extracted is no text, such as a PDF that its server called a page."""
    if text.startswith("%PDF-"):
        return "this is a PDF, and no page or text"
    head = text[:_HEAD_CHARACTERS]
    share = len(_CONTROL.findall(head)) / max(1, len(head))
    if share <= _MAX_CONTROL:
        return ""
    return f"this is no text: {share:.0%} of its first characters are control characters"
