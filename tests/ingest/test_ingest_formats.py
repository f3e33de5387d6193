"""CSV, Parquet, TFRecord and paragraphs, sound and broken."""

import bz2
import gzip
import io
import tracemalloc

import pyarrow as pa
import pytest
from format_files import MEGABYTE, csv_bytes, example, framed, parquet_bytes, read
from hypothesis import given, settings
from hypothesis import strategies as st

from components.ingest.config import CorpusConfig
from components.ingest.lines import TooLong, bounded_lines
from components.ingest.manifest import list_inputs
from components.ingest.readers import read_file
from components.ingest.records import Document

COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


# --- every format, plain and compressed -------------------------------------------------------

ROWS = [("Zwölf Boxkämpfer\njagen", 7, "wiki"), ('a "quoted", text', 8, "web"), ("third", 9, "web")]
EXPECTED = [(str(i).encode(), s.encode(), t.encode()) for t, i, s in ROWS]


def sound(kind):
    """ROWS in a format, and the suffix."""
    texts, ids, sources = (list(column) for column in zip(*ROWS, strict=True))
    if kind == "csv":
        return ".csv", csv_bytes(("id", "source", "text"), *((i, s, t) for t, i, s in ROWS))
    if kind == "parquet":
        return ".parquet", parquet_bytes({"text": texts, "id": ids, "source": sources})
    return ".tfrecord", b"".join(framed(example(text=t, id=i, source=s)) for t, i, s in ROWS)


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord"])
def test_every_format_gives_the_same_documents(tmp_path, kind, compression):
    suffix, data = sound(kind)
    data = COMPRESS[compression](data)
    documents, bad = read(tmp_path / f"a{suffix}{compression}", data)
    assert not bad
    assert [d[:3] for d in documents] == EXPECTED
    # a name that says nothing, but for the compression
    documents, bad = read(tmp_path / f"part-0{compression}", data, format=kind)
    assert not bad
    assert [d[:3] for d in documents] == EXPECTED


