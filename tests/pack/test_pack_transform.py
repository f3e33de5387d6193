"""Packing through Beam, on tf.Examples as Transform writes them."""

import hashlib
import json
from collections import Counter

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from made_documents import TokenizedDocument, decode_tokenized, in_columns
from made_manifest import packed_shard
from tfx.types import Channel, standard_artifacts
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.artifacts import PackedRows, Tokenizer
from components.pack import tokenized as tokenized
from components.pack.component import Packer, PackerExecutor
from components.pack.counts import ShardCounts
from components.pack.job import SHARD_TOKENS, PackJob, shards_for
from components.pack.tokenized import read_tokenized
from components.pack.transforms import PackSplit, ShardOutcome, pack_shard, write_manifest
from tokenmill.beam_arguments import RUNNER, beam_arguments
from tokenmill.contracts.packed_rows import PackedShard, RowFormat, SourceCounts
from tokenmill.errors import TokenmillError
from tokenmill.provenance.rows import documents_of_row, find_document
from tokenmill.rows.codec import decode_rows, densify
from tokenmill.rows.packed_split import PackedSplit

VOCAB, LENGTH = 300, 32
SETTINGS = PackJob(sequence_length=LENGTH, vocab_size=VOCAB, shards=3)
BOS, EOS = 2, 3
FLAGS = np.zeros(VOCAB, np.uint8)


def make_documents(count, seed):
    """(doc_id, source, byte_count, ids); every tenth document is empty."""
    rng = np.random.default_rng(seed)
    return [
        (
            b"doc-%04d" % i,
            b"wiki" if i % 3 else "b\u00fccher".encode(),
            int(rng.integers(1, 500)),
            [] if i % 10 == 9 else rng.integers(4, VOCAB, rng.integers(1, 90)).tolist(),
        )
        for i in range(count)
    ]


def language_of(doc_id):
    """The language that a made document is in, by its id."""
    return (b"de", b"en", b"und")[doc_id[-1] % 3]


def serialize(documents):
    ids, sources, sizes, tokens = zip(*documents, strict=True)
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([[i] for i in ids], pa.large_list(pa.large_binary())),
            pa.array([[s] for s in sources], pa.large_list(pa.large_binary())),
            pa.array([[n] for n in sizes], pa.large_list(pa.int64())),
            pa.array(tokens, pa.large_list(pa.int64())),
            pa.array([[language_of(i)] for i in ids], pa.large_list(pa.large_binary())),
        ],
        ["doc_id", "source", "byte_count", "token_ids", "language"],
    )
    return RecordBatchToExamplesEncoder().encode(batch)


def write_examples(directory, documents, files):
    directory.mkdir(parents=True)
    records = serialize(documents)
    for i in range(files):
        path = str(directory / f"transformed_examples-{i:05d}-of-{files:05d}")
        with tf.io.TFRecordWriter(path) as writer:
            for record in records[i::files]:
                writer.write(record)


def run_packing(examples, output, settings=SETTINGS):
    with beam.Pipeline(runner=RUNNER) as pipeline:
        pipeline | PackSplit(f"{examples}/*", str(output), "train", settings, FLAGS)
    return output / "Split-train"


def all_rows(split):
    return split.read(np.arange(split.rows))


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.fixture(scope="module")
def documents():
    return make_documents(120, seed=1)


@pytest.fixture(scope="module")
def packed(tmp_path_factory, documents):
    """(artifact directory, split directory, manifest) of the documents, packed."""
    base = tmp_path_factory.mktemp("packed")
    write_examples(base / "examples", documents, files=1)
    split = run_packing(base / "examples", base / "rows")
    return base / "rows", split, json.loads((split / "manifest.json").read_text())


