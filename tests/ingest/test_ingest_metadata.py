"""Title, URL, date, license and language of documents, from the bytes of each format."""

import datetime
import gzip
import io
import json
import zipfile

import pyarrow as pa
import pytest
from format_files import csv_bytes, example, framed, parquet_bytes, read
from hypothesis import given
from hypothesis import strategies as st
from test_ingest_extracted import docx, epub, http, message, warc_record, zipped

from tokenmill.records.document_metadata import MAX_VALUE_BYTES, decode_metadata, encode_metadata
from tokenmill.text.language import LANGUAGES
from tokenmill.text.language_tags import language_code

ROW = {
    "text": "Ein Text.",
    "title": "Titel\n  über zwei Zeilen",
    "url": "https://example.org/a",
    "date": "2026-11-29",
    "license": "CC-BY-4.0",
    "language": "de-DE",
}
KNOWN = {
    "title": "Titel über zwei Zeilen",
    "url": "https://example.org/a",
    "date": "2026-11-29",
    "license": "CC-BY-4.0",
}


def known(document):
    """Return the metadata of a document, and its language."""
    return decode_metadata(document.metadata), document.language.decode()


def only(path, data=None, **keys):
    """Return what is known of the only document of a file."""
    documents, bad = read(path, data, **keys)
    assert not bad
    assert len(documents) == 1
    return known(documents[0])


# --- records with fields -------------------------------------------------------------------------

AS_ROWS = {
    "a.jsonl": lambda row: json.dumps(row).encode() + b"\n",
    "a.json": lambda row: json.dumps([row], indent=1).encode(),
    "nan.jsonl": lambda row: json.dumps({**row, "n": float("nan")}).encode(),
    "a.csv": lambda row: csv_bytes(row, row.values()),
    "a.parquet": lambda row: parquet_bytes({name: [value] for name, value in row.items()}),
    "a.tfrecord": lambda row: framed(example(**row)),
}


@pytest.mark.parametrize("name", AS_ROWS)
def test_fields_of_records(tmp_path, name):
    assert only(tmp_path / name, AS_ROWS[name](ROW)) == (KNOWN, "de")


@pytest.mark.parametrize("name", AS_ROWS)
def test_a_record_without_them_has_none(tmp_path, name):
    documents, bad = read(tmp_path / name, AS_ROWS[name]({"text": "Ein Text."}))
    assert not bad
    assert (documents[0].metadata, documents[0].language) == (b"", b"")


@pytest.mark.parametrize("name", AS_ROWS)
def test_fields_of_other_names(tmp_path, name):
    row = {"text": "Ein Text.", "link": "https://example.org/a", "lang": "deu_Latn", "url": "x"}
    found = only(
        tmp_path / name, AS_ROWS[name](row), url_field="link", language_field="lang"
    )  # fmt: skip
    assert found == ({"url": "https://example.org/a"}, "de")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_fields_within_others(tmp_path, name):
    row = {"text": "Ein Text.", "meta": {"url": "https://e.org", "when": "2020"}}
    fields = {"url_field": "meta.url", "date_field": "meta.when"}
    assert only(tmp_path / name, AS_ROWS[name](row), **fields) == (
        {"url": "https://e.org", "date": "2020"}, ""
    )  # fmt: skip


def test_what_is_no_text_is_left_out_and_costs_no_document(tmp_path):
    row = {"text": "t", "title": {"en": "x"}, "url": 7, "license": ["MIT"], "language": True}
    assert only(tmp_path / "a.jsonl", json.dumps(row).encode()) == ({}, "")
    assert only(tmp_path / "b.parquet", parquet_bytes({k: [v] for k, v in row.items()})) == ({}, "")
    row = {"text": "t", "title": None, "url": "", "date": False}
    assert only(tmp_path / "c.jsonl", json.dumps(row).encode()) == ({}, "")


def test_columns_of_one_name_are_left_out(tmp_path):
    rows = [["text", "title", "url", "title"], ["t", "a", "https://e.org", "b"]]
    assert only(tmp_path / "a.csv", csv_bytes(*rows)) == ({"url": "https://e.org"}, "")
    columns = [pa.array([value]) for value in rows[1]]
    table = pa.Table.from_arrays(columns, names=rows[0])
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    assert only(tmp_path / "a.arrow", out.getvalue()) == ({"url": "https://e.org"}, "")


