"""The exported SavedModel of an encoder: what it hides, scores, classifies and embeds."""

import dataclasses
import json
import os

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf

from serving.app import ServerThread
from serving.client import Client
from serving.server.config import ServerConfig
from tokenmill.checkpoints.base_model import read_pooling
from tokenmill.contracts.served_model import Pooling
from tokenmill.export.text_masking import TextMasking
from tokenmill.model.base_model import load_base_model
from tokenmill.model.build import Decoder, Encoder
from tokenmill.rows.masking import MaskSettings
from tokenmill.rows.token_flags import word_starts
from tokenmill.text.vocabulary import CLS_ID, CONTROL_COUNT, MASK_ID, SEP_ID

CONTEXT = 48
LABELS = ["böse", "fair", "gut"]
TEXTS = ["Returns the", "", "A layer that adds its inputs and", "日本語", "the tensor " * 60]


@pytest.fixture(scope="module")
def masked(make_encoder):
    return make_encoder("mlm")


def call(model, signature, texts):
    outputs = model.signatures[signature](text=tf.constant(texts))
    return {name: value.numpy() for name, value in outputs.items()}


def evaluate(model, texts, labels=None):
    examples = []
    for text, label in zip(texts, labels or [""] * len(texts), strict=True):
        example = tf.train.Example()
        example.features.feature["text"].bytes_list.value[:] = [text.encode()]
        if label:
            example.features.feature["label"].bytes_list.value[:] = [label.encode()]
        examples.append(example.SerializeToString())
    outputs = model.signatures["evaluate"](examples=tf.constant(examples))
    return {name: value.numpy() for name, value in outputs.items()}


def hide(settings, flags, documents):
    """By the graph: lists of what is seen, and of whether each token is a target."""
    ids = tf.ragged.constant(documents, dtype=tf.int32, ragged_rank=1)
    hidden, weights = tf.function(TextMasking(settings, flags).hide)(ids)
    return hidden.to_list(), weights.to_list()


def test_a_masked_language_model_has_no_likelihood_and_no_continuation(masked):
    assert set(masked[1].signatures) == {
        "serving_default", "embed", "embed_ids", "evaluate", "logits_ids",
    }  # fmt: skip
    outputs = evaluate(masked[1], TEXTS)
    assert not {"bits_per_byte", "log_likelihood"} & set(outputs)


def test_evaluation_is_the_loss_at_the_hidden_tokens(exported, flags, masked):
    """Beside a computation piece by piece, with NumPy, from the model's logits."""
    encoder, model = masked
    processor = sentencepiece.SentencePieceProcessor(model_file=exported.tokenizer)
    documents = [processor.encode(text) for text in TEXTS]
    hidden, targets = hide(MaskSettings(0.3, False), flags, documents)
    outputs = evaluate(model, TEXTS)
    assert outputs["token_count"].tolist() == [sum(row) for row in targets]
    assert outputs["token_count"][-1] > 20
    for i, (document, seen, drawn) in enumerate(zip(documents, hidden, targets, strict=True)):
        nll = correct = 0.0
        for start in range(0, len(document), CONTEXT - 2):
            piece = slice(start, start + CONTEXT - 2)
            row = tf.constant([[CLS_ID, *seen[piece], SEP_ID]], tf.int32)
            logits = encoder(row, tf.ones_like(row), tf.range(row.shape[1])[None]).numpy()[0, 1:-1]
            logits = logits.astype(np.float64)
            log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            for place, (token, is_target) in enumerate(
                zip(document[piece], drawn[piece], strict=True)
            ):
                nll -= is_target * log_probabilities[place, token]
                correct += is_target * (log_probabilities[place].argmax() == token)
        assert outputs["nll_sum"][i] == pytest.approx(nll, rel=1e-4)
        assert outputs["correct_count"][i] == correct


def test_a_text_is_evaluated_alike_alone_and_beside_others(masked):
    together = evaluate(masked[1], TEXTS)
    for i, text in enumerate(TEXTS):
        alone = evaluate(masked[1], [text])
        for name, value in alone.items():
            np.testing.assert_allclose(value[0], together[name][i], rtol=1e-3, err_msg=name)


def test_the_draw_has_the_rates_of_training(flags):
    rng = np.random.default_rng(3)
    documents = rng.integers(CONTROL_COUNT, len(flags), (200, 500)).tolist()
    hidden, targets = hide(MaskSettings(0.15, False), flags, documents)
    tokens, seen, drawn = (np.array(x) for x in (documents, hidden, targets))
    drawn = drawn > 0
    assert drawn.mean() == pytest.approx(0.15, abs=0.005)
    assert (seen[~drawn] == tokens[~drawn]).all()
    assert (seen[drawn] == MASK_ID).mean() == pytest.approx(0.8, abs=0.015)
    kept = (seen[drawn] == tokens[drawn]).mean()
    assert kept == pytest.approx(0.1 + 0.1 / (len(flags) - CONTROL_COUNT), abs=0.01)
    replaced = seen[drawn & (seen != MASK_ID) & (seen != tokens)]
    assert replaced.min() >= CONTROL_COUNT
    assert len(np.unique(replaced)) > 0.9 * (len(flags) - CONTROL_COUNT)
    # Every text has a draw of its own, and every place about the same chance.
    assert len({row.tobytes() for row in drawn}) == len(drawn)
    assert drawn.mean(0).max() < 0.3