def test_random_access_gives_what_reading_the_files_in_order_gives(packed):
    uri, directory, manifest = packed
    split = PackedSplit(str(uri), "train")
    paths = [str(directory / shard["file"]) for shard in manifest["shards"]]
    assert len(paths) == SETTINGS.shards
    in_order = densify(
        decode_rows(
            [r.numpy() for r in tf.data.TFRecordDataset(paths)],
            RowFormat(**manifest["row_format"]),
        ),
        LENGTH,
    )
    assert split.rows == manifest["rows"] == len(in_order.inputs)
    shuffled = np.random.default_rng(2).permutation(split.rows)
    for whole, one_by_one, expected in zip(
        split.read(np.arange(split.rows)), split.read(shuffled), in_order, strict=True
    ):
        np.testing.assert_array_equal(whole, expected)
        np.testing.assert_array_equal(one_by_one, expected[shuffled])


def test_all_questions_of_all_documents_arrive(packed, documents):
    uri, _, manifest = packed
    batch = PackedSplit(str(uri), "train").read(np.arange(manifest["rows"]))
    expected = Counter()
    for _, _, _, ids in documents:
        if ids:
            expected.update(zip([BOS, *ids], [*ids, EOS], strict=True))
    asked = batch.loss_weights > 0
    pairs = zip(batch.inputs[asked].tolist(), batch.targets[asked].tolist(), strict=True)
    assert Counter(pairs) == expected


def test_the_files_do_not_depend_on_input_order_files_or_batches(
    packed, documents, tmp_path, monkeypatch
):
    shuffled = [documents[i] for i in np.random.default_rng(3).permutation(len(documents))]
    write_examples(tmp_path / "examples", shuffled, files=3)
    monkeypatch.setattr(tokenized, "BATCH_DOCUMENTS", 7)
    again = run_packing(tmp_path / "examples", tmp_path / "rows")
    assert contents(again) == contents(packed[1])


def test_the_manifest_balances(packed, documents):
    _, directory, manifest = packed
    filled = sum(len(ids) + 1 for *_, ids in documents if ids)
    assert manifest["slots"] == manifest["rows"] * LENGTH == filled + manifest["padding_slots"]
    assert manifest["loss_tokens"] == filled
    assert manifest["documents"] == len(documents)
    assert manifest["bytes"] == sum(size for _, _, size, _ in documents)
    assert manifest["tokens"] == sum(len(ids) for *_, ids in documents)
    assert manifest["dropped_empty"] == 12
    assert manifest["rows"] == sum(shard["rows"] for shard in manifest["shards"])
    assert manifest["stored_bytes"] == sum(
        (directory / shard["file"]).stat().st_size for shard in manifest["shards"]
    )
    assert manifest["segments"] >= manifest["documents"] - manifest["dropped_empty"]
    assert set(manifest["by_source"]) == {"wiki", "b\u00fccher"}
    assert set(manifest["by_language"]) == {"de", "en", "und"}
    of_source = {source: [] for source in manifest["by_source"]}
    of_language = {language: [] for language in manifest["by_language"]}
    for document in documents:
        of_source[document[1].decode()].append(document)
        of_language[language_of(document[0]).decode()].append(document)
    for kind, parts in (("by_source", of_source), ("by_language", of_language)):
        for name, mine in parts.items():
            assert manifest[kind][name] == {
                "documents": len(mine),
                "bytes": sum(d[2] for d in mine),
                "tokens": sum(len(d[3]) for d in mine),
                "loss_tokens": sum(len(d[3]) + 1 for d in mine if d[3]),
                "dropped_empty": sum(not d[3] for d in mine),
            }


