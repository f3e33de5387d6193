"""What a run tells: scalars, distributions, spikes, what it does when the loss is not finite."""

import json
import math
import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.summary.summary_iterator import summary_iterator

from components.train.checkpoint.store import CheckpointDirectory
from components.train.config import TrainConfig
from components.train.distributed.strategy import Workers
from components.train.execution import Execution
from components.train.loop import Trainer
from components.train.session import Session
from components.train.telemetry.attention_maps import (
    attention_drawer,
    attention_entropies,
    attention_image,
)
from components.train.telemetry.samples import make_sampler
from tokenmill import progress
from tokenmill.contracts.training_limits import TrainingLimits
from tokenmill.errors import TokenmillError
from tokenmill.model.decoder import Decoder
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.schedule import RowOrder
from tokenmill.text.tokenizers.load import read_tokenizer

BATCH, SEED = 8, 7
LIMITS = TrainingLimits(
    usd_per_chip_hour=1800.0, chips=1, peak_flops_per_second=None, max_usd=None, max_hours=None,
    on_overrun="warn",
)  # fmt: skip


@pytest.fixture(scope="module")
def many_rows(tmp_path_factory, make_split):
    """Enough rows that 36 steps read none twice."""
    uri = str(tmp_path_factory.mktemp("many"))
    make_split(uri, "train", 420, seed=1)
    make_split(uri, "eval", 11, seed=2)
    return uri


@pytest.fixture
def fit(many_rows, small_shape, tmp_path):
    """A function that trains 36 steps with a session; gives trainer, record and directory."""

    def run(
        split_class=PackedSplit, options=None, directory=tmp_path, draw=None, limits=None,
        tokenizer=None, **change
    ):  # fmt: skip
        config = TrainConfig(
            **{"learning_rate": 1e-2, "warmup_fraction": 0.1, "jit_compile": False, **change}
        )
        train, held_out = split_class(many_rows, "train"), PackedSplit(many_rows, "eval")
        strategy = tf.distribute.get_strategy()
        trainer = Trainer(
            strategy, Decoder(small_shape, SEED), config, plan_steps(train.rows, BATCH, 1, 36), SEED
        )
        job = {f"train.{name}": value for name, value in config.model_dump().items()}
        session = Session(
            Workers(strategy),
            job,
            Execution(**{"log_steps": 1, "detail_steps": None, **(options or {})}),
            str(directory),
            train.manifest.loss_tokens,
            limits=limits,
            flops_per_token=1e4,
        )
        run.session = session
        try:
            sampler = tokenizer and make_sampler(trainer.model, held_out, tokenizer, 2)
            return trainer, trainer.fit(train, held_out, session, draw, sampler)
        finally:
            session.close()

    run.rows = many_rows
    return run


def weights_of(trainer):
    return b"".join(v.numpy().tobytes() for v in trainer.model.variables)


