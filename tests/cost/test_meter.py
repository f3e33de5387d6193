import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.cost.meter import MIN_STEPS, TOLERANCE, BudgetMeter


def run(meter, steps, step_seconds, compile_seconds=0.0):
    """Every decision of a run at a steady rate, by step."""
    decisions = {}
    for step in range(1, steps + 1):
        seconds = compile_seconds + step * step_seconds
        decision = meter.update(seconds, step * 100, step, steps)
        if decision is not None:
            decisions[step] = decision
            if decision == "stop":
                break
    return decisions


def meter(**change):
    # Two chips at 1800 USD an hour: one USD a second.
    return BudgetMeter(**{"price_usd_per_chip_hour": 1800.0, "chips": 2, **change})


def test_without_limits_it_never_speaks():
    assert run(meter(on_overrun="stop"), 100, 1e6) == {}


def test_a_projected_overrun_stops_as_soon_as_the_rate_is_known():
    watched = meter(max_usd=100.0, on_overrun="stop")
    assert run(watched, 200, 1.0) == {1 + MIN_STEPS: "stop"}
    for words in ("will go over", "budget.max_usd = 100", "$200.00", "11 of 200 steps"):
        assert words in watched.message


def test_a_warning_comes_once_for_the_projection_and_once_when_it_is_spent():
    watched = meter(max_usd=100.0)
    assert run(watched, 200, 1.0) == {11: "warn", 101: "warn"}
    assert "is over" in watched.message


def test_compilation_is_paid_but_not_projected():
    # 60 s of compilation and 40 steps of 1 s: 100 s. Projecting from all seconds would say 273.
    assert run(meter(max_usd=101.0, on_overrun="stop"), 40, 1.0, compile_seconds=60.0) == {}
    assert run(meter(max_usd=90.0, on_overrun="stop"), 40, 1.0, compile_seconds=60.0) == {
        11: "stop"
    }


def test_money_already_spent_stops_before_any_rate_is_known():
    assert run(meter(max_usd=5.0, on_overrun="stop"), 100, 1.0, 10.0) == {1: "stop"}


def test_hours_limit_a_run_that_costs_nothing():
    free = meter(price_usd_per_chip_hour=0.0, max_usd=0.0, max_hours=0.01, on_overrun="stop")
    assert free.limit_seconds == pytest.approx(36.0)
    assert run(free, 30, 1.0) == {}
    assert run(meter(max_hours=0.01, on_overrun="stop"), 60, 1.0) == {11: "stop"}
    assert meter(price_usd_per_chip_hour=0.0, max_usd=0.0).limit_seconds is None


def test_a_short_run_is_projected_from_the_steps_it_has():
    assert run(meter(max_usd=3.0, on_overrun="stop"), 5, 1.0) == {4: "stop"}


@given(
    st.integers(MIN_STEPS + 2, 300), st.floats(0.01, 10.0), st.floats(0.0, 100.0),
    st.floats(0.1, 3.0),
)  # fmt: skip
def test_at_a_steady_rate_it_stops_exactly_the_runs_that_would_go_over(
    steps, step_seconds, compile_seconds, share
):
    total = compile_seconds + steps * step_seconds
    watched = meter(max_usd=total * share, on_overrun="stop")
    stopped = bool(run(watched, steps, step_seconds, compile_seconds))
    if share > 1.0001:
        assert not stopped
    elif share < 0.9999 - TOLERANCE:
        assert stopped


def test_it_names_bad_keys():
    with pytest.raises(ValueError, match=r"budget\.max_usd = -1"):
        meter(max_usd=-1)
    with pytest.raises(ValueError, match=r"budget\.on_overrun = 'halt'"):
        meter(on_overrun="halt")
