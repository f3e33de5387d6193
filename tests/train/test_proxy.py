"""Proxy runs: a branch is the training that `schedule = "wsd"` makes, and the trunk goes on."""

import numpy as np
import pytest
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.gradient_noise import GradientNoiseMeter
from components.train.loop import Trainer
from components.train.proxy import ProxyTrainer
from tokenmill.errors import TokenmillError
from tokenmill.model.decoder import Decoder
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit

CONFIG = TrainConfig(
    learning_rate=1e-2, warmup_fraction=0.1, decay_fraction=0.2, jit_compile=False,
    global_batch_size=8,
)  # fmt: skip


def weights_of(model):
    return [np.array(v) for v in model.variables]


@pytest.fixture(scope="module")
def rows(counting_rows):
    return PackedSplit(counting_rows, "train")


@pytest.fixture(scope="module")
def proxy(rows, small_shape):
    return ProxyTrainer(small_shape, CONFIG, rows)


@pytest.fixture(scope="module")
def curve(proxy):
    return proxy.train([20, 40], 7, weights_of)


def test_the_last_branch_is_a_training_with_wsd(curve, rows, counting_rows, small_shape):
    plan = plan_steps(rows.rows, 8, 1000, 40)
    model = Decoder(small_shape, 7)
    # A quarter of the shortest count, 5 steps: less than Adam's memory of 40.
    config = CONFIG.model_copy(update={"schedule": "wsd", "warmup_fraction": 5 / 40})
    trainer = Trainer(tf.distribute.get_strategy(), model, config, plan, 7)
    record = trainer.fit(rows, PackedSplit(counting_rows, "eval"))
    # The rate is computed here for all steps at once, there in the step: rounding apart, the same.
    for ours, theirs in zip(curve.points[-1].result, weights_of(model), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert curve.points[-1].loss_tokens == record.trained_loss_tokens
    assert curve.points[-1].slots == record.trained_slots


def test_a_branch_does_not_change_the_trunk(curve, proxy):
    more = proxy.train([20, 30, 40], 7, weights_of)
    for ours, theirs in zip(curve.points[-1].result, more.points[-1].result, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # The trunk to step 32, and branches of 4, 6 and 8 steps.
    assert curve.computed_slots == (32 + 4 + 8) * 8 * 16
    assert more.computed_slots == (32 + 4 + 6 + 8) * 8 * 16


def test_losses_fall_from_branch_to_branch(curve):
    first, second = curve.points
    assert (first.steps, second.steps) == (20, 40)
    assert second.loss < first.loss < np.log(300)
    assert second.loss_tokens > first.loss_tokens


def test_another_seed_is_another_training(curve, proxy):
    other = proxy.train([20], 8, weights_of)
    assert not np.array_equal(other.points[0].result[0], curve.points[0].result[0])


def test_weights_of_sources_that_rows_do_not_have_are_refused(proxy):
    with pytest.raises(TokenmillError, match="'s' is not both weighed and among the sources"):
        proxy.train([20], 7, weights_of, source_weights={"s": 1.0})


def test_a_training_of_one_step_is_refused(proxy):
    with pytest.raises(TokenmillError, match="expected 2 steps"):
        proxy.train([1], 7, weights_of)


def test_a_loss_that_is_not_finite_is_said(rows, small_shape):
    trainer = ProxyTrainer(small_shape, CONFIG, rows)
    with pytest.raises(TokenmillError, match="diverged"):
        trainer.train([20], 7, weights_of, learning_rate=1e30)


def test_the_noise_scale_is_that_of_gaussian_gradients():
    """|G|^2 = 4 and tr(Sigma) = 4,000 for one token: a noise scale of 1,000 tokens."""
    rng = np.random.default_rng(5)
    mean, deviation, tokens, parts = np.full(100, 0.2), np.sqrt(40.0), 512.0, 4
    meter = GradientNoiseMeter()
    assert meter.result() is None
    for _ in range(800):
        of_parts = mean + rng.normal(0, deviation / np.sqrt(tokens / parts), (parts, 100))
        whole = of_parts.mean(0)
        meter.add(whole @ whole, (of_parts**2).sum(1).mean(), tokens, parts)
    noise = meter.result()
    assert noise.steps == 400
    assert abs(noise.tokens - 1000) < 3 * noise.standard_error
    assert noise.standard_error < 200


def test_the_noise_scale_is_that_of_the_end():
    """The signal is a hundred times as strong at first, the noise the same."""
    meter = GradientNoiseMeter()
    for signal in [100.0] * 50 + [1.0] * 50:
        # Of a batch of 512 tokens in 4 parts, tr(Sigma) = 2,000.
        meter.add(signal + 2000 / 512, signal + 2000 / 128, 512.0, 4)
    assert meter.result().tokens == pytest.approx(2000)


def test_a_noise_without_a_signal_is_not_told():
    meter = GradientNoiseMeter()
    for _ in range(40):
        meter.add(1.0, 4.0, 512.0, 4)  # what is left of the parts' noise is all of the batch's
    assert meter.result() is None
