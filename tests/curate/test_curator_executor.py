"""Curator's executor from an Examples artifact to curated examples, rejects and the report."""

import json
import os
import time

import pytest
import tensorflow as tf

from components.artifacts import DroppedDocuments, Examples
from components.curate.component import CuratorExecutor
from components.curate.config import CurateConfig
from components.curate.counts import samples_by_reason
from tokenmill.beam_arguments import beam_arguments
from tokenmill.contracts.curation import (
    CURATION_NAME,
    DroppedDocument,
    read_curation,
    read_dropped,
)
from tokenmill.contracts.ingest import Amount
from tokenmill.errors import TokenmillError
from tokenmill.records.documents import decode_documents, document_batch, encode_documents
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import write_tfrecords

CONFIG = CurateConfig(
    rules="none",
    min_words=4.0,
    min_letter_fraction=0.5,
    mask=("email",),
    max_drop_fraction=1.0,
)


def documents(prefix, count):
    """(doc_id, source, text): of four, two stay, one is short, one is a copy of the first."""
    rows = []
    for i in range(count):
        text = f"The {prefix} document about matter {i}, mail x{i}@example.org.  \r\n"
        rows += [
            (f"{prefix}-{i}-a", "web", text),
            (f"{prefix}-{i}-b", "web", f"Another one of its kind: {text}"),
            (f"{prefix}-{i}-c", "brief", f"short {i}"),
            (f"{prefix}-{i}-d", "copies", text.upper()),
        ]
    return rows


