"""CorpusExampleGen's executor from files to artifacts."""

import gzip
import json
import os
import random
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from components.artifacts import Examples, Quarantine
from components.ingest.component import CorpusExampleGenExecutor
from components.ingest.config import CorpusConfig
from components.ingest.manifest import list_inputs, write_manifest
from tokenmill.beam_arguments import beam_arguments
from tokenmill.errors import TokenmillError
from tokenmill.records.documents import decode_documents


def ingest(home, *inputs, max_quarantine_fraction=0.05, shards=3, **read):
    """Runs the executor over the inputs; returns the artifacts (examples, quarantine)."""
    manifest = write_manifest(list_inputs([str(i) for i in inputs]), str(home / "manifests"))
    examples, quarantine = Examples(), Quarantine()
    examples.uri, quarantine.uri = str(home / "examples"), str(home / "quarantine")
    context = CorpusExampleGenExecutor.Context(
        beam_pipeline_args=beam_arguments(),
        tmp_dir=str(home / "tmp"),
        unique_id="1",
    )
    config = CorpusConfig(
        **{
            "max_document_bytes": 10_000,
            "eval_fraction": 0.1,
            "max_quarantine_fraction": max_quarantine_fraction,
            "shards": shards,
            **read,
        }
    )
    CorpusExampleGenExecutor(context).Do(
        {},
        {"examples": [examples], "quarantine": [quarantine]},
        {"input_base": manifest, "config": config.to_json(), "release": "test"},
    )
    return examples, quarantine


def files_under(uri):
    """Path -> content of every file of an artifact."""
    found = {}
    for directory, _, names in os.walk(uri):
        for name in names:
            path = os.path.join(directory, name)
            with open(path, "rb") as source:
                found[os.path.relpath(path, uri)] = source.read()
    return found


def documents_in(uri, split):
    """(doc_id, source, text, byte_count) of a split, in the order of the files."""
    rows = []
    directory = os.path.join(uri, f"Split-{split}")
    for name in sorted(os.listdir(directory)):
        records = tf.data.TFRecordDataset(os.path.join(directory, name), "GZIP")
        batch = decode_documents([r.numpy() for r in records])
        rows += zip(*(batch.column(i).to_pylist() for i in range(4)), strict=True)
    return rows


def quarantined(artifact):
    """The records of quarantine.jsonl."""
    with open(os.path.join(artifact.uri, "quarantine.jsonl"), encoding="utf-8") as source:
        return [json.loads(line) for line in source]


def counts(artifact):
    """The counts of a quarantine artifact."""
    with open(os.path.join(artifact.uri, "counts.json"), encoding="utf-8") as source:
        return json.load(source)


RECORDS = [
    {"text": f"Text number {i}: {'ü' * (i % 7)}", "id": f"doc-{i}", "source": f"site{i % 3}"}
    for i in range(1200)  # more than one batch
]


