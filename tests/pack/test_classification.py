"""Labeled documents as rows of a classifier, and the books of those that are left out."""

from collections import Counter

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import TokenizedDocument, in_columns
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.pack.classification import FindLabels, check_labels
from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from tokenmill.beam_arguments import RUNNER
from tokenmill.contracts.packed_rows import RowFormat
from tokenmill.errors import TokenmillError
from tokenmill.provenance.rows import find_document
from tokenmill.records.keys import stable_hash
from tokenmill.records.tfrecord import write_tfrecords
from tokenmill.rows.arrays import Rows
from tokenmill.rows.codec import decode_rows, encode_rows
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.token_flags import CONTROL
from tokenmill.rows.widths import widths, widths_of
from tokenmill.text.vocabulary import CLS_ID, SEP_ID

VOCAB, NAMES = 300, [b"bad", b"good"]
FLAGS = np.where(np.arange(VOCAB) < 16, CONTROL, 0).astype(np.uint8)

cases = st.lists(
    st.tuples(
        st.integers(0, 100),
        st.sampled_from([b"good", b"bad", b"ugly", b""]),
        st.sampled_from([b"web", b"code"]),
    ),
    min_size=1,
    max_size=30,
)


def documents_of(case):
    rng = np.random.default_rng(len(case))
    return [
        TokenizedDocument(
            b"d%d" % i,
            source,
            n + 1,
            rng.integers(16, VOCAB, n, np.int32),
            label,
            (b"en", b"und")[n % 2],
        )
        for i, (n, label, source) in enumerate(case)
    ]


def pack(directory, documents, length=32, shards=2, **options):
    """The split that these documents become, and its manifest."""
    settings = PackJob(
        sequence_length=length,
        vocab_size=VOCAB,
        shards=shards,
        task="classification",
        classes=2,
        **options,
    )
    target = str(directory / "Split-train")
    entries = []
    for shard in range(shards):
        mine = [d for d in documents if stable_hash(d.doc_id) % shards == shard]
        if mine:
            columns = in_columns(mine)
            entries.append(pack_shard((shard, [columns]), target, settings, FLAGS, NAMES))
    manifest = write_manifest(entries, target, settings, FLAGS, NAMES)
    return PackedSplit(str(directory), "train"), manifest


@settings(deadline=None, max_examples=30)
@given(case=cases, length=st.integers(8, 80), weighted=st.booleans())
def test_each_labeled_document_is_one_row_with_its_class(tmp_path_factory, case, length, weighted):
    documents = documents_of(case)
    weights = {"source_weights": {"web": 1.0, "code": 2.0}} if weighted else {}
    split, manifest = pack(tmp_path_factory.mktemp("rows"), documents, length, **weights)
    batch = split.read(np.arange(split.rows))
    found = Counter()
    for row in range(split.rows):
        used = batch.segment_ids[row] == 1
        assert batch.loss_weights[row].tolist() == [1.0] + [0.0] * (length - 1)
        np.testing.assert_array_equal(batch.positions[row, used], np.arange(used.sum()))
        found[tuple(batch.inputs[row, used].tolist()), NAMES[batch.targets[row, 0]]] += 1
        assert split.row_lengths()[row] == used.sum()
    expected = Counter(
        ((CLS_ID, *d.token_ids[: length - 2].tolist(), SEP_ID), d.label)
        for d in documents
        if len(d.token_ids) and d.label in NAMES
    )
    assert found == expected
    assert manifest.documents_by_label == {
        name.decode(): sum(n for (_, label), n in expected.items() if label == name)
        for name in NAMES
    }


@settings(deadline=None, max_examples=30)
@given(case=cases, length=st.integers(8, 80))
def test_every_document_and_token_is_accounted_for(tmp_path_factory, case, length):
    documents = documents_of(case)
    split, manifest = pack(tmp_path_factory.mktemp("rows"), documents, length)
    assert (
        manifest.documents
        == len(documents)
        == split.rows
        + sum(
            getattr(manifest, f"dropped_{reason}")
            for reason in ("empty", "no_label", "unknown_label")
        )
    )
    with_tokens = [d for d in documents if len(d.token_ids)]
    assert manifest.dropped_no_label == sum(not d.label for d in with_tokens)
    assert manifest.dropped_unknown_label == sum(d.label == b"ugly" for d in with_tokens)
    assert manifest.tokens == sum(len(d.token_ids) for d in documents)
    assert manifest.tokens == (
        manifest.loss_tokens + manifest.dropped_tokens + manifest.truncated_tokens
    )
    lengths = split.row_lengths()
    assert manifest.loss_tokens == (lengths - 2).sum()
    assert manifest.slots == widths_of(lengths, length).sum()
    assert manifest.slots - manifest.padding_slots == lengths.sum()
    for source, account in manifest.by_source.items():
        mine = [d for d in documents if d.source.decode() == source]
        assert account.documents == len(mine)
        assert account.tokens == sum(len(d.token_ids) for d in mine)
    for name in manifest.counted():
        added = sum(getattr(account, name) for account in manifest.by_language.values())
        assert added == getattr(manifest, name), name
    left_out = [d for d in with_tokens if d.language == b"und" and not d.label]
    if "und" in manifest.by_language:
        assert manifest.by_language["und"].dropped_no_label == len(left_out)


