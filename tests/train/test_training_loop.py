import math
import time

import numpy as np
import pytest
import tensorflow as tf

from components.train.config import TrainConfig
from components.train.loop import Trainer
from components.train.step import nll_and_weight
from tokenmill import progress
from tokenmill.errors import TokenmillError
from tokenmill.model.decoder import Decoder
from tokenmill.model.shape import ModelShape
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit

VOCAB, LENGTH = 300, 16
SHAPE = ModelShape(
    layers=1,
    d_model=16,
    heads=2,
    d_ff=32,
    vocab_size=VOCAB,
    sequence_length=LENGTH,
    positions="rope",
    norm="layer",
    use_bias=True,
    mlp="gelu",
    tie_embeddings=True,
)
CONFIG = TrainConfig(learning_rate=1e-2, warmup_fraction=0.1, jit_compile=False)
SEED = 7


@pytest.fixture(scope="module")
def rows_uri(counting_rows):
    return counting_rows


def fit(rows_uri, batch=8, max_steps=30, split_class=PackedSplit, **change):
    """Trains from scratch; returns the model and the record."""
    train, held_out = split_class(rows_uri, "train"), PackedSplit(rows_uri, "eval")
    plan = plan_steps(train.rows, batch, 1000, max_steps)
    model = Decoder(SHAPE, SEED)
    config = CONFIG.model_copy(update=change)
    trainer = Trainer(tf.distribute.get_strategy(), model, config, plan, SEED)
    return model, trainer.fit(train, held_out)


@pytest.fixture(scope="module")
def trained(rows_uri):
    heard = []
    progress.set_listener(lambda *report: heard.append(report))
    try:
        model, record = fit(rows_uri)
    finally:
        progress.set_listener(None)
    return model, record, heard


def test_the_loss_falls_from_guessing(trained):
    _, record, _ = trained
    before = record.eval_before.nll / record.eval_before.loss_tokens
    after = record.eval_after.nll / record.eval_after.loss_tokens
    assert before == pytest.approx(math.log(VOCAB), rel=0.05)
    assert after < 0.75 * before
    assert record.loss_curve[0][1] == pytest.approx(math.log(VOCAB), rel=0.05)
    assert record.loss_curve[-1][1] < 0.75 * before


def test_the_record_counts_what_was_trained(trained, rows_uri):
    _, record, _ = trained
    train, held_out = PackedSplit(rows_uri, "train"), PackedSplit(rows_uri, "eval")
    assert [step for step, _ in record.loss_curve] == list(range(1, 31))
    assert record.trained_slots == 30 * 8 * LENGTH
    assert record.eval_before.loss_tokens == held_out.manifest.loss_tokens
    assert record.eval_after.loss_tokens == held_out.manifest.loss_tokens
    filled = train.manifest.loss_tokens / train.manifest.slots
    assert 0.9 * filled < record.trained_loss_tokens / record.trained_slots <= 1.0


def test_whole_epochs_train_every_target_as_often(rows_uri):
    train = PackedSplit(rows_uri, "train")
    _, record = fit(rows_uri, batch=train.rows, max_steps=3)
    assert record.plan.epochs == 3
    assert record.trained_loss_tokens == 3 * train.manifest.loss_tokens


def test_the_held_out_loss_is_that_of_the_model_on_all_rows(trained, rows_uri):
    model, record, _ = trained
    held_out = PackedSplit(rows_uri, "eval")
    nll, weight = nll_and_weight(model, held_out.read(np.arange(held_out.rows)))
    assert record.eval_after.nll == pytest.approx(float(nll), rel=1e-5)
    assert record.eval_after.loss_tokens == float(weight)


def test_seconds_are_booked_by_phase(trained):
    seconds = trained[1].seconds
    phases = ("evaluate_before", "compile", "input", "steps", "evaluate_after", "telemetry")
    assert set(seconds) == {*phases, "other"}
    assert min(seconds.values()) > 0
    assert seconds["compile"] > seconds["input"]  # the rows are in memory, tracing takes a second


