"""Pure bfloat16 trains as float32 does: moments, norm scales and small steps included."""

import numpy as np
import pytest
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.loop import Trainer
from components.train.optimizer import make_optimizer
from tokenmill.model.build import build_model
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit

SEED, STEPS = 7, 60


def trained(rows_uri, shape, precision, **change):
    """The weights before and after, and the losses (nats) of a short training."""
    train = PackedSplit(rows_uri, "train")
    config = TrainConfig(precision=precision, warmup_fraction=0.0, jit_compile=False, **change)
    plan = plan_steps(train.rows, 8, 1000, STEPS)
    model = build_model(shape, SEED, precision)
    before = {v.path: np.asarray(v, np.float32) for v in model.trainable_variables}
    trainer = Trainer(tf.distribute.get_strategy(), model, config, plan, SEED)
    record = trainer.fit(train, PackedSplit(rows_uri, "eval"))
    moved = {v.path: np.asarray(v, np.float32) - before[v.path] for v in model.trainable_variables}
    return moved, record.eval_after.loss, model, trainer


@pytest.mark.parametrize(("beta_2", "rate"), [(0.999, 3e-3), (0.95, 1e-4), (0.9999, 1e-3)])
def test_it_follows_float32_weight_by_weight(counting_rows, small_shape, beta_2, rate):
    change = {"beta_2": beta_2, "learning_rate": rate, "schedule": "wsd"}
    exact, exact_loss, _, _ = trained(counting_rows, small_shape, "float32", **change)
    narrow, loss, model, trainer = trained(counting_rows, small_shape, "bfloat16", **change)
    assert loss == pytest.approx(exact_loss, rel=0.01)
    for path, expected in exact.items():
        if np.abs(expected).max() < 1e-6:  # the bias of the keys: softmax does not see it
            continue
        likeness = np.corrcoef(expected.ravel(), narrow[path].ravel())[0, 1]
        assert likeness > 0.85, f"{path}: {likeness}"
        assert np.abs(narrow[path]).mean() == pytest.approx(np.abs(expected).mean(), rel=0.15), path
    stored = {v.path.split("/")[-1]: v.dtype for v in model.trainable_variables}
    assert stored["kernel"] == stored["embeddings"] == "bfloat16"
    assert stored["gamma"] == stored["beta"] == stored["bias"] == "float32"
    assert not [v.path for v in trainer.optimizer.variables if v.dtype == "bfloat16"]


def test_small_steps_add_up_on_the_average():
    # A step of 1e-4 of the weight is a fortieth of what bfloat16 can tell apart.
    weight = tf.Variable(tf.ones([64, 64], tf.bfloat16), name="kernel")
    config = TrainConfig(learning_rate=1e-4, warmup_fraction=0.0, weight_decay=0.0, schedule="wsd")
    optimizer = make_optimizer(config, steps=1000)
    optimizer.build([weight])
    for _ in range(100):
        optimizer.apply_gradients([(tf.ones([64, 64]), weight)])
    assert np.asarray(weight, np.float32).mean() == pytest.approx(0.99, abs=1e-3)


def test_decay_pulls_on_matrices_alone():
    matrix = tf.Variable(tf.ones([64, 64], tf.bfloat16), name="kernel")
    scale = tf.Variable(tf.ones([64]), name="gamma")
    optimizer = make_optimizer(
        TrainConfig(learning_rate=1e-3, warmup_fraction=0.0, weight_decay=0.1), steps=10_000
    )
    optimizer.build([matrix, scale])
    for _ in range(100):
        optimizer.apply_gradients([(tf.zeros([64, 64]), matrix), (tf.zeros([64]), scale)])
    assert np.asarray(matrix, np.float32).mean() == pytest.approx((1 - 1e-4) ** 100, abs=1e-3)
    assert (scale.numpy() == 1.0).all()
