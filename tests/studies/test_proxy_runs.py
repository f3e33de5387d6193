"""Proxy runs on disk: none is trained twice, and what is read back is what was written."""

import dataclasses

import numpy as np
import pytest

from pipeline.studies.held_out import HeldOutEvaluator, HeldOutSet
from pipeline.studies.proxy_runs import ProxyJob, ProxyRuns, StudyBudget
from tokenmill.errors import TokenmillError

SETS = (HeldOutSet("a", (b"ak and ka", b"are words")), HeldOutSet("b", (b"bl",)))


@pytest.fixture
def evaluator(tokenizer_path, shape):
    return HeldOutEvaluator(SETS, tokenizer_path, shape.sequence_length)


@pytest.fixture
def job(corpus, shape):
    train = corpus.config.train.model_copy(
        update={"global_batch_size": 4, "jit_compile": False, "decay_fraction": 0.2}
    )
    return ProxyJob(shape, train, (4, 8), 1, corpus.natural_weights)


def same(a, b):
    for x, y in zip(a.results, b.results, strict=True):
        assert (x.steps, x.loss_tokens, x.slots, x.flops) == (
            y.steps,
            y.loss_tokens,
            y.slots,
            y.flops,
        )
        # In this order also before they were read back, so that documents are the same.
        assert list(x.losses) == list(y.losses) == ["a", "all", "b"]
        for name in x.losses:
            np.testing.assert_array_equal(x.losses[name].nll, y.losses[name].nll)
            np.testing.assert_array_equal(x.losses[name].bytes, y.losses[name].bytes)


def test_a_job_is_trained_once(tmp_path, corpus, evaluator, job):
    runs = ProxyRuns(str(tmp_path), corpus, evaluator)
    assert not runs.has(job)
    first = runs.run(job)
    assert first.is_new
    assert [result.steps for result in first.results] == [4, 8]
    assert runs.new_seconds > 0
    assert runs.usd == pytest.approx(runs.seconds / 3600 * runs.usd_per_hour)
    again = ProxyRuns(str(tmp_path), corpus, evaluator)
    assert again.has(job)
    second = again.run(job)
    assert not second.is_new
    assert again.new_seconds == 0
    assert again.seconds == pytest.approx(first.seconds)
    same(first, second)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:300], b"", b"no archive", whole[:middle] + b"?" * 99 + whole[middle:]):
        kept.write_bytes(damaged)
        with pytest.raises(TokenmillError, match=kept.name) as error:
            again.run(job)
        assert "Delete the file" in error.value.hint


def test_the_same_job_leaves_the_same_numbers(tmp_path, corpus, evaluator, job):
    one = ProxyRuns(str(tmp_path / "1"), corpus, evaluator).run(job)
    two = ProxyRuns(str(tmp_path / "2"), corpus, evaluator).run(job)
    same(one, two)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"steps": (4, 9)},
        {"source_weights": {"up": 1.0, "down": 3.0}},
        {"rate": 4e-3},
    ],
)
def test_whatever_decides_a_result_is_another_job(tmp_path, corpus, evaluator, job, change):
    runs = ProxyRuns(str(tmp_path), corpus, evaluator)
    first = runs.run(job)
    if "rate" in change:
        train = job.train.model_copy(update={"learning_rate": change["rate"]})
        other = dataclasses.replace(job, train=train)
    else:
        other = dataclasses.replace(job, **change)
    second = runs.run(other)
    assert second.is_new
    assert second.results[-1].bits_per_byte() != first.results[-1].bits_per_byte()


def test_runs_go_on_after_one_that_diverged(tmp_path, corpus, evaluator, job):
    runs = ProxyRuns(str(tmp_path), corpus, evaluator)
    wild = dataclasses.replace(job, train=job.train.model_copy(update={"learning_rate": 1e30}))
    with pytest.raises(TokenmillError, match="diverged"):
        runs.run(wild)
    assert np.isfinite(runs.run(job).results[-1].bits_per_byte())


def test_a_budget_is_what_the_tighter_limit_buys():
    assert StudyBudget().seconds(0.1) == float("inf")
    assert StudyBudget(max_seconds=60).seconds(0.1) == 60
    assert StudyBudget(max_usd=1, max_seconds=60).seconds(100) == pytest.approx(36)
    assert StudyBudget(max_usd=1).seconds(0.0) == float("inf")  # a machine of one's own
