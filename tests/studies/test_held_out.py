"""Losses of held-out documents: each the sum that the model gives its tokens, however it lies."""

import math

import numpy as np
import pytest
import tensorflow as tf

from pipeline.studies.held_out import (
    ALL,
    HeldOutEvaluator,
    HeldOutSet,
    held_out_of_files,
    held_out_of_split,
)
from tokenmill.errors import TokenmillError
from tokenmill.model.decoder import Decoder
from tokenmill.records.documents import document_batch, encode_documents
from tokenmill.records.tfrecord import write_tfrecords
from tokenmill.text.tokenizers.load import read_tokenizer

LENGTH = 16
SETS = (
    HeldOutSet("short", (b"ak and ka are words", b"bl", "é漢字".encode())),
    HeldOutSet("long", (b" ".join(b"ck and kc are words" for _ in range(30)), b"x" * 3000)),
)


@pytest.fixture(scope="module")
def model(shape):
    return Decoder(shape, 5)


def document_nll(model, tokenizer, text):
    """Log-likelihood of a text in nats, part for part of LENGTH questions, each from its begin."""
    ids = tokenizer.tokenize(tf.constant([text])).flat_values.numpy()
    control = tokenizer.control_ids
    framed = np.concatenate([[control.need("bos")], ids, [control.need("eos")]]).astype(np.int32)
    total = 0.0
    for start in range(0, len(framed) - 1, LENGTH):
        inputs, targets = framed[start : start + LENGTH], framed[start + 1 : start + LENGTH + 1]
        inputs = inputs[: len(targets)]
        row = np.zeros((1, LENGTH), np.int32)
        row[0, : len(inputs)] = inputs
        segments = (np.arange(LENGTH) < len(inputs)).astype(np.int32)[None]
        logits = model(row, segments, np.arange(LENGTH, dtype=np.int32)[None])[0].numpy()
        logits = logits.astype(np.float64)
        for place, target in enumerate(targets):
            total += np.log(np.exp(logits[place]).sum()) - logits[place, target]
    return total


def test_each_document_has_the_loss_of_its_own_tokens(model, tokenizer_path):
    evaluator = HeldOutEvaluator(SETS, tokenizer_path, LENGTH)
    losses = evaluator.bind(model)(model)
    tokenizer = read_tokenizer(tokenizer_path)
    for each in SETS:
        expected = [document_nll(model, tokenizer, text) for text in each.texts]
        np.testing.assert_allclose(losses[each.name].nll, expected, rtol=1e-4)
        assert losses[each.name].bytes.tolist() == [len(text) for text in each.texts]
    total = sum(losses[each.name].nll.sum() for each in SETS)
    size = sum(each.bytes for each in SETS)
    assert losses[ALL].bits_per_byte == pytest.approx(total / math.log(2) / size)


def test_the_fingerprint_is_of_names_and_texts(tokenizer_path):
    prints = {
        HeldOutEvaluator(sets, tokenizer_path, LENGTH).fingerprint
        for sets in (
            SETS,
            SETS[::-1],
            [HeldOutSet("a", (b"ak", b"ka"))],
            [HeldOutSet("a", (b"akka",))],
            [HeldOutSet("b", (b"ak", b"ka"))],
        )
    }
    assert len(prints) == 5


def write_eval(directory, documents):
    """An Examples artifact whose eval split has these (source, text), numbered."""
    ids = [b"%03d" % i for i in range(len(documents))]
    batch = document_batch(ids, [s for s, _ in documents], [t for _, t in documents])
    path = directory / "Split-eval" / "documents.gz"
    path.parent.mkdir()
    write_tfrecords(str(path), [record for _, record in encode_documents(batch)], gzip=True)
    return str(directory)


def test_each_source_is_a_set_and_the_small_ones_share_one(tmp_path):
    documents = [(b"s%02d" % (i % 12), b"word " * (i % 12 + 1)) for i in range(120)]
    uri = write_eval(tmp_path, documents)
    sets = held_out_of_split(uri, most_sources=4)
    assert [each.name for each in sets] == ["s08", "s09", "s10", "s11", "other sources"]
    assert sum(len(each.texts) for each in sets) == 120
    few = held_out_of_split(uri, most_bytes=1000)
    assert 900 < sum(each.bytes for each in few) <= 1000
    assert held_out_of_split(uri, most_bytes=1000) == few


def test_a_split_without_text_is_refused(tmp_path):
    with pytest.raises(TokenmillError, match="the eval split has no text"):
        held_out_of_split(write_eval(tmp_path, [(b"s", b"  \n ")]))


def test_files_are_sets(tmp_path, corpus):
    (tmp_path / "a.txt").write_text("One text.\n")
    (tmp_path / "none.txt").write_text("\n")
    (only,) = held_out_of_files([str(tmp_path / "a.txt")], corpus.config.corpus)
    assert only.texts == (b"One text.",)
    assert only.name == str(tmp_path / "a.txt")
    with pytest.raises(TokenmillError, match=r"empty_text|no document in it"):
        held_out_of_files([str(tmp_path / "none.txt")], corpus.config.corpus)
