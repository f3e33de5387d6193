"""Training spreads tokens over the experts, by a loss or by a bias, and tells their load."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from components.train.loop import Trainer
from components.train.optimizer import make_optimizer
from components.train.telemetry.expert_load import describe_load, expert_load_meter
from tests.train.test_training_loop import CONFIG, SEED, SHAPE
from tokenmill.model.decoder import Decoder
from tokenmill.model.shape import SELECTION_BIAS
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit

SPARSE = dataclasses.replace(SHAPE, experts=4, experts_per_token=1)


def train(rows_uri, shape, skew, steps=40):
    """Train a model whose router prefers its first expert; return loads before and after."""
    train_rows, held_out = PackedSplit(rows_uri, "train"), PackedSplit(rows_uri, "eval")
    model = Decoder(shape, SEED)
    kernel = model.blocks[0].mlp.router_kernel
    values = kernel.numpy()
    values[:, 0] += skew * np.sign(np.asarray(model.token_embedding.embeddings).mean(0))
    kernel.assign(values)
    measure = expert_load_meter(model, held_out)
    (before,) = measure()
    plan = plan_steps(train_rows.rows, 8, 1000, steps)
    config = CONFIG.model_copy(update={"jit_compile": True})
    trainer = Trainer(tf.distribute.get_strategy(), model, config, plan, SEED)
    record = trainer.fit(train_rows, held_out)
    assert record.eval_after.loss < record.eval_before.loss
    (after,) = measure()
    return model, before, after


@pytest.mark.parametrize(
    "balance", [{"balance_weight": 0.1}, {"balance": "bias", "balance_weight": 0.02}]
)
def test_loads_become_more_even(counting_rows, balance):
    shape = dataclasses.replace(SPARSE, **balance)
    model, before, after = train(counting_rows, shape, skew=0.3)
    assert before.max_load > 1.6
    assert after.max_load < before.max_load - 0.2
    biases = [v for v in model.trainable_variables if v.name == SELECTION_BIAS]
    if "balance" in balance:
        moved = biases[0].numpy() / 0.02
        assert np.abs(moved).max() > 1
        np.testing.assert_allclose(moved, np.round(moved), atol=1e-3)  # whole steps, no decay
    else:
        assert biases == []


def test_a_bias_moves_against_its_load_alone():
    optimizer = make_optimizer(CONFIG, 10, balance_step=0.5)
    model = Decoder(dataclasses.replace(SPARSE, balance="bias"), SEED)
    bias = model.blocks[0].mlp.selection_bias
    optimizer.build([bias])
    optimizer.apply_gradients([(tf.constant([2.0, -1e-20, 0.0, -7.0]), bias)])
    np.testing.assert_array_equal(bias.numpy(), [-0.5, 0.5, 0.0, 0.5])


ON_TWO_DEVICES = """
import json, sys
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
from components.train.optimizer import make_optimizer
from components.train.config import TrainConfig
from tokenmill.model.decoder import Decoder
from tokenmill.model.shape import ModelShape
shape, config = map(json.loads, sys.argv[1:])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    bias = Decoder(ModelShape(**shape), 0).blocks[0].mlp.selection_bias
    optimizer = make_optimizer(TrainConfig(**config), 10, balance_step=0.5)
    optimizer.build([bias])
gradient = tf.constant([2.0, -1e-20, 0.0, -7.0])
tf.function(lambda: strategy.run(lambda: optimizer.apply_gradients([(gradient, bias)])))()
print([value.numpy().tolist() for value in strategy.experimental_local_results(bias.value)])
"""


def test_replicas_move_their_biases_alike():
    root = pathlib.Path(__file__).parents[2]
    shape = dataclasses.asdict(dataclasses.replace(SPARSE, balance="bias"))
    given = [json.dumps(shape), json.dumps(CONFIG.model_dump(mode="json", exclude_unset=True))]
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES, *given],
        capture_output=True, text=True, check=False, cwd=root,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert first == second == [-0.5, 0.5, 0.0, 0.5]


def test_what_is_told_of_a_load():
    told = describe_load(3, [0.0, 30.0, 10.0, 0.1], 1.25)
    assert (told.layer, told.dead_experts, told.router_entropy_nats) == (3, [0, 3], 1.25)
    assert told.max_load == pytest.approx(4 * 30 / 40.1, abs=1e-3)
    assert sum(told.load_shares) == pytest.approx(1.0, abs=1e-4)
    assert told.loads[1] == pytest.approx(told.max_load, abs=1e-3)


def test_a_dense_model_has_no_meter(counting_rows):
    assert expert_load_meter(Decoder(SHAPE, SEED), PackedSplit(counting_rows, "eval")) is None
