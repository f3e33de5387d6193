"""Labels (corpus.label_field): read beside the text, in every format that has fields."""

import json

import pytest
from format_files import csv_bytes, example, framed, parquet_bytes, read

ROWS = [("a text", "good"), ("another\none", 3), ("a third", None), ("größer", "schön")]
EXPECTED = [b"good", b"3", b"", "schön".encode()]


def jsonl_bytes(rows, **options):
    records = ({"text": t, "class": label} if label is not None else {"text": t}
               for t, label in rows)  # fmt: skip
    return "".join(json.dumps(record, **options) + "\n" for record in records).encode()


def in_format(kind):
    if kind == "jsonl":
        return jsonl_bytes(ROWS)
    if kind == "csv":
        return csv_bytes(("class", "text"), *((label, text) for text, label in ROWS))
    if kind == "parquet":
        labels = [None if label is None else str(label) for _, label in ROWS]
        return parquet_bytes({"text": [text for text, _ in ROWS], "class": labels})
    return b"".join(
        framed(example(text=t, **({} if label is None else {"class": label}))) for t, label in ROWS
    )


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "tfrecord"])
def test_labels_are_strings_or_whole_numbers_or_missing(tmp_path, kind):
    documents, bad = read(tmp_path / f"a.{kind}", in_format(kind), label_field="class")
    assert not bad
    assert [d.label for d in documents] == EXPECTED
    unlabeled, _ = read(tmp_path / f"a.{kind}")
    assert [d.label for d in unlabeled] == [b""] * len(ROWS)
    assert [d[:4] for d in unlabeled] == [d[:4] for d in documents]


def test_a_column_of_numbers_in_parquet(tmp_path):
    data = parquet_bytes({"text": ["x", "y"], "class": [7, None]})
    documents, _ = read(tmp_path / "a.parquet", data, label_field="class")
    assert [d.label for d in documents] == [b"7", b""]


def test_a_line_that_only_the_careful_parser_reads_has_its_label(tmp_path):
    data = b'{"text": "caf\xe9 au lait, s\'il vous pla\xeet", "class": "french", "n": NaN}\n'
    documents, bad = read(tmp_path / "a.jsonl", data, label_field="class")
    assert not bad
    assert [d.label for d in documents] == [b"french"]


def test_what_is_no_text_and_no_whole_number_is_no_label(tmp_path):
    values = [0.5, ["a"], {"a": 1}, None, ""]
    data = jsonl_bytes([("x", value) for value in values if value is not None])
    documents, _ = read(tmp_path / "a.jsonl", data, label_field="class")
    assert [d.label for d in documents] == [b""] * 4


def test_the_source_may_be_the_label_too(tmp_path):
    data = b'{"text": "x", "source": "web"}\n'
    documents, _ = read(tmp_path / "a.jsonl", data, label_field="source")
    assert [(d.source, d.label) for d in documents] == [(b"web", b"web")]
    data = parquet_bytes({"text": ["x"], "source": ["web"]})
    documents, _ = read(tmp_path / "a.parquet", data, label_field="source")
    assert [(d.source, d.label) for d in documents] == [(b"web", b"web")]
