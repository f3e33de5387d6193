"""The optimizer's rates, decay, clipping and loss scaling, from outside."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.train.config import TrainConfig
from components.train.optimizer import (
    LearningRate,
    clip_mean_gradients,
    make_optimizer,
    scale_loss,
)
from tokenmill.model.decoder import Decoder
from tokenmill.model.shape import ModelShape

PEAK, DECAY = 1e-2, 0.1


def make_settings(**change):
    fields = {
        "learning_rate": PEAK,
        "warmup_fraction": 0.1,
        "weight_decay": DECAY,
        "clip_norm": 1.0,
    }
    return TrainConfig(**{**fields, **change})


def rates_of(steps, **change):
    schedule = LearningRate(make_settings(**change), steps)
    return [float(schedule(step)) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize(("fraction", "warmup"), [(0.1, 10), (0.0, 1)])
def test_the_rate_grows_to_the_peak_and_falls_to_a_tenth(schedule, fraction, warmup):
    rates = rates_of(100, schedule=schedule, warmup_fraction=fraction)
    assert rates[0] == pytest.approx(PEAK / warmup)
    assert max(rates) == rates[warmup] == pytest.approx(PEAK)
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[99] == pytest.approx(0.1 * PEAK)


@pytest.mark.parametrize(
    ("steps", "beta_2", "warmup"),
    [
        (1, 0.95, 1),
        (80, 0.95, 20),  # a quarter
        (256, 0.95, 40),  # Adam's memory
        (256, 0.5, 13),  # 5 %
        (10_000, 0.95, 500),
    ],
)
def test_a_warm_up_that_is_not_given_covers_adams_memory(steps, beta_2, warmup):
    config = make_settings(warmup_fraction=None, beta_2=beta_2)
    assert LearningRate(config, steps).warmup_steps == warmup


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 20, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_the_last_step_has_the_final_rate(schedule, steps, warmup, final):
    fractions = {"warmup_fraction": warmup, "final_learning_rate_fraction": final}
    rates = rates_of(steps, schedule=schedule, **fractions)
    assert rates[-1] == np.float32(PEAK) * np.float32(final)
    assert all(rate > 0 for rate in rates[:-1])
    if steps > 1 and warmup == 0.0:
        assert rates[0] == pytest.approx(PEAK)


def test_the_schedules_have_their_form():
    middle = 55  # half way between the end of the warm-up and the last of 101 steps
    assert rates_of(101, schedule="cosine")[middle] == pytest.approx(0.55 * PEAK)
    assert rates_of(101, schedule="linear")[middle] == pytest.approx(0.55 * PEAK)
    stable = rates_of(101, schedule="wsd", decay_fraction=0.2, final_learning_rate_fraction=0.0)
    assert set(stable[10:81]) == {stable[10]}
    assert stable[90] == pytest.approx(0.5 * PEAK)
    assert stable[100] == 0.0
    few = rates_of(6, schedule="wsd", warmup_fraction=0.0, final_learning_rate_fraction=0.5)
    assert few == pytest.approx([PEAK] * 5 + [0.5 * PEAK])
    quarter = rates_of(101, schedule="cosine", warmup_fraction=0.0, final_learning_rate_fraction=0)
    assert quarter[25] == pytest.approx(PEAK * (1 + math.cos(math.pi * 24 / 99)) / 2, rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    steps=st.integers(1, 300),
    schedule=st.sampled_from(["cosine", "linear", "wsd"]),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
)
def test_every_rate_is_above_zero_and_at_most_the_peak(steps, schedule, warmup, decay):
    rates = rates_of(steps, schedule=schedule, warmup_fraction=warmup, decay_fraction=decay)
    assert min(rates) > 0
    assert max(rates) <= PEAK * (1 + 1e-6)


def test_decay_spares_biases_and_norms():
    shape = ModelShape(
        layers=1,
        d_model=16,
        heads=2,
        d_ff=32,
        vocab_size=300,
        sequence_length=16,
        positions="learned",
        norm="layer",
        use_bias=True,
        mlp="gelu",
        tie_embeddings=True,
    )
    model = Decoder(shape, 1)
    for weight in model.trainable_variables:
        weight.assign(np.ones(weight.shape))
    optimizer = make_optimizer(make_settings(), steps=100)
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(10)  # the peak of the learning rate
    optimizer.apply_gradients([(tf.zeros(w.shape), w) for w in model.trainable_variables])
    for weight in model.trainable_variables:
        expected = 1.0 - DECAY * PEAK if weight.ndim == 2 else 1.0
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6, err_msg=weight.path)


def test_one_step_is_that_of_the_paper():
    """Algorithm 2 of Loshchilov and Hutter 2019, with Adam's bias correction, in NumPy."""
    weight = tf.Variable([[1.0, -2.0], [0.5, 3.0]], name="kernel")
    chosen = make_settings(warmup_fraction=0.0, schedule="wsd", clip_norm=1e9)
    optimizer = make_optimizer(chosen, steps=100)
    optimizer.build([weight])
    expected = weight.numpy().astype(np.float64)
    first, second = np.zeros((2, 2)), np.zeros((2, 2))
    rng = np.random.default_rng(0)
    for step in range(1, 6):
        gradient = rng.normal(size=(2, 2))
        optimizer.apply_gradients([(tf.constant(gradient, tf.float32), weight)])
        first = 0.9 * first + 0.1 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        moved = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.95**step)) + 1e-7)
        expected -= PEAK * (moved + DECAY * expected)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5)


