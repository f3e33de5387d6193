"""mixed_float16 through the loop: an overflow skips the update, and the scale is resumed."""

import numpy as np
import pytest
import tensorflow as tf

from components.train.checkpoint.store import CheckpointDirectory
from components.train.config import TrainConfig
from components.train.distributed.strategy import Workers
from components.train.execution import Execution
from components.train.loop import Trainer
from components.train.session import Session
from tokenmill import progress
from tokenmill.errors import TokenmillError
from tokenmill.model.build import build_model
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.schedule import RowOrder

BATCH, SEED, STEPS, OVERFLOW_STEP = 4, 7, 8, 5
PRECISION = "mixed_float16"


class OverflowSplit(PackedSplit):
    """Weights in one step's rows with which gradients leave float16, but the loss not float32."""

    def read(self, row_numbers, width=None):
        batch = super().read(row_numbers, width)
        rows, _ = RowOrder(self, BATCH, SEED).rows_of_step(OVERFLOW_STEP - 1)
        bad = np.isin(row_numbers, rows)[:, None]
        return batch._replace(loss_weights=np.where(bad, np.float32(1e7), batch.loss_weights))


def fit(rows_uri, shape, directory, jit_compile, stop_after=None):
    """Trains 8 steps of different rows, each with a checkpoint; gives the record."""
    config = TrainConfig(
        learning_rate=1e-2, warmup_fraction=0.1, jit_compile=jit_compile, precision=PRECISION
    )
    train, held_out = OverflowSplit(rows_uri, "train"), PackedSplit(rows_uri, "eval")
    strategy = tf.distribute.get_strategy()
    model = build_model(shape, SEED, PRECISION)
    trainer = Trainer(strategy, model, config, plan_steps(47, BATCH, 1, STEPS), SEED)
    options = Execution(log_steps=1, detail_steps=None, checkpoint_steps=1, keep_checkpoints=99)
    targets = train.manifest.loss_tokens
    session = Session(Workers(strategy), {}, options, str(directory), targets)

    def stop(done, total, detail):
        if done == stop_after:
            session.stop.reason = TokenmillError("enough")

    progress.set_listener(stop)
    try:
        return trainer.fit(train, held_out, session)
    finally:
        progress.set_listener(None)
        session.close()


def saved(directory, step):
    (training,) = directory.iterdir()
    return CheckpointDirectory(str(training / "checkpoints")).read(step).variables


@pytest.mark.parametrize("jit_compile", [False, True])
def test_an_overflow_changes_the_scale_only_and_is_resumed_exactly(
    counting_rows, small_shape, tmp_path, jit_compile
):
    whole = tmp_path / "whole"
    record = fit(counting_rows, small_shape, whole, jit_compile)
    assert record.overflows == 1
    before, after = saved(whole, OVERFLOW_STEP - 1), saved(whole, OVERFLOW_STEP)
    changed = {n for n in before if before[n].tobytes() != after[n].tobytes()}
    (scale,) = (name for name in before if name.endswith("dynamic_scale"))
    (counter,) = (name for name in before if name.endswith("step_counter"))
    assert changed == {scale, counter}
    assert after[scale] == before[scale] / 2
    assert (before[counter], after[counter]) == (OVERFLOW_STEP - 1, 0)
    # The next step trains on; what it changes is all weights that get a gradient.
    later = saved(whole, OVERFLOW_STEP + 1)
    assert any(later[n].tobytes() != after[n].tobytes() for n in after if n.startswith("model/"))

    parts = tmp_path / "parts"
    with pytest.raises(TokenmillError, match="enough"):
        fit(counting_rows, small_shape, parts, jit_compile, stop_after=OVERFLOW_STEP)
    again = fit(counting_rows, small_shape, parts, jit_compile)
    assert OVERFLOW_STEP <= again.resumes[0].from_step < STEPS
    assert again.overflows == 1
    assert again.loss_curve == record.loss_curve
    end, end_again = saved(whole, STEPS), saved(parts, STEPS)
    assert {n: v.tobytes() for n, v in end.items()} == {
        n: v.tobytes() for n, v in end_again.items()
    }