def lines_of(directory):
    (path,) = pathlib.Path(directory).glob("*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def tensorboard_of(directory):
    """{tag: {step: value}} of all scalars, and the tags of what is no scalar."""
    scalars, others = {}, {}
    for path in pathlib.Path(directory).glob("*/tensorboard/events*"):
        for event in summary_iterator(str(path)):
            for value in event.summary.value:
                kind = value.metadata.plugin_data.plugin_name
                array = tf.make_ndarray(value.tensor)
                if kind == "scalars":
                    scalars.setdefault(value.tag, {})[event.step] = float(array)
                else:
                    others.setdefault((kind, value.tag), {})[event.step] = array
    return scalars, others


def test_scalars_are_the_same_in_tensorboard_and_jsonl(fit, tmp_path):
    limits = LIMITS.model_copy(update={"usd_per_chip_hour": 36.0, "peak_flops_per_second": 1e12})
    _, record = fit(options={"evaluate_steps": 12}, limits=limits)
    lines, (scalars, _) = lines_of(tmp_path), tensorboard_of(tmp_path)
    steps = [line for line in lines if "event" not in line]
    assert [line["step"] for line in steps] == list(range(1, 37))
    assert [line["loss"] for line in steps] == [loss for _, loss in record.loss_curve]
    for line in steps:
        for name in set(line) - {"step", "seconds"}:
            assert scalars[name][line["step"]] == pytest.approx(line[name], rel=1e-6)
    last = steps[-1]
    assert last["cost_usd"] == pytest.approx(0.01 * last["seconds"])
    assert last["mfu"] == pytest.approx(last["tokens_per_second"] * 1e4 / 1e12)
    assert last["loss_reduction_per_usd"] == pytest.approx(
        (steps[0]["loss"] - last["loss"]) / last["cost_usd"]
    )
    assert 0 <= last["input_wait_share"] <= 1
    assert last["effective_tokens"] == pytest.approx(
        record.trained_loss_tokens
    )  # less than an epoch
    assert max(line["learning_rate"] for line in steps) == pytest.approx(1e-2)
    assert steps[-1]["learning_rate"] < 2e-3
    assert [x["eval_loss"] for x in lines if x.get("event") == "evaluation"] == [
        loss for _, loss in record.evaluations
    ]
    assert [step for step, _ in record.evaluations] == [12, 24]
    assert record.evaluations[1][1] < record.evaluations[0][1]


def test_the_last_rate_counts_no_step_too_many(fit, tmp_path, monkeypatch):
    fit_at_once = Trainer.fit

    def fit_slowly(trainer, *arguments):
        train_step = trainer.train_step

        def slow_step(*step_arguments):
            time.sleep(0.05)
            return train_step(*step_arguments)

        trainer.train_step = slow_step
        return fit_at_once(trainer, *arguments)

    monkeypatch.setattr(Trainer, "fit", fit_slowly)
    fit(options={"log_steps": 5})
    rates = [line["tokens_per_second"] for line in lines_of(tmp_path) if line["step"] > 1]
    assert len(rates) == 8  # steps 5, 10, ... 35, and 36: a single step
    assert max(rates) <= BATCH * 16 / 0.05


def test_what_is_not_known_is_absent(fit, tmp_path):
    fit()
    for line in lines_of(tmp_path):
        assert not {"mfu", "cost_usd", "loss_reduction_per_usd"} & set(line)


def test_telemetry_changes_no_weight(fit, tmp_path):
    plain, _ = fit(directory=tmp_path / "plain")
    detailed, _ = fit(options={"detail_steps": 4, "evaluate_steps": 5}, directory=tmp_path / "more")
    assert weights_of(plain) == weights_of(detailed)


def test_distributions_are_those_of_gradients_and_weights(fit, tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    trainer, _ = fit(options={"detail_steps": 18}, draw=lambda: ({"layer0/head0": 1.5}, image))
    scalars, others = tensorboard_of(tmp_path)
    for weight in trainer.model.trainable_variables:
        norms = scalars[f"weight_norms/{weight.path}"]
        assert set(norms) == {18, 36}
        assert norms[36] == pytest.approx(np.linalg.norm(weight.numpy()), rel=1e-5)
        assert set(others["histograms", f"gradients/{weight.path}"]) == {18, 36}
    total = math.sqrt(
        sum(
            by_step[36] ** 2 for tag, by_step in scalars.items() if tag.startswith("gradient_norms")
        )
    )
    assert total == pytest.approx(min(1.0, scalars["gradient_norm"][36]), rel=1e-4)  # clipped
    assert scalars["attention_entropy/layer0/head0"] == {18: 1.5, 36: 1.5}
    width, height, _ = others["images", "attention"][36]
    assert (int(width), int(height)) == (6, 4)


def test_a_profile_is_written_on_demand(fit, tmp_path):
    fit(options={"profile_steps": (3, 4)})
    assert list(tmp_path.glob("*/tensorboard/plugins/profile/*/*.xplane.pb"))


def test_the_line_on_the_screen(fit):
    heard = []
    progress.set_listener(lambda *report: heard.append(report))
    try:
        fit(limits=LIMITS)
    finally:
        progress.set_listener(None)
    assert [(done, total) for done, total, _ in heard] == [(i, 36) for i in range(1, 37)]
    assert "loss" in heard[-1][2]
    assert "tokens/s" in heard[-1][2]
    assert "$" in heard[-1][2]


POISONED_STEP = 25


def poisoned(kind):
    """Rows of one step, and only those, with weights or targets that no model can bear."""

    class Poisoned(PackedSplit):
        def read(self, row_numbers, width=None):
            batch = super().read(row_numbers, width)
            rows, _ = RowOrder(self, BATCH, SEED).rows_of_step(POISONED_STEP)
            bad = np.isin(row_numbers, rows[:2] if kind == "infinite" else rows)[:, None]
            if kind == "infinite":
                return batch._replace(loss_weights=np.where(bad, np.inf, batch.loss_weights))
            return batch._replace(targets=np.where(bad, 299, batch.targets))

    return Poisoned


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_rows(fit, tmp_path):
    with pytest.raises(TokenmillError, match="diverged") as caught:
        fit(poisoned("infinite"), directory=tmp_path / "poisoned")
    assert f"at step {POISONED_STEP + 1} of 36" in str(caught.value)
    rows = sorted(
        RowOrder(PackedSplit(fit.rows, "train"), BATCH, SEED).rows_of_step(POISONED_STEP)[0][:2]
    )
    named = str(caught.value).split("rows ")[1].split(";")[0]
    assert sorted(map(int, named.split(", "))) == rows
    # The diagnostic checkpoint is the state before the step, to the last bit.
    (training,) = (tmp_path / "poisoned").iterdir()
    stopped = CheckpointDirectory(str(training / "diagnostic")).read(POISONED_STEP)
    fit(options={"checkpoint_steps": POISONED_STEP, "keep_checkpoints": 9})
    (training,) = (p for p in tmp_path.iterdir() if p.name != "poisoned")
    healthy = CheckpointDirectory(str(training / "checkpoints")).read(POISONED_STEP)
    for name, array in healthy.variables.items():
        assert stopped.variables[name].tobytes() == array.tobytes(), name


SPIKES = {"spike_deviations": 3.0, "rewind_steps": 10}


def test_a_spike_is_only_told(fit, tmp_path):
    _, record = fit(poisoned("spike"), on_spike="warn", **SPIKES)
    spikes = [line for line in lines_of(tmp_path) if line.get("event") == "spike"]
    assert POISONED_STEP + 1 in [spike["step"] for spike in spikes]
    assert record.rewinds == []


def test_a_spike_rewinds_and_leaves_out_the_rows(fit, small_tokenizer, tmp_path):
    tokenizer = read_tokenizer(small_tokenizer)
    trainer, record = fit(poisoned("spike"), on_spike="rewind", tokenizer=tokenizer, **SPIKES)
    # What had passed before the checkpoint that it went back to stays.
    assert [point.step for point in record.samples] == [0, 18, 36]
    (found,) = record.rewinds
    rewind = found.to_json()
    assert rewind.pop("loss") > 5
    assert rewind == {"spike_step": POISONED_STEP + 1, "to_step": 20, "skipped_steps": 6}
    assert (record.step, record.data_offset) == (36, 6)
    assert max(loss for _, loss in record.loss_curve[20:]) < 5
    assert record.seconds["lost"] > 0
    steps = [line["step"] for line in lines_of(tmp_path) if "event" not in line]
    assert steps == sorted(set(steps))
    # Stopped after the rewind and continued, it comes to the same weights.
    stopper = {"log_steps": 1, "detail_steps": None}

    def stop_after(step):
        def listen(done, total, detail):
            if done == step and fit.session.telemetry.log and rewound():
                fit.session.stop.reason = TokenmillError("enough")

        return listen

    def rewound():
        return any(x.get("event") == "rewind" for x in lines_of(tmp_path / "again"))

    progress.set_listener(stop_after(23))
    try:
        with pytest.raises(TokenmillError, match="enough"):
            fit(
                poisoned("spike"),
                options=stopper,
                directory=tmp_path / "again",
                on_spike="rewind",
                **SPIKES,
            )
    finally:
        progress.set_listener(None)
    again, record_again = fit(
        poisoned("spike"),
        options=stopper,
        directory=tmp_path / "again",
        on_spike="rewind",
        **SPIKES,
    )
    assert record_again.resumes[0].from_step > 20
    assert weights_of(again) == weights_of(trainer)
    assert record_again.loss_curve == record.loss_curve


def test_over_budget_it_saves_and_stops_and_more_money_continues(fit, tmp_path):
    limits = LIMITS.model_copy(update={"max_usd": 1e-6, "on_overrun": "stop"})
    with pytest.raises(TokenmillError, match=r"budget.max_usd.*saved"):
        fit(limits=limits)
    assert list(tmp_path.glob("*/checkpoints/step-*/manifest.json"))
    _, record = fit(limits=limits.model_copy(update={"max_usd": 1e6}))
    assert record.step == 36
    assert record.resumes[0].from_step >= 1


def test_attention_of_the_model_is_drawn_with_the_words_beside_it(
    many_rows, small_shape, small_tokenizer
):
    model = Decoder(small_shape, SEED)
    draw = attention_drawer(model, PackedSplit(many_rows, "eval"), small_tokenizer)
    entropies, image = draw()
    assert set(entropies) == {"layer0/head0", "layer0/head1"}
    # Untrained attention is even over the tokens so far: between 1 and 16 of them.
    assert all(0.3 < entropy < math.log(16) for entropy in entropies.values())
    assert image.shape[2] == 3
    for weight in model.trainable_variables:
        weight.assign(30 * weight)
    assert draw()[0] != entropies


def test_entropy_is_that_of_the_distribution():
    uniform = np.full((1, 2, 4, 4), 0.25)
    uniform[:, 1] = np.eye(4)
    np.testing.assert_allclose(
        attention_entropies(uniform, np.ones((1, 4), bool)), [math.log(4), 0.0], atol=1e-12
    )
    half = np.array([[True, True, False, False]])
    uniform[:, 0, 2:] = 0.0  # padding does not count
    np.testing.assert_allclose(attention_entropies(uniform, half), [math.log(4), 0], atol=1e-12)


def test_an_attention_map_shows_where_the_weight_lies():
    tokens = ["the", "·cat", "⏎", "sat"]
    maps = [np.stack([np.eye(4), np.full((4, 4), 0.25)]), np.zeros((2, 4, 4))]
    image = attention_image(maps, tokens, [0, 3])
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    height, width = image.shape[:2]
    upper, lower = image[: height // 2], image[height // 2 :]
    assert (upper < 100).any(axis=2).sum() > 1.3 * (lower < 100).any(axis=2).sum()
    assert height > 300
    assert width > 300
