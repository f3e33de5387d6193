"""Files that are lost, left out, hostile or not what their name says: counted, said, survived."""

import bz2
import gzip
import io
import json
import lzma
import os
import signal
import socket
import struct
import tarfile
import time
import zipfile
from collections import Counter, defaultdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_files import MEGABYTE, csv_bytes, example, framed, parquet_bytes, read
from test_ingest_executor import counts, documents_in, files_under, ingest, quarantined

from components.ingest.config import CorpusConfig
from components.ingest.formats import process
from components.ingest.manifest import describe_left_out, list_inputs, write_manifest
from components.ingest.readers import read_file
from pipeline.report.step_summary import summarize_step
from tokenmill.errors import TokenmillError
from tokenmill.metadata.step_records import StepRecord
from tokenmill.provenance.document_index import DocumentIndex, write_shards
from tokenmill.records.keys import shared_id


def lines(start, number):
    """JSON lines with texts of their own."""
    return b"".join(
        json.dumps({"text": f"this is the text number {i} of them"}).encode() + b"\n"
        for i in range(start, start + number)
    )


def zipped(data):
    """A ZIP archive of one file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", data)
    return out.getvalue()


def tarred(data):
    """A tar archive of one file: ASCII but for its zeros."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


# --- files that are lost count as files, and by their bytes ------------------------------------