def write_corpus(directory, records, files=1):
    """Spreads records over JSON lines files, one in two gzipped."""
    directory.mkdir(parents=True)
    for i in range(files):
        data = "".join(json.dumps(r) + "\n" for r in records[i::files]).encode()
        name = f"part{i}.jsonl"
        if i % 2:
            (directory / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (directory / name).write_bytes(data)
    return directory


def test_documents_arrive_whole_split_counted_and_sorted(tmp_path):
    examples, quarantine = ingest(tmp_path, write_corpus(tmp_path / "in", RECORDS, files=3))
    train, evaluation = (documents_in(examples.uri, split) for split in ("train", "eval"))
    expected = {
        (r["id"].encode(), r["source"].encode(), r["text"].encode(), len(r["text"].encode()))
        for r in RECORDS
    }
    assert len(train) + len(evaluation) == len(RECORDS)
    assert {*train, *evaluation} == expected
    assert 60 < len(evaluation) < 180
    assert json.loads(examples.split_names) == ["train", "eval"]
    assert examples.get_int_custom_property("documents") == len(RECORDS)
    assert examples.get_int_custom_property("bytes") == sum(row[3] for row in expected)
    assert quarantine.get_int_custom_property("records") == 0
    assert quarantined(quarantine) == []
    summary = counts(quarantine)
    for split, rows in (("train", train), ("eval", evaluation)):
        assert summary["splits"][split]["documents"] == len(rows)
        for source, entry in summary["splits"][split]["by_source"].items():
            sizes = [row[3] for row in rows if row[1] == source.encode()]
            assert entry == {"documents": len(sizes), "bytes": sum(sizes)}


def test_same_documents_give_the_same_bytes_whatever_files_they_come_in(tmp_path):
    shuffled = RECORDS.copy()
    random.Random(3).shuffle(shuffled)
    results = []
    for name, records, files in (
        ("a", RECORDS, 1),
        ("b", RECORDS, 1),
        ("c", shuffled, 4),
    ):
        corpus = write_corpus(tmp_path / f"in-{name}", records, files)
        results.append(files_under(ingest(tmp_path / name, corpus)[0].uri))
    assert len(results[0]) == 6  # two splits, three shards
    assert results[0] == results[1]
    assert results[0] == results[2]


def test_copies_of_a_text_fall_into_one_split(tmp_path):
    records = [
        {"text": text, "id": f"{i}-{j}", "source": f"site{j}"}
        for i in range(60)
        for j, text in enumerate((f"The text {i}", f"the  text {i}\n", f"THE\tTEXT {i}"))
    ]
    examples, _ = ingest(
        tmp_path, write_corpus(tmp_path / "in", records, files=2), eval_fraction=0.3
    )
    splits = {}
    for split in ("train", "eval"):
        for doc_id, *_ in documents_in(examples.uri, split):
            splits.setdefault(doc_id.split(b"-")[0], []).append(split)
    assert sorted(map(len, splits.values())) == [3] * 60
    assert all(len(set(of_text)) == 1 for of_text in splits.values())


def test_quarantine_lists_every_bad_record_once(tmp_path):
    corpus = write_corpus(tmp_path / "in", RECORDS[:200])
    (corpus / "bad.jsonl").write_bytes(
        b'{"text": "caf\xe9 \x81"}\n{"text": "sound"}\n{"text": 5}\n{\n'
    )
    (corpus / "huge.txt").write_text("x" * 10_001)
    (corpus / "bad.txt.gz").write_bytes(b"no gzip")
    (corpus / "empty.md").write_bytes(b"")
    examples, quarantine = ingest(tmp_path, corpus, max_quarantine_fraction=0.8)
    found = [
        (os.path.basename(r["file"]), r["record"], r["reason"]) for r in quarantined(quarantine)
    ]
    assert found == [
        ("bad.jsonl", 1, "not_utf8"),
        ("bad.jsonl", 3, "missing_text"),
        ("bad.jsonl", 4, "invalid_json"),
        ("bad.txt.gz", 0, "unreadable_file"),
        ("empty.md", 0, "empty_text"),
        ("huge.txt", 0, "too_large"),
    ]
    summary = counts(quarantine)
    assert summary["read"]["documents"] == 201
    assert summary["quarantined"]["documents"] == 6
    assert summary["quarantined"]["by_reason"]["too_large"] == {"documents": 1, "bytes": 10_001}
    assert sum(e["documents"] for e in summary["quarantined"]["by_reason"].values()) == 6
    assert quarantine.get_int_custom_property("records") == 6
    assert examples.get_int_custom_property("documents") == 201


def test_too_much_quarantined_stops_with_count_reasons_and_the_first(tmp_path):
    corpus = write_corpus(tmp_path / "in", RECORDS[:90])
    (corpus / "a-bad.jsonl").write_bytes(b"nonsense\n" * 6 + b'{"text": 5}\n' * 4)
    with pytest.raises(TokenmillError) as error:
        ingest(tmp_path, corpus, max_quarantine_fraction=0.09)
    message = str(error.value)
    for part in (
        "10 of 100 records",
        "6 invalid_json",
        "4 missing_text",
        "0.09",
        f"{corpus}/a-bad.jsonl:1: invalid_json",
    ):
        assert part in message


def test_quarantine_of_just_the_allowed_share_passes(tmp_path):
    corpus = write_corpus(tmp_path / "in", RECORDS[:90])
    (corpus / "bad.jsonl").write_bytes(b"nonsense\n" * 10)
    quarantine = ingest(tmp_path, corpus, max_quarantine_fraction=0.1)[1]
    assert quarantine.get_int_custom_property("records") == 10


def test_no_quarantine_allowed_means_none(tmp_path):
    corpus = write_corpus(tmp_path / "in", RECORDS[:90])
    (corpus / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(TokenmillError, match="1 of 91 records"):
        ingest(tmp_path, corpus, max_quarantine_fraction=0.0)


def test_corpus_without_a_document_is_an_error(tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")
    with pytest.raises(TokenmillError, match="the corpus is empty: 1 file"):
        ingest(tmp_path, tmp_path / "empty.jsonl")


def test_empty_split_is_an_error_that_names_it(tmp_path):
    corpus = write_corpus(tmp_path / "in", RECORDS[:20])
    with pytest.raises(TokenmillError, match=r"eval split \(20 in all\).*eval_fraction"):
        ingest(tmp_path / "a", corpus, eval_fraction=1e-9)
    with pytest.raises(TokenmillError, match="train split"):
        ingest(tmp_path / "b", corpus, eval_fraction=1 - 1e-9)


def test_all_formats_together_with_repairs_and_a_span(tmp_path):
    corpus = tmp_path / "in" / "7"
    write_corpus(corpus, RECORDS[:300])
    (corpus / "a.csv").write_bytes(b"\xef\xbb\xbfid,text\nc1,from a table\nc2\n")
    (corpus / "old.txt").write_bytes("déjà vu à Noël".encode("cp1252"))
    (corpus / "wide.txt").write_bytes("wide text".encode("utf-16"))
    (corpus / "double.md").write_text("câ€™est dÃ©jÃ  vu")
    (corpus / "odd.txt").write_bytes(b"\x81\xff")
    pq.write_table(pa.table({"text": ["row one", None]}), corpus / "p.parquet")
    with tf.io.TFRecordWriter(str(corpus / "t.tfrecord")) as writer:
        example = tf.train.Example()
        example.features.feature["text"].bytes_list.value.append(b"an example")
        example.features.feature["id"].int64_list.value.append(77)
        writer.write(example.SerializeToString())
    examples, quarantine = ingest(tmp_path, tmp_path / "in/{SPAN}", max_quarantine_fraction=0.2)
    rows = [row for split in ("train", "eval") for row in documents_in(examples.uri, split)]
    texts = {row[0]: row[2].decode() for row in rows}
    assert len(rows) == len(texts) == 306
    assert all(row[3] == len(row[2]) for row in rows)
    assert texts[b"c1"] == "from a table"
    assert texts[b"old.txt"] == "déjà vu à Noël"
    assert texts[b"wide.txt"] == "wide text"
    assert texts[b"double.md"] == "c’est déjà vu"
    assert texts[b"p.parquet:1"] == "row one"
    assert texts[b"77"] == "an example"
    summary = counts(quarantine)
    assert summary["repaired"] == {"bom": 1, "cp1252": 1, "mojibake": 1, "utf-16": 1}
    assert summary["read"] == {"documents": 306, "bytes": sum(row[3] for row in rows)}
    by_reason = {r: e["documents"] for r, e in summary["quarantined"]["by_reason"].items()}
    assert by_reason == {"malformed_row": 1, "missing_text": 1, "not_utf8": 1}
    assert examples.span == 7


def test_settings_reach_the_readers(tmp_path):
    text = "\n\n".join(f"Paragraph number {i}" for i in range(50))
    (tmp_path / "a.dat").write_text(text)
    examples, quarantine = ingest(
        tmp_path, tmp_path / "a.dat", format="text", text_unit="paragraph", eval_fraction=0.5
    )
    assert examples.get_int_custom_property("documents") == 50
    assert counts(quarantine)["repaired"] == {}
    assert examples.span == 0


def test_a_mixed_directory_is_counted_by_format_and_adds_up(tmp_path):
    corpus = write_corpus(tmp_path / "in", RECORDS[:100], files=2)
    for i in range(30):
        (corpus / f"{i}.html").write_text(f"<nav>Menu</nav><p>Page {i}</p>")
    with zipfile.ZipFile(corpus / "all.zip", "w") as archive:
        archive.writestr("a.txt", "plain text")
        archive.writestr("b.png", "picture")
    examples, quarantine = ingest(tmp_path, corpus)
    found = counts(quarantine)
    assert {name: amount["documents"] for name, amount in found["formats"].items()} == {
        "html": 30, "jsonl": 100, "zip": 1
    }  # fmt: skip
    for unit in ("documents", "bytes"):
        assert sum(amount[unit] for amount in found["formats"].values()) == found["read"][unit]
    assert found["left_out"] == {".png in an archive": 1}
    assert len(documents_in(examples.uri, "train")) + len(documents_in(examples.uri, "eval")) == 131
