"""CSV and Parquet: columns, malformed rows, truncated files."""

import csv
import gzip
import io
import json
import os
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_files import MEGABYTE, csv_bytes, parquet_bytes, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.ingest.config import CorpusConfig
from components.ingest.manifest import list_inputs
from components.ingest.readers import read_file
from components.ingest.records import Document

on_files = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# --- CSV --------------------------------------------------------------------------------------


def test_malformed_rows_cost_only_themselves(tmp_path):
    data = (
        b"id,text,source\n"
        b"1,one,a\n"
        b"2,two\n"  # 3: too few
        b"3,three,a,b\n"  # 4: too many
        b'4,"quoted" text,a\n'  # 5: text after the quote
        b'5,"never closed,a\n'  # 6
        b"\n"
        b'6,"six\nlines",a\n'  # 8 and 9
        b"7,nul \0 byte,a\n"  # 10
        b"8,eight,a"  # no line end
    )
    documents, bad = read(tmp_path / "a.csv", data)
    assert [(d.doc_id, d.text) for d in documents] == [
        (b"1", b"one"), (b"6", b"six\nlines"), (b"8", b"eight"),
    ]  # fmt: skip
    assert [(b.record, b.reason) for b in bad] == [
        (line, "malformed_row") for line in (3, 4, 5, 6, 10)
    ]
    assert bad[0].detail == "2 fields, the header has 3"


def test_a_quote_that_stays_open_does_not_swallow_the_file(tmp_path):
    rows = b"".join(b"%d,text number %d\n" % (i, i) for i in range(2, 30_000))
    data = b'id,text\n0,zero\n1,"open\n' + rows
    for limit in (10 * MEGABYTE, 1000):  # to the end of the file; to the most a row may have
        documents, bad = read(tmp_path / "a.csv", data, max_document_bytes=limit)
        assert [(b.record, b.reason) for b in bad] == [(3, "malformed_row")]
        assert len(documents) == 29_999


def test_csv_without_the_column_names_those_it_has(tmp_path):
    documents, bad = read(tmp_path / "a.csv", b"id;text\n1;one\n")
    assert not documents
    assert [(b.record, b.reason) for b in bad] == [(0, "missing_text")]
    assert "no column 'text'; found ['id;text']" in bad[0].detail
    assert "--set 'corpus.csv_delimiter=;'" in bad[0].detail
    _, bad = read(tmp_path / "b.csv", b"id\ttext\n1\tone\n")
    assert "call the file .tsv" in bad[0].detail
    _, bad = read(tmp_path / "c.csv", b"id,body\n1,one\n")
    assert "--set corpus.text_field=COLUMN" in bad[0].detail


def test_delimiters(tmp_path):
    expected = [Document(b"1", b"a", b"one, two")]
    assert read(tmp_path / "a.csv", b"id;text\n1;one, two\n", csv_delimiter=";")[0] == expected
    assert read(tmp_path / "a.tsv", b"id\ttext\n1\tone, two\n")[0] == expected


def test_byte_order_mark_of_a_csv_is_not_part_of_the_first_column(tmp_path):
    documents, bad = read(tmp_path / "a.csv", b"\xef\xbb\xbftext,id\none,1\ntwo,2\n")
    assert not bad
    assert [(d.text, d.repaired) for d in documents] == [(b"one", ("bom",)), (b"two", ())]


def test_empty_csv_and_header_only(tmp_path):
    assert read(tmp_path / "a.csv", b"") == ([], [])
    assert read(tmp_path / "a.csv", b"\n\ntext,id\n") == ([], [])


fields = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@on_files
@given(st.lists(st.tuples(fields, fields), max_size=15), st.sampled_from(["\r\n", "\n"]))
def test_what_the_csv_module_wrote_is_read_back(tmp_path, rows, end):
    data = csv_bytes(("text", "more"), *rows, lineterminator=end, quoting=csv.QUOTE_ALL)
    documents, bad = read(tmp_path / "a.csv", data, repair_encoding=False)
    wanted = [text.encode().removeprefix(b"\xef\xbb\xbf") for text, _ in rows]
    assert [d.text for d in documents] == [text for text in wanted if text.strip()]
    assert [b.reason for b in bad] == ["empty_text"] * sum(not text.strip() for text in wanted)


# --- Parquet ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), "dictionary"])
def test_column_types_that_hold_text(tmp_path, kind):
    column = pa.array(["one", None, "two", "one"])
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
    documents, bad = read(tmp_path / "a.parquet", parquet_bytes({"text": column}))
    assert [d.text for d in documents] == [b"one", b"two", b"one"]
    assert [(b.record, b.reason) for b in bad] == [(2, "missing_text")]