@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord"])
def test_without_ids_and_sources_they_are_named_by_file_and_place(tmp_path, kind):
    if kind == "csv":
        suffix, data, places = ".csv", csv_bytes(("text",), ("a\nb",), ("c",)), (2, 4)
    elif kind == "parquet":
        suffix, data, places = ".pq", parquet_bytes({"text": ["a\nb", "c"]}), (1, 2)
    else:
        records = (framed(example(text=text)) for text in ("a\nb", "c"))
        suffix, data, places = ".tfrecords", b"".join(records), (1, 2)
    documents, bad = read(tmp_path / f"web{suffix}", data)
    assert not bad
    assert documents == [
        Document(f"web{suffix}:{place}".encode(), b"web", text)
        for place, text in zip(places, (b"a\nb", b"c"), strict=True)
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord"])
def test_documents_too_large_or_blank_or_undecodable_cost_only_themselves(tmp_path, kind):
    texts = [b"before", b"x" * 1001, b" \n", b"odd \x81\xff", b"x" * 1000]
    if kind == "csv":
        suffix = ".csv"
        data = b"text\n" + b"".join(b'"%b"\n' % text for text in texts)
    elif kind == "parquet":
        suffix = ".parquet"
        broken = pa.Array.from_buffers(pa.string(), 5, pa.array(texts).buffers())  # not UTF-8
        data = parquet_bytes({"text": broken})
    else:
        suffix = ".tfrecord"
        data = b"".join(framed(example(text=text)) for text in texts)
    documents, bad = read(tmp_path / f"a{suffix}", data, max_document_bytes=1000)
    assert [d.text for d in documents] == [texts[0], texts[4]]
    assert [b.reason for b in bad] == ["too_large", "empty_text", "not_utf8"]
    assert all(b.record for b in bad)


@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord", "jsonl", "text"])
def test_a_few_kilobytes_that_unpack_to_fifty_megabytes(tmp_path, kind):
    """One text of 50 MB between small ones: quarantined, and never in memory whole."""
    huge = b"x" * (50 * MEGABYTE)
    if kind == "csv":
        data = b'text\nbefore\n"%b"\nafter\n' % huge
    elif kind == "jsonl":
        data = b'{"text": "before"}\n{"text": "%b"}\n{"text": "after"}\n' % huge
    elif kind == "text":
        data = b"before\n\n%b\n\nafter" % huge
    elif kind == "tfrecord":
        data = b"".join(framed(example(text=t)) for t in (b"before", huge, b"after"))
    else:  # Parquet's own way: a page of some bytes, a text of 1 MB in each of 400 rows
        texts = ["before", *("x" * MEGABYTE for _ in range(400)), "after"]
        data = parquet_bytes({"text": texts}, compression="zstd", use_dictionary=True)
        assert len(data) < 20_000
    path = tmp_path / (f"a.{kind}" if kind == "parquet" else f"a.{kind}.zst")
    path.write_bytes(data if kind == "parquet" else COMPRESS[".zst"](data))
    assert path.stat().st_size < 40_000
    del huge, data
    usual, fresh = pa.default_memory_pool(), pa.system_memory_pool()
    pa.set_memory_pool(fresh)  # its peak is that of this test
    tracemalloc.start()
    documents, bad = read(path, max_document_bytes=MEGABYTE // 2, text_unit="paragraph")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pa.set_memory_pool(usual)
    assert fresh.max_memory() < 200 * MEGABYTE
    if kind == "parquet":
        assert len(bad) == 400
        assert peak < 200 * MEGABYTE
    else:
        assert len(bad) == 1
        assert bad[0].size_bytes >= 50 * MEGABYTE
        assert peak < 12 * MEGABYTE
    assert {b.reason for b in bad} == {"too_large"}
    assert [d.text for d in documents] == [b"before", b"after"]


def test_two_hundred_megabytes_in_one_line(tmp_path):
    path = tmp_path / "a.jsonl"
    with open(path, "wb") as out:
        out.write(b'{"text": "before"}\n{"text": "')
        for _ in range(200):
            out.write(b"lorem ip" * (MEGABYTE // 8))
        out.write(b'"}\n{"text": "after"}\n')
    tracemalloc.start()
    documents, bad = read(path, max_document_bytes=MEGABYTE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [d.text for d in documents] == [b"before", b"after"]
    assert [(b.record, b.reason) for b in bad] == [(2, "too_large")]
    assert bad[0].size_bytes > 199 * MEGABYTE
    assert peak < 10 * MEGABYTE


# --- paragraphs -------------------------------------------------------------------------------


def test_paragraphs(tmp_path):
    data = b"\xef\xbb\xbf\r\n\nfirst\n  indented\n \t\n\n\nsecond\r\nline\r\n\r\nthird"
    documents, bad = read(tmp_path / "a.txt", data, text_unit="paragraph")
    assert not bad
    assert [(d.doc_id, d.text) for d in documents] == [
        (b"a.txt:3", b"first\n  indented"),
        (b"a.txt:8", b"second\r\nline"),
        (b"a.txt:11", b"third"),
    ]
    assert len(read(tmp_path / "a.txt", data)[0]) == 1


def test_paragraph_of_many_lines_that_is_too_large(tmp_path):
    data = b"before\n\n" + b"a line\n" * 1000 + b"\nafter\n\n" + b"x" * 100
    documents, bad = read(tmp_path / "a.txt", data, max_document_bytes=100, text_unit="paragraph")
    assert [d.text for d in documents] == [b"before", b"after", b"x" * 100]
    assert [(b.record, b.reason, b.size_bytes) for b in bad] == [(3, "too_large", 6999)]


# --- lines ------------------------------------------------------------------------------------


class Trickle(io.BytesIO):
    """Gives what a slow source gives: as much as it likes."""

    def read1(self, size=-1):
        self.turn = getattr(self, "turn", 0) + 1
        return self.read(min(size, (7919 * self.turn) % 50_000 + 1))


@given(
    st.lists(st.integers(0, 5) | st.integers(60_000, 150_000), max_size=12),
    st.booleans(),
    st.integers(65_536, 140_000),
)
@settings(max_examples=60, deadline=None)
def test_lines_are_those_of_the_file(lengths, ends, limit):
    lines = [bytes([65 + i]) * n for i, n in enumerate(lengths)]
    data = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    found = list(bounded_lines(Trickle(data), limit))
    assert found == [line if len(line) <= limit else TooLong(len(line)) for line in expected]


def test_a_million_tiny_documents(tmp_path):
    path = tmp_path / "a.jsonl"
    with open(path, "w") as out:
        out.writelines(f'{{"id": {i}, "text": "tiny {i}"}}\n' for i in range(1_000_000))
    read_settings = CorpusConfig(max_document_bytes=1000, eval_fraction=0.05)
    count, last = 0, None
    for last in read_file(list_inputs([str(path)])[0], read_settings):  # noqa: B007
        count += 1
    assert count == 1_000_000
    assert last == Document(b"999999", b"a", b"tiny 999999")