def test_clipping_looks_at_the_mean_gradient_of_the_global_batch():
    optimizer = make_optimizer(make_settings(), steps=10)
    sums = [tf.constant([[30.0, 0.0]]), tf.constant([40.0])]  # norm 50 over all targets
    kept, norm = clip_mean_gradients(optimizer, sums, tf.constant(100.0), 1.0)
    assert float(norm) == pytest.approx(0.5)
    np.testing.assert_allclose(kept[0], [[0.3, 0.0]], rtol=1e-6)
    clipped, norm = clip_mean_gradients(optimizer, sums, tf.constant(10.0), 1.0)
    assert float(norm) == pytest.approx(5.0)
    np.testing.assert_allclose(clipped[0], [[0.6, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(clipped[1], [0.8], rtol=1e-6)


def scaled(initial_targets=32_768):
    weight = tf.Variable([[1.0, 2.0]], name="kernel")
    optimizer = make_optimizer(
        make_settings(precision="mixed_float16"), 100, targets_per_replica=initial_targets
    )
    optimizer.build([weight])
    return optimizer, weight


def test_loss_scaling_leaves_norm_and_update_as_they_are():
    plain_weight = tf.Variable([[1.0, 2.0]], name="kernel")
    plain = make_optimizer(make_settings(), 100)
    optimizer, weight = scaled(1024)
    assert float(scale_loss(optimizer, tf.constant(1.0))) == 32.0
    assert float(scale_loss(plain, tf.constant(1.0))) == 1.0
    for each, variable in ((plain, plain_weight), (optimizer, weight)):
        gradient = scale_loss(each, tf.constant([[3.0, 4.0]]))
        gradients, norm = clip_mean_gradients(each, [gradient], tf.constant(2.0), 1.0)
        assert float(norm) == pytest.approx(2.5)
        each.apply_gradients(zip(gradients, [variable], strict=True))
    np.testing.assert_allclose(weight.numpy(), plain_weight.numpy(), rtol=1e-6)
    assert (weight.numpy() != [[1.0, 2.0]]).all()


def test_an_overflow_halves_the_scale_and_touches_no_weight():
    optimizer, weight = scaled(8192)
    good = [tf.constant([[1.0, 1.0]])]
    bad = [tf.constant([[np.inf, 1.0]])]

    def apply(sums):
        gradients, norm = clip_mean_gradients(optimizer, sums, tf.constant(1.0), 1.0)
        optimizer.apply_gradients(zip(gradients, [weight], strict=True))
        return float(norm)

    assert math.isfinite(apply(good))
    before = [v.numpy().copy() for v in optimizer.inner_optimizer.variables]
    kept = weight.numpy().copy()
    assert not math.isfinite(apply(bad))
    assert weight.numpy().tobytes() == kept.tobytes()
    for old, new in zip(before, optimizer.inner_optimizer.variables, strict=True):
        assert old.tobytes() == new.numpy().tobytes()
    assert float(optimizer.dynamic_scale) == 2.0
    apply(good)
    assert (weight.numpy() != kept).all()


def test_the_loss_scale_is_saved_with_the_optimizer(tmp_path):
    optimizer, weight = scaled()
    optimizer.dynamic_scale.assign(64.0)
    optimizer.step_counter.assign(17)
    path = tf.train.Checkpoint(optimizer=optimizer, weight=weight).write(str(tmp_path / "state"))
    again, other = scaled()
    tf.train.Checkpoint(optimizer=again, weight=other).read(path).assert_consumed()
    assert float(again.dynamic_scale) == 64.0
    assert int(again.step_counter) == 17