def test_the_checksums_are_those_of_the_files(packed):
    _, directory, manifest = packed
    for shard in manifest["shards"]:
        data = (directory / shard["file"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()


def test_target_counts_count_tokens_and_document_ends(packed, documents):
    counts = np.load(packed[1] / "target_counts.npy")
    expected = np.zeros(VOCAB, np.int64)
    for *_, ids in documents:
        for token in [*ids, EOS] if ids else []:
            expected[token] += 1
    np.testing.assert_array_equal(counts, expected)


def test_documents_are_decoded_whether_or_not_they_have_tokens():
    mixed = [(b"a", b"s", 3, [5, 6]), (b"b", b"s", 0, []), (b"c", b"t", 1, [7])]

    def tokens_of(decoded):
        return [t.tolist() for t in np.split(decoded.tokens, np.cumsum(decoded.token_counts)[:-1])]

    decoded = decode_tokenized(serialize(mixed))
    columns = (decoded.doc_ids, decoded.sources, decoded.byte_counts.tolist(), tokens_of(decoded))
    assert list(zip(*columns, strict=True)) == mixed
    none = decode_tokenized(serialize([(b"a", b"s", 3, []), (b"b", b"s", 4, [])]))
    assert tokens_of(none) == [[], []]
    without = tf.train.Example()
    for name in ("doc_id", "source", "language"):
        without.features.feature[name].bytes_list.value.append(b"x")
    without.features.feature["byte_count"].int64_list.value.append(1)
    assert tokens_of(decode_tokenized([without.SerializeToString()])) == [[]]


@pytest.mark.parametrize(
    "counter", ["filled_slots", "context_slots", "packed_items", "tokens", "loss_tokens"]
)
def test_missing_tokens_stop_the_run(tmp_path, counter):
    account = SourceCounts(documents=2, bytes=9, tokens=5, loss_tokens=7, dropped_empty=0)
    counts = ShardCounts(
        segments=2,
        filled_slots=9,
        context_slots=2,
        frame_slots=0,
        packed_items=7,
        slots=LENGTH,
        by_source={"s": account},
        by_language={"en": account},
        loss_tokens_by_source_and_language={},
        by_bucket={},
    )
    entry = PackedShard(**packed_shard(file="rows-00000.tfrecord", rows=1, bytes=40))
    shard = ShardOutcome(entry, counts, np.zeros(VOCAB, np.int64))
    manifest = write_manifest([shard], str(tmp_path), SETTINGS, FLAGS)
    assert manifest.padding_slots == LENGTH - 9
    if counter in ShardCounts._fields:
        shard = shard._replace(counts=counts._replace(**{counter: getattr(counts, counter) - 1}))
    else:
        setattr(account, counter, getattr(account, counter) - 1)
    with pytest.raises(ArithmeticError, match="does not balance"):
        write_manifest([shard], str(tmp_path), SETTINGS, FLAGS)


def test_the_component_packs_both_splits_and_sums_their_counts(
    tmp_path, documents, sentencepiece_model
):
    # Splits of one small shard each, so that the rows can be told from the documents alone.
    parts = {"train": documents[:20], "eval": documents[20:25]}
    examples, rows, tokenizer = standard_artifacts.Examples(), PackedRows(), Tokenizer()
    examples.uri, rows.uri = str(tmp_path / "examples"), str(tmp_path / "rows")
    tokenizer.uri = str(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model)
    examples.split_names = '["train", "eval"]'
    for split, mine in parts.items():
        write_examples(tmp_path / "examples" / f"Split-{split}", mine, files=2)
    component = Packer(
        examples=Channel(type=standard_artifacts.Examples),
        tokenizer=Channel(type=Tokenizer),
        job=PackJob(sequence_length=LENGTH, vocab_size=VOCAB, shards=1),
    )
    PackerExecutor(PackerExecutor.Context(beam_pipeline_args=beam_arguments())).Do(
        {"examples": [examples], "tokenizer": [tokenizer]},
        {"packed_rows": [rows]},
        dict(component.exec_properties),
    )
    assert rows.get_string_custom_property("split_names") == examples.split_names
    for split, mine in parts.items():
        batch = all_rows(PackedSplit(rows.uri, split))
        asked = batch.loss_weights > 0
        assert asked.sum() == sum(len(ids) + 1 for *_, ids in mine if ids)
    assert rows.get_int_custom_property("documents") == 25
    assert rows.get_int_custom_property("tokens") == sum(len(d[3]) for d in documents[:25])


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path, sentencepiece_model):
    examples, rows, tokenizer = standard_artifacts.Examples(), PackedRows(), Tokenizer()
    examples.uri, rows.uri, tokenizer.uri = (str(tmp_path / n) for n in ("e", "r", ""))
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model)
    settings = json.dumps({"sequence_length": LENGTH, "vocab_size": VOCAB - 1, "shards": 1})
    with pytest.raises(TokenmillError, match=r"has 300 tokens, the model has room for 299"):
        PackerExecutor().Do(
            {"examples": [examples], "tokenizer": [tokenizer]},
            {"packed_rows": [rows]},
            {"config": settings},
        )


