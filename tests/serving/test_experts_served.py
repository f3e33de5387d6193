"""A mixture of experts as it is pushed: served, continued together, quantized, as .tflite."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from serving.app import ServerThread
from serving.client import Client
from serving.gateway.backend import SamplingConfig
from serving.gateway.decoding import Decoding, Text
from serving.gateway.local_call import local_steps
from serving.server.config import ServerConfig
from serving.tflite import export_tflite
from tests.serving.test_decoding import EOS, PROMPTS
from tests.serving.test_signatures import greedy
from tokenmill.export.saved_model import export_model
from tokenmill.model.decoder import Decoder
from tokenmill.text.tokenizers.load import read_tokenizer

TEXTS = ["Returns the", "A layer that adds its inputs and", "日本語"]
NEW = 10


@pytest.fixture(scope="module")
def sparse(exported):
    """A decoder of four experts, two a token beside a shared one, in the second of its layers."""
    shape = dataclasses.replace(
        exported.decoders[1].shape_config, experts=4, experts_per_token=2, shared_experts=1,
        expert_d_ff=24, first_dense_layers=1, balance="bias",
    )  # fmt: skip
    decoder = Decoder(shape, 3)
    rng = np.random.default_rng(3)
    for weight in decoder.trainable_variables:  # so that tokens go to all experts
        spread = 0.05 if weight.name == "selection_bias" else 0.3
        weight.assign(rng.normal(0.0, spread, weight.shape) + float(weight.name == "gamma"))
    return decoder


@pytest.fixture(scope="module")
def pushed(sparse, exported, tmp_path_factory):
    """A base directory with version 1 in float32, and one in int8."""
    root = tmp_path_factory.mktemp("sparse")
    for kind in ("float32", "int8"):
        directory = str(root / kind / "1")
        export_model(sparse, exported.transform_graph, exported.tokenizer, directory, kind)
    return root


@pytest.fixture(scope="module")
def loaded(pushed):
    return tf.saved_model.load(str(pushed / "float32" / "1"))


def test_the_server_continues_texts_as_the_model_does(pushed, sparse, exported):
    """By the cache and in one batch, where each text has to go by its own experts."""
    tokenizer = read_tokenizer(exported.tokenizer)
    settings = ServerConfig(str(pushed / "float32"), rest_port=0, grpc_port=0)
    with ServerThread(settings) as thread, Client(f"127.0.0.1:{thread.ports.grpc}") as client:
        rows = client.generate(TEXTS, max_new_tokens=NEW)
        scores = client.score(TEXTS)
    ids = tokenizer.tokenize(tf.constant(TEXTS)).to_list()
    for row, prompt in zip(rows, ids, strict=True):
        expected = greedy(sparse, prompt, NEW)
        assert row["completion_tokens"] == len(expected)
        text = tokenizer.detokenize(tf.ragged.constant([prompt + expected], tf.int32))
        assert text.numpy()[0].decode().endswith(row["text"])
    assert all(np.isfinite(score["nll_sum"]) for score in scores)


def test_texts_that_are_continued_together_are_those_of_generate(loaded, sparse):
    steps = local_steps(loaded.signatures, sparse.shape_config, 0)
    context = sparse.shape_config.sequence_length
    decoding = Decoding(steps, context, sparse.shape_config.vocab_size, [0, 1, 2], 10**6, 64)
    texts = [Text(prompt, SamplingConfig(NEW), frozenset([EOS])) for prompt in PROMPTS]
    for text in texts:
        decoding.add(text)
    while not decoding.is_idle:
        decoding.advance()
    for text, prompt in zip(texts, PROMPTS, strict=True):
        assert text.generated == greedy(sparse, prompt[1:], NEW)


def test_int8_weights_are_small_and_score_nearly_as_well(pushed, loaded):
    def weight_bytes(kind):
        return (pushed / kind / "1/variables/variables.data-00000-of-00001").stat().st_size

    small = tf.saved_model.load(str(pushed / "int8" / "1"))
    assert weight_bytes("int8") < 0.45 * weight_bytes("float32")
    exact, near = (
        {k: v.numpy() for k, v in model.signatures["score"](text=tf.constant(TEXTS)).items()}
        for model in (loaded, small)
    )
    difference = np.abs(exact["nll_sum"] - near["nll_sum"]) / exact["token_count"]
    assert 0 < difference.max() < 0.1


def test_tflite_files_agree_with_the_saved_model(pushed, tmp_path):
    files = export_tflite(str(pushed / "float32" / "1"), str(tmp_path), check=True)
    assert files["float16"].largest_difference < 0.05
    assert files["float16"].same_next_token > 0.95
    assert files["int8"].same_next_token > 0.8
