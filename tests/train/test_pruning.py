"""Magnitude pruning: which weights go, when, and that they stay away."""

import dataclasses
import os
import pathlib
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.train.config import TrainConfig, TrainingJob
from components.train.distributed.strategy import Workers
from components.train.execution import Execution
from components.train.fingerprint import directory_name, settings_of
from components.train.loop import Trainer
from components.train.pruning import Pruner, PruningSchedule, prune_smallest, pruned_variables
from components.train.session import Session
from tokenmill.export.quantization import StoredWeights
from tokenmill.model.build import build_model
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.schedule import RowOrder

BATCH, STEPS, SEED = 8, 30, 7
CONFIG = TrainConfig(learning_rate=1e-2, warmup_fraction=0.1, jit_compile=False)


def fit(
    rows_uri, shape, evaluate_steps=None, steps=STEPS, split_class=PackedSplit, directory=None,
    change_result=None, **change
):  # fmt: skip
    """Trains from scratch; returns the model and the record."""
    train, held_out = split_class(rows_uri, "train"), PackedSplit(rows_uri, "eval")
    plan = plan_steps(train.rows, BATCH, 1000, steps)
    config, strategy = CONFIG.model_copy(update=change), tf.distribute.get_strategy()
    model = build_model(shape, SEED, config.precision)
    trainer = Trainer(strategy, model, config, plan, SEED)
    if change_result is not None:
        train_step = trainer.train_step
        trainer.train_step = lambda *given: change_result(train_step(*given))
    job = {f"train.{name}": value for name, value in config.model_dump().items()}
    execution = Execution(evaluate_steps=evaluate_steps, detail_steps=None)
    targets = train.manifest.loss_tokens
    session = Session(Workers(strategy), job, execution, directory, targets)
    try:
        return model, trainer.fit(train, held_out, session)
    finally:
        session.close()


def zeros(variable):
    return int(np.sum(np.array(variable.numpy()) == 0))


def smallest_of_all(values, count):
    """A naive twin: the flat indices of the smallest, of equals the first."""
    return sorted(range(values.size), key=lambda i: (abs(values.flat[i]), i))[:count]


def smallest_of_fours(values, count):
    """A naive twin: only the two smallest of four neighboring inputs may go."""
    inputs, outputs = values.shape
    victims = [
        i * outputs + column
        for column in range(outputs)
        for start in range(0, inputs, 4)
        for i in sorted(range(start, start + 4), key=lambda i: (abs(values[i, column]), i))[:2]
    ]
    return sorted(victims, key=lambda i: (abs(values.flat[i]), i))[:count]


@pytest.mark.parametrize(
    ("pattern", "naive"), [("unstructured", smallest_of_all), ("2:4", smallest_of_fours)]
)
@pytest.mark.parametrize("count", [0, 1, 37, 48])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_smallest_go_and_of_equals_the_first(pattern, naive, count, dtype):
    values = np.random.default_rng(count).normal(size=(8, 12)).round(1)  # many are equal
    given = tf.cast(values, dtype)
    values = tf.cast(given, tf.float32).numpy()
    pruned = tf.cast(prune_smallest(given, tf.constant(count), pattern), tf.float32).numpy()
    expected = values.copy()
    expected.flat[naive(values, count)] = 0
    np.testing.assert_array_equal(pruned, expected)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20, 700])
