"""Mixtures of experts, against a computation token by token, against dense models, and split."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from tokenmill.errors import TokenmillError
from tokenmill.export.quantization import StoredWeights
from tokenmill.model.build import build_model, loss_sums, merge_adapters
from tokenmill.model.expert_blocks import block_rows, padded_rows
from tokenmill.model.experts import RoutedTokens
from tokenmill.model.generation import decode_step, prefill, widen
from tokenmill.model.grouped_mlp import _assign_blocks
from tokenmill.model.lora import LoraConfig
from tokenmill.model.same_shape import check_same_shape
from tokenmill.model.shape import ModelShape
from tokenmill.rows.packed_split import Batch

ROWS, LENGTH = 4, 16
SHAPE = ModelShape(
    layers=2,
    d_model=24,
    heads=2,
    d_ff=40,
    vocab_size=50,
    sequence_length=LENGTH,
    positions="rope",
    norm="rms",
    use_bias=False,
    mlp="swiglu",
    tie_embeddings=True,
)
SPARSE = dataclasses.replace(SHAPE, experts=4, experts_per_token=2, router_z_loss=1e-2)
OTHER = dataclasses.replace(
    SHAPE,
    mlp="gelu",
    use_bias=True,
    experts=5,
    experts_per_token=3,
    shared_experts=2,
    expert_d_ff=12,
    first_dense_layers=1,
    router="sigmoid",
    router_scale=2.5,
    shared_expert_gate=True,
    balance="bias",
)
UNNORMED = dataclasses.replace(SPARSE, normalize_gates=False, moe_every=2)
SHAPES = [SPARSE, OTHER, UNNORMED]


def a_batch(seed=0, padded=4):
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, SHAPE.vocab_size, (ROWS, LENGTH)).astype(np.int32)
    segments = np.ones((ROWS, LENGTH), np.int32)
    segments[:, LENGTH - padded :] = 0
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    weights = (segments > 0).astype(np.float32)
    each = (inputs, np.roll(inputs, -1, 1), segments, positions, weights)
    return Batch(*(tf.constant(x) for x in each))


def a_model(shape, spread=0.3):
    """A model whose weights are all random and large enough for experts to differ."""
    model = build_model(shape, seed=0)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if "norm" not in variable.path:
            variable.assign(rng.normal(0, spread, variable.shape))
    return model


def naive(layer, shape, x):
    """Each token by itself, in float64."""
    own_variables = [v for v in layer.variables if "/shared" not in v.path]
    weights = {v.name: np.asarray(v, np.float64) for v in own_variables}

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    def mlp(rows, get):
        up = rows @ get("up") + get("up_bias")
        if shape.mlp == "swiglu":
            gate = rows @ get("gate")
            inner = gate * sigmoid(gate) * up
        else:
            inner = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
        return inner @ get("down") + get("down_bias")

    found = np.zeros_like(x)
    for i, token in enumerate(x):
        logits = token @ weights["router_kernel"]
        soft = np.exp(logits - logits.max())
        scores = sigmoid(logits) if shape.router == "sigmoid" else soft / soft.sum()
        ranks = scores + weights.get("selection_bias", 0.0)
        chosen = np.argsort(-ranks)[: shape.experts_per_token]
        gates = scores[chosen]
        gates = gates / gates.sum() if shape.normalize_gates else gates
        for expert, gate in zip(chosen, gates * shape.router_scale, strict=True):

            def own(name, expert=expert):
                key = name if name.endswith("bias") else f"{name}_kernel"
                return weights[key][expert] if key in weights else 0.0

            found[i] += gate * mlp(token, own)
        if layer.shared is not None:
            of_shared = {v.path.split("shared/")[1]: np.asarray(v) for v in layer.shared.variables}

            def common(name, of_shared=of_shared):
                part = name.replace("_bias", "/bias") if "bias" in name else f"{name}/kernel"
                return of_shared.get(part, 0.0)

            added = mlp(token, common)
            if layer.shared_gate is not None:
                added = added * sigmoid(token @ np.asarray(layer.shared_gate.kernel))
            found[i] += added
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_each_token_is_the_gated_sum_of_its_experts(shape):
    model = a_model(shape)
    layer = model.blocks[-1].mlp
    x = np.random.default_rng(2).normal(size=(37, shape.d_model)).astype(np.float32)
    expected = naive(layer, shape, x.astype(np.float64))
    assert np.abs(expected).max() > 0.1
    compiled = tf.function(layer, jit_compile=True, autograph=False)
    of_unknown = tf.function(
        layer, input_signature=[tf.TensorSpec([None, shape.d_model])], autograph=False
    )
    for compute in (layer, compiled, of_unknown):
        np.testing.assert_allclose(compute(tf.constant(x)), expected, atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(of_unknown(tf.constant(x[:1])), expected[:1], atol=2e-5, rtol=1e-4)
    assert model.count_params() == shape.params_total


def test_all_tokens_to_one_expert_are_none_dropped():
    """The worst case: as many blocks as there can be, of a few experts."""
    shape = dataclasses.replace(SPARSE, balance="none", experts=8)
    model = a_model(shape)
    layer = model.blocks[0].mlp
    x = np.abs(np.random.default_rng(2).normal(size=(200, shape.d_model))).astype(np.float32)
    router = np.zeros(layer.router_kernel.shape, np.float32)
    router[:, 5], router[:, 2] = 1.0, 0.5
    layer.router_kernel.assign(router)
    expected = naive(layer, shape, x.astype(np.float64))
    found = tf.function(layer, jit_compile=True, autograph=False)(tf.constant(x))
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)
    assert block_rows(400, 8) == 16
    # What the ledger counts is what is computed.
    chosen = tf.constant(np.tile([[5, 2]], (200, 1)), tf.int32)
    assert _assign_blocks(chosen, 8).assignment_R.shape[0] == padded_rows(400, 8) == 33 * 16


def same_experts(sparse, dense):
    """Give all experts the weights of a dense model's MLP."""
    values = {variable.path: variable for variable in dense.variables}
    for variable in sparse.variables:
        prefix, name = variable.path.rsplit("/", 1)
        if name.endswith("_kernel") and name != "router_kernel":
            kernel = values[f"{prefix}/{name.removesuffix('_kernel')}/kernel"]
            variable.assign(np.broadcast_to(kernel, variable.shape))
        elif variable.path in values:
            variable.assign(values[variable.path])


