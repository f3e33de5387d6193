"""Rows of the embedding that no token has: never an answer, whatever their weights are."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)
from click.testing import CliRunner

from pipeline.cli import cli
from tokenmill.export.saved_model import export_model
from tokenmill.model.build import build_model

TOKENS = 340
TEXTS = ["Returns the sum", "A layer that adds its inputs", "日本語"]


@pytest.fixture(scope="module")
def padded(exported, tmp_path_factory):
    """A model of 12 rows more than tokens, which are nearly everywhere its likeliest answer."""
    shape = exported.decoders[1].shape_config
    shape = dataclasses.replace(shape, vocab_size=TOKENS + 12, kv_heads=4)
    model = build_model(shape, seed=1)
    rng = np.random.default_rng(2)
    for weight in model.trainable_variables:
        values = rng.normal(0.0, 0.3, weight.shape) + (weight.name == "gamma")
        if weight.path.endswith("token_embedding/embeddings"):
            values[TOKENS:] = rng.normal(0.0, 3.0, (12, shape.d_model))
        weight.assign(values)
    base = tmp_path_factory.mktemp("padded")
    export_model(model, exported.transform_graph, exported.tokenizer, str(base / "1"))
    return base, model, tf.saved_model.load(str(base / "1"))


def test_they_are_never_generated(padded):
    _, _, loaded = padded
    for temperature, top_k in ((0.0, 0), (1.0, 0), (3.0, 0), (1.0, 20)):
        made = loaded.signatures["generate_ids"](
            token_ids=tf.constant([[20, 21], [30, 31]]),
            max_new_tokens=tf.constant([40]), temperature=tf.constant([temperature]),
            top_k=tf.constant([top_k]), top_p=tf.constant([1.0]), seed=tf.constant([1, 2]),
            truncate_prompt=tf.constant([False]),
        )  # fmt: skip
        ids = made["token_ids"].numpy()
        assert made["completion_tokens"].numpy().sum() > 5
        assert ids.max() < TOKENS


def test_they_are_no_guess_but_part_of_the_likelihood(padded):
    _, model, loaded = padded
    examples = []
    for text in TEXTS:
        example = tf.train.Example()
        example.features.feature["text"].bytes_list.value[:] = [text.encode()]
        examples.append(example.SerializeToString())
    scored = loaded.signatures["score"](text=tf.constant(TEXTS))
    evaluated = loaded.signatures["evaluate"](examples=tf.constant(examples))
    best_of_all = 0
    for i, text in enumerate(TEXTS):
        ids = loaded._tokenize(tf.constant([text])).numpy()[0].tolist()
        row = np.array([[2, *ids]], np.int32)
        positions = np.arange(row.shape[1], dtype=np.int32)[None]
        logits = np.asarray(model(row, np.ones_like(row), positions), np.float64)[0]
        targets = np.array([*ids, 3])
        nll = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(targets)), targets]
        right = (logits[:, :TOKENS].argmax(-1) == targets).sum()
        best_of_all += (logits.argmax(-1) >= TOKENS).sum()
        for outputs in (scored, evaluated):
            assert outputs["nll_sum"].numpy()[i] == pytest.approx(nll.sum(), rel=1e-4)
            assert outputs["correct_count"].numpy()[i] == right
    assert best_of_all > 5  # else this shows nothing


def test_their_logits_are_those_of_no_token(padded, tmp_path):
    base, model, loaded = padded
    row = np.array([[2, 20, 21, 22]], np.int32)
    logits = loaded.signatures["logits_ids"](token_ids=tf.constant(row))["logits"].numpy()
    expected = np.asarray(model(row, np.ones_like(row), np.arange(4, dtype=np.int32)[None]))
    np.testing.assert_allclose(logits[..., :TOKENS], expected[..., :TOKENS], atol=1e-4)
    assert (logits[..., TOKENS:] == -1e9).all()
    # transformers' classes know of no such rows: all logits are the weights' own there.
    result = CliRunner().invoke(cli, ["export", "hf", str(base), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "largest difference from the pushed model" in result.output