@pytest.mark.parametrize("column", [[1, 2], [["a"], ["b"]], [1.5, None]])
def test_column_that_holds_no_text(tmp_path, column):
    documents, bad = read(tmp_path / "a.parquet", parquet_bytes({"text": column, "id": [1, 2]}))
    assert not documents
    assert [(b.record, b.reason) for b in bad] == [(0, "missing_text")]
    assert "'text' is " in bad[0].detail


def test_missing_column_names_those_there_are(tmp_path):
    bad = read(tmp_path / "a.parquet", parquet_bytes({"body": ["b"], "title": ["t"]}))[1]
    assert [b.reason for b in bad] == ["missing_text"]
    assert "body" in bad[0].detail
    assert "title" in bad[0].detail


def test_ids_of_other_types_and_nulls(tmp_path):
    data = parquet_bytes(
        {"text": ["a", "b"], "id": pa.array([2**63, None], pa.uint64()), "source": [["x"], None]}
    )
    documents, bad = read(tmp_path / "a.parquet", data)
    assert not bad
    assert [(d.doc_id, d.source) for d in documents] == [
        (b"9223372036854775808", b"a"), (b"a.parquet:2", b"a"),
    ]  # fmt: skip


def test_many_row_groups_are_read_to_the_end(tmp_path):
    texts = [f"text {i}" for i in range(1000)]
    data = parquet_bytes({"text": texts}, row_group_size=70)
    documents, bad = read(tmp_path / "a.parquet", data)
    assert not bad
    assert [d.text.decode() for d in documents] == texts
    assert documents[-1].doc_id == b"a.parquet:1000"


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.99])
def test_truncated_parquet_is_quarantined(tmp_path, keep):
    whole = parquet_bytes({"text": [f"text {i}" for i in range(1000)]})
    documents, bad = read(
        tmp_path / "a.parquet", whole[: int(keep * len(whole)) if keep < 1 else keep]
    )
    assert not documents
    assert [(b.record, b.reason) for b in bad] == [(0, "unreadable_file")]


def test_parquet_with_a_broken_page_keeps_what_came_before(tmp_path):
    texts = [os.urandom(40).hex() for _ in range(2000)]
    whole = bytearray(
        parquet_bytes({"text": texts}, row_group_size=500, compression="gzip", use_dictionary=False)
    )
    whole[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    documents, bad = read(tmp_path / "a.parquet", bytes(whole))
    assert [b.reason for b in bad] == ["unreadable_file"]
    assert len(documents) >= 500
    assert [d.text.decode() for d in documents] == texts[: len(documents)]


def test_truncated_archive_of_parquet(tmp_path):
    whole = gzip.compress(parquet_bytes({"text": ["a", "b"]}))
    assert [b.reason for b in read(tmp_path / "a.parquet.gz", whole[:-9])[1]] == ["unreadable_file"]


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_the_directory_that_hugging_face_datasets_saves_is_read(tmp_path, kind):
    table = pa.table({"text": [f"text {i}" for i in range(500)], "id": range(500)})
    new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        with new(str(tmp_path / split / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=200)
        for name in ("state.json", "dataset_info.json"):
            (tmp_path / split / name).write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    left_out = Counter()
    files = list_inputs([str(tmp_path)], left_out=left_out)
    items = [item for file in files for item in read_file(file, CorpusConfig())]
    assert [item.text for item in items] == [b"text %d" % i for i in range(500)] * 2
    assert left_out == {"what datasets says of itself": 5, "links to directories": 0}


def test_an_arrow_file_that_is_cut_off_or_noise_is_unreadable(tmp_path):
    table = pa.table({"text": [f"text {i}" * 99 for i in range(500)]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    for content in (data[:-2000], data[:100], os.urandom(4000), b"", b"ARROW1\0\0" + data):
        (tmp_path / "a.arrow").write_bytes(content)
        *_, bad = read_file(list_inputs([str(tmp_path / "a.arrow")])[0], CorpusConfig())
        assert (bad.reason, bad.record) == ("unreadable_file", 0)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet", "a.arrow"])
def test_fields_within_others(tmp_path, name):
    rows = [{"payload": {"body": f"text {i}", "meta": {"url": f"u{i}"}}, "id": 7} for i in range(3)]
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith("arrow"):
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    elif name.endswith("jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    settings = CorpusConfig(text_field="payload.body", id_field="payload.meta.url")
    items = list(read_file(list_inputs([str(path)])[0], settings))
    assert [(item.doc_id, item.text) for item in items] == [
        (b"u%d" % i, b"text %d" % i) for i in range(3)
    ]
    settings = CorpusConfig(text_field="payload.nothing")
    bad = list(read_file(list_inputs([str(path)])[0], settings))
    assert {item.reason for item in bad} == {"missing_text"}
    assert "payload" in bad[0].detail