def test_every_source_needs_a_weight(pack_documents, random_documents):
    with pytest.raises(TokenmillError, match=r"no weight for news; .* code, news, wiki"):
        pack_documents(random_documents(30, 1), source_weights={"wiki": 1.0, "code": 0.0})


def test_rows_hold_one_source_each_where_sources_have_weights(pack_documents, random_documents):
    documents = random_documents(90, 2)
    weights = {"wiki": 1.0, "code": 2.0, "news": 0.0}
    uri = pack_documents(documents, source_weights=weights)
    split = PackedSplit(uri, "train")
    source_of = {doc_id: source.decode() for doc_id, source, _ in documents}
    first = 0
    for shard in split.manifest.shards:
        for source, rows in shard.rows_by_source:
            for row in range(first, first + rows):
                placements = documents_of_row(uri, "train", row)
                assert {source_of[p.doc_id] for p in placements} == {source}
            first += rows
    assert first == split.rows
    assert split.manifest.loss_tokens == sum(len(ids) + 1 for *_, ids in documents if ids)
    assert split.manifest.loss_tokens_by_source_and_language == {
        source: {"en": counts.loss_tokens} for source, counts in split.manifest.by_source.items()
    }


def test_shards_follow_the_size_of_a_split():
    assert shards_for(0, 256) == shards_for(SHARD_TOKENS, 256) == 1
    assert shards_for(SHARD_TOKENS + 1, 256) == 2
    long_rows = 2 * SHARD_TOKENS // 1000  # a thousand rows are two shards' tokens
    assert shards_for(2 * SHARD_TOKENS, long_rows) == 1
    chosen = PackJob(sequence_length=LENGTH, vocab_size=VOCAB)
    assert chosen.of_split("train", 3 * SHARD_TOKENS).shards == 3
    assert chosen.of_split("eval", 10).shards == 1
    assert SETTINGS.of_split("train", 10).shards == SETTINGS.of_split("eval", 10).shards == 3


def test_a_damaged_file_of_transform_is_named(tmp_path, documents):
    write_examples(tmp_path / "examples", documents, files=1)
    (path,) = (tmp_path / "examples").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(TokenmillError, match=r"transformed_examples-00000-of-00001: .*corrupted"):
        list(read_tokenized(str(path)))


@pytest.mark.slow
def test_a_document_of_50_megabytes_is_packed_whole(tmp_path):
    rng = np.random.default_rng(1)
    tokens = rng.integers(4, VOCAB, 12_000_000)  # some 50 MB of text
    documents = [
        (b"large", b"s", 50_000_000, tokens.tolist()),
        (b"small", b"s", 9, [5, 6]),
    ]
    write_examples(tmp_path / "examples", documents, files=1)
    settings = PackJob(sequence_length=LENGTH, vocab_size=VOCAB, shards=1)
    run_packing(tmp_path / "examples", tmp_path / "rows", settings)
    split = PackedSplit(str(tmp_path / "rows"), "train")
    assert split.manifest.tokens == len(tokens) + 2
    assert split.manifest.loss_tokens == len(tokens) + 4
    placements = find_document(str(tmp_path / "rows"), "train", b"large")
    assert sum(p.length for p in placements) == len(tokens) + 1


def test_a_document_that_no_language_counts_stops_the_run(tmp_path):
    documents = [TokenizedDocument(b"a", b"s", 9, np.arange(20, 25, dtype=np.int32))]
    outcome = pack_shard((0, [in_columns(documents)]), str(tmp_path), SETTINGS, FLAGS)
    outcome.counts.by_language["en"].bytes -= 1
    with pytest.raises(ArithmeticError, match=r"does not balance: the sources have .*bytes=9"):
        write_manifest([outcome], str(tmp_path), SETTINGS, FLAGS)