def test_experts_that_are_all_alike_are_the_dense_model():
    dense = a_model(SHAPE)
    shape = dataclasses.replace(SPARSE, balance="none", router_z_loss=0.0)
    sparse = a_model(shape)
    same_experts(sparse, dense)
    batch = a_batch()

    def loss_and_gradients(model):
        with tf.GradientTape() as tape:
            sums = loss_sums(model, batch)
        by_path = zip(
            model.trainable_variables,
            tape.gradient(sums.objective, model.trainable_variables),
            strict=True,
        )
        return float(sums.objective), {v.path: tf.convert_to_tensor(g) for v, g in by_path}

    (of_sparse, sparse_slopes), (of_dense, dense_slopes) = map(loss_and_gradients, (sparse, dense))
    assert of_sparse == pytest.approx(of_dense, rel=1e-6)
    path = "decoder/layer0/mlp/{}kernel"
    for name in ("gate", "up", "down"):  # tokens that went to any expert, each with its gate
        np.testing.assert_allclose(
            tf.reduce_sum(sparse_slopes[path.format(f"{name}_")], 0),
            dense_slopes[path.format(f"{name}/")],
            rtol=1e-3,
            atol=1e-4,
        )


@pytest.mark.parametrize("shape", [SPARSE, dataclasses.replace(OTHER, balance="none")])
def test_gradients_are_those_of_finite_differences(shape):
    model, batch = a_model(shape, spread=0.2), a_batch()
    layer = model.blocks[-1].mlp

    checked = [layer.router_kernel, layer.up_kernel, layer.down_kernel]

    @tf.function(jit_compile=True, autograph=False)
    def objective_and_gradients():
        with tf.GradientTape() as tape:
            objective = loss_sums(model, batch).objective
        return objective, tape.gradient(objective, checked)

    _, slopes = objective_and_gradients()
    for variable, slope in zip(checked, slopes, strict=True):
        slope = tf.convert_to_tensor(slope).numpy()
        direction = slope / np.linalg.norm(slope)  # the steepest, so that rounding is small
        start, values = variable.numpy(), []
        for sign in (1, -1):  # so short a step that no token chooses other experts
            variable.assign(start + sign * 5e-4 * direction)
            values.append(float(objective_and_gradients()[0]))
        variable.assign(start)
        expected = (values[0] - values[1]) / 1e-3
        assert np.linalg.norm(slope) == pytest.approx(expected, rel=0.02), variable.path