def test_lost_shards_stop_the_run_and_are_named(tmp_path):
    corpus = tmp_path / "in"
    corpus.mkdir()
    for i in range(5):
        data = gzip.compress(lines(100 * i, 100))
        (corpus / f"part{i}.jsonl.gz").write_bytes(
            {1: lines(100, 100), 2: data[: len(data) // 2], 3: b""}.get(i, data)
        )
    with pytest.raises(TokenmillError) as error:
        ingest(tmp_path / "a", corpus)
    message = str(error.value)
    assert "3 of 5 files" in message
    assert all(f"{corpus}/part{i}.jsonl.gz: unreadable_file" in message for i in (1, 2, 3))
    assert "records came before it" in message
    assert "corpus.max_quarantine_fraction" in message
    _, quarantine = ingest(tmp_path / "b", corpus, max_quarantine_fraction=0.95)
    found = counts(quarantine)["files"]
    sizes = [os.path.getsize(corpus / f"part{i}.jsonl.gz") for i in range(5)]
    assert found == {
        "files": 5, "bytes": sum(sizes), "unreadable": 3, "unreadable_bytes": sum(sizes[1:4]),
    }  # fmt: skip


def test_one_text_that_has_most_of_the_bytes_stops_the_run(tmp_path):
    corpus = tmp_path / "in"
    corpus.mkdir()
    (corpus / "a.jsonl").write_bytes(lines(0, 100) + b'{"text": "%b"}\n' % (b"x" * 20_000))
    with pytest.raises(TokenmillError, match=r"20,\d\d\d of 2\d,\d\d\d bytes .*too_large"):
        ingest(tmp_path, corpus)


def test_a_file_of_one_text_that_is_too_large_names_text_unit(tmp_path):
    (tmp_path / "a.txt").write_text("A paragraph.\n\n" * 1000)
    with pytest.raises(TokenmillError, match=r"corpus.text_unit=paragraph"):
        ingest(tmp_path / "run", tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("A paragraph.\n\n" * 10)
    with pytest.raises(TokenmillError, match=r"split \(1 in all\).*corpus.text_unit=paragraph"):
        ingest(tmp_path / "again", tmp_path / "a.txt")


# --- what is left out of a directory, and what is none of a file -------------------------------


def test_what_is_left_out_of_a_directory_is_told_by_kind(tmp_path):
    for name in ("a.txt", "page.css", "b/c.png", "b/d.png", ".git/x.txt", "__MACOSX/._a.txt",
                 ".ipynb_checkpoints/a.txt", "_SUCCESS"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.txt"))
        left_out = Counter()
        files = list_inputs([str(tmp_path)], left_out=left_out)
    assert [file.name for file in files] == ["a.txt"]
    assert left_out == {
        ".css": 1, ".png": 2, "hidden": 3, "without suffix": 1, "links to directories": 1,
        "broken links": 1, "pipes, sockets and devices": 2,
    }  # fmt: skip
    sentence = describe_left_out(left_out)
    assert sentence.count("\n") == 0
    assert all(f"{kind} ({number})" in sentence for kind, number in left_out.items())
    assert not describe_left_out(Counter(hidden=0))
    globbed = Counter()
    assert len(list_inputs([f"{tmp_path}/**.txt"], left_out=globbed)) == 1
    assert globbed["hidden"] == 3


@pytest.mark.parametrize("path", ["pipe.txt", "/dev/zero"])
def test_a_pipe_or_device_as_input_is_an_error_at_once(tmp_path, path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(TokenmillError, match="a pipe, socket or device"):
        list_inputs([str(tmp_path / path)])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.tfrecord-00000-of-00002", framed(example(text="found"))),
        ("data_tfrecord-00000-of-00001.gz", gzip.compress(framed(example(text="found")))),
        ("x.tfrecords.gz-00001-of-00002", gzip.compress(framed(example(text="found")))),
        ("x.jsonl-00000-of-00002", b'{"text": "found"}'),
        ("x-00000-of-00002.jsonl.bz2", bz2.compress(b'{"text": "found"}')),
        ("x.txt-00000-of-00001", b"found"),
        ("x.csv-7-of-9", b"text\nfound\n"),
        ("x.parquet-00000-of-00010", parquet_bytes({"text": ["found"]})),
    ],
)
def test_names_of_shards_are_read_as_what_they_are(tmp_path, name, data):
    documents, bad = read(tmp_path / name, data)
    assert [d.text for d in documents] == [b"found"]
    assert not bad
    assert [file.name for file in list_inputs([str(tmp_path)])] == [name]


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4


@pytest.mark.parametrize("name", ["a.txt", "a.md.gz", "a.jsonl", "a.csv", "a.json"])
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (gzip.compress(b"text"), "gzip"),
        (bz2.compress(b"text"), "bzip2"),
        (lzma.compress(b"text"), "xz"),
        (pa.compress(b"text", "zstd", asbytes=True), "Zstandard"),
        (zipped("text"), "ZIP"),
        (b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n", "PDF"),
        (PNG, "PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "JPEG"),
        (parquet_bytes({"text": ["text"]}), "Parquet"),
        (tarred(b"text" * 10), "control characters"),
        (os.urandom(9000), "no text|control characters"),
        (("no mark " * 1000).encode("utf-16-le"), "corpus.encoding"),
    ],
)
def test_what_is_no_text_under_a_name_of_text_is_one_bad_file(tmp_path, name, data, kind):
    data = gzip.compress(data) if name.endswith(".gz") else data
    documents, bad = read(tmp_path / name, data)
    assert not documents
    assert [(b.record, b.reason) for b in bad] == [(0, "unreadable_file")]
    assert any(word in bad[0].detail for word in kind.split("|"))


@pytest.mark.parametrize("text", [
    "\x1b[1mbold\x1b[0m of a terminal\n" * 10, "page\x0cpage", "PK and BZh are letters",
    "{ a set }", "GIF8", "a\x08_b\x08_ as man prints it",
])  # fmt: skip
def test_text_is_not_taken_for_something_else(tmp_path, text):
    documents, bad = read(tmp_path / "a.txt", text.encode())
    assert [d.text.decode() for d in documents] == [text]
    assert not bad


# --- hostile files ------------------------------------------------------------------------------


def test_parquet_that_unpacks_to_gigabytes(tmp_path):
    """15 kB: one text of 40 MB, by a dictionary in each of 64 rows; Arrow aborted."""
    data = parquet_bytes({"text": ["x" * (40 * MEGABYTE)] * 64}, compression="zstd")
    assert len(data) < 20_000
    documents, bad = read(tmp_path / "a.parquet", data)
    assert not documents
    assert [(b.record, b.reason) for b in bad] == [(0, "unreadable_file")]
    assert "column 'text'" in bad[0].detail


def test_parquet_of_a_million_million_empty_rows(tmp_path):
    data = parquet_bytes({"text": pa.nulls(30_000_000, pa.string())}, compression="zstd")
    documents, bad = read(tmp_path / "a.parquet", data)
    assert not documents
    assert [(b.record, b.reason) for b in bad] == [(0, "unreadable_file")]
    assert "30,000,000 rows" in bad[0].detail


def test_parquet_that_kills_its_reader_is_a_sentence_and_the_next_file_is_read(tmp_path):
    """Damaged in a page's header: Arrow 10 may read beyond the page."""
    sound = parquet_bytes({"text": [f"text {i}" * 20 for i in range(500)]}, use_dictionary=False)
    for place in range(4, 40, 3):
        data = bytearray(sound)
        data[place] = 0x7F
        documents, bad = read(tmp_path / "a.parquet", bytes(data))
        assert len(documents) == 500 or bad[-1].record == 0 or len(documents) + len(bad) == 500
    documents, bad = read(tmp_path / "a.parquet", sound)
    assert len(documents) == 500
    assert not bad


def test_the_process_that_decodes_parquet_ends_with_a_sentence_when_it_is_killed(
    tmp_path, monkeypatch
):
    data = parquet_bytes({"text": [f"{i} " + "text " * 2000 for i in range(20_000)]})
    (tmp_path / "a.parquet").write_bytes(data)
    started = []
    start, idle = process._start, defaultdict(list)
    monkeypatch.setattr(process, "_idle", idle)
    monkeypatch.setattr(process, "_start", lambda path: started.append(start(path)) or started[-1])
    items = read_file(list_inputs([str(tmp_path / "a.parquet")])[0], CorpusConfig())
    assert next(items).text.startswith(b"0 text")
    started[0].popen.send_signal(signal.SIGABRT)
    *_, bad = items
    assert bad.record == 0
    assert "SIGABRT" in bad.detail
    assert not any(idle.values())


@pytest.mark.parametrize("line", [b" " * 99 + b"\n", b"x" * 99 + b"\n", b"x"])
def test_an_archive_of_a_megabyte_that_unpacks_to_a_gigabyte_is_unreadable(tmp_path, line):
    packed = gzip.compress(line * (1_000_000 // len(line)), 9)
    assert len(packed) < 4000
    started = time.process_time()
    documents, bad = read(tmp_path / "a.txt.gz", packed * 1000, text_unit="paragraph")
    assert not documents
    assert bad[-1].reason == "unreadable_file"
    assert "unpacks to more than" in bad[-1].detail
    assert time.process_time() - started < 60


def test_a_file_of_nothing_but_bad_records_is_given_up(tmp_path):
    documents, bad = read(tmp_path / "a.jsonl", b"x\n" * 500_000)
    assert not documents
    assert len(bad) == 10_001
    assert (bad[-1].record, bad[-1].reason) == (0, "unreadable_file")
    assert "not one" in bad[-1].detail
    documents, bad = read(tmp_path / "b.jsonl", b'{"text": "good"}\n' + b"x\n" * 20_000)
    assert len(documents) == 1
    assert len(bad) == 20_000


def test_tfrecord_that_claims_a_record_of_exabytes(tmp_path):
    from format_files import masked

    length = struct.pack("<Q", 1 << 62)
    data = framed(example(text="before")) + length + masked(length) + b"some bytes"
    documents, bad = read(tmp_path / "a.tfrecord", data)
    assert [d.text for d in documents] == [b"before"]
    assert [(b.record, b.reason) for b in bad] == [(0, "unreadable_file")]
    assert "1 records came before it" in bad[0].detail


def test_zstandard_with_a_window_of_terabytes_is_unreadable(tmp_path):
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([31 << 3]) + b"\x01\x00\x00"
    documents, bad = read(tmp_path / "a.jsonl.zst", frame)
    assert not documents
    assert [b.reason for b in bad] == ["unreadable_file"]
    assert "memory" in bad[0].detail


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("deep", [b"[" * 500_000, b'{"text":' * 200_000, b'[{"text": ' * 100_000])
def test_deeply_nested_json_costs_no_more_than_itself(tmp_path, name, deep):
    documents, bad = read(tmp_path / name, deep + b"\n")
    assert not documents
    assert len(bad) == 1


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".txt", ".csv", ".tfrecord", ".parquet"])
def test_an_archive_of_no_bytes_is_a_file_that_cannot_be_read(tmp_path, kind, suffix):
    documents, bad = read(tmp_path / f"a{kind}{suffix}", b"")
    assert not documents
    assert [(b.record, b.reason) for b in bad] == [(0, "unreadable_file")]


# --- JSON that is not lines, tables with equal columns -----------------------------------------

RECORDS = [{"text": f"text {i} é", "id": i, "source": "web"} for i in range(5000)]


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        json.dumps(RECORDS, ensure_ascii=False, indent="\t"),
        "\ufeff\n" + json.dumps(RECORDS),
        "\n".join(json.dumps(record, indent=1) for record in RECORDS),
        "\n".join(json.dumps(record) for record in RECORDS),
    ],
    ids=["array", "pretty array", "UTF-8", "mark", "pretty objects", "lines"],
)
def test_json_files_are_arrays_or_objects_too(tmp_path, data):
    documents, bad = read(tmp_path / "a.json", data.encode())
    assert not bad
    assert [(d.doc_id, d.text.decode(), d.source) for d in documents] == [
        (str(r["id"]).encode(), r["text"], b"web") for r in RECORDS
    ]


def test_json_array_that_breaks_off_keeps_what_came_before(tmp_path):
    data = json.dumps(RECORDS).encode()
    documents, bad = read(tmp_path / "a.json", data[: len(data) // 2])
    assert 2000 < len(documents) < 3000
    assert [(b.record, b.reason) for b in bad] == [(0, "unreadable_file")]
    assert "records came before it" in bad[0].detail
    documents, bad = read(tmp_path / "b.json", b'[{"text": "a"}, {"body": "b"}, 7, {"text": "c"}]')
    assert [d.doc_id for d in documents] == [b"b.json:1", b"b.json:4"]
    assert [(b.record, b.reason) for b in bad] == [(2, "missing_text"), (3, "missing_text")]
    documents, bad = read(tmp_path / "d.json", b'[\n "a text",\n "another"\n]\n')
    assert [(b.record, b.reason) for b in bad] == [(1, "missing_text"), (2, "missing_text")]
    documents, bad = read(tmp_path / "c.json", b"[]")
    assert not documents
    assert not bad


def test_json_array_in_a_file_of_lines_is_told_how_to_be_read(tmp_path):
    documents, bad = read(tmp_path / "a.jsonl", json.dumps(RECORDS[:3]).encode())
    assert not documents
    assert ".json" in bad[0].detail


def test_a_json_value_that_is_too_long_ends_the_file_in_bounded_memory(tmp_path):
    data = b'[{"text": "before"}, {"text": "%b"}]' % (b"x" * (3 * MEGABYTE))
    documents, bad = read(tmp_path / "a.json", data, max_document_bytes=100_000)
    assert [d.text for d in documents] == [b"before"]
    assert [b.reason for b in bad] == ["unreadable_file"]


@pytest.mark.parametrize("twice", ["text", "id", "source"])
def test_tables_with_two_columns_of_one_name_are_refused(tmp_path, twice):
    names = ["id", "source", "text", twice]
    documents, bad = read(tmp_path / "a.csv", csv_bytes(names, ["1", "web", "one", "other"]))
    assert not documents
    assert [(b.record, b.reason) for b in bad] == [(0, "missing_text")]
    assert f"2 columns are called {twice!r}" in bad[0].detail
    out = io.BytesIO()
    pq.write_table(pa.table([["1"], ["web"], ["one"], ["other"]], names=names), out)
    documents, bad = read(tmp_path / "a.parquet", out.getvalue())
    assert not documents
    assert f"2 columns are called {twice!r}" in bad[0].detail


# --- encodings ---------------------------------------------------------------------------------

TEXTS = {
    "shift_jis": "日本語の文章です。とても長い文章を書きます。",
    "euc_jp": "日本語の文章です。とても長い文章を書きます。",
    "iso2022_jp": "日本語の文章です。とても長い文章を書きます。",
    "iso2022_kr": "한국어 문장입니다. 아주 긴 문장을 씁니다.",
    "euc_kr": "한국어 문장입니다. 아주 긴 문장을 씁니다.",
    "koi8_r": "Это русский текст, и он довольно длинный.",
    "cp1251": "Это русский текст, и он довольно длинный.",
    "gb18030": "这是一段中文，写得相当长。",
    "big5": "這是一段中文，寫得相當長。",
    "iso8859_2": "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "utf_16_le": "Text without a mark, ここにもある。",
}


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("kind", ["a.txt", "a.txt.gz", "a.jsonl", "a.csv", "a.parquet"])
def test_a_named_encoding_is_read(tmp_path, encoding, kind):
    text = TEXTS[encoding]
    encoded = text.encode(encoding)
    if kind == "a.jsonl":
        data = json.dumps({"text": text}, ensure_ascii=False).encode(encoding)
    elif kind == "a.csv":
        data = f'text\n"{text}"\n'.encode(encoding)
    elif kind == "a.parquet":
        if encoding == "utf_16_le" or encoding.startswith("iso2022"):
            pytest.skip("valid UTF-8 by chance, or ASCII: a value has no such encoding")
        data = parquet_bytes({"text": pa.array([encoded], pa.binary())})
    else:
        data = gzip.compress(encoded) if kind.endswith(".gz") else encoded
    documents, bad = read(tmp_path / kind, data, encoding=encoding)
    assert not bad
    assert [d.text.decode() for d in documents] == [text]
    assert documents[0].repaired == (encoding,)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("mac_cyrillic", TEXTS["koi8_r"]),
        ("johab", TEXTS["euc_kr"]),
        ("iso2022_jp", TEXTS["shift_jis"]),
        ("cp1250", "Minden emberi lény egyenlő méltósággal és joggal születik, űr és őr."),
    ],
)
def test_an_encoding_that_is_not_recognized_is_no_text_and_the_message_names_the_key(
    tmp_path, encoding, text
):
    documents, bad = read(tmp_path / "a.txt", text.encode(encoding))
    assert not documents
    assert [b.reason for b in bad] == ["not_utf8"]
    assert "corpus.encoding" in bad[0].detail


def test_bytes_beyond_the_named_encoding_cost_only_their_record(tmp_path):
    good = json.dumps({"text": TEXTS["shift_jis"]}, ensure_ascii=False).encode("shift_jis")
    documents, bad = read(
        tmp_path / "a.jsonl", good + b'\n{"text": "\xfd\xfe"}\n' + good, encoding="shift_jis"
    )
    assert [d.text.decode() for d in documents] == [TEXTS["shift_jis"]] * 2
    assert [(b.record, b.reason) for b in bad] == [(2, "not_utf8")]


def test_a_utf8_file_among_those_of_a_named_encoding_stays_what_it_is(tmp_path):
    documents, bad = read(tmp_path / "a.txt", TEXTS["koi8_r"].encode(), encoding="koi8_r")
    assert [d.text.decode() for d in documents] == [TEXTS["koi8_r"]]
    assert not bad


@pytest.mark.parametrize("name", ["klingon", "hex", "rot13"])
def test_unknown_encodings_are_refused_at_load(name):
    with pytest.raises(ValueError, match="shift_jis"):
        CorpusConfig(encoding=name)


# --- sources -----------------------------------------------------------------------------------


def sources_of(*inputs):
    """The sources of the files of inputs, counted."""
    return Counter(file.source for file in list_inputs([str(i) for i in inputs]))


def test_a_folder_of_files_is_one_source(tmp_path):
    notes = tmp_path / "notes"
    (notes / "letters" / "old").mkdir(parents=True)
    for i in range(20):
        (notes / f"note{i}.txt").write_text(f"note {i}")
    (notes / "letters" / "a.txt").write_text("a")
    (notes / "letters" / "old" / "b.txt").write_text("b")
    assert sources_of(notes) == {"notes": 20, "letters": 2}
    assert sources_of(f"{notes}/*.txt") == {"notes": 20}
    assert sources_of(*(notes / f"note{i}.txt" for i in range(20))) == {"notes": 20}  # a shell's
    assert sources_of(notes / "note1.txt") == {"note1": 1}
    assert sources_of(notes / "note1.txt", notes / "note2.txt") == {"note1": 1, "note2": 1}


def test_the_next_span_is_from_the_same_source(tmp_path):
    for span in (1, 2):
        (tmp_path / "daily" / str(span)).mkdir(parents=True)
        (tmp_path / "daily" / str(span) / "a.txt").write_text("a")
        (tmp_path / "daily" / f"b{span}.jsonl").write_text("{}")
    for span in (1, 2):
        for pattern in ("daily/{SPAN}", "daily/{SPAN}/*.txt", "daily/b{SPAN}.jsonl"):
            (file,) = list_inputs([str(tmp_path / pattern)], span=span)
            assert file.source == "daily"


# --- small files are known by their content ----------------------------------------------------


def test_a_small_file_that_is_changed_in_place_with_its_size_and_time_is_another(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    first = write_manifest(list_inputs([str(path)]), str(tmp_path / "m"))
    path.write_text("behind")
    os.utime(path, ns=times)
    assert write_manifest(list_inputs([str(path)]), str(tmp_path / "m")) != first


# --- ids that documents share ------------------------------------------------------------------


def test_shared_ids_become_unique_whatever_the_order_of_files(tmp_path):
    records = [{"id": f"doc-{i % 40}", "text": f"text number {i // 2}"} for i in range(400)]
    results = []
    for name, order in (("a", records), ("b", records[::-1])):
        corpus = tmp_path / name / "in"
        corpus.mkdir(parents=True)
        for part in range(3):
            data = "".join(json.dumps(r) + "\n" for r in order[part::3])
            (corpus / f"{part}.jsonl").write_text(data)
        examples, quarantine = ingest(tmp_path / name, corpus, eval_fraction=0.3)
        results.append(files_under(examples.uri))
    assert results[0] == results[1]
    rows = [row for split in ("train", "eval") for row in documents_in(examples.uri, split)]
    ids = [row[0].decode() for row in rows]
    assert len(ids) == len(set(ids)) == 400
    assert {shared_id(doc_id) for doc_id in ids} == {f"doc-{i}" for i in range(40)}
    assert Counter(row[2].decode() for row in rows) == Counter(r["text"] for r in records)
    assert sum(doc_id.startswith("doc-") and "#" not in doc_id for doc_id in ids) == 40
    assert counts(quarantine)["shared_ids"] == 360
    assert all(row[3] == len(row[2]) for row in rows)


def test_why_finds_all_documents_of_a_shared_id_and_files_in_quarantine(tmp_path):
    def status(doc_id, **keys):
        record = {"doc_id": doc_id, "status": "kept", "source": "s", **keys}
        return doc_id.encode(), json.dumps(record).encode() + b"\n"

    bad = {"status": "quarantined", "file": "/data/in/part1.jsonl.gz", "record": 0}
    row = {**bad, "file": "/data/in/a.jsonl", "record": 7}
    write_shards(
        str(tmp_path),
        [
            [status("x"), status("x#same-id-00000000000000aa")],
            [status("x#same-id-00000000000000aa-2"), status("y")],
            [status("/data/in/part1.jsonl.gz", **bad), status("/data/in/a.jsonl:7", **row)],
        ],
    )
    index = DocumentIndex(str(tmp_path))
    assert len(index) == 6

    def found(doc_id):
        return [s["doc_id"] for s in index.find(doc_id)]

    assert found("x") == [
        "x", "x#same-id-00000000000000aa", "x#same-id-00000000000000aa-2",
    ]  # fmt: skip
    assert found("x#same-id-00000000000000aa") == ["x#same-id-00000000000000aa"]
    assert found("y") == ["y"]
    assert found("part1.jsonl.gz") == found("./in/part1.jsonl.gz") == ["/data/in/part1.jsonl.gz"]
    assert found("a.jsonl:7") == found("a.jsonl") == ["/data/in/a.jsonl:7"]
    assert found("jsonl") == found("1.jsonl.gz") == []
    assert [s["doc_id"] for s in index.quarantined()] == [
        "/data/in/part1.jsonl.gz", "/data/in/a.jsonl:7",
    ]  # fmt: skip


def test_the_screen_tells_repairs_and_shared_ids(tmp_path):
    corpus = tmp_path / "in"
    corpus.mkdir()
    (corpus / "a.jsonl").write_bytes(lines(0, 200) + b'{"text": "one", "id": "same"}\n' * 2)
    (corpus / "old.txt").write_bytes("déjà vu à Noël".encode("cp1252"))
    examples, quarantine = ingest(tmp_path, corpus)
    assert not quarantined(quarantine)
    outputs = {"examples": [examples.mlmd_artifact], "quarantine": [quarantine.mlmd_artifact]}
    summary = summarize_step("CorpusExampleGen", StepRecord(False, outputs))
    first, *others = summary
    assert first.startswith("203 documents, ")
    assert first.endswith("0 records quarantined")
    assert others == ["of 202 jsonl, 1 text", "repaired 1 cp1252", "1 shared ids"]


@pytest.mark.parametrize(
    ("value", "label"),
    [(True, b"true"), (False, b"false"), (1.0, b"1"), (1.5, b""), (3, b"3"), (None, b"")],
)
def test_a_label_is_a_string_a_bool_or_a_whole_number(value, label, tmp_path):
    pq.write_table(pa.table({"text": ["Some text."], "label": [value]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "Some text.", "label": value}))
    settings = CorpusConfig(label_field="label")
    for file in list_inputs((str(tmp_path),)):
        (document,) = read_file(file, settings)
        assert document.label == label


def test_an_array_without_its_end_is_said(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"text": "One."}, {"text": "Two."}')
    *documents, bad = read_file(list_inputs((str(path),))[0], CorpusConfig())
    assert [document.text for document in documents] == [b"One.", b"Two."]
    assert "no ]" in bad.detail
