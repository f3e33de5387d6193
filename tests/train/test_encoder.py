"""The encoder, its tasks, and what decoder and encoder share: dropout, recomputation, precision."""

import math

import numpy as np
import pytest
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.optimizer import (
    clip_mean_gradients,
    make_optimizer,
    scale_loss,
)
from pipeline.loader import load_config
from tokenmill.cost.memory import estimate_memory
from tokenmill.errors import TokenmillError
from tokenmill.model.base_model import load_base_model
from tokenmill.model.build import build_model, loss_sums
from tokenmill.model.layers import Dropout
from tokenmill.model.shape import ModelShape
from tokenmill.rows.packed_split import Batch

VOCAB, LENGTH, ROWS, MASK_ID = 60, 16, 8, 4


def make_shape(**change):
    options = {
        "layers": 2,
        "d_model": 32,
        "heads": 4,
        "d_ff": 48,
        "vocab_size": VOCAB,
        "sequence_length": LENGTH,
        "positions": "learned",
        "norm": "layer",
        "use_bias": True,
        "mlp": "gelu",
        "tie_embeddings": True,
        "causal": False,
        "norm_position": "post",
        "type_vocab_size": 2,
        "head": "mlm",
    }
    return ModelShape(**{**options, **change})


DECODER = {"causal": True, "head": "lm", "norm_position": "pre", "type_vocab_size": 0}
SHAPES = {
    "decoder": make_shape(**DECODER),
    "post-norm mlm": make_shape(),
    "pre-norm rms mlm": make_shape(norm_position="pre", norm="rms", use_bias=False),
    "untied mlm": make_shape(tie_embeddings=False, type_vocab_size=0),
    "rope lm": make_shape(head="lm", positions="rope"),
    "classifier": make_shape(head="classifier", classes=3),
    "exact gelu, narrow heads": make_shape(
        mlp="gelu_exact", head_dim=6, norm_epsilon=1e-4, qk_norm=True
    ),
}
kinds = pytest.mark.parametrize("kind", SHAPES)


