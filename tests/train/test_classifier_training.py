"""A classifier's order of rows and its training: buckets, resume, devices, options."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import TokenizedDocument, in_columns
from made_manifest import packed_manifest

from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from components.train.data import Share, evaluation_batches, training_batches
from tokenmill.provenance.explain import times_trained
from tokenmill.rows.mixture import plan_steps
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.schedule import BucketedOrder, RowOrder, row_order
from tokenmill.rows.widths import widths, widths_of

VOCAB, LENGTH, BATCH = 120, 80, 8
NAMES = [b"early", b"late"]
OPTIONS = {"log_steps": 1, "detail_steps": None, "checkpoint_steps": 5}


def write_labeled(uri, split, documents, seed):
    """Two classes of documents: ids of the one are mostly low, of the other mostly high."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(documents):
        label, length = int(rng.integers(2)), int(rng.integers(3, 110))
        ids = np.where(rng.random(length) < 0.8, rng.integers(16, 60, length) + 44 * label,
                       rng.integers(16, VOCAB, length)).astype(np.int32)  # fmt: skip
        made.append(TokenizedDocument(b"%04d" % i, b"s", length, ids, NAMES[label]))
    packing = PackJob(
        sequence_length=LENGTH, vocab_size=VOCAB, shards=1, task="classification", classes=2
    )
    directory, flags = os.path.join(uri, f"Split-{split}"), np.zeros(VOCAB, np.uint8)
    entry = pack_shard((0, [in_columns(made)]), directory, packing, flags, NAMES)
    write_manifest([entry], directory, packing, flags, NAMES)


@pytest.fixture(scope="module")
def labeled_rows(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("labeled"))
    write_labeled(uri, "train", 70, seed=1)
    write_labeled(uri, "eval", 21, seed=2)
    return uri


@pytest.fixture(scope="module")
def fit(launcher, labeled_rows, small_shape):
    shape = dataclasses.replace(
        small_shape, causal=False, head="classifier", classes=2, vocab_size=VOCAB,
        sequence_length=LENGTH,
    )  # fmt: skip
    told = {"shape": shape.__dict__, "rows_uri": labeled_rows, "global_batch_size": BATCH}

    def start(directory, settings=None, options=OPTIONS, environment=None, **job):
        settings = {"learning_rate": 3e-2, **(settings or {})}
        if environment is not None:
            return launcher.start_process(directory, environment, settings, options, **told, **job)
        return launcher.start(directory, settings, options, **{**told, **job})

    return start


@pytest.fixture(scope="module")
def fitted(fit, tmp_path_factory):
    directory = tmp_path_factory.mktemp("fitted")
    outcome = fit(directory).wait()
    assert outcome.exit_code == 0, outcome.said
    return SimpleNamespace(**outcome.result, directory=directory, result=outcome.result)


def fake_split(lengths):
    manifest = packed_manifest(rows=len(lengths))
    return SimpleNamespace(
        manifest=manifest, rows=len(lengths), sequence_length=LENGTH, task="classification",
        row_lengths=lambda: lengths,
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, LENGTH), min_size=1, max_size=80),
    batch=st.integers(1, 20),
    seed=st.integers(0, 2**31 - 1),
    epochs=st.integers(1, 4),
)
def test_whole_epochs_read_what_the_order_without_buckets_reads(lengths, batch, seed, epochs):
    split = fake_split(np.array(lengths))
    steps = plan_steps(len(lengths), batch, epochs).steps
    rows = len(lengths)
    if steps != round(epochs * rows / batch):
        return  # less than half a batch: one step all the same
    plain, bucketed = RowOrder(split, batch, seed), BucketedOrder(split, batch, seed)
    read = []
    for order in (plain, bucketed):
        parts = zip(*map(order.rows_of_step, range(steps)), strict=True)
        numbers, times = (np.concatenate(part).tolist() for part in parts)
        read.append(Counter(zip(numbers, times, strict=True)))
    assert read[0] == read[1]
    assert max(read[1].values()) == 1  # a row once in each of its epochs


def test_a_step_is_the_same_whenever_it_is_asked_and_batches_are_of_like_width():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 1024, 2000)
    split = fake_split(lengths)
    split.sequence_length = 1024
    order = BucketedOrder(split, 16, 3)
    forwards = [order.rows_of_step(s)[0].tolist() for s in range(250)]
    again = BucketedOrder(split, 16, 3)
    assert [again.rows_of_step(s)[0].tolist() for s in reversed(range(250))] == forwards[::-1]
    other = BucketedOrder(split, 16, 4)
    assert [other.rows_of_step(s)[0].tolist() for s in range(3)] != forwards[:3]
    width = widths_of(lengths, 1024)
    mixed = [len(set(width[rows])) > 1 for rows in forwards]
    assert np.mean(mixed) < 0.15
    assert [order.width_of_step(s) for s in range(250)] == [width[rows].max() for rows in forwards]
    # Widths do not come in order.
    assert len({order.width_of_step(s) for s in range(12)}) > 2
    computed = 16 * sum(order.width_of_step(s) for s in range(125))
    assert computed < 1.1 * width.sum()


def test_batches_are_the_rows_of_the_order_as_wide_as_needed(labeled_rows):
    split = PackedSplit(labeled_rows, "train")
    order = row_order(split, BATCH, 5)
    assert isinstance(order, BucketedOrder)
    seen = set()
    for step, batch in enumerate(training_batches(split, BATCH, 20, 5)):
        width = order.width_of_step(step)
        seen.add(width)
        expected = split.read(order.rows_of_step(step)[0], width)
        for got, wanted in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(got.numpy(), wanted)
        assert float(batch.loss_weights.numpy().sum()) == BATCH
    assert seen == set(widths(LENGTH))
    (resumed, *_) = training_batches(split, BATCH, 20, 5, first_step=13)
    expected = split.read(order.rows_of_step(13)[0], order.width_of_step(13))
    np.testing.assert_array_equal(resumed.inputs, expected.inputs)


