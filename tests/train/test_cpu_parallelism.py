"""Parts of a batch side by side: whole batches, the same sums, the same weights."""

import types

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.train.config import TrainConfig
from components.train.distributed import cpu_parallelism
from components.train.optimizer import make_optimizer
from components.train.step import make_eval_step, make_train_step
from tokenmill.model.build import build_model, loss_sums
from tokenmill.rows.packed_split import Batch

OPTIMIZER = TrainConfig(learning_rate=1e-2, warmup_fraction=0.1, weight_decay=0.1, clip_norm=1e-3)


@pytest.fixture(autouse=True)
def streams_of_short_rows(monkeypatch):
    monkeypatch.setattr(cpu_parallelism, "_LEAST_SLOTS", 16)


def batch_of(rows, width, vocabulary=300):
    rng = np.random.default_rng(rows)
    tokens = rng.integers(4, vocabulary, (rows, width + 1)).astype(np.int32)
    segments = np.ones((rows, width), np.int32)
    segments[:, width // 2 :] = 2
    positions = np.tile(np.arange(width, dtype=np.int32), (rows, 1))
    weights = rng.integers(0, 2, (rows, width)).astype(np.float32)
    return Batch(*map(tf.constant, (tokens[:, :-1], tokens[:, 1:], segments, positions, weights)))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4]), st.integers(1, 4))
def test_parts_make_up_the_batch_and_are_large_enough(rows, width, most, micro_batches):
    batch = batch_of(rows * micro_batches, width)
    parts = cpu_parallelism.split(batch, most, micro_batches)
    assert len(parts) <= most
    for whole, pieces in zip(batch, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    for part in parts:
        assert part.inputs.shape[0] % micro_batches == 0
        if len(parts) > 1:
            assert part.inputs.shape[0] // micro_batches * width >= 16


def one_step(shape, most, monkeypatch, *, jit_compile=False, dropout=0.0, accumulation_steps=1):
    """A step's result, the weights behind it, and the loss sums of an evaluation."""
    monkeypatch.setattr(cpu_parallelism, "CPU_PARALLELISM", most)
    strategy, batch = tf.distribute.get_strategy(), batch_of(16, 16)
    model = build_model(shape, 1, dropout=dropout)
    optimizer = make_optimizer(OPTIMIZER, 10)
    optimizer.build(model.trainable_variables)
    step = make_train_step(
        strategy, model, optimizer, clip_norm=1e-3, jit_compile=jit_compile, seed=1,
        accumulation_steps=accumulation_steps,
    )  # fmt: skip
    result = step(batch, tf.zeros([]), True)
    evaluated = make_eval_step(strategy, model, jit_compile)(batch)
    return result, [v.numpy() for v in model.trainable_variables], [float(x) for x in evaluated]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_parts_give_the_sums_of_the_whole_batch(
    small_shape, monkeypatch, jit_compile, accumulation_steps
):
    how = {"jit_compile": jit_compile, "accumulation_steps": accumulation_steps}
    whole, weights, evaluated = one_step(small_shape, 1, monkeypatch, **how)
    parts, weights_of_parts, evaluated_in_parts = one_step(small_shape, 4, monkeypatch, **how)
    assert float(parts.weight) == float(whole.weight)
    for name in ("nll", "norm"):
        assert float(getattr(parts, name)) == pytest.approx(float(getattr(whole, name)), rel=1e-5)
    for ours, theirs in zip(parts.gradients, whole.gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-9)
    for ours, theirs in zip(weights_of_parts, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert evaluated_in_parts == pytest.approx(evaluated, rel=1e-5)


def test_parts_are_computed_in_the_same_order_whatever_thread_ends_first(small_shape, monkeypatch):
    runs = [one_step(small_shape, 4, monkeypatch, dropout=0.3)[1] for _ in range(3)]
    for run in runs[1:]:
        for ours, theirs in zip(run, runs[0], strict=True):
            assert ours.tobytes() == theirs.tobytes()


def test_each_stream_drops_features_of_its_own(small_shape, monkeypatch):
    seeds = []

    def noting(model, part, seed=None, z_loss=0.0):
        if seed is not None:  # evaluation has no dropout
            seeds.append(tuple(seed.numpy()))
        return loss_sums(model, part, seed, z_loss)

    monkeypatch.setattr("components.train.step.loss_sums", noting)
    tf.config.run_functions_eagerly(True)
    try:
        one_step(small_shape, 4, monkeypatch, dropout=0.3)
    finally:
        tf.config.run_functions_eagerly(False)
    assert len(seeds) == len(set(seeds)) == 4


@pytest.mark.parametrize(
    ("replicas", "workers", "accelerator", "expected"),
    [(1, 1, False, 4), (2, 2, False, 4), (2, 1, False, 1), (1, 1, True, 1)],
)
def test_only_a_lone_replica_on_cores_is_divided(
    monkeypatch, replicas, workers, accelerator, expected
):
    found = types.SimpleNamespace(replicas_each=replicas // workers)
    monkeypatch.setattr(cpu_parallelism, "Workers", lambda strategy: found)
    monkeypatch.setattr(cpu_parallelism, "has_accelerator", lambda: accelerator)
    assert cpu_parallelism.replica_parallelism(tf.distribute.get_strategy()) == expected
