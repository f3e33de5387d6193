"""Files of every format, sound and broken, become documents and bad records."""

import bz2
import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.ingest.config import CorpusConfig
from components.ingest.manifest import InputFile, list_inputs
from components.ingest.readers import read_file
from components.ingest.records import Document
from components.ingest.transforms import split_of
from tokenmill.contracts.ingest import BadRecord

MEGABYTE = 1_000_000
COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}
# Hypothesis writes each example over the file of the one before: sharing tmp_path is meant.
on_files = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(path: Path, data: bytes, max_document_bytes: int = 10 * MEGABYTE):
    """Writes `data` to `path` and reads it: (documents, bad records)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return read_input(list_inputs([str(path)])[0], max_document_bytes)


def read_input(file: InputFile, max_document_bytes: int = 10 * MEGABYTE):
    """Reads one listed file: (documents, bad records)."""
    items = list(
        read_file(file, CorpusConfig(max_document_bytes=max_document_bytes, eval_fraction=0.05))
    )
    documents = [item for item in items if isinstance(item, Document)]
    bad = [item for item in items if isinstance(item, BadRecord)]
    assert len(documents) + len(bad) == len(items)
    return documents, bad


def json_lines(*records) -> bytes:
    """Records as JSON lines; bytes go in as they are."""
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in records]
    return b"".join(line + b"\n" for line in lines)


# --- sound files ------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".txt", ".md", ".TXT"])
def test_text_file_is_one_document(tmp_path, suffix, compression):
    text = "Zwölf Boxkämpfer\n\tjagen Viktor.\n"
    documents, bad = read(
        tmp_path / f"boxer{suffix}{compression}", COMPRESS[compression](text.encode())
    )
    assert not bad
    assert [d.text.decode() for d in documents] == [text]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json"])
def test_json_lines_file_is_a_document_a_line(tmp_path, suffix, compression):
    data = json_lines({"text": "one"}, {"text": "zwei\nü"}, {"text": "three"})
    documents, bad = read(tmp_path / f"a{suffix}{compression}", COMPRESS[compression](data))
    assert not bad
    assert [d.text.decode() for d in documents] == ["one", "zwei\nü", "three"]


def test_concatenated_archives_are_read_to_the_end(tmp_path):
    parts = [json_lines({"text": "first member"}), json_lines({"text": "second member"})]
    for suffix in (".gz", ".bz2", ".zst"):
        data = b"".join(COMPRESS[suffix](part) for part in parts)
        documents, bad = read(tmp_path / f"two.jsonl{suffix}", data)
        assert not bad
        assert [d.text for d in documents] == [b"first member", b"second member"], suffix


def test_last_line_without_line_feed_and_windows_line_ends(tmp_path):
    documents, bad = read(tmp_path / "a.jsonl", b'{"text": "one"}\r\n\r\n{"text": "two"}')
    assert not bad
    assert [d.text for d in documents] == [b"one", b"two"]


def test_byte_order_mark_is_no_text(tmp_path):
    bom = b"\xef\xbb\xbf"
    assert read(tmp_path / "a.txt", bom + b"plain")[0][0].text == b"plain"
    documents, bad = read(
        tmp_path / "a.jsonl",
        bom + json_lines({"text": "first"}, {"text": "\ufeffin the field"}, {"text": "last"}),
    )
    assert not bad
    assert [d.text for d in documents] == [b"first", b"in the field", b"last"]


def test_a_file_that_holds_only_a_byte_order_mark_is_empty(tmp_path):
    documents, bad = read(tmp_path / "a.txt", b"\xef\xbb\xbf")
    assert not documents
    assert [b.reason for b in bad] == ["empty_text"]


# --- ids and sources --------------------------------------------------------------------------


def test_default_ids_name_file_and_line(tmp_path):
    data = json_lines({"text": "one"}, b"{", {"text": "three"})
    assert [d.doc_id for d in read(tmp_path / "a.jsonl", data)[0]] == [b"a.jsonl:1", b"a.jsonl:3"]
    assert read(tmp_path / "note.md", b"text")[0][0].doc_id == b"note.md"


def test_ids_and_sources_by_field(tmp_path):
    data = json_lines(
        {"text": "a", "id": "given-é", "source": "wiki"},
        {"text": "b", "id": 17},
        {"text": "c", "id": None, "source": ""},
        {"text": "d", "id": ["odd"], "source": 5},
    )
    documents, bad = read(tmp_path / "web.v2.jsonl.gz", gzip.compress(data))
    assert not bad
    assert [(d.doc_id.decode(), d.source.decode()) for d in documents] == [
        ("given-é", "wiki"),
        ("17", "web"),
        ("web.v2.jsonl.gz:3", "web"),
        ("web.v2.jsonl.gz:4", "web"),
    ]


def test_field_names_are_settings(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json_lines({"body": "b", "key": "k", "site": "s"}))
    file = list_inputs([str(tmp_path)])[0]
    items = list(
        read_file(
            file,
            CorpusConfig(
                text_field="body",
                id_field="key",
                source_field="site",
                max_document_bytes=100,
                eval_fraction=0.05,
            ),
        )
    )
    assert items == [Document(b"k", b"s", b"b")]


def test_default_source_is_the_first_directory_below_the_input(tmp_path):
    for name in ("wiki/en/a.txt", "wiki/b.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    found = {}
    for file in list_inputs([str(tmp_path)]):
        document = read_input(file)[0][0]
        found[document.doc_id] = document.source
    here = tmp_path.name.encode()
    assert found == {b"notes.md": here, b"wiki/b.txt": b"wiki", b"wiki/en/a.txt": b"wiki"}


def test_moving_the_corpus_renames_no_document(tmp_path):
    for home in ("here", "there/deep"):
        (tmp_path / home / "wiki").mkdir(parents=True)
        (tmp_path / home / "wiki" / "a.txt").write_text("same")
    ids = [read_input(list_inputs([str(tmp_path / home)])[0])[0] for home in ("here", "there/deep")]
    assert ids[0] == ids[1]


# --- broken records: the reason, the place, and everything else survives ----------------------

BROKEN_LINES = {
    "not JSON": (b'{"text": "broken', "invalid_json"),
    "bare words": (b"hello", "invalid_json"),
    "too deep": (b"[" * 100_000, "invalid_json"),
    "number with too many digits": (b'{"text": "t", "n": ' + b"9" * 5000 + b"}", "invalid_json"),
    "not UTF-8": (b'{"text": "caf\xe9 \x81"}', "not_utf8"),
    "lone surrogate": (rb'{"text": "half \ud800 a pair"}', "not_utf8"),
    "no text": (b'{"body": "b"}', "missing_text"),
    "null": (b'{"text": null}', "missing_text"),
    "number": (b'{"text": 5}', "missing_text"),
    "list of strings": (b'{"text": ["a"]}', "missing_text"),
    "not an object": (b'["a"]', "missing_text"),
    "empty": (b'{"text": ""}', "empty_text"),
    "blanks": (rb'{"text": " \t\n "}', "empty_text"),
}


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_broken_line_is_quarantined_and_its_neighbors_are_read(tmp_path, name):
    line, reason = BROKEN_LINES[name]
    documents, bad = read(
        tmp_path / "a.jsonl", json_lines({"text": "before"}, line, {"text": "after"})
    )
    assert [d.text for d in documents] == [b"before", b"after"]
    assert [(b.file, b.record, b.reason) for b in bad] == [(str(tmp_path / "a.jsonl"), 2, reason)]
    assert bad[0].detail


def test_missing_text_names_the_field_and_what_is_there(tmp_path):
    bad = read(tmp_path / "a.jsonl", json_lines({"body": "b", "title": "t"}))[1]
    assert "'text'" in bad[0].detail
    assert "body" in bad[0].detail
    assert "title" in bad[0].detail


def test_text_file_that_is_not_utf8(tmp_path):
    documents, bad = read(tmp_path / "latin1.txt", b"d\xe9j\x81 vu")
    assert not documents
    assert [(b.file, b.record, b.reason) for b in bad] == [
        (str(tmp_path / "latin1.txt"), 0, "not_utf8")
    ]
    assert "byte 1" in bad[0].detail


def test_empty_files(tmp_path):
    documents, bad = read(tmp_path / "empty.txt", b"")
    assert not documents
    assert [b.reason for b in bad] == ["empty_text"]
    assert read(tmp_path / "empty.jsonl", b"") == ([], [])
    assert read(tmp_path / "empty.jsonl.gz", gzip.compress(b"")) == ([], [])


def test_lone_surrogates_in_ids_and_sources_do_not_cost_the_document(tmp_path):
    documents, bad = read(
        tmp_path / "a.jsonl", rb'{"text": "fine", "id": "x\ud800", "source": "\udfff"}' + b"\n"
    )
    assert not bad
    assert documents[0].text == b"fine"
    assert documents[0].doc_id.decode()
    assert documents[0].source.decode()


# --- size -------------------------------------------------------------------------------------


def test_document_of_just_the_largest_size_is_read(tmp_path):
    for name, wrap in (("a.txt", bytes), ("a.jsonl", lambda t: json_lines({"text": t.decode()}))):
        documents, bad = read(tmp_path / name, wrap(b"x" * 1000), max_document_bytes=1000)
        assert (len(documents), bad) == (1, [])
        documents, bad = read(tmp_path / name, wrap(b"x" * 1001), max_document_bytes=1000)
        assert (documents, [b.reason for b in bad]) == ([], ["too_large"])
        assert "1,001" in bad[0].detail
        assert "1,000" in bad[0].detail


def test_escapes_do_not_count_as_size(tmp_path):
    """json.dumps writes a Cyrillic letter, 2 bytes of UTF-8, as 6 characters."""
    text = "ж" * 450_000
    documents, bad = read(
        tmp_path / "a.jsonl", json_lines({"text": text}), max_document_bytes=1_000_000
    )
    assert not bad
    assert documents[0].text.decode() == text


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])  # bz2 packs 50 MB in 6 s
@pytest.mark.parametrize("kind", ["text", "line"])
def test_fifty_megabytes_are_quarantined_in_bounded_memory(tmp_path, kind, compression):
    huge = b"lorem " * (50 * MEGABYTE // 6)
    if kind == "text":
        path, data = tmp_path / f"huge.txt{compression}", huge
    else:
        path = tmp_path / f"huge.jsonl{compression}"
        data = json_lines({"text": "before"}, b'{"text": "' + huge + b'"}', {"text": "after"})
    path.write_bytes(COMPRESS[compression](data))
    del huge, data
    file = list_inputs([str(path)])[0]
    tracemalloc.start()
    documents, bad = read_input(file, max_document_bytes=MEGABYTE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15 * MEGABYTE
    assert [(b.record, b.reason) for b in bad] == [(0 if kind == "text" else 2, "too_large")]
    assert [d.text for d in documents] == ([] if kind == "text" else [b"before", b"after"])
    if kind == "line" or not compression:
        assert bad[0].size_bytes > 49 * MEGABYTE


# --- files that break off ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_truncated_archive_keeps_the_documents_before_the_break(tmp_path, suffix):
    texts = [os.urandom(100).hex() for _ in range(20_000)]  # bz2 works in blocks of 900 kB
    whole = COMPRESS[suffix](json_lines(*({"text": text} for text in texts)))
    documents, bad = read(tmp_path / f"cut.jsonl{suffix}", whole[: len(whole) * 3 // 4])
    found = [d.text.decode() for d in documents]
    assert 1000 < len(found) < len(texts)
    assert found == texts[: len(found)]
    assert [(b.file, b.record, b.reason) for b in bad] == [
        (str(tmp_path / f"cut.jsonl{suffix}"), 0, "unreadable_file")
    ]


def test_gzip_that_lacks_only_its_checksum_is_quarantined(tmp_path):
    """A short file: all of it fits into one buffer."""
    whole = gzip.compress(json_lines({"text": "one"}, {"text": "two"}))
    documents, bad = read(tmp_path / "cut.jsonl.gz", whole[:-4])
    assert [d.text for d in documents] == [b"one", b"two"]
    assert [b.reason for b in bad] == ["unreadable_file"]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_truncated_text_archive_is_no_document(tmp_path, suffix):
    whole = COMPRESS[suffix](os.urandom(5000).hex().encode())
    documents, bad = read(tmp_path / f"cut.txt{suffix}", whole[:-1000])
    assert not documents
    assert [b.reason for b in bad] == ["unreadable_file"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.gz", "a.jsonl.bz2", "a.txt.zst"])
def test_archive_that_is_none_is_quarantined(tmp_path, name):
    documents, bad = read(tmp_path / name, b"this was never compressed" * 10)
    assert not documents
    assert [(b.record, b.reason) for b in bad] == [(0, "unreadable_file")]
    assert bad[0].size_bytes == 250


def test_file_that_vanished_after_it_was_listed_is_quarantined(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    file = list_inputs([str(tmp_path)])[0]
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "nowhere")
    documents, bad = read_input(file)
    assert not documents
    assert [(b.file, b.reason) for b in bad] == [(str(tmp_path / "a.jsonl"), "unreadable_file")]


# --- properties -------------------------------------------------------------------------------

LINES = st.one_of(
    # Not the beginning of another format, which hypothesis reads in the code: that is one bad file.
    st.binary(max_size=40).map(lambda b: b"-" + b.replace(b"\n", b"")),
    st.sampled_from([line for line, _ in BROKEN_LINES.values()]),
    st.fixed_dictionaries({"text": st.text(max_size=40)}).map(lambda r: json.dumps(r).encode()),
)


@on_files
@given(lines=st.lists(LINES, max_size=20), compression=st.sampled_from(list(COMPRESS)))
def test_every_record_ends_as_document_or_quarantined(tmp_path, lines, compression):
    data = COMPRESS[compression](b"\n".join(lines))
    documents, bad = read(tmp_path / f"a.jsonl{compression}", data)
    assert len(documents) + len(bad) == sum(bool(line.strip()) for line in lines)
    assert all(document.text.decode().strip("\n\t\r \x0b\x0c") for document in documents)


@on_files
@given(
    data=st.binary(max_size=300),
    compression=st.sampled_from(list(COMPRESS)),
    suffix=st.sampled_from([".txt", ".jsonl"]),
    archive=st.booleans(),
    cut=st.integers(0, 40),
)
def test_no_file_whatever_its_bytes_raises(tmp_path, data, compression, suffix, archive, cut):
    data = COMPRESS[compression](data) if archive else data
    documents, bad = read(tmp_path / f"a{suffix}{compression}", data[: max(0, len(data) - cut)])
    assert all(document.text.decode() for document in documents)
    if suffix == ".txt":
        assert len(documents) + len(bad) == 1


# --- splits -----------------------------------------------------------------------------------


@given(st.text(st.characters(codec="ascii")), st.sampled_from([0.05, 0.5, 0.95]))
def test_split_ignores_blanks_and_case(text, fraction):
    spaced = "\n " + text.replace(" ", " \t\n ").swapcase() + "  "
    assert split_of(text.encode(), fraction) == split_of(spaced.encode(), fraction)


def test_eval_fraction_is_about_right_and_growing_it_moves_no_eval_text():
    texts = [f"document number {i}".encode() for i in range(20_000)]
    evals = {
        fraction: {t for t in texts if split_of(t, fraction) == "eval"}
        for fraction in (0.01, 0.05, 0.5)
    }
    for fraction, texts_of in evals.items():
        sigma = (20_000 * fraction * (1 - fraction)) ** 0.5
        assert abs(len(texts_of) - 20_000 * fraction) < 4 * sigma
    assert evals[0.01] < evals[0.05] < evals[0.5]