@pytest.mark.parametrize("shape", SHAPES)
def test_a_split_batch_has_the_same_sums_and_gradients(shape):
    """Balance included: of streams, micro-batches and replicas nothing depends."""
    model, batch = a_model(shape), a_batch()

    def sums_and_gradients(part):
        with tf.GradientTape() as tape:
            sums = loss_sums(model, part)
        slopes = tape.gradient(sums.objective, model.trainable_variables)
        return [sums.objective, *(tf.convert_to_tensor(slope) for slope in slopes)]

    whole = sums_and_gradients(batch)
    halves = [sums_and_gradients(Batch(*(x[i : i + 2] for x in batch))) for i in (0, 2)]
    for all_, first, second in zip(whole, *halves, strict=True):
        np.testing.assert_allclose(first + second, all_, rtol=1e-4, atol=2e-5)


def test_padding_counts_in_no_statistic():
    model = a_model(SPARSE)
    layer = model.blocks[0].mlp
    x = tf.random.stateless_normal([ROWS * LENGTH, SPARSE.d_model], [1, 2])
    used = np.ones((ROWS, LENGTH), np.float32)
    used[:, 10:] = 0
    tokens = RoutedTokens(tf.constant(used), tf.constant([3.0, 1.0, 0.0, 2.0]))
    _, sums = layer(x, tokens=tokens)
    other = tf.where(tf.reshape(used, [-1, 1]) > 0, x, 7.0)
    _, again = layer(other, tokens=tokens)
    assert float(tf.reduce_sum(sums.load_E)) == 2 * used.sum() == 2 * float(sums.tokens)
    for one, two in zip(sums, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert 0 < float(sums.entropy) / float(sums.tokens) < np.log(4)


def test_even_loads_have_the_least_balance_loss():
    shape = dataclasses.replace(SPARSE, router_z_loss=0.0, balance_weight=1.0)
    layer = a_model(shape).blocks[0].mlp
    x = tf.random.stateless_normal([ROWS * LENGTH, SPARSE.d_model], [1, 2])
    tokens = RoutedTokens(tf.ones([ROWS, LENGTH]), tf.ones([ROWS]))
    uneven = float(layer(x, tokens=tokens)[1].objective) / ROWS
    layer.router_kernel.assign(tf.zeros_like(layer.router_kernel))
    even = float(layer(x, tokens=tokens)[1].objective) / ROWS
    assert uneven > 1.01 > even == pytest.approx(1.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cache_gives_the_same_hidden_vectors(shape):
    model, batch = a_model(shape), a_batch(padded=0)
    hidden = model.hidden(batch.inputs, batch.segment_ids, batch.positions)
    start = 9
    found, caches = prefill(model, batch.inputs[:, :start])
    np.testing.assert_allclose(found, hidden[:, :start], atol=1e-4)
    caches = widen(caches, LENGTH)
    for i in range(start, LENGTH):
        positions = tf.fill([ROWS], i)
        step, caches = decode_step(model, batch.inputs[:, i], positions, caches)
        np.testing.assert_allclose(step, hidden[:, i], atol=1e-4)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "bfloat16"])
