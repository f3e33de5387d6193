"""In masked-lm effective tokens are the hidden ones, in the ledger's forecast and as counted."""

import dataclasses
import math

import pytest
import tensorflow as tf

from components.ledger.config import BudgetConfig, CostConfig, make_ledger_job
from components.ledger.estimate import RunEstimator
from components.ledger.ledger import Machine, hardware_of
from components.train.config import TrainConfig
from components.train.distributed.strategy import Workers
from components.train.execution import Execution
from components.train.loop import Trainer
from components.train.run import target_share
from components.train.session import Session
from components.train.telemetry.metrics_log import read_metrics
from tokenmill.cost.scaling import repetition_discounted_tokens
from tokenmill.model.build import build_model
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit


@pytest.mark.parametrize("epochs", [0.5, 3.0])
def test_what_the_ledger_expects_is_what_training_counts(tmp_path, make_split, small_shape, epochs):
    make_split(str(tmp_path), "train", 420, seed=1, task="masked-lm")
    make_split(str(tmp_path), "eval", 11, seed=2, task="masked-lm")
    train, held_out = (PackedSplit(str(tmp_path), split) for split in ("train", "eval"))
    config = TrainConfig(task="masked-lm", epochs=epochs, global_batch_size=8, jit_compile=False)
    shape = dataclasses.replace(small_shape, causal=False, head="mlm")

    job = make_ledger_job(CostConfig(chip="a100", chips=1), BudgetConfig(), config, shape, 2)
    machine = Machine(peak_flops_per_second_per_chip=1e12)
    packed = {"train": train.manifest, "eval": held_out.manifest}
    estimate = RunEstimator(packed, job, None).estimate(hardware_of(job, machine, shape))

    strategy = tf.distribute.get_strategy()
    plan = plan_steps(train.rows, 8, epochs)
    trainer = Trainer(strategy, build_model(shape, 7), config, plan, 7)
    session = Session(
        Workers(strategy), {}, Execution(log_steps=1), str(tmp_path / "training"),
        train.manifest.loss_tokens * train.manifest.mask_rate,
        target_share=target_share(train.manifest),
    )  # fmt: skip
    try:
        record = trainer.fit(train, held_out, session)
    finally:
        session.close()

    once = 0.15 * train.manifest.loss_tokens
    expected = once * plan.epochs
    deviation = 4 * math.sqrt(expected * (1 - 0.15))
    assert abs(record.trained_loss_tokens - expected) < deviation
    assert estimate.effective_tokens == pytest.approx(
        repetition_discounted_tokens(once, plan.epochs)
    )
    (metrics,) = (tmp_path / "training").glob("*/metrics.jsonl")
    last = [line for line in read_metrics(str(metrics)) if "event" not in line][-1]
    assert last["effective_tokens"] == pytest.approx(estimate.effective_tokens, abs=deviation)