@pytest.mark.parametrize(
    ("values", "date"),
    [
        (pa.array([datetime.date(2020, 2, 29)]), "2020-02-29"),
        (pa.array([1582934400123], pa.timestamp("ms")), "2020-02-29T00:00:00"),
        (pa.array([1582934400], pa.timestamp("s", "Europe/Berlin")), "2020-02-29T00:00:00Z"),
        (pa.array([-1], pa.timestamp("us")), "1969-12-31T23:59:59"),
        (pa.array([2**62], pa.timestamp("s")), None),
        (pa.array([None], pa.timestamp("s")), None),
        (pa.array([1582934400]), "1582934400"),
        (pa.array([1.5]), "1.5"),
        (pa.array(["on a day"]), "on a day"),
        (pa.array([[1]]), None),
    ],
)
def test_dates_of_columns(tmp_path, values, date):
    table = pa.table({"text": ["t"], "date": values})
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    assert only(tmp_path / "a.arrow", out.getvalue()) == ({"date": date} if date else {}, "")


def test_long_values_are_cut_or_left_out(tmp_path):
    row = {"text": "t", "title": "ä" * 3000, "url": "https://e.org/" + "a" * 3000, "date": "2020"}
    found, _ = only(tmp_path / "a.jsonl", json.dumps(row).encode())
    assert found == {"title": "ä" * (MAX_VALUE_BYTES // 2), "date": "2020"}


@given(st.dictionaries(st.sampled_from(["title", "url", "date", "license", "x"]), st.text()))
def test_metadata_is_bounded_json_with_sorted_keys(values):
    data = encode_metadata(values)
    found = decode_metadata(data)
    assert list(found) == sorted(set(found) - {"x"})
    assert encode_metadata(found) == data
    assert all(value and len(value.encode()) <= MAX_VALUE_BYTES for value in found.values())


# --- formats that say it themselves --------------------------------------------------------------

HTML = """<html {root}><head><title>Eine Seite</title>
<link rel="canonical" href="{url}"><meta name="DC.date" content="2020-01-02">
{head}</head><body><p>Text der Seite.</p>{body}</body></html>"""


@pytest.mark.parametrize(
    ("parts", "expected", "language"),
    [
        ({"root": 'lang="de-AT"', "url": "https://e.org/a"}, {"url": "https://e.org/a"}, "de"),
        ({"url": "/relative"}, {}, ""),
        ({"head": '<meta http-equiv="Content-Language" content="ja">'}, {}, "ja"),
        ({"head": '<link rel=license href="https://cc.org/by/4.0/">'},
         {"license": "https://cc.org/by/4.0/"}, ""),
        ({"body": '<a rel="license noopener" href="https://cc.org/0">CC</a>'},
         {"license": "https://cc.org/0"}, ""),
        ({"body": "<p>our license</p>", "root": 'lang="klingon"'}, {}, ""),
    ],
)  # fmt: skip
def test_pages(tmp_path, parts, expected, language):
    page = HTML.format(**{"root": "", "url": "", "head": "", "body": "", **parts})
    found, code = only(tmp_path / "a.html", page.encode())
    assert found == {"title": "Eine Seite", "date": "2020-01-02", **expected}
    assert code == language


@pytest.mark.parametrize(
    "page", ["", "no element", "<title></title>", "<meta content=x><link rel href>"]
)
def test_pages_without_a_head(tmp_path, page):
    documents, _ = read(tmp_path / "a.html", f"{page}<p>text</p>".encode())
    assert known(documents[0])[0].keys() <= {"title"}


def test_web_archives(tmp_path):
    page = HTML.format(root="", url="https://else.where/", head="", body="").encode()
    head = "Content-Type: application/http\r\n"
    records = [
        warc_record("response", http(page, headers="Content-Language: de\r\n"), "http://e.org/a",
                    head),
        warc_record("response", http(page, headers="Content-Language: de, en\r\n"),
                    "http://e.org/b", head),
        warc_record("conversion", b"plain", "http://e.org/c",
                    "Content-Type: text/plain\r\nWARC-Identified-Content-Language: jpn\r\n"),
    ]  # fmt: skip
    documents, bad = read(tmp_path / "a.warc.gz", b"".join(map(gzip.compress, records)))
    assert not bad
    date = "2026-11-01T00:00:00Z"
    of_page = {"date": date, "title": "Eine Seite"}
    assert [known(document) for document in documents] == [
        ({"url": "http://e.org/a", **of_page}, "de"),
        ({"url": "http://e.org/b", **of_page}, ""),
        ({"url": "http://e.org/c", "date": date}, "ja"),
    ]


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://de.wikipedia.org/wiki/Wikipedia:Hauptseite",
         "https://de.wikipedia.org/wiki/Gr%C3%BCner_Apfel"),
        ("https://e.org/index.php?title=Main", None),
        ("", None),
    ],
)  # fmt: skip
def test_wikis(tmp_path, base, url):
    dump = f"""<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="de">
<siteinfo><base>{base}</base></siteinfo>
<page><title>Grüner Apfel</title><ns>0</ns><revision><timestamp>2019-01-01T00:00:00Z</timestamp>
<text>alt</text></revision><revision><timestamp>2020-01-01T00:00:00Z</timestamp>
<text>Ein Apfel.</text></revision></page></mediawiki>"""
    expected = {"title": "Grüner Apfel", "date": "2020-01-01T00:00:00Z"}
    if url:
        expected["url"] = url
    assert only(tmp_path / "dewiki-pages.xml", dump.encode()) == (expected, "de")