def test_a_lost_document_stops_the_run(tmp_path):
    documents = documents_of([(5, b"good", b"web"), (7, b"bad", b"web")])
    packing = PackJob(
        sequence_length=32, vocab_size=VOCAB, shards=1, task="classification", classes=2
    )
    target = str(tmp_path / "Split-train")
    columns = in_columns(documents)
    entry = pack_shard((0, [columns]), target, packing, FLAGS, NAMES)
    entry.counts.by_source["web"].dropped_no_label = 1
    with pytest.raises(ArithmeticError, match="1 documents are to be packed, but 2 were"):
        write_manifest([entry], target, packing, FLAGS, NAMES)


def test_where_a_document_lies_can_be_looked_up(tmp_path):
    documents = documents_of([(50, b"good", b"web"), (7, b"", b"web"), (9, b"bad", b"web")])
    split, _ = pack(tmp_path, documents, length=32)
    (place,) = find_document(str(tmp_path), "train", b"d0")
    assert (place.row_offset, place.document_token_start, place.length) == (1, 0, 30)
    np.testing.assert_array_equal(
        split.read(np.array([place.row])).inputs[0, 1:31], documents[0].token_ids[:30]
    )
    assert find_document(str(tmp_path), "train", b"d1") == []


def test_rows_are_read_as_wide_as_asked(tmp_path):
    split, _ = pack(tmp_path, documents_of([(20, b"good", b"web"), (7, b"bad", b"web")]), 256)
    wide, narrow = (split.read(np.arange(2), width) for width in (None, 32))
    assert wide.inputs.shape == (2, 256)
    for a, b in zip(wide, narrow, strict=True):
        np.testing.assert_array_equal(a[:, :32], b)


@given(st.lists(st.integers(0, 65_000), min_size=1, max_size=8), st.integers(1, 9))
def test_records_keep_the_label(labels, length):
    rows = Rows(
        np.ones(len(labels), np.int64), np.full(len(labels), length),
        np.arange(len(labels) * length, dtype=np.int32), None, None, np.array(labels, np.int32),
    )  # fmt: skip
    row_format = RowFormat(dtype="<u2", last_targets=False, context=False, label=True)
    again = decode_rows(encode_rows(rows, row_format), row_format)
    np.testing.assert_array_equal(again.labels, labels)
    np.testing.assert_array_equal(again.inputs, rows.inputs)


@given(st.integers(8, 65_535), st.data())
def test_a_bucket_is_the_narrowest_that_holds_the_row(sequence_length, data):
    bounds = widths(sequence_length)
    assert bounds[-1] == sequence_length
    length = data.draw(st.integers(1, sequence_length))
    (width,) = widths_of(np.array([length]), sequence_length)
    assert width == min(w for w in bounds if w >= length)


def test_the_labels_are_those_of_documents_with_tokens(tmp_path):
    made = [(b"b", [20]), (b"a", [21, 22]), (b"only of an empty one", []), (b"", [9]), (b"b", [7])]
    column = pa.large_list(pa.large_binary())
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([[b"%d" % i] for i in range(len(made))], column),
            pa.array([[b"s"]] * len(made), column),
            pa.array([[1]] * len(made), pa.large_list(pa.int64())),
            pa.array([ids for _, ids in made], pa.large_list(pa.int64())),
            pa.array([[label] for label, _ in made], column),
            pa.array([[b"en"]] * len(made), column),
        ],
        ["doc_id", "source", "byte_count", "token_ids", "label", "language"],
    )
    records = RecordBatchToExamplesEncoder().encode(batch)
    for i in range(2):
        write_tfrecords(str(tmp_path / f"part-{i}"), records[i::2], gzip=False)
    with beam.Pipeline(runner=RUNNER) as pipeline:
        labels = pipeline | FindLabels(f"{tmp_path}/part-*", 2)
        (
            labels
            | beam.Map(str)
            | beam.io.WriteToText(str(tmp_path / "found"), shard_name_template="")
        )
    assert (tmp_path / "found").read_text() == "[b'a', b'b']\n"


def test_a_wrong_number_of_classes_names_both():
    message = "model.classes = 3, but the documents of the train split have 2 labels: bad, good"
    with pytest.raises(TokenmillError, match=message):
        check_labels([b"good", b"bad"], 3)
    with pytest.raises(TokenmillError, match="no document of the train split has a label"):
        check_labels([], 2)
    many = [b"%03d" % i for i in range(400)]
    with pytest.raises(TokenmillError, match=r"000, 001, .* and 390 more"):
        check_labels(many, 2)
