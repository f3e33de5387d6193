import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.train.plan import plan_steps

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
