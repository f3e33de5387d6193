"""Decoder and encoder against transformers' models in PyTorch, with the same weights.

The golden file is made by benchmarks/numerics/golden.py.
"""

import pathlib
import zlib

import numpy as np
import pytest

from tokenmill.model.build import build_model
from tokenmill.model.shape import ModelShape

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "transformers.npz")
LENGTH = 12
COMMON = {
    "layers": 2,
    "d_model": 32,
    "heads": 4,
    "d_ff": 64,
    "vocab_size": 96,
    "sequence_length": LENGTH,
}
GPT = {
    "positions": "learned",
    "norm": "layer",
    "use_bias": True,
    "mlp": "gelu",
    "tie_embeddings": True,
}
BERT = {**GPT, "causal": False, "norm_position": "post", "type_vocab_size": 2}
SHAPES = {
    "gpt2": ModelShape(**COMMON, **GPT),
    "llama": ModelShape(
        **COMMON,
        kv_heads=2,
        positions="rope",
        norm="rms",
        use_bias=False,
        mlp="swiglu",
        tie_embeddings=False,
    ),
    "bert-mlm": ModelShape(**COMMON, **BERT, head="mlm"),
    "bert-classifier": ModelShape(**COMMON, **BERT, head="classifier", classes=3),
}


def golden_weight(path, shape):
    """The same function of a name as in golden.py."""
    noise = 0.2 * np.random.RandomState(zlib.crc32(path.encode())).normal(size=shape)
    return noise + (1.0 if path.endswith(("gamma", "scale")) else 0.0)


def logits_of(name):
    model = build_model(SHAPES[name], seed=0)
    for variable in model.trainable_variables:
        variable.assign(golden_weight(variable.path.split("/", 1)[1], variable.shape))
    inputs = GOLDEN["inputs"]
    steps = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), inputs.shape)
    segments = (steps < GOLDEN["lengths"][:, None]).astype(np.int32)
    return model(inputs, segments, steps).numpy(), segments > 0


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert-mlm"])
def test_the_logits_are_those_of_transformers(name):
    logits, used = logits_of(name)
    expected = GOLDEN[name][used]
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits[used], expected, atol=1e-4)


def test_the_classifier_agrees_at_the_first_token():
    logits, _ = logits_of("bert-classifier")
    expected = GOLDEN["bert-classifier"]
    assert expected.std() > 0.1
    np.testing.assert_allclose(logits[:, 0], expected, atol=1e-4)