def test_the_draw_never_changes(flags):
    """Models of different versions are compared by it: this must not move."""
    documents = [list(range(20, 60)), [20], []]
    first = hide(MaskSettings(0.3, False), flags, documents)
    assert first == hide(MaskSettings(0.3, False), flags, documents)
    assert [i for i, x in enumerate(first[1][0]) if x] == PINNED


def test_whole_words_are_hidden_together(exported, flags):
    processor = sentencepiece.SentencePieceProcessor(model_file=exported.tokenizer)
    documents = [processor.encode("unshapely tensors, reversed axes; " * 30), processor.encode("a")]
    _, targets = hide(MaskSettings(0.3, True), flags, documents)
    _, single = hide(MaskSettings(0.3, False), flags, documents)
    starts = word_starts(np.array(documents[0]), flags)
    word = np.cumsum(starts)
    drawn = np.array(targets[0])
    assert len(starts) > word[-1]  # some words have several pieces
    assert all(len(set(drawn[word == w])) == 1 for w in np.unique(word))
    assert any(len(set(np.array(single[0])[word == w])) == 2 for w in np.unique(word))
    assert 0.15 < drawn.mean() < 0.45


def test_no_texts_at_all(masked):
    outputs = evaluate(masked[1], TEXTS)
    nothing = masked[1].signatures["evaluate"](examples=tf.constant([], tf.string))
    assert {name: value.shape[0] for name, value in nothing.items()} == dict.fromkeys(outputs, 0)


def test_an_embedding_is_the_mean_over_frame_and_tokens(exported, masked):
    encoder, model = masked
    processor = sentencepiece.SentencePieceProcessor(model_file=exported.tokenizer)
    answer = call(model, "embed", TEXTS[:4])
    for i, text in enumerate(TEXTS[:4]):
        ids = processor.encode(text)
        row = tf.constant([[CLS_ID, *ids, SEP_ID]], tf.int32)
        hidden = encoder.hidden(row, tf.ones_like(row), tf.range(row.shape[1])[None]).numpy()
        np.testing.assert_allclose(answer["embedding"][i], hidden[0].mean(0), rtol=1e-3, atol=1e-4)
        assert answer["token_count"][i] == len(ids)


@pytest.mark.parametrize(
    ("head", "pooling"),
    [
        ("mlm", Pooling(mode="mean", normalized=True, max_tokens=20)),
        ("classifier", Pooling(mode="cls", normalized=False, max_tokens=CONTEXT + 50)),
    ],
)
def test_an_embedding_is_what_the_base_model_says(exported, make_encoder, head, pooling):
    encoder, model = make_encoder(head, pooling=pooling)
    processor = sentencepiece.SentencePieceProcessor(model_file=exported.tokenizer)
    room = min(pooling.max_tokens, CONTEXT) - 2
    answer = call(model, "embed", TEXTS)
    for i, text in enumerate(TEXTS):
        ids = processor.encode(text)
        row = tf.constant([[CLS_ID, *ids[:room], SEP_ID]], tf.int32)
        hidden = encoder.hidden(row, tf.ones_like(row), tf.range(row.shape[1])[None]).numpy()[0]
        wanted = hidden.mean(0) if pooling.mode == "mean" else hidden[0]
        if pooling.normalized:
            wanted /= np.linalg.norm(wanted)
        np.testing.assert_allclose(answer["embedding"][i], wanted, rtol=1e-3, atol=1e-4)
        assert answer["token_count"][i] == min(len(ids), room)
        assert answer["truncated_tokens"][i] == max(len(ids) - room, 0)
    assert answer["truncated_tokens"][-1] > 0
    # The twin on ids is the same, and so is a text alone.
    ids = tf.ragged.constant([processor.encode(text) for text in TEXTS], tf.int32).to_tensor()
    by_ids = model.signatures["embed_ids"](token_ids=ids)
    np.testing.assert_allclose(by_ids["embedding"], answer["embedding"], rtol=1e-3, atol=1e-5)
    alone = call(model, "embed", TEXTS[-1:])["embedding"][0]
    np.testing.assert_allclose(alone, answer["embedding"][-1], rtol=1e-3, atol=1e-5)
    nothing = model.signatures["embed"](text=tf.constant([], tf.string))
    assert nothing["embedding"].shape == (0, encoder.shape_config.d_model)
    # Whoever goes on from it finds it again.
    assert read_pooling(model.directory) == pooling