def test_narrow_precision_chooses_in_float32(precision):
    model = build_model(SPARSE, seed=0, precision=precision)
    layer, batch = model.blocks[0].mlp, a_batch()
    assert layer.router_kernel.dtype == "float32"
    assert layer.up_kernel.dtype == ("bfloat16" if precision == "bfloat16" else "float32")
    with tf.GradientTape() as tape:
        sums = loss_sums(model, batch)
    slopes = tape.gradient(sums.objective, model.trainable_variables)
    wide = float(loss_sums(build_model(SPARSE, seed=0), batch).nll)
    assert float(sums.nll) == pytest.approx(wide, rel=1e-2)
    assert all(np.isfinite(tf.cast(tf.convert_to_tensor(x), tf.float32)).all() for x in slopes)


def test_recomputation_changes_nothing():
    batch, results = a_batch(), []
    for rematerialize in (False, True):
        model = build_model(SPARSE, seed=0, rematerialize=rematerialize)

        @tf.function(jit_compile=True, autograph=False)
        def gradients(model=model):
            with tf.GradientTape() as tape:
                objective = loss_sums(model, batch).objective
            slopes = tape.gradient(objective, model.trainable_variables)
            return [objective, *(tf.convert_to_tensor(x) for x in slopes)]

        results.append((gradients(), gradients()))
    (first, again), (remade, _) = results
    for one, two, three in zip(first, again, remade, strict=True):
        assert one.numpy().tobytes() == two.numpy().tobytes(), "another run, other bits"
        np.testing.assert_allclose(one, three, rtol=1e-5, atol=1e-6)


def test_layers_that_have_experts():
    def layers(**change):
        return dataclasses.replace(SPARSE, layers=6, **change).moe_layers

    assert layers() == (0, 1, 2, 3, 4, 5)
    assert layers(moe_every=2) == (1, 3, 5)  # decoder_sparse_step of Qwen
    assert layers(first_dense_layers=1) == (1, 2, 3, 4, 5)  # first_k_dense_replace of DeepSeek
    assert layers(first_dense_layers=1, moe_every=2) == (2, 4)


def test_active_parameters_are_all_but_the_idle_experts():
    one = 3 * SHAPE.d_model * SHAPE.d_ff
    assert SPARSE.params_total - SPARSE.params_active == 2 * 2 * one
    router = SHAPE.d_model * 4
    assert SPARSE.params_active - SHAPE.params_total == 2 * (one + router)
    assert SHAPE.params_active == SHAPE.params_total
    assert sum(SPARSE.active_params_by_part().values()) == SPARSE.params_active


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts_per_token": 5}, "experts_per_token = 5"),
        ({"experts": 0}, "experts = 0"),
        ({"experts": 1, "experts_per_token": 1}, "router_z_loss = 0.01: expected 0.0"),
        ({"first_dense_layers": 2}, "one of the 2 layers has experts"),
        ({"shared_expert_gate": True}, "shared_experts = 0"),
        ({"router": "top"}, "router = 'top'"),
        ({"balance_weight": -1.0}, "balance_weight = -1.0"),
        ({"router_z_loss": float("nan")}, "router_z_loss = nan"),
    ],
)
def test_impossible_experts_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPARSE, **change)