def test_the_schedule_rises_in_the_last_third_and_ends_before_the_last_steps(steps):
    schedule = PruningSchedule.of(0.8, steps)
    updates = schedule.mask_updates()
    shares = [schedule.sparsity(step) for step in updates]
    assert schedule.first_step == 2 * steps // 3 < updates[0]
    assert updates == sorted(set(updates))
    assert len(updates) <= 16
    assert shares == sorted(shares)
    assert shares[-1] == 0.8
    assert shares[0] > 0
    assert updates[-1] == schedule.last_step <= steps
    if steps > 100:  # cubic: most go early, and a sixth of the steps is left to recover
        assert schedule.sparsity((updates[-1] + schedule.first_step) // 2) > 0.85 * 0.8
        assert steps - updates[-1] == pytest.approx(steps / 6, abs=1)
    assert PruningSchedule.of(0.0, steps) is None


@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"jit_compile": True}])
def test_a_training_ends_with_the_share_of_zeros_that_was_asked_for(
    counting_rows, small_shape, change
):
    model, record = fit(counting_rows, small_shape, prune_sparsity=0.7, **change)
    pruned = pruned_variables(model.trainable_variables)
    assert sorted(v.path.split("/", 1)[1] for v in pruned) == [
        "layer0/attention/output_projection/kernel", "layer0/attention/qkv/kernel",
        "layer0/mlp/down/kernel", "layer0/mlp/up/kernel",
    ]  # fmt: skip
    for variable in pruned:
        assert zeros(variable) == round(0.7 * int(np.prod(variable.shape)))
    left = [v for v in model.trainable_variables if all(v is not p for p in pruned)]
    assert sum(zeros(v) for v in left if len(v.shape) > 1) == 0
    assert record.eval_after.loss < 0.75 * record.eval_before.loss


def test_each_of_several_matrices_is_ranked_by_itself():
    values = np.random.default_rng(1).normal(size=(3, 8, 12)).astype(np.float32)
    values[1] *= 1e-3  # an expert whose weights are all smaller than the others'
    pruned = prune_smallest(tf.constant(values), tf.constant(40), "unstructured").numpy()
    for matrix, found in zip(values, pruned, strict=True):
        expected = matrix.copy()
        expected.flat[smallest_of_all(matrix, 40)] = 0
        np.testing.assert_array_equal(found, expected)


def test_every_expert_ends_with_the_share_of_zeros(counting_rows, small_shape):
    sparse = dataclasses.replace(small_shape, experts=4, experts_per_token=1, expert_d_ff=16)
    model, _ = fit(counting_rows, sparse, prune_sparsity=0.7)
    experts = [v for v in pruned_variables(model.trainable_variables) if len(v.shape) == 3]
    assert len(experts) == 2
    for variable in experts:
        weights = variable.numpy().reshape(4, -1)
        assert (weights == 0).sum(axis=1).tolist() == [round(0.7 * weights.shape[1])] * 4


