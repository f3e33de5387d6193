"""The model against its own documentation and against NumPy."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import pack

from tokenmill.cost.flops import flops_per_token
from tokenmill.model.decoder import Decoder
from tokenmill.model.generation import decode_step, prefill, widen
from tokenmill.model.shape import ModelShape
from tokenmill.rows.packed_split import Batch, densify

VOCAB, LENGTH = 300, 16


def make_shape(**change):
    options = {
        "layers": 2,
        "d_model": 16,
        "heads": 4,
        "d_ff": 24,
        "vocab_size": VOCAB,
        "sequence_length": LENGTH,
        "positions": "rope",
        "norm": "layer",
        "use_bias": True,
        "mlp": "gelu",
        "tie_embeddings": True,
    }
    return ModelShape(**{**options, **change})


SHAPES = {
    "rope-gelu-layer": make_shape(),
    "learned-swiglu-rms-gqa": make_shape(
        positions="learned",
        mlp="swiglu",
        norm="rms",
        kv_heads=2,
        use_bias=False,
        tie_embeddings=False,
    ),
    "rope-swiglu-rms-mqa-bias": make_shape(mlp="swiglu", norm="rms", kv_heads=1),
    "wide-heads-qk-norm-llama3": make_shape(
        d_model=18,
        head_dim=6,
        kv_heads=2,
        mlp="swiglu",
        norm="rms",
        use_bias=False,
        qkv_bias=True,
        qk_norm=True,
        norm_epsilon=1e-2,
        rope_base=50.0,
        rope_scaling="llama3",
        rope_factor=8.0,
        rope_original_length=32,
    ),
    "exact-gelu-linear-layer": make_shape(
        mlp="gelu_exact",
        norm_epsilon=1e-2,
        qkv_bias=False,
        qk_norm=True,
        rope_scaling="linear",
        rope_factor=3.0,
    ),
}


def random_model(shape, seed=1):
    """A decoder in which every weight matters: biases and scales are random too."""
    model = Decoder(shape, seed)
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        noise = rng.normal(0.0, 0.3, weight.shape)
        weight.assign(noise + (1.0 if weight.name in ("gamma", "scale") else 0.0))
    return model


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def model(request):
    return random_model(SHAPES[request.param])


def call(model, batch):
    return model(batch.inputs, batch.segment_ids, batch.positions).numpy()


def packed_batch(*token_counts, seed=0):
    """One row with documents of so many tokens; each takes one more slot for its BOS."""
    rng = np.random.default_rng(seed)
    documents = [rng.integers(4, VOCAB, count) for count in token_counts]
    batch = densify(pack(documents, LENGTH), LENGTH)
    assert len(batch.inputs) == 1
    return batch


OPTIONS = list(
    itertools.product(
        ("rope", "learned"), ("layer", "rms"), ("gelu", "swiglu"), (True, False), (True, False)
    )
)


@pytest.mark.parametrize("kv_heads", [None, 1, 2])
def test_the_model_has_as_many_parameters_as_the_ledger_counts(kv_heads):
    for positions, norm, mlp, use_bias, tie in OPTIONS:
        shape = make_shape(
            positions=positions,
            norm=norm,
            mlp=mlp,
            use_bias=use_bias,
            tie_embeddings=tie,
            kv_heads=kv_heads,
            layers=1,
        )
        decoder = Decoder(shape, seed=0)
        trainable = sum(math.prod(w.shape) for w in decoder.trainable_variables)
        assert trainable == shape.params_total == decoder.count_params(), shape


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kv_heads", [None, 1])
@pytest.mark.parametrize("use_bias", [True, False])
def test_parts_are_counted_exactly(name, kv_heads, use_bias):
    shape = dataclasses.replace(SHAPES[name], kv_heads=kv_heads, use_bias=use_bias)
    parts = shape.params_by_part()
    counted = dict.fromkeys(parts, 0)
    for weight in Decoder(shape, seed=0).trainable_variables:
        path = weight.path.split("/", 1)[1]
        part = next(
            (p for p in ("token_embedding", "position_embedding", "mlp/") if p in path), "attention"
        )
        if "norm" in path:
            part = "norms"
        if "output_layer" in path:
            part = "output_projection"
        counted[part.rstrip("/")] += math.prod(weight.shape)
    assert counted == parts


@pytest.mark.parametrize("name", SHAPES)
def test_flops_are_two_for_each_weight_of_a_product(name):
    shape = SHAPES[name]
    kernels = [w for w in Decoder(shape, seed=0).trainable_variables if w.name == "kernel"]
    count = flops_per_token(shape)
    products = count.attention_projections + count.mlp
    products += 0 if shape.tie_embeddings else count.output_projection
    assert products == 2 * sum(math.prod(w.shape) for w in kernels)
    scores = 2 * 2 * shape.layers * shape.heads * shape.head_width * LENGTH
    assert count.attention_scores_values == scores


def test_the_seed_decides_the_weights():
    def weights(seed):
        return [w.numpy() for w in Decoder(make_shape(), seed).trainable_variables]

    for a, b in zip(weights(3), weights(3), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(weights(3), weights(4), strict=True))


def test_no_two_matrices_start_equal():
    matrices = [w.numpy() for w in Decoder(make_shape(), 3).trainable_variables if w.ndim == 2]
    for a, b in itertools.combinations(matrices, 2):
        assert a.shape != b.shape or not np.array_equal(a, b)


@pytest.mark.parametrize("name", SHAPES)
def test_the_untrained_loss_is_that_of_guessing(name):
    shape = SHAPES[name]
    rng = np.random.default_rng(5)
    shape_of_batch = (16, LENGTH)
    inputs = rng.integers(4, VOCAB, shape_of_batch).astype(np.int32)
    targets = rng.integers(4, VOCAB, shape_of_batch)
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), shape_of_batch)
    logits = Decoder(shape, seed=0)(inputs, np.ones_like(inputs), positions)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    assert float(tf.reduce_mean(losses)) == pytest.approx(math.log(VOCAB), rel=0.05)


def test_mixed_precision_gives_float32_logits_near_those_of_float32():
    exact, mixed = Decoder(make_shape(), 2), Decoder(make_shape(), 2, "mixed_bfloat16")
    batch = packed_batch(6, 7)
    assert {w.dtype for w in mixed.trainable_variables} == {"float32"}
    logits = mixed(batch.inputs, batch.segment_ids, batch.positions)
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, call(exact, batch), atol=0.02)


@settings(max_examples=15, deadline=None)
@given(place=st.integers(0, 13), new_token=st.integers(4, VOCAB - 1))
def test_a_token_reaches_its_own_document_from_its_place_on_and_nothing_else(
    model, place, new_token
):
    batch = packed_batch(6, 3, 1)  # 13 slots, 3 of padding
    before = call(model, batch)[0]
    changed = batch.inputs.copy()
    changed[0, place] = new_token if batch.inputs[0, place] != new_token else 4 + new_token % 7
    after = call(model, batch._replace(inputs=changed))[0]
    steps = np.arange(LENGTH)
    segments = batch.segment_ids[0]
    reached = (segments == segments[place]) & (steps >= place)
    difference = np.abs(after - before).max(axis=-1)
    assert difference[~reached].max(initial=0.0) <= 1e-6
    assert difference[reached].min() > 1e-4


@pytest.mark.parametrize("other_tokens", [1, 5, 7])
def test_a_document_scores_alike_alone_and_behind_another(model, other_tokens):
    rng = np.random.default_rng(8)
    document, other = rng.integers(4, VOCAB, 5), rng.integers(4, VOCAB, other_tokens)
    (alone,) = pack([document], LENGTH)
    (neighbor,) = pack([other], LENGTH)
    second = type(alone)(
        np.concatenate([neighbor.segment_lengths, alone.segment_lengths]),
        np.concatenate([neighbor.inputs, alone.inputs]),
        np.concatenate([neighbor.last_targets, alone.last_targets]),
    )
    logits = call(model, densify([alone, second], LENGTH))
    start = other_tokens + 1
    np.testing.assert_allclose(logits[1, start : start + 6], logits[0, :6], atol=1e-5)


def test_padding_gives_finite_logits(model):
    empty = Batch(*(np.zeros((1, LENGTH), np.int32) for _ in range(4)), np.zeros((1, LENGTH)))
    assert np.isfinite(call(model, empty)).all()


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_word_order_matters(positions):
    model = random_model(make_shape(layers=1, positions=positions))
    batch = packed_batch(10)
    swapped = batch.inputs.copy()
    swapped[0, [2, 3]] = swapped[0, [3, 2]]
    before, after = call(model, batch), call(model, batch._replace(inputs=swapped))
    assert np.abs(after - before)[0, 9].max() > 1e-3


def test_the_cache_gives_the_logits_of_the_whole_forward_pass(model):
    rng = np.random.default_rng(4)
    tokens = rng.integers(4, VOCAB, (3, 12)).astype(np.int32)
    positions = np.broadcast_to(np.arange(12, dtype=np.int32), tokens.shape)
    whole = model(tokens, np.ones_like(tokens), positions).numpy()
    lengths = np.array([1, 3, 5], np.int32)  # of the prompts; what stands behind them is not read
    hidden, caches = prefill(model, tf.constant(tokens[:, :5]))
    logits = model.logits(hidden).numpy()
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(logits[row, :length], whole[row, :length], atol=1e-5)
    caches = widen(caches, 12)
    for step in range(7):
        places = lengths + step
        token = tokens[np.arange(3), places]
        hidden_BD, caches = decode_step(model, tf.constant(token), tf.constant(places), caches)
        expected = whole[np.arange(3), places]
        np.testing.assert_allclose(model.logits(hidden_BD).numpy(), expected, atol=1e-5)


# The forward pass once more, in NumPy and float64, from the papers' formulas.


def array(weight):
    return weight.numpy().astype(np.float64)


def dense(x, layer):
    y = x @ array(layer.kernel)
    return y if layer.bias is None else y + array(layer.bias)


def normalize(x, layer, shape, kind=None):
    epsilon = shape.norm_epsilon or {"rms": 1e-6, "layer": 1e-5}[shape.norm]
    if (kind or shape.norm) == "rms":
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * array(layer.scale)
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred / deviation * array(layer.gamma) + array(layer.beta)


def frequency(shape, j):
    """Llama 3's scaling as in Meta's code (llama-models, apply_scaling): by wavelength."""
    found = shape.rope_base ** (-2 * j / shape.head_width)
    if shape.rope_scaling == "none":
        return found
    if shape.rope_scaling == "linear":
        return found / shape.rope_factor
    length, wavelength = shape.rope_original_length, 2 * math.pi / found
    low, high = shape.rope_low_frequency_factor, shape.rope_high_frequency_factor
    if wavelength < length / high:
        return found
    if wavelength > length / low:
        return found / shape.rope_factor
    smooth = (length / wavelength - low) / (high - low)
    return (1 - smooth) * found / shape.rope_factor + smooth * found


def turn(vector, position, shape):
    """Rotates the pair (j, j + half) of one head by position * frequency."""
    half = len(vector) // 2
    turned = np.empty_like(vector)
    for j in range(half):
        angle = position * frequency(shape, j)
        a, b = vector[j], vector[j + half]
        turned[j] = a * math.cos(angle) - b * math.sin(angle)
        turned[j + half] = a * math.sin(angle) + b * math.cos(angle)
    return turned


def attend(x, layer, shape, segments, positions):
    width, group = shape.head_width, shape.heads // shape.key_value_heads
    steps = len(x)
    qkv = dense(x, layer.qkv).reshape(steps, -1, width)
    q, k, v = np.split(qkv, [shape.heads, shape.heads + shape.key_value_heads], axis=1)
    if shape.qk_norm:
        q = normalize(q, layer.q_norm, shape, "rms")
        k = normalize(k, layer.k_norm, shape, "rms")
    if shape.positions == "rope":
        q = np.array([[turn(h, positions[t], shape) for h in q[t]] for t in range(steps)])
        k = np.array([[turn(h, positions[t], shape) for h in k[t]] for t in range(steps)])
    mixed = np.zeros((steps, shape.heads, width))
    for t in range(steps):
        seen = [s for s in range(t + 1) if segments[s] == segments[t]]
        for head in range(shape.heads):
            scores = np.array([q[t, head] @ k[s, head // group] for s in seen]) / math.sqrt(width)
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            mixed[t, head] = sum(
                w * v[s, head // group] for w, s in zip(weights, seen, strict=True)
            )
    return dense(mixed.reshape(steps, -1), layer.output_projection)


def feed_forward(x, layer, shape):
    up = dense(x, layer.up)
    if shape.mlp == "swiglu":
        gate = dense(x, layer.gate)
        return dense(gate / (1 + np.exp(-gate)) * up, layer.down)
    if shape.mlp == "gelu_exact":
        return dense(up * (1 + scipy.special.erf(up / math.sqrt(2))) / 2, layer.down)
    gelu = 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    return dense(gelu, layer.down)


def reference_logits(model, inputs, segments, positions):
    """int [T] three times -> float64 [T, V]."""
    shape = model.shape_config
    table = array(model.token_embedding.embeddings)
    x = table[inputs]
    if shape.positions == "learned":
        x = x + array(model.position_embedding.embeddings)[positions]
    for block in model.blocks:
        normal = normalize(x, block.attention_norm, shape)
        x = x + attend(normal, block.attention, shape, segments, positions)
        x = x + feed_forward(normalize(x, block.mlp_norm, shape), block.mlp, shape)
    x = normalize(x, model.final_norm, shape)
    return x @ (table.T if shape.tie_embeddings else array(model.output_layer.kernel))


def test_the_forward_pass_agrees_with_numpy(model):
    batch = packed_batch(6, 3, 1)
    expected = reference_logits(model, batch.inputs[0], batch.segment_ids[0], batch.positions[0])
    assert np.abs(expected).max() > 1.0  # logits worth comparing
    np.testing.assert_allclose(call(model, batch)[0], expected, atol=1e-4)