def test_a_smaller_shape_has_experts_in_proportion():
    shape = dataclasses.replace(SPARSE, layers=4, first_dense_layers=2, expert_d_ff=16)
    half = shape.resized(layers=2, d_ff=20, d_model=12)
    assert (half.expert_d_ff, half.first_dense_layers, half.moe_layers) == (8, 1, (1,))
    one = dataclasses.replace(shape, moe_every=2).resized(layers=1, d_ff=40)
    assert (one.first_dense_layers, one.moe_layers) == (0, (0,))
    assert SHAPE.resized(layers=2, d_ff=40) == SHAPE


def test_a_dense_model_is_no_start_for_experts():
    with pytest.raises(TokenmillError, match=r"model\.experts = 4, there 1"):
        check_same_shape("base", SPARSE.backbone(), SHAPE.backbone())


def test_what_overflows_elsewhere_reaches_no_expert():
    """A token that is infinite in one expert leaves the gradients of the others finite."""
    layer = a_model(SPARSE).blocks[0].mlp
    router = np.zeros((24, 4), np.float32)
    router[0] = [8.0, 6.0, -8.0, -9.0]
    layer.router_kernel.assign(router)
    x = np.ones((8, 24), np.float32)
    x[:4, 0] = -1.0  # these go to the last two experts
    x[-1, 1:] = 1e30
    with tf.GradientTape() as tape:
        y, *_ = tf.nest.flatten(layer(tf.constant(x)))
        loss = tf.reduce_sum(y[:4])
    for gradient in tape.gradient(loss, [layer.up_kernel, layer.down_kernel]):
        assert np.isfinite(gradient[2:]).all()


def test_dense_keys_say_nothing_without_experts():
    for key, value in itertools.chain({"shared_experts": 1, "router": "sigmoid"}.items()):
        with pytest.raises(ValueError, match=f"{key} = {value!r}: expected"):
            dataclasses.replace(SHAPE, **{key: value})


def test_weights_are_no_constants_of_the_program():
    """Else XLA compiles it anew for every step, and oneDNN crashes on what it folds."""
    layer = a_model(SPARSE).blocks[0].mlp

    @tf.function(jit_compile=True, autograph=False)
    def gradients(x):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(x))
        return tape.gradient(total, layer.trainable_variables)

    x = tf.zeros([64, SPARSE.d_model])
    program = gradients.experimental_get_compiler_ir(x)(stage="hlo")
    entry = program[program.index("ENTRY") :]
    assert entry.count(" parameter(") == 1 + len(layer.trainable_variables)


def test_adapters_are_those_of_attention_and_are_merged():
    model, batch = build_model(SPARSE, seed=0, lora=LoraConfig(rank=2, alpha=4.0)), a_batch()
    with tf.GradientTape() as tape:
        objective = loss_sums(model, batch).objective
    slopes = tape.gradient(objective, model.trainable_variables)
    assert len(slopes) == 2 * 4 * 2
    assert all(slope is not None for slope in slopes)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.1)
    given = (batch.inputs, batch.segment_ids, batch.positions)
    np.testing.assert_allclose(merge_adapters(model)(*given), model(*given), atol=1e-4)


def test_an_encoder_has_experts_too():
    shape = dataclasses.replace(SPARSE, causal=False, head="mlm", norm_position="post")
    model = build_model(shape, seed=0)
    assert model.count_params() == shape.params_total
    assert np.isfinite(float(loss_sums(model, a_batch()).objective))


def test_quantized_experts_have_scales_of_their_own():
    layer = a_model(dataclasses.replace(SPARSE, use_bias=True)).blocks[0].mlp
    stored = StoredWeights(layer, "int8")
    scales = {v.name: scale for v, scale in zip(layer.variables, stored.scales, strict=True)}
    assert scales["up_kernel"].shape == (4, 1, SPARSE.d_ff)
    for variable, value in stored.mapping():
        largest = np.abs(variable.numpy()).max()
        kept = variable.name == "router_kernel" or variable.name.endswith("_bias")
        atol = 0 if kept else largest / 253
        np.testing.assert_allclose(value, variable.numpy(), rtol=0, atol=atol)
