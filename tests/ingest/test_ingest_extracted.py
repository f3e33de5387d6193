"""Web pages, their archives, wikis, mail, office documents and PDF; sound, broken and hostile."""

import bz2
import gzip
import io
import os
import signal
import tarfile
import zipfile
import zlib
from collections import Counter, defaultdict
from email.message import EmailMessage

import pytest

from components.ingest.config import CorpusConfig
from components.ingest.formats import process
from components.ingest.manifest import list_inputs
from components.ingest.readers import read_file
from components.ingest.records import Document, LeftOut
from tokenmill.contracts.ingest import BadRecord

PAGE = """<!doctype html><html lang="de"><head><title>Über Äpfel</title>
<meta charset="{charset}"><script>var x = "no text";</script><style>p {{}}</style></head>
<body><header><a href="/">Start</a></header><nav><ul><li>Menü</li></ul></nav>
<main><h1>Äpfel</h1><p>Ein Apfel fällt nicht weit vom <b>Stamm</b>.</p>
<table><tr><td>Sorte</td><td>Boskoop</td></tr></table></main>
<footer>Impressum</footer></body></html>"""


def read(path, **settings):
    """Return the documents, the bad records and the counts of what was left out of a path."""
    items = [
        item
        for file in list_inputs([str(path)])
        for item in read_file(file, CorpusConfig(**settings))
    ]
    documents = [item for item in items if isinstance(item, Document)]
    bad = [item for item in items if isinstance(item, BadRecord)]
    left_out = Counter(item.why for item in items if isinstance(item, LeftOut))
    assert len(items) == len(documents) + len(bad) + sum(left_out.values())
    return documents, bad, left_out


def texts(documents):
    return [document.text.decode() for document in documents]


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# --- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "windows-1252"])
@pytest.mark.parametrize("name", ["page.html", "page.htm", "page.html.gz"])
def test_a_page_is_its_text_without_navigation_whatever_its_charset(tmp_path, charset, name):
    data = PAGE.format(charset=charset).encode(charset)
    path = write(tmp_path / name, gzip.compress(data) if name.endswith("gz") else data)
    (document,), bad, _ = read(path)
    assert not bad
    text = document.text.decode()
    assert "Ein Apfel fällt nicht weit vom Stamm." in text
    assert "Boskoop" in text
    for gone in ("Menü", "Start", "Impressum", "no text", "<"):
        assert gone not in text


@pytest.mark.parametrize(
    "text", ["吾輩は猫である。名前はまだ無い。", "فإن الناس يولدون أحرارا", "שלום עולם"]
)
def test_a_page_in_another_script(tmp_path, text):
    (document,), _, _ = read(write(tmp_path / "a.html", f"<p>{text}</p>" * 3))
    assert document.text.decode().count(text) == 3


def test_a_page_that_does_not_say_its_charset_is_read_as_it_was_told(tmp_path):
    path = write(tmp_path / "a.html", "<p>日本語の文章です。</p>".encode("shift_jis") * 3)
    (document,), _, _ = read(path, encoding="shift_jis")
    assert document.text.decode().count("日本語の文章です。") == 3


def test_a_page_without_text_and_one_that_is_too_large(tmp_path):
    write(tmp_path / "empty.html", "<html><body><nav>Home</nav></body></html>")
    write(tmp_path / "large.html", "<p>" + "word " * 50_000)
    write(tmp_path / "zero.html", "")
    documents, bad, _ = read(tmp_path, max_document_bytes=10_000)
    assert not documents
    assert [(b.reason, b.record) for b in bad] == [
        ("empty_text", 0), ("too_large", 0), ("empty_text", 0)
    ]  # fmt: skip