@pytest.mark.parametrize(
    ("header", "date"),
    [
        (b"Date: Sat, 28 Nov 2026 10:00:00 +0100\n", "2026-11-28T10:00:00+01:00"),
        (b"Date: no date\n", None),
        (b"Date: Sat, 99 Nov 2026 99:99:99 +9999\n", None),
        (b"Date: \xff\xfe\n", None),
        (b"", None),
    ],
)
def test_mail(tmp_path, header, date):
    mail = header + b"Content-Language: de\n" + message("Grüße\n")
    expected = {"title": "Äpfel", "date": date} if date else {"title": "Äpfel"}
    assert only(tmp_path / "a.eml", mail) == (expected, "de")


def with_files(data, files):
    """Return a zip file with more files, or others instead."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zipped({name: archive.read(name) for name in archive.namelist()} | files)


CORE = """<cp:coreProperties
xmlns:cp="http://schemas.openxmlformats.org/package/2006/metadata/core-properties"
xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/"
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><dc:title>Titel</dc:title>
<dc:language>de-DE</dc:language>
<dcterms:created xsi:type="dcterms:W3CDTF">2020-01-02T03:04:05Z</dcterms:created>
</cp:coreProperties>"""


def test_office_documents_and_books(tmp_path):
    word = with_files(docx("Erster Absatz."), {"docProps/core.xml": CORE})
    known_of_word = {"title": "Titel", "date": "2020-01-02T03:04:05Z"}
    assert only(tmp_path / "a.docx", word) == (known_of_word, "de")
    assert only(tmp_path / "b.docx", docx("Ohne alles.")) == ({}, "")
    book = epub("Ein Kapitel.")
    with zipfile.ZipFile(io.BytesIO(book)) as archive:
        package = archive.read("a.opf").decode()
    more = "<dc:language>de</dc:language><dc:rights>Public domain</dc:rights></metadata>"
    book = with_files(book, {"a.opf": package.replace("</metadata>", more)})
    expected = {"title": "Buch", "license": "Public domain"}
    assert only(tmp_path / "c.epub", book) == (expected, "de")


# --- language tags -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("de", "de"), ("DE", "de"), ("deu", "de"), ("ger", "de"), ("de-DE", "de"), ("de_AT", "de"),
        ("deu_Latn", "de"), ("zh-Hant-TW", "zh"), ("zho", "zh"), ("cmn_Hani", "zh"),
        ("zh-yue", "yue"), ("zh-min-nan", ""), ("sr-Latn", "sr"), ("nb-NO", "no"), ("iw", "he"),
        (" en ", "en"), ("fr-BEL", "fr"), ("en-IND", "en"), ("fil", "tl"), ("ast", "ast"),
        ("", ""), ("und", ""), ("mul", ""), ("english", ""), ("de, en", ""), ("xx", ""),
        ("Python", ""), ("e", ""), ("de-", ""), ("de\0", ""),
    ],
)  # fmt: skip
def test_language_tags(tag, code):
    assert language_code(tag) == code


def test_every_code_is_its_own():
    assert all(language_code(code) == code for code in LANGUAGES)


@given(st.text(max_size=300))
def test_any_tag_is_a_code_or_nothing(tag):
    assert language_code(tag) in LANGUAGES | {""}