def test_shares_of_a_step_have_its_width_and_make_it_up(labeled_rows):
    split = PackedSplit(labeled_rows, "train")
    whole = list(training_batches(split, BATCH, 6, 5))
    parts = [list(training_batches(split, BATCH, 6, 5, 0, Share(i, 1, 2))) for i in range(2)]
    for step, batch in enumerate(whole):
        joined = np.concatenate([parts[i][step].inputs.numpy() for i in range(2)])
        np.testing.assert_array_equal(joined, batch.inputs)


def test_evaluation_reads_every_row_once(labeled_rows):
    split = PackedSplit(labeled_rows, "eval")
    every = split.read(np.arange(split.rows))
    wanted = Counter(tuple(row[row > 0].tolist()) for row in every.inputs)
    got, weights = Counter(), 0.0
    for batch in evaluation_batches(split, BATCH):
        weights += float(batch.loss_weights.numpy().sum())
        got += Counter(tuple(row[row > 0].tolist()) for row in batch.inputs.numpy() if row.any())
    assert got == wanted
    assert weights == split.rows


def test_it_learns_and_counts_examples(fitted, labeled_rows):
    before, after = fitted.eval_before, fitted.eval_after
    assert before["loss"] == pytest.approx(np.log(2), abs=0.2)
    assert after["accuracy"] > 0.85 > before["accuracy"]
    assert "perplexity" not in after
    assert after["loss_tokens"] == PackedSplit(labeled_rows, "eval").rows
    assert fitted.trained_loss_tokens == 40 * BATCH
    order = row_order(PackedSplit(labeled_rows, "train"), BATCH, 7)
    assert fitted.trained_slots == BATCH * sum(order.width_of_step(s) for s in range(40))
    assert fitted.examples_per_second > 0


def test_a_killed_training_goes_on_exactly(fit, fitted, tmp_path, poll):
    process = fit(tmp_path)
    poll(lambda: len(list(pathlib.Path(tmp_path).glob("*/checkpoints/step-*"))) > 1)
    os.kill(process.pid, signal.SIGKILL)
    killed = process.wait().exit_code == -signal.SIGKILL
    outcome = fit(tmp_path).wait()
    assert outcome.exit_code == 0, outcome.said
    assert outcome.result["weights"] == fitted.result["weights"]
    assert outcome.result["loss_curve"] == fitted.result["loss_curve"]
    assert outcome.result["trained_slots"] == fitted.trained_slots
    assert bool(outcome.result["resumes"]) or not killed


@pytest.mark.parametrize(
    ("settings_", "options", "job"),
    [
        ({"accumulation_steps": 2}, {}, {}),
        ({}, {"cpu_devices": 2}, {"strategy": "mirrored"}),
        ({"jit_compile": True}, {}, {}),
    ],
    ids=["accumulated", "two devices", "compiled"],
)
def test_other_ways_to_the_same_losses(fit, tmp_path, fitted, settings_, options, job):
    outcome = fit(tmp_path, settings_, {**OPTIONS, **options}, **job).wait()
    assert outcome.exit_code == 0, outcome.said
    # Adam makes much of rounding in the long run; the first steps tell.
    ours, theirs = (
        np.array([loss for _, loss in r["loss_curve"][:8]]) for r in (outcome.result, fitted.result)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert outcome.result["eval_before"]["accuracy"] == fitted.eval_before["accuracy"]


@pytest.mark.slow
def test_two_processes_follow_the_losses_of_one(fit, fitted, tmp_path):
    with socket.socket() as a, socket.socket() as b:
        for free in (a, b):
            free.bind(("127.0.0.1", 0))
        cluster = {"worker": [f"127.0.0.1:{free.getsockname()[1]}" for free in (a, b)]}
    workers = [
        fit(
            tmp_path,
            environment={
                "TF_CONFIG": json.dumps(
                    {"cluster": cluster, "task": {"type": "worker", "index": index}}
                )
            },
            strategy="multi_worker",
        )
        for index in range(2)
    ]
    for outcome in [worker.wait() for worker in workers]:
        assert outcome.exit_code == 0, outcome.said
        assert outcome.result["trained_slots"] == fitted.trained_slots
        ours, theirs = (
            np.array([loss for _, loss in r["loss_curve"][:8]])
            for r in (outcome.result, fitted.result)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def test_held_out_accuracy_is_in_the_telemetry(fit, tmp_path):
    outcome = fit(tmp_path, options={**OPTIONS, "evaluate_steps": 10}, max_steps=20).wait()
    assert outcome.exit_code == 0, outcome.said
    (metrics,) = pathlib.Path(tmp_path).glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    (evaluated,) = [line for line in lines if line.get("event") == "evaluation"]
    assert evaluated["step"] == 10
    assert 0.0 < evaluated["eval_accuracy"] <= 1.0


def test_how_often_a_row_was_trained_on_is_told(labeled_rows):
    split = PackedSplit(labeled_rows, "train")
    steps = 21
    order = row_order(split, BATCH, 7)
    read = Counter(n for s in range(steps) for n in order.rows_of_step(s)[0].tolist())
    found = times_trained(labeled_rows, range(split.rows), steps, BATCH, 7)
    assert found == {row: read[row] for row in range(split.rows)}
