"""What the ledger says of logits and heads, against the graphs that the trainer runs."""

import math

import pytest
import tensorflow as tf

from tokenmill.cost.devices import CPU_PARALLELISM
from tokenmill.cost.flops import flops_per_token, trained_flops_per_token
from tokenmill.cost.memory import (
    LOGIT_BYTES,
    estimate_memory,
    logit_chunk_positions,
)
from tokenmill.model.build import build_model
from tokenmill.model.losses import cross_entropy_sums
from tokenmill.model.shape import ModelShape

D, V = 8, 301


def shape(**change):
    values = dict(
        layers=1, d_model=D, heads=2, d_ff=16, vocab_size=V, sequence_length=64,
        positions="learned", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
    )  # fmt: skip
    return ModelShape(**{**values, **change})


def products(function, *specs):
    """(rows, inner, columns) of every matrix product of a graph."""
    graph = tf.function(function).get_concrete_function(*specs).graph
    found = []
    for op in graph.get_operations():
        if op.type in ("MatMul", "BatchMatMulV2"):
            left = op.inputs[0].shape
            transposed = op.type == "MatMul" and op.get_attr("transpose_a")
            found.append((*op.outputs[0].shape, left[0 if transposed else -1]))
    return found


@pytest.mark.parametrize("rows", [64, 512, 1000, 8192, 20_000])
def test_the_trainer_holds_the_logits_of_one_chunk(rows):
    def loss(features, table):
        targets, weights = tf.zeros([rows], tf.int32), tf.ones([rows])
        return cross_entropy_sums(features, table, None, targets, weights).objective

    made = products(loss, tf.TensorSpec([rows, D]), tf.TensorSpec([V, D]))
    sizes = [n for n, columns, inner in made if columns == V and inner == D]
    assert sum(sizes) == rows
    assert max(sizes) == logit_chunk_positions(rows)


def test_memory_counts_that_chunk():
    how = {"batch_per_device": 160, "precision": "float32"}  # 10,240 positions
    whole = estimate_memory(shape(), on_cpu=True, **how)
    assert whole.logits == 640 * V * LOGIT_BYTES + 10_240 * D * 4
    assert whole.logits < 10_240 * V * LOGIT_BYTES / 10
    # An accelerator holds all of them, once.
    assert estimate_memory(shape(), **how).logits == whole.logits + 10_240 * V * 4
    few = shape(causal=False, head="classifier", classes=3)
    assert estimate_memory(few, batch_per_device=1, precision="float32").logits < 64 * 80


def test_memory_counts_gradients_and_logits_of_each_stream():
    how = {"batch_per_device": 160, "precision": "float32"}
    one, four = (estimate_memory(shape(), parallelism=n, **how) for n in (1, CPU_PARALLELISM))
    assert four.gradients == 4 * one.gradients
    chunk = logit_chunk_positions(10_240 // 4)
    assert four.logits == 4 * chunk * V * LOGIT_BYTES + 10_240 * (V * 4 + D * 4)
    assert (four.weights, four.activations) == (one.weights, one.activations)
    lone_row = {"batch_per_device": 1, "precision": "float32"}
    assert estimate_memory(shape(), parallelism=4, **lone_row) == estimate_memory(
        shape(), **lone_row
    )


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tie_embeddings": False},
        {"causal": False, "head": "mlm"},
        {"causal": False, "head": "mlm", "type_vocab_size": 2},
        {"causal": False, "head": "classifier", "classes": 5},
    ],
)
def test_heads_multiply_as_counted(change):
    of = shape(**change)
    model = build_model(of, 0, "float32", 0.0, False)
    made = products(model.logits, tf.TensorSpec([1, 64, D]))
    counted = flops_per_token(of).forward_by_part()
    flops = sum(2 * math.prod(product) for product in made) / 64
    assert flops == counted["head"] + counted["output_projection"]


@pytest.mark.parametrize("length", [64, 256, 640, 1024])
def test_the_forward_pass_multiplies_as_counted_without_masked_blocks(length):
    of = shape(sequence_length=length)
    ids = tf.TensorSpec([1, length], tf.int32)
    made = products(build_model(of, 0).__call__, ids, ids, ids)
    flops = sum(2 * math.prod(product) for product in made) / length
    assert 3 * flops == pytest.approx(trained_flops_per_token(of))