def test_hostile_pages_cost_no_run(tmp_path):
    write(tmp_path / "deep.html", "<div>" * 200_000 + "at the bottom")
    write(tmp_path / "open.html", "<p>text <!-- " + "<b" * 100_000)
    write(tmp_path / "attributes.html", "<p " + "a=1 " * 100_000 + ">text")
    write(tmp_path / "nul.html", b"<p>te\x00xt\xff\xfe</p>")
    write(tmp_path / "sound.html", "<p>sound text</p>")
    documents, bad, _ = read(tmp_path)
    assert len(documents) + len(bad) == 5
    assert "sound text" in texts(documents)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_page_in_utf_16_without_its_mark(tmp_path, encoding):
    page = "<html><head><title>表</title></head><body><p>河流从山上流到海里。</p></body></html>"
    documents, _, _ = read(write(tmp_path / "a.html", page.encode(encoding)))
    assert texts(documents) == ["河流从山上流到海里。"]


NO_TEXTS = [
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\2\x1e\0\0\1" + bytes(range(256)) * 8,
    gzip.compress(bytes(range(256)) * 8 + b"<p>a page</p>"),
    b"%PDF-1.4\n1 0 obj << /Type /Catalog >> endobj\ntrailer << /Root 1 0 R >>\n",
]


@pytest.mark.parametrize("data", NO_TEXTS)
@pytest.mark.parametrize("media", ["text/html", "text/plain"])
def test_what_is_no_text_is_none_because_it_is_called_a_page_or_a_mail(tmp_path, data, media):
    write(tmp_path / "a.html", data)
    write(tmp_path / "b.warc", response(data, media=media) + response(b"<p>sound</p>"))
    write(tmp_path / "c.eml", b"Subject: x\n\n" + data)
    documents, bad, _ = read(tmp_path)
    assert texts(documents) == ["sound"]
    assert [b.reason for b in bad] == ["extraction_failed"] * 3


# --- web archives --------------------------------------------------------------------------------


def warc_record(kind, body, url="http://example.org/", headers=""):
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\n"
        f"WARC-Record-ID: <urn:uuid:{abs(zlib.crc32(body)):032x}>\r\n"
        f"WARC-Date: 2026-11-01T00:00:00Z\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def http(body, media="text/html", status="200 OK", headers=""):
    return f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\n{headers}\r\n".encode() + body


def response(body, url="http://example.org/", **options):
    return warc_record("response", http(body, **options), url, "Content-Type: application/http\r\n")


def chunked(body, size=7):
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


PLAIN = "Content-Type: text/plain\r\n"
RECORDS = [
    warc_record(
        "warcinfo", b"software: test\r\n", headers="Content-Type: application/warc-fields\r\n"
    ),
    warc_record("request", b"GET / HTTP/1.1\r\n\r\n", headers="Content-Type: application/http\r\n"),
    response(PAGE.format(charset="utf-8").encode(), "http://example.org/a"),
    response(
        PAGE.format(charset="?").encode("cp1251", "ignore") + "<p>Привет, мир</p>".encode("cp1251"),
        "http://example.org/ru",
        media="text/html; charset=windows-1251",
    ),
    response(b"\x89PNG", "http://example.org/b.png", media="image/png"),
    response(b"<p>gone</p>", "http://example.org/404", status="404 Not Found"),
    response(
        chunked(b"<p>in chunks of bytes</p>"),
        "http://example.org/chunked",
        headers="Transfer-Encoding: chunked\r\n",
    ),
    response(
        gzip.compress(b"<p>compressed by the server</p>"),
        "http://example.org/gzip",
        headers="Content-Encoding: gzip\r\n",
    ),
    response(b"plain text", "http://example.org/robots.txt", media="text/plain"),
]


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz"])
def test_a_web_archive_is_its_pages_and_what_is_left_out_is_counted(tmp_path, name):
    pack = gzip.compress if name.endswith("gz") else bytes
    path = write(tmp_path / name, b"".join(pack(record) for record in RECORDS))
    documents, bad, left_out = read(path)
    assert not bad
    assert [d.doc_id.decode().removeprefix("http://example.org/") for d in documents] == [
        "a", "ru", "chunked", "gzip", "robots.txt"
    ]  # fmt: skip
    assert "Привет, мир" in texts(documents)[1]
    assert texts(documents)[2:] == ["in chunks of bytes", "compressed by the server", "plain text"]
    assert left_out == {
        "WARC warcinfo": 1, "WARC request": 1, "image/png": 1, "HTTP status 404": 1
    }  # fmt: skip


