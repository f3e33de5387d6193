import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmill.errors import TokenmillError
from tokenmill.rows.mixture import Mixture, plan_steps

sizes = st.integers(1, 10**6)
epoch_counts = st.floats(1e-3, 1e3)


@settings(deadline=None)
@given(sizes, st.integers(1, 4096), epoch_counts)
def test_a_plan_reads_the_epochs_asked_for_to_within_half_a_step(rows, batch, epochs):
    plan = plan_steps(rows, batch, epochs)
    assert plan.steps >= 1
    assert plan.rows_read == plan.steps * batch
    assert plan.epochs == plan.rows_read / rows
    if plan.steps > 1:
        assert abs(plan.rows_read - epochs * rows) <= batch / 2 * (1 + 1e-9)


@settings(deadline=None)
@given(sizes, st.integers(1, 4096), epoch_counts, st.integers(1, 10**7))
def test_max_steps_only_ever_shortens_a_plan(rows, batch, epochs, max_steps):
    assert plan_steps(rows, batch, epochs, max_steps).steps == min(
        plan_steps(rows, batch, epochs).steps, max_steps
    )


@settings(deadline=None)
@given(sizes, st.integers(1, 4096), epoch_counts, epoch_counts)
def test_more_epochs_never_take_fewer_steps(rows, batch, a, b):
    low, high = sorted((a, b))
    assert plan_steps(rows, batch, low).steps <= plan_steps(rows, batch, high).steps


def test_worked_example():
    plan = plan_steps(100, 16, 2.0)
    assert (plan.steps, plan.rows_read, plan.epochs) == (12, 192, 1.92)


def test_there_must_be_rows():
    with pytest.raises(ValueError, match="rows = 0"):
        plan_steps(0, 16, 1.0)


def test_repetition_limits_shorten_a_plan():
    assert plan_steps(100, 16, 3.0, rows_available=200).steps == 200 // 16
    assert plan_steps(100, 16, 1.0, rows_available=200).steps == 6
    with pytest.raises(TokenmillError, match="leaves 15 rows"):
        plan_steps(100, 16, 1.0, rows_available=15)


source_rows = st.lists(st.integers(1, 300), min_size=1, max_size=5)
source_weights = st.lists(st.floats(0.01, 10), min_size=5, max_size=5)


@settings(deadline=None, max_examples=60)
@given(source_rows, source_weights, st.integers(1, 4))
def test_a_mixture_draws_every_row_up_to_its_limit_and_none_beyond(rows, weights, limit):
    names = "abcde"[: len(rows)]
    mixture = Mixture(
        dict(zip(names, rows, strict=True)), dict(zip(names, weights, strict=False)), limit
    )
    assert mixture.rows_available == limit * sum(rows)
    draws = mixture.draws(np.arange(mixture.rows_available))
    for i, count in enumerate(rows):
        mine = draws.ordinal[draws.source == i]
        np.testing.assert_array_equal(mine, np.arange(limit * count))
    for samples in {0, 1, mixture.rows_available // 2, mixture.rows_available}:
        counted = np.bincount(draws.source[:samples], minlength=len(rows))
        assert list(mixture.rows_drawn(samples).values()) == counted.tolist()
    assert set(mixture.repetitions(mixture.rows_available).values()) == {float(limit)}
    with pytest.raises(IndexError, match="max_repetitions"):
        mixture.draws(np.array([mixture.rows_available]))


@settings(deadline=None, max_examples=60)
@given(source_weights, st.integers(1, 20_000))
def test_every_stretch_of_samples_has_the_shares_of_the_weights(weights, samples):
    names = "abcde"
    mixture = Mixture(dict.fromkeys(names, 10**6), dict(zip(names, weights, strict=True)))
    drawn = mixture.rows_drawn(samples)
    assert sum(drawn.values()) == samples
    for name, weight in zip(names, weights, strict=True):
        # Whole places of 4,096, and one row either way.
        expected = samples * weight / sum(weights)
        assert abs(drawn[name] - expected) <= 3 + 5 * samples / 4096


def test_a_source_of_weight_0_is_left_out():
    mixture = Mixture({"a": 10, "b": 10}, {"a": 1.0, "b": 0.0})
    assert mixture.rows_drawn(500) == {"a": 500, "b": 0}
    assert mixture.repetitions(500) == {"a": 50.0, "b": 0.0}


def test_when_one_source_is_used_up_the_others_share_its_places():
    mixture = Mixture({"a": 10, "b": 1000, "c": 1000}, {"a": 2, "b": 1, "c": 1}, 2)
    assert mixture.rows_drawn(40) == {"a": 20, "b": 10, "c": 10}
    later = mixture.rows_drawn(1040)
    assert later["a"] == 20
    assert abs(later["b"] - later["c"]) <= 1


def test_there_must_be_something_to_mix():
    with pytest.raises(TokenmillError, match="no source has both"):
        Mixture({"a": 10, "b": 0}, {"a": 0.0, "b": 1.0})