def test_experts_of_a_layer_are_pruned_and_routers_are_not(counting_rows, small_shape):
    sparse = dataclasses.replace(small_shape, experts=4, experts_per_token=2, expert_d_ff=16)
    model, _ = fit(counting_rows, sparse, prune_sparsity=0.5, prune_pattern="2:4")
    pruned = pruned_variables(model.trainable_variables)
    assert sorted(v.path.split("/", 1)[1] for v in pruned) == [
        "layer0/attention/output_projection/kernel", "layer0/attention/qkv/kernel",
        "layer0/mlp/down_kernel", "layer0/mlp/up_kernel",
    ]  # fmt: skip
    for variable in pruned:
        weights = variable.numpy()
        inputs, outputs = weights.shape[-2:]
        fours = (weights == 0).reshape(-1, inputs // 4, 4, outputs)
        assert np.all(fours.sum(axis=2) == 2), variable.path


def test_two_of_four_neighboring_inputs_are_zero(counting_rows, small_shape):
    model, _ = fit(counting_rows, small_shape, prune_sparsity=0.5, prune_pattern="2:4")
    for variable in pruned_variables(model.trainable_variables):
        weights = variable.numpy()
        fours = (weights == 0).reshape(weights.shape[0] // 4, 4, weights.shape[1])
        assert np.all(fours.sum(axis=1) == 2), variable.path


def test_it_is_the_dense_training_until_pruning_begins(counting_rows, small_shape):
    _, dense = fit(counting_rows, small_shape, evaluate_steps=20)
    _, pruned = fit(counting_rows, small_shape, prune_sparsity=0.9)
    assert pruned.eval_before_pruning.loss == dense.evaluations[0][1]
    assert pruned.loss_curve[:21] == dense.loss_curve[:21]
    assert pruned.loss_curve[21:] != dense.loss_curve[21:]
    assert dense.eval_before_pruning is None


def test_dense_steps_compare_no_weight_with_zero(small_shape):
    schedule, strategy = PruningSchedule.of(0.5, 30), tf.distribute.get_strategy()
    variables = build_model(small_shape, SEED).trainable_variables
    pruner = Pruner(strategy, variables, schedule, "unstructured")
    kept = tf.function(pruner.kept, autograph=False)
    sizes = [int(np.prod(v.shape)) for v in pruned_variables(variables)]
    for step, expected in ((20, [0] * len(sizes)), (21, sizes)):
        assert [int(tf.size(mask)) for mask in kept(tf.constant(step))] == expected


@pytest.mark.parametrize("overflow_step", [1, 3])
def test_an_update_that_is_left_out_puts_off_no_mask(counting_rows, small_shape, overflow_step):
    """The only mask of three steps comes with the third, whatever the optimizer has counted."""

    class Overflowing(PackedSplit):
        """Weights in one step's rows with which gradients leave float16, but the loss not."""

        def read(self, row_numbers, width=None):
            batch = super().read(row_numbers, width)
            rows, _ = RowOrder(self, BATCH, SEED).rows_of_step(overflow_step - 1)
            bad = np.isin(row_numbers, rows)[:, None]
            return batch._replace(loss_weights=np.where(bad, np.float32(1e7), batch.loss_weights))

    model, record = fit(
        counting_rows, small_shape, steps=3, split_class=Overflowing,
        precision="mixed_float16", prune_sparsity=0.5,
    )  # fmt: skip
    assert record.overflows == 1
    for variable in pruned_variables(model.trainable_variables):
        assert zeros(variable) == int(np.prod(variable.shape)) // 2


SPIKES = {"on_spike": "rewind", "spike_deviations": 4.0}


def test_masks_are_no_spikes(counting_rows, small_shape, tmp_path):
    """The loss rises with them each time, so that going back would never end."""
    model, record = fit(
        counting_rows, small_shape, steps=180, directory=str(tmp_path), prune_sparsity=0.98,
        rewind_steps=40, **SPIKES,
    )  # fmt: skip
    losses = [loss for _, loss in record.loss_curve]
    assert max(losses[120:150]) > 2 * max(losses[90:120])
    assert record.rewinds == []
    for variable in pruned_variables(model.trainable_variables):
        assert zeros(variable) == round(0.98 * int(np.prod(variable.shape)))


def test_a_spike_goes_back_to_dense_weights_and_masks_come_again(
    counting_rows, small_shape, tmp_path
):
    calls = []

    def spike_once(result):
        calls.append(result)
        return result._replace(nll=50 * result.nll) if len(calls) == 118 else result

    model, record = fit(
        counting_rows, small_shape, steps=120, directory=str(tmp_path), prune_sparsity=0.6,
        rewind_steps=79, change_result=spike_once, **SPIKES,
    )  # fmt: skip
    assert [(r.spike_step, r.to_step) for r in record.rewinds] == [(118, 79)]
    assert len(calls) == 118 + 120 - 79
    for variable in pruned_variables(model.trainable_variables):
        assert zeros(variable) == round(0.6 * int(np.prod(variable.shape)))
    # Measured anew: the rows of the step before were others.
    assert record.evaluations == [(80, record.eval_before_pruning.loss)]


def test_a_training_that_begins_where_pruning_does_measures_the_dense_weights(
    counting_rows, small_shape, launcher, tmp_path
):
    _, one_step = fit(counting_rows, small_shape, steps=1, prune_sparsity=0.5)
    assert one_step.eval_before_pruning == one_step.eval_before
    before = launcher.run(tmp_path / "dense", max_steps=16).result
    for name, steps, source in (("pruned", 24, "dense"), ("longer", 36, "pruned")):
        (checkpoints,) = (tmp_path / source).glob("*/checkpoints")
        after = launcher.run(
            tmp_path / name, prune_sparsity=0.5, resume_from=str(checkpoints), max_steps=steps
        ).result
        assert after["pruning"]["first_step"] == before["steps"]
        # Not what an earlier attempt measured, whose pruning began at another step.
        assert after["pruning"]["eval_before"]["loss"] == before["eval_after"]["loss"]
        before = after


def test_killed_while_masks_grow_the_weights_are_those_of_the_undisturbed_run(
    launcher, tmp_path, poll
):
    job, options = {"prune_sparsity": 0.6}, {"checkpoint_steps": 1, "detail_steps": None}
    undisturbed = launcher.run(tmp_path / "whole", **job).result
    process = launcher.start(tmp_path / "killed", options=options, **job)

    def saved():
        steps = pathlib.Path(tmp_path / "killed").glob("*/checkpoints/step-*/manifest.json")
        return max((int(p.parent.name.removeprefix("step-")) for p in steps), default=0)

    poll(lambda: saved() > 27)  # masks grow from step 26 to 33 of 40
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait().exit_code == -signal.SIGKILL
    assert 27 < saved() < 40
    continued = launcher.run(tmp_path / "killed", options=options, **job).result
    for name in ("weights", "loss_curve", "pruning", "eval_after"):
        assert continued[name] == undisturbed[name]
    assert continued["resumes"][0]["from_step"] > 27
    pruning = continued["pruning"]
    assert pruning["zeros"] == pytest.approx(0.6 * pruning["params"], abs=4)
    assert pruning["eval_before"]["loss"] != continued["eval_after"]["loss"]


def test_replicas_prune_alike(launcher, tmp_path):
    alone = launcher.run(tmp_path / "alone", prune_sparsity=0.6).result
    options = {"cpu_devices": 2}
    both = launcher.run(
        tmp_path / "both", options=options, strategy="mirrored", prune_sparsity=0.6
    ).result
    assert both["replicas"] == 2
    assert both["pruning"]["zeros"] == alone["pruning"]["zeros"]
    assert both["eval_after"]["loss"] == pytest.approx(alone["eval_after"]["loss"], rel=0.02)


def test_a_dense_checkpoint_past_the_beginning_is_refused(launcher, tmp_path):
    dense = launcher.run(tmp_path / "dense", max_steps=20)
    assert dense.exit_code == 0, dense.said
    checkpoints = next((tmp_path / "dense").glob("*/checkpoints"))
    late = {"prune_sparsity": 0.6, "resume_from": str(checkpoints), "max_steps": 24}
    refused = launcher.run(tmp_path / "late", late)
    assert refused.exit_code != 0
    assert "has trained 20 of 24 steps, and pruning begins after 16" in refused.said
    assert "train.max_steps to at least 30" in refused.said
    goes_on = launcher.run(tmp_path / "on", {**late, "max_steps": 30})
    assert goes_on.exit_code == 0, goes_on.said
    assert goes_on.result["pruning"]["zeros"] > 0


def test_fewer_steps_than_masks_need_are_refused(launcher, tmp_path):
    """Going on past the masks of the shorter schedule, they would never come."""
    options = {"checkpoint_steps": 20, "keep_checkpoints": 9, "detail_steps": None}
    long = launcher.run(tmp_path / "long", options=options, prune_sparsity=0.6)
    assert long.exit_code == 0, long.said
    (dense,) = (tmp_path / "long").glob("*/checkpoints/step-*20")
    shutil.copytree(dense, tmp_path / "some" / dense.name)
    resumed = {"prune_sparsity": 0.6, "resume_from": str(tmp_path / "some")}
    short = launcher.run(tmp_path / "short", max_steps=24, **resumed)
    assert short.exit_code != 0
    assert "has trained 20 of 24 steps, and pruning begins after 16" in short.said


def test_a_pruned_training_is_another_and_a_dense_one_as_before(small_shape):
    def name(**change):
        train = CONFIG.model_copy(update=change)
        return directory_name(settings_of(TrainingJob(shape=small_shape, train=train, seed=1)))

    assert not any("prune" in key for key in settings_of(TrainingJob(
        shape=small_shape, train=CONFIG, seed=1)))  # fmt: skip
    dense, half = name(), name(prune_sparsity=0.5)
    assert len({dense, half, name(prune_sparsity=0.6),
                name(prune_sparsity=0.5, prune_pattern="2:4")}) == 4  # fmt: skip


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8"])
def test_zeros_stay_zeros_in_smaller_weights(kind):
    layer = keras.layers.Dense(8, use_bias=False)
    layer.build((None, 16))
    pruned = prune_smallest(tf.convert_to_tensor(layer.kernel), tf.constant(64), "unstructured")
    layer.kernel.assign(pruned)
    ((_, widened),) = StoredWeights(layer, kind).mapping()
    assert np.all(widened.numpy()[pruned.numpy() == 0] == 0)
