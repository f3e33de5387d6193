"""A model that another stack exported is served by this one, with the same answers.

`TOKENMILL_EXCHANGE=DIR` makes each stack leave its models and answers in DIR and compare those of
the others there with its own: run it on one stack, on the other, and on the first once more.
"""

import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401

from serving.app import ServerThread
from serving.client import Client
from serving.server.config import ServerConfig
from serving.tflite import export_tflite
from tokenmill.contracts.served_model import read_served_model
from tokenmill.model.base_model import load_base_model
from tokenmill.model.build import Decoder, Encoder

EXCHANGE = os.environ.get("TOKENMILL_EXCHANGE")
HERE = f"tensorflow-{tf.__version__}"
KINDS = ("float32", "int8", "mlm", "classifier")
IDS = [[4, 5, 6, 70, 301], [7, 9, 0, 0, 0]]
TEXTS = [
    "Returns the",
    "",
    "A layer that adds its inputs and",
    "日本語 ▁ \x00 مرحبا",
    "tensor " * 60,
]

pytestmark = pytest.mark.skipif(not EXCHANGE, reason="TOKENMILL_EXCHANGE names no directory")


def ask(directory):
    """Call all signatures of a SavedModel; return the answers by <signature>/<output>."""
    model, answers = tf.saved_model.load(str(directory)), {}
    for name, function in model.signatures.items():
        inputs = {}
        for key, spec in function.structured_input_signature[1].items():
            if key == "text":
                inputs[key] = tf.constant(TEXTS)
            elif key == "token_ids":
                inputs[key] = tf.constant(IDS, tf.int32)
            elif key == "examples":
                inputs[key] = tf.constant([example(text) for text in TEXTS])
            else:
                value = {"max_new_tokens": 12, "top_p": 1.0, "truncate_prompt": True}.get(key, 0)
                inputs[key] = tf.constant([value], spec.dtype)
        for key, value in function(**inputs).items():
            array = value.numpy()
            if array.dtype == object:
                array = np.array([x.hex() for x in array.ravel()]).reshape(array.shape)
            answers[f"{name}/{key}"] = array
    return answers


def example(text):
    made = tf.train.Example()
    made.features.feature["text"].bytes_list.value[:] = [text.encode()]
    made.features.feature["label"].bytes_list.value[:] = [b"fair"]
    return made.SerializeToString()


def others():
    found = pathlib.Path(EXCHANGE).glob("tensorflow-*") if EXCHANGE else ()
    return [path for path in sorted(found) if path.name != HERE] or [None]


@pytest.fixture(params=others(), ids=lambda path: path.name if path else "none")
def other(request):
    if request.param is None:
        pytest.skip(f"no other stack has left its models in {EXCHANGE}")
    return request.param


def test_this_stack_leaves_its_models(exported, make_encoder):
    target, aside = pathlib.Path(EXCHANGE) / HERE, pathlib.Path(EXCHANGE) / f".{HERE}"
    for directory in (target, aside):
        shutil.rmtree(directory, ignore_errors=True)
    for kind in KINDS:
        if kind == "float32":
            shutil.copytree(exported.base / "1", aside / kind / "1")
        elif kind == "int8":
            exported.export(aside / kind / "1", quantization=kind)
        else:
            shutil.copytree(make_encoder(kind)[1].directory, aside / kind / "1")
        np.savez(aside / kind / "answers.npz", **ask(aside / kind / "1"))
    os.rename(aside, target)


@pytest.mark.parametrize("kind", KINDS)
def test_every_signature_answers_as_where_it_was_made(other, kind):
    expected, answers = dict(np.load(other / kind / "answers.npz")), ask(other / kind / "1")
    assert set(answers) == set(expected)
    for name, value in answers.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-4, err_msg=name)
        else:  # texts at temperature 0, counts
            assert value.tolist() == expected[name].tolist(), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_loads_it_and_replays_its_warm_up(other, kind):
    signature = {"mlm": "embed", "classifier": "classify"}.get(kind, "score")
    config = ServerConfig(str(other / kind), rest_port=0, grpc_port=0)
    assert (other / kind / "1" / "assets.extra" / "tf_serving_warmup_requests").exists()
    with ServerThread(config) as server:
        for address in (f"http://127.0.0.1:{server.ports.rest}", f"127.0.0.1:{server.ports.grpc}"):
            with Client(address, "default", 60.0) as client:
                rows = client.predict(signature, {"text": TEXTS})
            assert len(rows) == len(TEXTS)


def test_it_becomes_a_tflite_file(other, tmp_path):
    files = export_tflite(str(other / "float32"), str(tmp_path), check=True)
    assert files["float16"].same_next_token > 0.95
    assert files["int8"].same_next_token > 0.8


@pytest.mark.parametrize(("kind", "model"), [("float32", Decoder), ("mlm", Encoder)])
def test_training_goes_on_from_its_weights(other, kind, model):
    directory = str(other / kind / "1")
    fresh = model(read_served_model(directory).model_shape, 99)
    tokenizer = os.path.join(directory, "assets.extra", "tokenizer.model")
    assert load_base_model(fresh, directory, tokenizer) == []
    row = tf.constant(IDS[:1], tf.int32)
    logits = fresh(row, tf.ones_like(row), tf.range(row.shape[1])[None]).numpy()
    expected = np.load(other / kind / "answers.npz")["logits_ids/logits"][:1]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
