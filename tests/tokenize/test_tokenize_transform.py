"""Transform: one graph for training and serving, whatever the text; sampling for training only."""

import gc
import inspect
import pathlib
import random

import apache_beam as beam
import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from made_documents import TokenizedDocument, decode_tokenized
from tfx.types import artifact_utils, standard_artifacts

from components.artifacts import Examples, Tokenizer
from components.tokenize.apply_transform import ApplyTransform
from components.tokenize.component import TokenizingTransform
from components.tokenize.config import TokenizerConfig
from components.tokenize.subword_regularization import Sampler, SubwordRegularization
from components.tokenize.training import train_sentencepiece
from tokenmill.beam_arguments import beam_arguments
from tokenmill.contracts.tokenizer import TOKENIZER_MODEL_NAME
from tokenmill.model.shape import ModelShape
from tokenmill.records.documents import document_batch, encode_documents
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import write_tfrecords
from tokenmill.text.tokenization import PART_BYTES, load_tokenizer, tokenize

VOCAB_SIZE = 700
SCHEMA = "".join(
    f'feature {{ name: "{name}" type: {kind} presence {{ min_fraction: 1 }} '
    "shape { dim { size: 1 } } }\n"
    for name, kind in (
        ("doc_id", "BYTES"), ("source", "BYTES"), ("text", "BYTES"), ("byte_count", "INT"),
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def docstrings():
    found = (
        inspect.getdoc(v) or "" for m in (gc, inspect, random, pathlib) for v in vars(m).values()
    )
    return sorted({text for text in found if len(text) > 80})


@pytest.fixture(scope="module")
def models(docstrings):
    return {
        t: train_sentencepiece(
            docstrings, TokenizerConfig(model_type=t, vocab_size=VOCAB_SIZE, sample_bytes=1)
        )
        for t in ("bpe", "unigram")
    }


def odd_texts(docstrings) -> list[bytes]:
    """1,000 texts: edges, bad UTF-8, random Unicode, pieces of prose."""
    rng = random.Random(0)
    fixed = [
        b"", b" ", b"\n\t ", b"     ", b"\x00", b"a\x00b", b"\xed\xa0\x80", b"x\xed\xb0\x80y",
        b"\xff", b"\xff\xfe BOM", b"caf\xe9 \xffa b", "\u2581 \ue000.".encode(), b"<s></s><mask>",
        b"--" * 99,
        b"=" * 77, "漢字かな".encode() * 9, "😀e\u0301".encode(), b"1234567890", b"\r\n\r\n",
    ]  # fmt: skip
    texts = list(fixed)
    while len(texts) < 1000:
        size = rng.randrange(40)
        if rng.random() < 0.5:
            points = (
                rng.choice([rng.randrange(0x300), rng.randrange(0xD800)]) for _ in range(size)
            )
            texts.append("".join(map(chr, points)).encode())
        else:
            text = rng.choice(docstrings)
            start = rng.randrange(len(text))
            texts.append(text[start : start + 4 * size].encode())
    return texts


def language_of(doc_id):
    """The language that curation would have found of a document, by its id."""
    return (b"de", b"zh", b"und")[doc_id[-1] % 3]


def transform(home, model, train, held_out, sampling=None):
    """Runs the Transform step; returns ({split: {doc_id: document}}, uri of its graph)."""
    examples = Examples()
    examples.uri = str(home / "examples")
    for split, texts in (("train", train), ("eval", held_out)):
        for shard in range(2):
            rows = [(b"%s-%d" % (split.encode(), i), text) for i, text in enumerate(texts)][
                shard::2
            ]
            ids, bodies = [r[0] for r in rows], [r[1] for r in rows]
            languages = [language_of(i) for i in ids]
            batch = document_batch(ids, [b"s"] * len(rows), bodies, languages=languages)
            records = [record for _, record in encode_documents(batch)] if rows else []
            write_tfrecords(
                f"{split_directory(examples.uri, split)}/{shard}.gz", records, gzip=True
            )
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    for name, file, content in (
        ("tokenizer", TOKENIZER_MODEL_NAME, model), ("schema", "schema.pbtxt", SCHEMA.encode()),
    ):  # fmt: skip
        (home / name).mkdir()
        (home / name / file).write_bytes(content)
    tokenizer, schema = Tokenizer(), standard_artifacts.Schema()
    graph, transformed = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    tokenizer.uri, schema.uri = str(home / "tokenizer"), str(home / "schema")
    graph.uri, transformed.uri = str(home / "graph"), str(home / "transformed")
    channels = (standard_artifacts_channel(a) for a in (examples, schema, tokenizer))
    component = TokenizingTransform(*channels, sampling)
    executor_class = component.executor_spec.executor_class
    context = executor_class.Context(
        beam_pipeline_args=beam_arguments(),
        tmp_dir=str(home / "tmp"),
        unique_id="1",
    )
    executor_class(context).Do(
        {"examples": [examples], "schema": [schema], "tokenizer": [tokenizer]},
        {"transform_graph": [graph], "transformed_examples": [transformed]},
        {k: v for k, v in component.exec_properties.items() if v is not None},
    )
    assert transformed.split_names == examples.split_names
    found = {}
    for split in ("train", "eval"):
        files = tf.io.gfile.glob(f"{split_directory(transformed.uri, split)}/*")
        records = list(tf.data.TFRecordDataset(sorted(files)).as_numpy_iterator())
        found[split] = by_id(decode_tokenized(records)) if records else {}
        assert len(found[split]) == len(records)
        assert all(d.language == language_of(i) for i, d in found[split].items())
        tokens = sum(len(d.token_ids) for d in found[split].values())
        assert transformed.get_int_custom_property(f"{split}_tokens") == tokens
    return found, graph.uri


def by_id(documents):
    """Columns of documents as {doc_id: TokenizedDocument}."""
    ids = np.split(documents.tokens, np.cumsum(documents.token_counts)[:-1])
    rows = zip(
        documents.doc_ids, documents.sources, documents.byte_counts.tolist(), ids,
        documents.labels, documents.languages, strict=True,
    )  # fmt: skip
    return {row[0]: TokenizedDocument(*row) for row in rows}


def is_utf8(text):
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def standard_artifacts_channel(artifact):
    from tfx.types import channel_utils

    return channel_utils.as_channel([artifact])


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_training_and_the_pushed_model_see_the_same_tokens(
    tmp_path, docstrings, models, model_type
):
    from tokenmill.export.saved_model import export_model
    from tokenmill.model.decoder import Decoder

    texts = odd_texts(docstrings)
    found, graph_uri = transform(tmp_path, models[model_type], texts, texts[:3])
    documents = [found["train"][b"train-%d" % i] for i in range(1000)]  # none is lost
    assert [d.byte_count for d in documents] == [len(text) for text in texts]
    shape = ModelShape(
        layers=1, d_model=8, heads=1, d_ff=8, vocab_size=VOCAB_SIZE, sequence_length=32,
        positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
    )  # fmt: skip
    decoder = Decoder(shape, seed=1)
    zeros = tf.zeros([1, 32], tf.int32)
    decoder(zeros, zeros, zeros)
    pushed = tmp_path / "pushed"
    export_model(
        decoder, graph_uri, str(tmp_path / "tokenizer" / TOKENIZER_MODEL_NAME), str(pushed)
    )
    served = tf.saved_model.load(str(pushed))
    valid = [i for i, text in enumerate(texts) if is_utf8(text)]  # the server refuses the others
    scored = served.signatures["score"](text=tf.constant([texts[i] for i in valid]))
    counts = [int(n) - 1 for n in scored["token_count"]]
    assert counts == [len(documents[i].token_ids) for i in valid]
    assert len(valid) > 900

    # The ids: the artifact's graph as the SavedModel has it, and the op itself, alone and together.
    op = load_tokenizer(str(tmp_path / "tokenizer" / TOKENIZER_MODEL_NAME))
    for i in (*range(40), 500, 999):
        alone = tokenize(op, tf.constant([texts[i]])).to_list()[0]
        assert alone == documents[i].token_ids.tolist()
    together = tokenize(op, tf.constant(texts)).to_list()
    assert together == [d.token_ids.tolist() for d in documents]
    for text, ids in zip(texts, together, strict=True):
        decoded = op.detokenize(tf.constant(ids, tf.int32)).numpy() if ids else b""
        assert decoded == text or b"\xef\xbf\xbd" in decoded  # U+FFFD for what is not UTF-8
        assert ids or not text


def test_the_graphs_op_and_the_library_differ_between_equally_likely_splits_only(models, tmp_path):
    """How often depends on the library's version; the op's choice is what is used."""
    (tmp_path / "m.model").write_bytes(models["unigram"])
    op = load_tokenizer(str(tmp_path / "m.model"))
    library = sentencepiece.SentencePieceProcessor(model_proto=models["unigram"])
    texts = [c * n for c in "-=#*.x a" for n in range(1, 60)]
    differing = []
    for text, ids in zip(texts, tokenize(op, tf.constant(texts)).to_list(), strict=True):
        assert op.detokenize(ids).numpy().decode() == library.decode(library.encode(text)) == text
        if ids != library.encode(text):
            differing.append((text, ids, library.encode(text)))
    for _, ids, others in differing:  # only in a tie: the same score
        scores = [sum(library.get_score(i) for i in s) for s in (ids, others)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-4)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_a_drawn_split_is_the_same_text_and_depends_on_seed_and_id_only(
    docstrings, models, model_type
):
    library = sentencepiece.SentencePieceProcessor(model_proto=models[model_type])
    texts = [text.encode() for text in docstrings[:40]] + [b"", b"  ", b"ab  c" * PART_BYTES]
    keyed = list(enumerate(texts))

    def draw(seed, order):
        sampler = Sampler(models[model_type], SubwordRegularization(0.2, seed))
        drawn = {i: sampler.encode(b"%d" % i, text) for i, text in order}
        return [drawn[i] for i in range(len(texts))]

    drawn = draw(1, keyed)
    assert drawn == draw(1, keyed[::-1])
    assert drawn != draw(2, keyed)
    assert drawn != [library.encode(text.decode()) for text in texts]
    for text, ids in zip(texts, drawn, strict=True):
        assert library.decode(ids).encode() == text
    same_text = Sampler(models[model_type], SubwordRegularization(0.2, 1))
    assert same_text.encode(b"a", texts[0]) != same_text.encode(b"b", texts[0])


def test_sampling_changes_training_documents_only(tmp_path, docstrings, models):
    texts = [text.encode() for text in docstrings[:40]]
    sampling = SubwordRegularization(0.2, 1)
    found, _ = transform(tmp_path, models["unigram"], texts, texts, sampling)
    op = load_tokenizer(str(tmp_path / "tokenizer" / TOKENIZER_MODEL_NAME))
    sampler = Sampler(models["unigram"], sampling)
    for i, text in enumerate(texts):
        train, held_out = found["train"][b"train-%d" % i], found["eval"][b"eval-%d" % i]
        assert train.token_ids.tolist() == sampler.encode(b"train-%d" % i, text)
        assert held_out.token_ids.tolist() == tokenize(op, tf.constant([text])).to_list()[0]
        assert (train.source, train.byte_count) == (b"s", len(text))
    assert sum(len(d.token_ids) for d in found["train"].values()) > sum(
        len(d.token_ids) for d in found["eval"].values()
    )


def test_processes_draw_and_write_the_same_bytes(tmp_path, docstrings, models):
    (tmp_path / "m.model").write_bytes(models["unigram"])
    for shard in range(4):
        texts = [text.encode() for text in docstrings[shard::4]]
        ids = [b"%d-%d" % (shard, i) for i in range(len(texts))]
        records = [r for _, r in encode_documents(document_batch(ids, [b"s"] * len(ids), texts))]
        path = f"{split_directory(str(tmp_path / 'in'), 'train')}/{shard}.gz"
        write_tfrecords(path, records, gzip=True)
    written = []
    for name, options in (
        ("one", []),
        ("two", ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]),
    ):
        counts = tmp_path / f"{name}.txt"
        with beam.Pipeline(options=PipelineOptions(beam_arguments(options))) as pipeline:
            tokens = pipeline | ApplyTransform(
                str(tmp_path / "in"), str(tmp_path / name), "train", "", str(tmp_path / "m.model"),
                SubwordRegularization(0.2, 1),
            )  # fmt: skip
            tokens | beam.Map(str) | beam.io.WriteToText(str(counts), shard_name_template="")
        files = sorted((tmp_path / name / "Split-train").iterdir())
        written.append([counts.read_text(), *((f.name, f.read_bytes()) for f in files)])
    assert len(written[0]) == 5
    assert int(written[0][0]) > len(docstrings)
    assert written[0] == written[1]


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_long_words_are_cut_between_characters_and_nothing_is_lost(tmp_path, models, model_type):
    (tmp_path / "m.model").write_bytes(models[model_type])
    op = load_tokenizer(str(tmp_path / "m.model"))
    texts = [
        b"", b"short", b"x" * (PART_BYTES + 1), "漢é😀".encode() * PART_BYTES,
        b" " * 3 * PART_BYTES,
        b"a b" + b"=" * PART_BYTES + b" c", b"y" * PART_BYTES,
    ]  # fmt: skip
    ids = tokenize(op, tf.constant(texts))
    assert op.detokenize(ids).numpy().tolist() == texts
    for i, text in enumerate(texts):
        assert tokenize(op, tf.constant([text])).to_list()[0] == ids[i].numpy().tolist()
    not_utf8 = tokenize(op, tf.constant([b"\x80" * 3 * PART_BYTES, b"ok"]))
    assert op.detokenize(not_utf8).numpy()[0] == "\ufffd".encode() * 3 * PART_BYTES


@pytest.mark.slow
def test_a_document_of_50_megabytes(tmp_path, docstrings, models):
    text = " ".join(docstrings).encode()
    text = (text * (50_000_000 // len(text) + 1))[:50_000_000].decode("utf-8", "ignore").encode()
    found, _ = transform(tmp_path, models["bpe"], [text, b"after"], [b"x"])
    ids = found["train"][b"train-0"].token_ids
    library = sentencepiece.SentencePieceProcessor(model_proto=models["bpe"])
    assert library.decode(np.asarray(ids).tolist()).encode() == text
    assert found["train"][b"train-1"].byte_count == 5