def write_examples(uri, splits, files=1):
    """Writes an Examples artifact, each split spread over some files."""
    for split, rows in splits.items():
        for i in range(files):
            columns = ([v.encode() for v in column] for column in zip(*rows[i::files], strict=True))
            records = [record for _, record in encode_documents(document_batch(*columns))]
            path = os.path.join(split_directory(uri, split), f"part-{i}.gz")
            write_tfrecords(path, records, gzip=True)
    examples = Examples()
    examples.uri = uri
    examples.split_names = json.dumps(["train", "eval"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    return examples


def curate(home, splits, files=1, shards=2, settings=CONFIG, quality_model=None):
    """Runs the executor; returns the artifacts (curated, dropped)."""
    examples = write_examples(str(home / "examples"), splits, files)
    curated, dropped = Examples(), DroppedDocuments()
    curated.uri, dropped.uri = str(home / "curated"), str(home / "dropped")
    context = CuratorExecutor.Context(
        beam_pipeline_args=beam_arguments(),
        tmp_dir=str(home / "tmp"),
        unique_id="1",
    )
    CuratorExecutor(context).Do(
        {
            "examples": [examples],
            **({} if quality_model is None else {"quality_model": [quality_model]}),
        },
        {"curated_examples": [curated], "dropped": [dropped]},
        {"config": settings.to_json(), "benchmarks": "[]", "lists": "{}", "shards": shards},
    )
    return curated, dropped


def records_in(directory, prefix):
    """The records of all files of a directory whose name starts so."""
    records = []
    for name in sorted(os.listdir(directory)):
        if name.startswith(prefix):
            dataset = tf.data.TFRecordDataset(os.path.join(directory, name), "GZIP")
            records += [r.numpy() for r in dataset]
    return records


def files_under(uri):
    """Path -> content of every file of an artifact."""
    found = {}
    for directory, _, names in os.walk(uri):
        for name in names:
            path = os.path.join(directory, name)
            with open(path, "rb") as source:
                found[os.path.relpath(path, uri)] = source.read()
    return found


def test_labels_stay_with_their_documents(tmp_path):
    splits = {
        split: [(*row, "" if i % 3 else f"class {i % 2}") for i, row in enumerate(rows)]
        for split, rows in (("train", documents("train", 40)), ("eval", documents("eval", 10)))
    }
    curated, _ = curate(tmp_path, splits, files=2)
    for split, rows in splits.items():
        labels = {row[0]: row[3] for row in rows}
        batch = decode_documents(records_in(split_directory(curated.uri, split), "documents-"))
        kept = {d["doc_id"].decode(): d["label"].decode() for d in batch.to_pylist()}
        assert kept == {doc_id: labels[doc_id] for doc_id in kept}
        assert len(set(kept.values())) == 3


def test_artifacts_agree_with_the_report(tmp_path):
    splits = {"train": documents("train", 300), "eval": documents("eval", 20)}
    curated, dropped = curate(tmp_path, splits)
    with open(os.path.join(dropped.uri, CURATION_NAME), encoding="utf-8") as source:
        report = json.load(source)

    rejects = list(read_dropped(dropped.uri))
    for split, count in (("train", 300), ("eval", 20)):
        batch = decode_documents(records_in(split_directory(curated.uri, split), "documents-"))
        ids = [doc_id.decode() for doc_id in batch.column(0).to_pylist()]
        assert sorted(ids) == sorted(f"{split}-{i}-{x}" for i in range(count) for x in "ab")
        assert all(text.endswith(b"<EMAIL>.") for text in batch.column(2).to_pylist())
        by_source = report["splits"][split]["by_source"]
        assert by_source["web"]["kept"]["documents"] == 2 * count
        assert by_source["web"]["kept"]["bytes"] == sum(batch.column(3).to_pylist())
        assert by_source["brief"]["dropped"]["too_few_words"]["documents"] == count
        assert by_source["copies"]["dropped"]["exact_duplicate"]["documents"] == count
        for account in (*by_source.values(), report["total"]):
            for name, kept_name in (("documents", "documents"), ("bytes", "raw_bytes")):
                assert account["in"][name] == account["kept"][kept_name] + sum(
                    reason[name] for reason in account["dropped"].values()
                )
    everything = [row for rows in splits.values() for row in rows]
    assert report["total"]["in"] == {
        "documents": len(everything),
        "bytes": sum(len(text) for _, _, text in everything),
    }
    assert report["masked"] == {"email": 960}
    assert len(rejects) == 640
    curation = read_curation(dropped.uri)
    numbers = curation.dropped_by_reason()
    assert {reason: amount.documents for reason, amount in numbers.items()} == {
        "exact_duplicate": 320,
        "too_few_words": 320,
    }
    assert sum(amount.bytes for amount in numbers.values()) == sum(r.raw_bytes for r in rejects)
    assert set(curation.dropped_by_reason("brief")) == {"too_few_words"}
    assert {(r.doc_id.decode().split("-")[2], r.reason) for r in rejects} == {
        ("c", "too_few_words"),
        ("d", "exact_duplicate"),
    }
    assert all(r.kept_copy == r.doc_id[:-1] + b"a" for r in rejects if r.kept_copy)
    assert curated.get_int_custom_property("documents") == 640
    assert curated.get_int_custom_property("bytes") == report["total"]["kept"]["bytes"]
    assert dropped.get_int_custom_property("documents") == 640
    assert json.loads(curated.split_names) == ["train", "eval"]
    assert curated.get_string_custom_property("file_format") == "tfrecords_gzip"


def test_two_runs_give_the_same_bytes_whatever_the_input_files(tmp_path):
    splits = {"train": documents("train", 200), "eval": documents("eval", 20)}
    shuffled = {split: rows[::-1] for split, rows in splits.items()}
    results = []
    for name, given_splits, files in (("a", splits, 1), ("b", shuffled, 3)):
        artifacts = curate(tmp_path / name, given_splits, files)
        results.append([files_under(artifact.uri) for artifact in artifacts])
    assert len(results[0][0]) == 4  # two splits, two shards
    assert results[0] == results[1]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_split_that_ends_empty_is_an_error_with_the_reasons(tmp_path, split):
    splits = {"train": documents("train", 5), "eval": documents("eval", 5)}
    splits[split] = [(f"{split}-{i}", "web", f"short {i}") for i in range(7)]
    with pytest.raises(TokenmillError) as error:
        curate(tmp_path, splits)
    message = str(error.value)
    assert f"no document in the {split} split" in message
    assert "7 too_few_words" in message
    assert "[curate]" in message


def test_train_split_of_nothing_but_copies_of_eval_ends_empty(tmp_path):
    rows = [(f"x-{i}", "web", f"The very same document, number {i}.") for i in range(5)]
    with pytest.raises(TokenmillError, match=r"train split .*5 exact_duplicate"):
        curate(tmp_path, {"train": rows, "eval": rows})


def test_held_out_split_that_all_overlaps_ends_empty(tmp_path):
    words = " ".join(f"w{'xyz'[i % 3]}{i}" for i in range(40))
    other = " ".join(f"v{i} of many words" for i in range(40))
    splits = {
        "train": [("a", "web", f"{words} {other}")],
        "eval": [("b", "web", f"Some words of its own before it, and then {words}")],
    }
    with pytest.raises(
        TokenmillError,
        match=r"eval .*1 contaminated.*b shares \"wx0 wy1.* with a.*--set curate\.decont",
    ):
        curate(tmp_path, splits)


def test_a_rule_that_takes_a_whole_source_stops_the_step(tmp_path):
    splits = {"train": documents("train", 10), "eval": documents("eval", 5)}
    settings = CONFIG.model_copy(update={"max_drop_fraction": 0.5})
    with pytest.raises(TokenmillError) as error:
        curate(tmp_path / "stopped", splits, settings=settings)
    message = str(error.value)
    assert "too_few_words drops 100% of source brief (15 of 15 documents)" in message
    assert "--set curate.min_words=off" in message
    _, dropped = curate(tmp_path / "let pass", splits)
    curation = read_curation(dropped.uri)
    assert curation.remarks == [
        "too_few_words drops 100% of source brief (15 of 15 documents) "
        "(tokenmill curate inspect shows them)"
    ]
    assert sum(language.documents for language in curation.languages.values()) == 60
    assert sum(sum(c.dropped.values()) for c in curation.languages.values()) == 15


@pytest.mark.parametrize(("exact", "count"), [("drop", 20_000), ("keep", 5_000)])
def test_one_text_many_thousand_times_takes_seconds(tmp_path, exact, count):
    """A hot key: all copies fall into one partition, and with "keep" into the same bands.

    In seconds of a core: others may use the machine, too.
    """
    text = "A notice that a crawler found on every single page of the site it was sent to."
    splits = {
        "train": [(f"{i:05d}", "web", text) for i in range(count)],
        "eval": [("e", "web", "Something else entirely, of which there is just this one copy.")],
    }
    splits["train"].append(("z", "web", "One more document that is not like any of the others."))
    started = time.process_time()
    settings = CONFIG.model_copy(update={"exact_duplicates": exact})
    _, dropped = curate(tmp_path, splits, settings=settings)
    assert time.process_time() - started < 60
    reason = "exact_duplicate" if exact == "drop" else "near_duplicate"
    assert read_curation(dropped.uri).dropped_by_reason() == {
        reason: Amount(documents=count - 1, bytes=(count - 1) * len(text))
    }
    copies = {record.kept_copy for record in read_dropped(dropped.uri)}
    assert copies == {b"00000"}


def test_samples_are_the_same_in_any_order():
    records = [
        DroppedDocument("train", b"%d" % i, b"xyz"[i % 3 :][:1], "", 0, "ab"[i % 2], 0.0, 0.0, b"")
        for i in range(60)
    ]
    found = samples_by_reason(records, None, None, 5)
    assert {reason: len(chosen) for reason, chosen in found.items()} == {"a": 5, "b": 5}
    assert found == samples_by_reason(records[::-1], None, None, 5)
    more = samples_by_reason(records, "a", None, 8)
    assert list(more) == ["a"]
    assert more["a"][:5] == found["a"]
    assert found["a"] != records[0:10:2]  # a sample, not the beginning
    (of_source,) = samples_by_reason(records, "b", "y", 99).values()
    assert len(of_source) == 10
    assert {(r.reason, r.source) for r in of_source} == {("b", b"y")}
    assert samples_by_reason(records, "c", None, 5) == {}