def test_the_plain_texts_of_common_crawl(tmp_path):
    records = [
        warc_record("conversion", b"Text %d\n" % i, f"http://{i}.org/", PLAIN) for i in range(300)
    ]
    path = write(tmp_path / "CC.warc.wet.gz", b"".join(map(gzip.compress, records)))
    documents, bad, left_out = read(path)
    assert texts(documents) == [f"Text {i}" for i in range(300)]
    assert not bad
    assert not left_out


def test_a_web_archive_that_breaks_off_says_so_and_keeps_what_came_before(tmp_path):
    data = b"".join(map(gzip.compress, RECORDS))
    documents, bad, _ = read(write(tmp_path / "a.warc.gz", data[:-200]))
    assert len(documents) >= 3
    assert [b.reason for b in bad] == ["unreadable_file"]
    for damaged in (
        b"no archive at all",
        b"WARC/1.0\r\n" + b"x" * 1_000_000,
        b"\x1f\x8b\x08" + b"\0" * 99,
    ):
        documents, bad, _ = read(write(tmp_path / "b.warc.gz", damaged))
        assert not documents
        assert [(b.reason, b.record) for b in bad] == [("unreadable_file", 0)]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
@pytest.mark.parametrize(
    "headers", ["Transfer-Encoding: chunked\r\n", "Content-Encoding: gzip\r\n"]
)
@pytest.mark.parametrize("body", [b"<p>packed by none</p>", b"7\r\n<p>damaged</p>\r\n"])
def test_a_body_that_is_not_packed_as_its_head_says_costs_no_other_record(
    tmp_path, body, headers, name
):
    records = [response(b"<p>a</p>"), response(body, headers=headers), response(b"<p>b</p>")]
    data = b"".join(gzip.compress(r) if name.endswith("gz") else r for r in records)
    documents, bad, _ = read(write(tmp_path / name, data))
    if body.startswith(b"<"):
        assert texts(documents) == ["a", "packed by none", "b"]
        assert not bad
    else:
        assert texts(documents) == ["a", "b"]
        assert [(b.record, b.reason) for b in bad] == [(2, "extraction_failed")]


@pytest.mark.parametrize("charset", ["utf8mb4", "none", "unknown-8bit", "unicode", "base64"])
def test_a_charset_that_is_none_is_guessed(tmp_path, charset):
    text = "Die Größe der Füße ist schön und für alle übrig."
    data = f"<p>{text}</p>".encode("cp1252")
    write(tmp_path / "a.warc", response(data, media=f"text/html; charset={charset}"))
    head = f"Content-Type: text/plain; charset={charset}\n\n"
    write(tmp_path / "b.eml", head.encode() + text.encode("cp1252"))
    documents, bad, _ = read(tmp_path)
    assert texts(documents) == [text, text]
    assert not bad


def test_a_charset_may_have_a_name_of_the_web(tmp_path):
    data = "<p>これは日本語の文章です。</p>".encode("shift_jis")
    documents, _, _ = read(
        write(tmp_path / "a.warc", response(data, media="text/html; charset=x-sjis"))
    )
    assert texts(documents) == ["これは日本語の文章です。"]


def test_a_record_that_unpacks_to_more_than_a_document_may_have_is_one_bad_record(tmp_path):
    bomb = gzip.compress(b"<p>" + b"a" * 300_000_000)
    records = [
        response(bomb, "http://example.org/bomb", headers="Content-Encoding: gzip\r\n"),
        response(b"<p>the next one</p>", "http://example.org/next"),
    ]
    documents, bad, _ = read(write(tmp_path / "a.warc", b"".join(records)))
    assert texts(documents) == ["the next one"]
    assert [b.reason for b in bad] == ["too_large"]