def test_training_can_go_on_from_what_was_exported(exported, masked):
    encoder, model = masked
    again = Encoder(encoder.shape_config, 77)
    assert load_base_model(again, model.directory, exported.tokenizer) == []
    for a, b in zip(encoder.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_training_can_go_on_from_an_exported_decoder(exported):
    decoder = exported.decoders[1]
    again = Decoder(decoder.shape_config, 77)
    assert load_base_model(again, str(exported.base / "1"), exported.tokenizer) == []
    for a, b in zip(decoder.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.fixture(scope="module")
def classifier(make_encoder):
    return make_encoder("classifier")


def test_a_classifier_classifies(classifier):
    _, model = classifier
    texts = [*TEXTS[:4], "x" * 300]
    together = call(model, "classify", texts)
    assert not {"score", "generate"} & set(model.signatures)
    np.testing.assert_allclose(together["probabilities"].sum(-1), 1.0, rtol=1e-5)
    best = together["probabilities"].argmax(-1)
    assert [x.decode() for x in together["label"]] == [LABELS[i] for i in best]
    assert [[x.decode() for x in row] for row in together["labels"]] == [LABELS] * len(texts)
    assert together["token_count"][-1] == CONTEXT - 2
    assert together["truncated_tokens"].tolist() == [0, 0, 0, 0, 300 - (CONTEXT - 2)]
    for i, text in enumerate(texts):
        alone = call(model, "serving_default", [text])["probabilities"][0]
        np.testing.assert_allclose(together["probabilities"][i], alone, rtol=1e-3)
    with open(os.path.join(model.directory, "assets.extra", "model.json"), "rb") as source:
        assert json.load(source)["label_names"] == LABELS


def test_a_classifier_is_evaluated_on_texts_with_a_known_label(exported, classifier):
    encoder, model = classifier
    texts = [*TEXTS, "Returns the"]
    labels = ["gut", "gut", "fair", "böse", "gut", "none of these"]
    found = evaluate(model, texts, labels)
    # The second text is empty, the last one's label unknown; and without a label none counts.
    assert found["example_count"].tolist() == [1, 0, 1, 1, 1, 0]
    assert evaluate(model, texts)["example_count"].tolist() == [0] * 6
    processor = sentencepiece.SentencePieceProcessor(model_file=exported.tokenizer)
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        ids = processor.encode(text)[: CONTEXT - 2]
        row = tf.constant([[CLS_ID, *ids, SEP_ID]], tf.int32)
        hidden = encoder.hidden(row, tf.ones_like(row), tf.range(row.shape[1])[None])
        logits = encoder.logits(hidden)[0, 0].numpy().astype(np.float64)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        np.testing.assert_allclose(found["probabilities"][i], p, atol=1e-5)
        assert found["predicted_id"][i] == p.argmax()
        if found["example_count"][i]:
            number = LABELS.index(label)
            assert found["label_id"][i] == number
            assert found["nll_sum"][i] == pytest.approx(-np.log(p[number]), abs=1e-4)
            assert found["correct_count"][i] == (p.argmax() == number)
            assert found["calibration_count"][i].sum() == 1
        else:
            assert found["nll_sum"][i] == found["correct_count"][i] == 0
            assert found["calibration_count"][i].sum() == 0


def test_a_classifier_takes_the_trunk_of_a_masked_language_model(exported, masked):
    base, model = masked
    shape = dataclasses.replace(base.shape_config, head="classifier", classes=3)
    fresh, tuned = Encoder(shape, 9), Encoder(shape, 9)
    kept = load_base_model(tuned, model.directory, exported.tokenizer)
    assert {path.split("/")[1] for path in kept} == {"pooler", "classifier"}
    weights_of_base = {weight.path: weight.numpy() for weight in base.trainable_variables}
    for start, weight in zip(fresh.trainable_variables, tuned.trainable_variables, strict=True):
        expected = start.numpy() if weight.path in kept else weights_of_base[weight.path]
        np.testing.assert_array_equal(weight.numpy(), expected)


PINNED = [2, 5, 9, 10, 15, 19, 20, 23, 27, 37]


@pytest.mark.parametrize("port", ["rest", "grpc"])
def test_the_local_server_and_the_client_classify(classifier, tmp_path, port):
    _, model = classifier
    (tmp_path / "1").symlink_to(model.directory)
    settings = ServerConfig(str(tmp_path), rest_port=0, grpc_port=0)
    with ServerThread(settings) as thread:
        ports = thread.ports
        address = f"http://127.0.0.1:{ports.rest}" if port == "rest" else f"127.0.0.1:{ports.grpc}"
        with Client(address) as client:
            rows = client.classify(TEXTS)
            assert client.predict("serving_default", {"text": TEXTS}) == rows
    expected = call(model, "classify", TEXTS)
    assert [row["label"] for row in rows] == [x.decode() for x in expected["label"]]
    assert [row["labels"] for row in rows] == [LABELS] * len(TEXTS)
    for row, p in zip(rows, expected["probabilities"], strict=True):
        np.testing.assert_allclose(row["probabilities"], p, rtol=1e-3)