def rows(seed, count=ROWS, slope=1):
    """Two documents a row, of 9 and 5 tokens, then 2 slots of padding; tokens rise by `slope`."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 40, (count, 2))
    steps = np.concatenate([np.arange(9), np.arange(5), np.zeros(2, int)])
    segments = np.repeat([1, 2, 0], [9, 5, 2])
    tokens = 5 + (starts[:, np.maximum(segments, 1) - 1] + slope * steps) % 40
    tokens = np.where(segments > 0, tokens, 0).astype(np.int32)
    ids = [np.broadcast_to(x, tokens.shape).astype(np.int32) for x in (segments, steps)]
    return tokens, *ids, rng


def masked_batch(seed=0):
    """Documents of one repeated token, so that what is masked can be told from the rest."""
    tokens, segments, steps, rng = rows(seed, slope=0)
    chosen = (rng.random(tokens.shape) < 0.3) & (segments > 0)
    inputs = np.where(chosen, MASK_ID, tokens).astype(np.int32)
    return Batch(inputs, tokens, segments, steps, chosen.astype(np.float32))


def class_batch(seed=0):
    """A document's class is which third of the vocabulary it starts in; it counts once."""
    tokens, segments, steps, _ = rows(seed)
    first = ((steps == 0) & (segments > 0)).astype(np.float32)
    classes = np.where(first > 0, (tokens - 5) // 14, 0).astype(np.int32)
    return Batch(tokens, classes, segments, steps, first)


def next_token_batch(seed=0):
    tokens, segments, steps, _ = rows(seed)
    return Batch(tokens, np.roll(tokens, -1, 1), segments, steps, (segments > 0).astype(np.float32))


def batch_for(shape, seed=0):
    if shape.head == "classifier":
        return class_batch(seed)
    return masked_batch(seed) if shape.head == "mlm" else next_token_batch(seed)


def gradients_of(model, batch, **options):
    with tf.GradientTape() as tape:
        sums = loss_sums(model, batch, **options)
    gradients = tape.gradient(sums.objective, model.trainable_variables)
    return sums, [tf.convert_to_tensor(g).numpy() for g in gradients]


@kinds
def test_the_model_has_as_many_parameters_as_the_shape_counts(kind):
    model = build_model(SHAPES[kind], 0)
    assert model.count_params() == SHAPES[kind].params_total
    assert len({v.path for v in model.trainable_variables}) == len(model.trainable_variables)


@pytest.mark.parametrize(
    ("preset", "parts", "published"),
    [
        ("gpt2-small", "all", 124_439_808),  # Radford et al. 2019 as released
        ("bert-base", "with pooler", 109_482_240),  # the "110M" of Devlin et al. 2018
        ("bert-large", "with pooler", 335_141_888),  # their "340M"
        ("bert-base", "all", 109_514_298),  # with the masked-LM head, without the pooler
        ("bert-large", "all", 335_174_458),
    ],
)
def test_presets_count_the_published_parameters(preset, parts, published):
    shape = load_config(preset).shape()
    counted = shape.params_total
    if parts == "with pooler":  # the pooler instead of the masked-LM head
        counted -= shape.params_by_part()["head"] - shape.d_model * (shape.d_model + 1)
    assert counted == published


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_saves_29_percent_of_bert_large(precision):
    """Weights, with the 16-bit copy, and activations by the ledger's table, 8 rows a device.

    Attention's probabilities are float32 in any precision (measured on an H200).
    """

    def held(kind):
        parts = estimate_memory(
            load_config("bert-large").shape(), batch_per_device=8, precision=kind
        )
        return parts.weights + parts.compute_copy + parts.activations + parts.attention

    assert held(precision) <= 0.71 * held("float32")


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["demo", "gpt2-small", "bert-base", "bert-large"])
def test_every_preset_can_be_built_and_guesses(preset):
    shape = load_config(preset).shape()
    model = build_model(shape, 0)
    assert model.count_params() == shape.params_total
    tokens = np.random.default_rng(0).integers(5, shape.vocab_size, (2, 32)).astype(np.int32)
    steps = np.broadcast_to(np.arange(32, dtype=np.int32), tokens.shape)
    targets = tokens[:, ::-1].copy()
    sums = loss_sums(model, Batch(tokens, targets, np.ones_like(tokens), steps, np.ones((2, 32))))
    assert float(sums.nll) / 64 == pytest.approx(math.log(shape.vocab_size), rel=0.05)


@kinds
def test_the_untrained_loss_is_that_of_guessing(kind):
    shape = SHAPES[kind]
    sums = loss_sums(build_model(shape, 0), batch_for(shape))
    guesses = shape.classes or VOCAB
    assert float(sums.nll / sums.weight) == pytest.approx(math.log(guesses), rel=0.06)


@kinds
def test_loss_and_gradients_are_those_of_the_plain_formula(kind):
    shape = SHAPES[kind]
    model, batch = build_model(shape, 3), batch_for(shape)
    for z_loss in (0.0, 0.1):
        sums, gradients = gradients_of(model, batch, z_loss=z_loss)
        with tf.GradientTape() as tape:
            logits = model(batch.inputs, batch.segment_ids, batch.positions)
            nll = tf.nn.sparse_softmax_cross_entropy_with_logits(batch.targets, logits)
            extra = z_loss * tf.reduce_logsumexp(logits, -1) ** 2
            plain = tf.reduce_sum((nll + extra) * batch.loss_weights)
        np.testing.assert_allclose(sums.objective, plain, rtol=1e-5)
        np.testing.assert_allclose(sums.nll, tf.reduce_sum(nll * batch.loss_weights), rtol=1e-5)
        expected = tape.gradient(plain, model.trainable_variables)
        for variable, ours, theirs in zip(
            model.trainable_variables, gradients, expected, strict=True
        ):
            if theirs is None:  # the head's part that this task does not use
                continue
            np.testing.assert_allclose(
                ours, tf.convert_to_tensor(theirs), atol=2e-4, rtol=1e-3, err_msg=variable.path
            )