def test_a_record_that_kills_the_process_is_one_bad_record(tmp_path, monkeypatch):
    records = [response(f"<p>page {i}</p>".encode(), f"http://e.org/{i}") for i in range(2000)]
    path = write(tmp_path / "a.warc", b"".join(records))
    started, start = [], process._start
    monkeypatch.setattr(process, "_idle", defaultdict(list))
    monkeypatch.setattr(
        process, "_start", lambda script: started.append(start(script)) or started[-1]
    )
    items = read_file(list_inputs([str(path)])[0], CorpusConfig())
    found = [next(items) for _ in range(3)]
    started[0].popen.send_signal(signal.SIGSEGV)
    found += items
    bad = [item for item in found if isinstance(item, BadRecord)]
    assert len(found) == 2000
    assert len({item.doc_id for item in found if isinstance(item, Document)}) == 2000 - len(bad)
    assert len(started) == 2
    for item in bad:  # none if it was between two records
        assert (item.reason, item.record > 3) == ("extraction_failed", True)
        assert "SIGSEGV" in item.detail


# --- wikis ---------------------------------------------------------------------------------------

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de">
<siteinfo><namespaces><namespace key="0"/><namespace key="6">Datei</namespace>
<namespace key="14">Kategorie</namespace></namespaces></siteinfo>
<page><title>Apfel</title><ns>0</ns><id>1</id><revision><id>2</id><model>wikitext</model>
<text>{{Infobox|a=1}}Ein '''Apfel''' ist eine [[Frucht|Frucht des Apfelbaums]].\
&lt;ref&gt;Quelle&lt;/ref&gt;
[[Datei:Apfel.jpg|mini|Ein Bild]]
== Sorten ==
* [[Boskoop]]
{|
! Name !! Jahr
|-
| Gala || 1934
|}
[[Kategorie:Obst]]</text></revision></page>
<page><title>Äpfel</title><ns>0</ns><redirect title="Apfel"/>
<revision><text>#REDIRECT [[Apfel]]</text></revision></page>
<page><title>Diskussion:Apfel</title><ns>1</ns><revision><text>Nein.</text></revision></page>
<page><title>Leer</title><ns>0</ns><revision><text></text></revision></page>
<page><title>Tief</title><ns>0</ns><revision><text>%s</text></revision></page>
</mediawiki>"""


@pytest.mark.parametrize("name", ["dewiki-pages-articles.xml", "dewiki-pages-articles.xml.bz2"])
def test_a_wiki_dump_is_the_text_of_its_articles(tmp_path, name):
    data = (DUMP % ("{{" * 2000 + "[[" * 2000 + "Ende")).encode()
    path = write(tmp_path / name, bz2.compress(data) if name.endswith("bz2") else data)
    documents, bad, left_out = read(path)
    assert [d.doc_id.decode() for d in documents] == ["Apfel", "Tief"]
    text = texts(documents)[0]
    assert "Ein Apfel ist eine Frucht des Apfelbaums." in text
    assert "Gala" in text
    assert "1934" in text
    for gone in ("Infobox", "Quelle", "Apfel.jpg", "Ein Bild", "Kategorie", "'''", "[[", "{|"):
        assert gone not in text
    assert [(b.reason, b.record) for b in bad] == [("empty_text", 4)]
    assert left_out == {"wiki redirect": 1, "wiki namespace 1": 1}


def test_xml_that_is_no_wiki_is_left_out_of_a_directory_and_named_it_is_unreadable(tmp_path):
    write(tmp_path / "d" / "pom.xml", "<project/>")
    write(tmp_path / "d" / "a.txt", "text")
    left_out = Counter()
    assert len(list_inputs([str(tmp_path / "d")], left_out=left_out)) == 1
    assert left_out[".xml"] == 1
    _, (bad,), _ = read(tmp_path / "d" / "pom.xml")
    assert "no MediaWiki dump" in bad.detail


def test_entities_that_grow_are_one_bad_file(tmp_path):
    lol = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 20))
    data = f'<!DOCTYPE mediawiki [<!ENTITY l0 "ha">{lol}]><mediawiki><page>&l19;</page></mediawiki>'
    documents, bad, _ = read(write(tmp_path / "x-pages-y.xml", data))
    assert not documents
    assert [b.reason for b in bad] == ["unreadable_file"]


# --- mail ----------------------------------------------------------------------------------------


def message(content, subtype="plain", charset="utf-8", attachment=None):
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["Message-ID"] = "Äpfel", "a@example.org", "<1@example.org>"
    mail.set_content(content, subtype=subtype, charset=charset)
    if attachment:
        mail.add_attachment(attachment, maintype="image", subtype="png")
    return mail.as_bytes()


def test_mail_is_its_text(tmp_path):
    write(tmp_path / "a.eml", message("Grüße\n", attachment=b"\x89PNG"))
    write(tmp_path / "b.eml", message("<p>Grüße</p>", "html", "iso-8859-1"))
    write(tmp_path / "c.eml", b"Content-Type: image/png\n\nxx")
    documents, bad, left_out = read(tmp_path)
    assert texts(documents) == ["Grüße", "Grüße"]
    assert not bad
    assert left_out == {"mail of image/png": 1}


def test_a_mailbox_is_its_mails(tmp_path):
    mails = [message(f"Mail {i}\n\n>From here on\n") for i in range(50)]
    box = b"".join(
        b"From a@example.org Sat Nov 28 00:00:00 2026\n" + mail + b"\n" for mail in mails
    )
    documents, bad, _ = read(write(tmp_path / "list.mbox", box))
    assert len(documents) == 50
    assert not bad
    assert texts(documents)[7].startswith("Mail 7")
    documents, bad, _ = read(write(tmp_path / "none.mbox", b"no mail\n" * 100))
    assert not documents
    assert len(bad) == 1


# --- office, PDF ---------------------------------------------------------------------------------


def zipped(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def docx(*paragraphs):
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    return zipped(
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/'
            'content-types"><Default Extension="xml" ContentType="application/vnd.openxmlformats-'
            'officedocument.wordprocessingml.document.main+xml"/></Types>',
            "word/document.xml": f'<w:document xmlns:w="{space}"><w:body>{body}</w:body>'
            "</w:document>",
        }
    )


def xlsx(*rows):
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    cells = "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{text}</t></is></c>' for text in row) + "</row>"
        for row in rows
    )
    return zipped(
        {
            "_rels/.rels": f'<Relationships xmlns="{package}"><Relationship Id="r1" '
            f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
            "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
            '<sheet name="Preise" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}"><Relationship '
            f'Id="r1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{cells}'
            "</sheetData></worksheet>",
        }
    )


def ods(rows):
    names = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
        for name in ("office", "table", "text")
    )
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "META-INF/manifest.xml": '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:'
            'opendocument:xmlns:manifest:1.0"/>',
            "content.xml": f"<office:document-content {names}><office:body><office:spreadsheet>"
            f'<table:table table:name="T">{rows}</table:table></office:spreadsheet></office:body>'
            "</office:document-content>",
        }
    )


def epub(*chapters):
    spine = "".join(f'<itemref idref="c{i}"/>' for i in range(len(chapters)))
    items = "".join(
        f'<item id="c{i}" href="c{i}.xhtml" media-type="application/xhtml+xml"/>'
        for i in range(len(chapters))
    )
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:'
        'xmlns:container"><rootfiles><rootfile full-path="a.opf"/></rootfiles></container>',
        "a.opf": '<package xmlns="http://www.idpf.org/2007/opf"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Buch</dc:title></metadata>'
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>",
    }
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><body><p>{}</p></body></html>'
    files |= {f"c{i}.xhtml": page.format(text) for i, text in enumerate(chapters)}
    return zipped(files)


def pdf(text):
    content = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R"
        b"/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]  # fmt: skip
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + (
        b"xref\n0 6\n0000000000 65535 f \n%btrailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF"
        % (table, len(out))
    )


def test_office_documents_books_and_pdf_are_their_text(tmp_path):
    write(tmp_path / "a.docx", docx("Erster Absatz.", "第二段落。"))
    write(tmp_path / "b.epub", epub("Chapter one.", "Chapter two."))
    write(tmp_path / "c.pdf", pdf("Text in a page"))
    write(tmp_path / "d.rtf", rb"{\rtf1\ansi Rich {\b text}\par}")
    write(tmp_path / "e.xlsx", xlsx(["Stadt", "Läden"], ["Köln", "am Fluss"]))
    cell = '<table:table-cell office:value-type="string"><text:p>東京 a</text:p></table:table-cell>'
    write(tmp_path / "f.ods", ods(f"<table:table-row>{cell}</table:table-row>"))
    documents, bad, _ = read(tmp_path)
    assert not bad
    first, second, third, fourth, fifth, sixth = texts(documents)
    assert fifth.split() == ["Preise", "Stadt", "Läden", "Köln", "am", "Fluss"]
    assert sixth.split() == ["T", "東京", "a"]
    assert first.split() == ["Erster", "Absatz.", "第二段落。"]
    assert second.index("Chapter one.") < second.index("Chapter two.")
    assert "Text in a page" in third
    assert "Rich text" in fourth


def test_damaged_office_documents_are_bad_files_and_the_next_is_read(tmp_path):
    sound = {"docx": docx("Absatz"), "epub": epub("Kapitel"), "pdf": pdf("Seite")}
    for suffix, data in sound.items():
        write(tmp_path / f"half.{suffix}", data[: len(data) // 2])
        write(tmp_path / f"noise.{suffix}", os.urandom(2000))
        write(tmp_path / f"empty.{suffix}", b"")
    write(tmp_path / "image.pdf", pdf(""))
    write(tmp_path / "z.docx", docx("der letzte"))
    documents, bad, _ = read(tmp_path)
    assert "der letzte" in texts(documents)
    assert len(documents) + len(bad) == 11
    assert {b.record for b in bad} == {0}


def test_a_spreadsheet_of_a_billion_cells_is_one_bad_file_or_a_small_text(tmp_path):
    cell = '<table:table-cell table:number-columns-repeated="16384" office:value-type="string">'
    cell += "<text:p>x</text:p>"
    row = f'<table:table-row table:number-rows-repeated="1048576">{cell}</table:table-cell>'
    write(tmp_path / "a.ods", ods(f"{row}</table:table-row>"))
    write(tmp_path / "z.xlsx", xlsx(["the last"]))
    documents, bad, _ = read(tmp_path)
    assert "the last" in texts(documents)[-1]
    assert len(documents) + len(bad) == 2
    assert all(len(text) <= CorpusConfig().max_document_bytes for text in texts(documents))


def test_a_document_that_unpacks_to_gigabytes_is_one_bad_file(tmp_path):
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    write(
        tmp_path / "bomb.docx",
        zipped(
            {
                "word/document.xml": f'<w:document xmlns:w="{space}"><w:body><w:p><w:r><w:t>'
                + "a" * 300_000_000
                + "</w:t></w:r></w:p></w:body></w:document>"
            }
        ),
    )
    documents, bad, _ = read(tmp_path)
    assert not documents
    assert len(bad) == 1


# --- archives of files ---------------------------------------------------------------------------

MEMBERS = {
    "a.txt": b"plain text",
    "b/page.html": b"<p>a page</p>",
    "b/records.jsonl": b'{"text": "one"}\n{"text": "two"}\nno json\n',
    "b/c.docx": docx("a document"),
    "b/d.txt.gz": gzip.compress(b"packed text"),
    "logo.png": b"\x89PNG",
    ".hidden.txt": b"hidden",
    "more.zip": b"PK",
}


def tarred(files, mode):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return data.getvalue()


@pytest.mark.parametrize("name", ["all.zip", "all.tar", "all.tar.gz", "all.tgz", "all.tar.bz2"])
def test_an_archive_is_read_as_a_directory_is(tmp_path, name):
    mode = "w:gz" if name.endswith("gz") else "w:bz2" if name.endswith("bz2") else "w"
    data = zipped(MEMBERS) if name.endswith("zip") else tarred(MEMBERS, mode)
    documents, bad, left_out = read(write(tmp_path / name, data))
    assert sorted(texts(documents)) == [
        "a document", "a page", "one", "packed text", "plain text", "two"
    ]  # fmt: skip
    assert {d.doc_id.decode() for d in documents} >= {f"{name}/a.txt", f"{name}/b/records.jsonl:1"}
    assert [(b.reason, b.record) for b in bad] == [("invalid_json", 3)]
    assert bad[0].file.endswith(f"{name}!b/records.jsonl")
    links = {} if name.endswith("zip") else {"link or device in an archive": 1}
    assert left_out == {
        ".png in an archive": 1, "hidden in an archive": 1, ".zip in an archive": 1, **links
    }  # fmt: skip


def test_what_tar_names_from_the_directory_it_is_in_is_not_hidden(tmp_path):
    files = {"./a.txt": b"a", "./b/c.txt": b"c", "../d.txt": b"d", "/e.txt": b"e", "./.f.txt": b"f"}
    documents, _, left_out = read(write(tmp_path / "a.tar", tarred(files, "w")))
    assert [d.doc_id for d in documents] == [
        b"a.tar/a.txt", b"a.tar/b/c.txt", b"a.tar/d.txt", b"a.tar/e.txt"
    ]  # fmt: skip
    assert left_out["hidden in an archive"] == 1


def test_a_file_of_an_archive_that_is_encrypted_or_damaged_costs_itself(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("lzma.txt", b"text")
        archive.writestr("sound.txt", b"sound", zipfile.ZIP_DEFLATED)
        archive.writestr("damaged.txt", b"text " * 1000, zipfile.ZIP_DEFLATED)
    packed = bytearray(data.getvalue())
    place = packed.index(b"damaged.txt") + len(b"damaged.txt")
    packed[place : place + 8] = b"\xff" * 8
    documents, bad, _ = read(write(tmp_path / "a.zip", bytes(packed)))
    assert texts(documents) == ["sound"]
    assert [b.file.rpartition("!")[2] for b in bad] == ["lzma.txt", "damaged.txt"]
    packed = bytearray(zipped({"a.txt": b"text"}))
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(head) + flags] |= 1
    _, (encrypted,), _ = read(write(tmp_path / "b.zip", bytes(packed)))
    assert encrypted.detail == "encrypted"


def test_a_tar_archive_whose_heads_are_damaged_says_so(tmp_path):
    data = tarred({f"{i}.txt": b"text %d" % i for i in range(5)}, "w")
    damaged = data.replace(b"3.txt", b"X.txt")  # its checksum is wrong
    documents, bad, _ = read(write(tmp_path / "a.tar", damaged))
    assert len(documents) == 3
    assert [(b.reason, b.record) for b in bad] == [("unreadable_file", 0)]
    for size in range(600, 5 * 1024, 100):
        documents, bad, _ = read(write(tmp_path / "b.tar", data[:size]))
        assert len(documents) >= size // 1024
        assert bad[-1].record == 0


def test_archives_of_files_that_are_broken_or_unpack_to_gigabytes(tmp_path):
    write(tmp_path / "half.zip", zipped(MEMBERS)[:-50])
    write(tmp_path / "half.tar.gz", tarred(MEMBERS, "w:gz")[:-50])
    write(tmp_path / "bomb.zip", zipped({"a.txt": b"a" * 300_000_000, "b.txt": b"b"}))
    write(tmp_path / "noise.tar", os.urandom(5000))
    write(tmp_path / "z.zip", zipped({"a.txt": b"sound"}))
    documents, bad, _ = read(tmp_path)
    assert "sound" in texts(documents)
    assert {os.path.basename(b.file) for b in bad if b.record == 0} >= {"half.zip", "noise.tar"}
    assert any("bomb.zip!a.txt" in b.file for b in bad)