class SlowSplit(PackedSplit):
    """Rows from a slow disk."""

    def read(self, row_numbers, width=None):
        time.sleep(0.2)  # two at a time are read ahead
        return super().read(row_numbers, width)


def test_waiting_for_data_is_booked_as_input(rows_uri, monkeypatch):
    monkeypatch.setattr("components.train.data._SLOTS_AT_ONCE", 1)  # a read for each step
    started = time.perf_counter()
    _, record = fit(rows_uri, max_steps=15, split_class=SlowSplit)
    seconds = record.seconds
    assert seconds["input"] > 0.5  # 15 reads, some of them while the first step compiles
    assert seconds["input"] > seconds["steps"]
    assert sum(seconds.values()) < time.perf_counter() - started


def test_every_step_but_the_first_has_its_seconds_in_the_steady_rate(rows_uri):
    train = PackedSplit(rows_uri, "train")
    plan = plan_steps(train.rows, 8, 1000, 4)
    model = Decoder(SHAPE, SEED)
    trainer = Trainer(tf.distribute.get_strategy(), model, CONFIG, plan, SEED)
    train_step = trainer.train_step

    def slow_step(*arguments):
        time.sleep(0.3)
        return train_step(*arguments)

    trainer.train_step = slow_step
    record = trainer.fit(train, PackedSplit(rows_uri, "eval"))
    assert record.steady_slots == 3 * 8 * LENGTH
    assert record.seconds["steps"] >= 3 * 0.3


def test_progress_is_told_step_by_step(trained):
    heard = trained[2]
    assert [(done, total) for done, total, _ in heard] == [(i, 30) for i in range(1, 31)]
    assert all("loss" in detail for _, _, detail in heard)


def test_two_runs_give_the_same_weights_bit_by_bit(trained, rows_uri):
    model, record, _ = trained
    again, record_again = fit(rows_uri)
    assert record_again.loss_curve == record.loss_curve
    for a, b in zip(model.trainable_variables, again.trainable_variables, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_reading_a_step_late_changes_nothing(trained, rows_uri, monkeypatch):
    monkeypatch.setattr("components.train.loop.has_accelerator", lambda: True)
    model, record = fit(rows_uri)
    assert record.loss_curve == trained[1].loss_curve
    for ours, theirs in zip(model.variables, trained[0].variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_compiled_training_follows_the_same_losses(trained, rows_uri):
    _, compiled = fit(rows_uri, jit_compile=True)
    losses = [[loss for _, loss in record.loss_curve] for record in (trained[1], compiled)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


def test_a_run_that_diverges_stops_with_advice(rows_uri):
    with pytest.raises(TokenmillError, match=r"diverged.*step \d+ of 30.*learning_rate"):
        fit(rows_uri, learning_rate=1e30)


def test_a_last_step_that_diverges_stops_too(rows_uri):
    with pytest.raises(TokenmillError, match=r"diverged.*evaluation rows.*learning_rate"):
        fit(rows_uri, learning_rate=1e30, max_steps=1)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_that_clipping_spoils_are_not_applied(rows_uri, jit_compile):
    # Each gradient is finite, and an infinite limit times 1 / infinity is not a number.
    train, held_out = PackedSplit(rows_uri, "train"), PackedSplit(rows_uri, "eval")
    model = Decoder(SHAPE, SEED)
    before = [v.numpy() for v in model.variables]
    config = CONFIG.model_copy(update={"clip_norm": math.inf, "jit_compile": jit_compile})
    plan = plan_steps(train.rows, 8, 1000, 3)
    trainer = Trainer(tf.distribute.get_strategy(), model, config, plan, SEED)
    with pytest.raises(
        TokenmillError, match=r"not finite once clipped to train\.clip_norm.*step 1"
    ):
        trainer.fit(train, held_out)
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(trainer.optimizer.iterations) == 0