@pytest.mark.parametrize("kind", ["post-norm mlm", "pre-norm rms mlm", "rope lm"])
def test_a_token_reaches_all_of_its_document_and_nothing_else(kind):
    model = build_model(SHAPES[kind], 1)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        scale = 1.0 if variable.name in ("gamma", "scale") else 0.0
        variable.assign(scale + rng.normal(0.0, 0.3, variable.shape))
    batch = next_token_batch()
    before = model(batch.inputs, batch.segment_ids, batch.positions).numpy()
    for place, document in ((8, slice(0, 9)), (9, slice(9, 14)), (13, slice(9, 14))):
        changed = batch.inputs.copy()
        changed[:, place] = 55
        after = model(changed, batch.segment_ids, batch.positions).numpy()
        reached = np.zeros(LENGTH, bool)
        reached[document] = True
        difference = np.abs(after - before).max(axis=(0, 2))
        assert difference[~reached].max() <= 1e-5
        assert difference[reached].min() > 1e-4


@kinds
def test_attention_probabilities_sum_to_one_within_the_document(kind):
    shape = SHAPES[kind]
    model, batch = build_model(shape, 1), batch_for(shape)
    layers = model.attention_probabilities(batch.inputs, batch.segment_ids, batch.positions)
    assert len(layers) == shape.layers
    allowed = batch.segment_ids[:, :, None] == batch.segment_ids[:, None, :]
    if shape.causal:
        allowed &= np.tril(np.ones((LENGTH, LENGTH), bool))
    for layer in layers:
        assert layer.shape == (ROWS, shape.heads, LENGTH, LENGTH)
        np.testing.assert_allclose(np.sum(layer, -1), 1.0, atol=1e-5)
        assert (layer.numpy() * ~allowed[:, None]).max() == 0.0
        assert (layer.numpy()[np.broadcast_to(allowed[:, None], layer.shape)] > 0).all()


def train(shape, steps=80, precision="float32", jit_compile=True, **options):
    """Mean losses of each step on fresh batches."""
    model = build_model(shape, 1, precision, **options)
    settings = TrainConfig(
        learning_rate=1e-2, warmup_fraction=0.1, weight_decay=0.0, precision=precision
    )
    optimizer = make_optimizer(settings, steps, ROWS * LENGTH)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=jit_compile)
    def step(batch, seed):
        with tf.GradientTape() as tape:
            sums = loss_sums(model, batch, dropout_seed=seed)
            scaled = scale_loss(optimizer, sums.objective)
        gradients = tape.gradient(scaled, model.trainable_variables)
        gradients = [tf.convert_to_tensor(g) for g in gradients]
        gradients, _ = clip_mean_gradients(optimizer, gradients, sums.weight, 1.0)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return sums.nll / sums.weight

    losses = []
    for i in range(steps):
        batch = Batch(*map(tf.constant, batch_for(shape, i)))
        losses.append(float(step(batch, tf.constant([7, i], tf.int32))))
    return losses, model


@pytest.mark.parametrize("kind", ["decoder", "post-norm mlm", "classifier"])
def test_every_task_is_learnt(kind):
    losses, _ = train(SHAPES[kind])
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


@pytest.mark.parametrize("precision", ["bfloat16", "mixed_bfloat16", "mixed_float16"])
def test_lower_precision_follows_the_losses_of_float32(precision):
    exact, _ = train(SHAPES["decoder"], 30)
    lower, model = train(SHAPES["decoder"], 30, precision)
    stored = {v.dtype for v in model.trainable_variables if len(v.shape) > 1}
    assert stored == {"bfloat16" if precision == "bfloat16" else "float32"}
    np.testing.assert_allclose(lower, exact, atol=0.1)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_recomputation_changes_no_loss(jit_compile):
    kept, _ = train(SHAPES["decoder"], 8, jit_compile=jit_compile, dropout=0.1)
    again, _ = train(SHAPES["decoder"], 8, jit_compile=jit_compile, dropout=0.1, rematerialize=True)
    np.testing.assert_allclose(again, kept, rtol=1e-4)
    twice, _ = train(SHAPES["decoder"], 8, jit_compile=jit_compile, dropout=0.1, rematerialize=True)
    assert twice == again


@pytest.mark.parametrize("kind", ["decoder", "post-norm mlm"])
def test_dropout_is_a_function_of_seed_and_step(kind):
    shape = SHAPES[kind]
    batch = batch_for(shape)

    def loss(model, *seed):
        return float(loss_sums(model, batch, np.array(seed, np.int32) if seed else None).nll)

    model, other = build_model(shape, 1, dropout=0.2), build_model(shape, 1, dropout=0.2)
    plain = build_model(shape, 1)
    assert loss(model) == loss(plain) == loss(plain, 3, 5)  # no seed or no rate: no dropout
    assert loss(model, 3, 5) == loss(other, 3, 5)
    assert len({loss(model), loss(model, 3, 5), loss(model, 3, 6), loss(model, 4, 5)}) == 4


def test_dropout_keeps_the_mean_and_drops_its_share():
    dropout = Dropout(0.25, tf.constant([1, 2]))
    first = dropout.drop(tf.ones([200, 200]), dropout.next_seed()).numpy()
    second = dropout.drop(tf.ones([200, 200]), dropout.next_seed()).numpy()
    assert np.mean(first == 0) == pytest.approx(0.25, abs=0.01)
    assert np.mean(first) == pytest.approx(1.0, abs=0.01)
    assert (first != second).mean() > 0.3


class Saved(tf.Module):
    """A model where export keeps it: under `served.model`."""

    def __init__(self, model):
        super().__init__()
        self.served = tf.Module()
        self.served.model = model


@pytest.fixture
def saved(tmp_path):
    model = build_model(SHAPES["post-norm mlm"], 9)
    directory = tmp_path / "1"
    tf.saved_model.save(Saved(model), str(directory))
    (directory / "assets.extra").mkdir()
    for path in (directory / "assets.extra" / "tokenizer.model", tmp_path / "tokenizer.model"):
        path.write_bytes(b"pieces")
    return model, str(directory), str(tmp_path / "tokenizer.model")


def test_training_goes_on_from_a_saved_model(saved):
    model, directory, tokenizer = saved
    again = build_model(SHAPES["post-norm mlm"], 1)
    assert load_base_model(again, directory, tokenizer) == []
    for a, b in zip(model.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_classifier_takes_the_trunk_and_keeps_its_own_head(saved):
    model, directory, tokenizer = saved
    classifier = build_model(SHAPES["classifier"], 1)
    random = classifier.pooler.kernel.numpy()
    kept = load_base_model(classifier, directory, tokenizer)
    assert {path.split("/")[1] for path in kept} == {"pooler", "classifier"}
    np.testing.assert_array_equal(classifier.pooler.kernel.numpy(), random)
    batch = masked_batch()
    ids = batch.inputs, batch.segment_ids, batch.positions
    np.testing.assert_array_equal(classifier.hidden(*ids), model.hidden(*ids))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d_ff": 64}, r"layer0/mlp/up/kernel has the shape \[32, 48\] there and \[32, 64\] here"),
        ({"layers": 3}, "no weight for encoder/layer2"),
    ],
)
def test_another_shape_is_refused_and_changes_nothing(saved, change, words):
    _, directory, tokenizer = saved
    model = build_model(make_shape(**change), 1)
    before = [v.numpy() for v in model.trainable_variables]
    with pytest.raises(TokenmillError, match=words):
        load_base_model(model, directory, tokenizer)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_another_tokenizer_or_no_model_is_refused(saved, tmp_path):
    model, directory, tokenizer = saved
    (tmp_path / "other.model").write_bytes(b"other pieces")
    with pytest.raises(TokenmillError, match="an id means another piece"):
        load_base_model(model, directory, str(tmp_path / "other.model"))
    with pytest.raises(TokenmillError, match="no SavedModel there"):
        load_base_model(model, str(tmp_path / "nowhere"), tokenizer)
