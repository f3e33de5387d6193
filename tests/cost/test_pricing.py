import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.catalog.chips import find_chip
from tokenmill.cost.flops import flops_per_token_6n, run_flops
from tokenmill.cost.pricing import (
    HIDDEN_COST_HIGH,
    HIDDEN_COST_LOW,
    chip_hours,
    compute_usd,
    daly_interval_seconds,
    estimate_cost,
    expected_loss_seconds,
    system_mtbf_seconds,
    usd_per_million_tokens,
    wall_seconds,
    young_interval_seconds,
)
from tokenmill.cost.published_runs import load_published_runs

RUNS = {run.name: run for run in load_published_runs()}
MINUTE = 60.0
DAY = 86400.0


def cost(**change):
    arguments = {
        "total_flops": 1e21,
        "effective_tokens": 1e10,
        "chips": 8,
        "peak_flops_per_second": 312e12,
        "mfu": 0.4,
        "price_usd_per_chip_hour": 2.0,
    }
    return estimate_cost(**{**arguments, **change})


def test_design_example_bert_large_like_takes_9_2_days():
    flops = run_flops(flops_per_token_6n(3.4e8), 1.28e10)
    # 33 TFLOP/s is what an RTX 3090 sustains, so utilization is in it already.
    seconds = wall_seconds(total_flops=flops, chips=1, peak_flops_per_second=33e12, mfu=1.0)
    assert seconds / DAY == pytest.approx(9.2, abs=0.05)
    assert find_chip("rtx-3090").peak_flops_per_second > 33e12


def test_design_example_palm_takes_702_hours():
    flops = run_flops(flops_per_token_6n(5.4e11), 7.8e11)
    seconds = wall_seconds(total_flops=flops, chips=1, peak_flops_per_second=1e18, mfu=1.0)
    assert seconds == pytest.approx(2.53e6, rel=2e-3)
    assert seconds / 3600 == pytest.approx(702, abs=1)


def test_prices_are_per_chip_hour_not_per_pod():
    price = find_chip("tpu-v4").price_usd_per_chip_hour
    run = cost(
        total_flops=2.53e24,
        chips=6144,
        peak_flops_per_second=275e12,
        mfu=0.462,
        price_usd_per_chip_hour=price,
    )
    assert run.compute_usd == pytest.approx(6144 * run.wall_hours * price)
    assert run.compute_usd > 1e7  # the pod's wall hours times the chip's price would be 3,000 USD


@pytest.mark.parametrize(
    ("name", "price", "tolerance"),
    [
        ("MPT-7B", 2.0, 0.01),  # the notes' price
        ("llm.c GPT-2 350M", 14 / 8, 0.05),  # 14 USD/h for 8 A100, rounded in the source
        ("llm.c GPT-2 1558M", 28 / 8, 0.01),
    ],
)
def test_published_bills(name, price, tolerance):
    run = RUNS[name]
    assert compute_usd(run.chip_hours, price) == pytest.approx(run.published_usd, rel=tolerance)


def test_llama_2_7b_chip_hours_follow_from_its_mfu():
    run = RUNS["Llama 2 7B"]
    hours = chip_hours(
        total_flops=run_flops(flops_per_token_6n(run.params_total), run.tokens),
        peak_flops_per_second=run.peak_flops_per_second,
        mfu=run.implied_mfu,
    )
    assert hours == pytest.approx(run.chip_hours)


def test_hidden_costs_are_a_line_of_their_own():
    run = cost()
    assert run.total_usd_low == HIDDEN_COST_LOW * run.compute_usd
    assert run.total_usd_high == HIDDEN_COST_HIGH * run.compute_usd
    assert run.hidden_usd_low == run.total_usd_low - run.compute_usd
    assert run.hidden_usd_high == run.total_usd_high - run.compute_usd
    none = cost(hidden_multiplier_low=1, hidden_multiplier_high=1)
    assert none.total_usd_high == none.compute_usd == run.compute_usd
    assert none.usd_per_million_effective_tokens == run.usd_per_million_effective_tokens


def test_units():
    run = cost(total_flops=3600 * 8 * 312e12 * 0.4)
    assert run.wall_seconds == pytest.approx(3600)
    assert run.wall_hours == pytest.approx(1)
    assert run.chip_hours == pytest.approx(8)
    assert run.compute_usd == pytest.approx(16)
    assert run.usd_per_million_effective_tokens == pytest.approx(16 / 1e4)


def test_estimate_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        cost().compute_usd = 0


@given(one=st.integers(1, 20000), other=st.integers(1, 20000))
def test_chips_change_the_wait_but_not_the_bill(one, other):
    first, second = cost(chips=one), cost(chips=other)
    assert first.chip_hours == second.chip_hours
    assert first.compute_usd == second.compute_usd
    assert first.wall_seconds * one == pytest.approx(second.wall_seconds * other)


@given(
    field=st.sampled_from(["total_flops", "price_usd_per_chip_hour"]),
    value=st.floats(1e-3, 1e24),
    more=st.floats(1.01, 1000),
)
def test_bill_grows_with_flops_and_price(field, value, more):
    assert cost(**{field: value * more}).compute_usd > cost(**{field: value}).compute_usd


@given(
    field=st.sampled_from(["mfu", "goodput"]), value=st.floats(0.01, 0.5), more=st.floats(1.01, 2)
)
def test_bill_falls_with_utilization(field, value, more):
    assert cost(**{field: value * more}).compute_usd < cost(**{field: value}).compute_usd


@given(usd=st.floats(0, 1e9), tokens=st.floats(1, 1e14), factor=st.floats(1.01, 1e3))
def test_price_of_tokens(usd, tokens, factor):
    price = usd_per_million_tokens(usd, tokens)
    assert price * tokens / 1e6 == pytest.approx(usd)
    assert usd_per_million_tokens(usd, tokens * factor) <= price


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mfu": 40}, "mfu = 40"),
        ({"mfu": 0}, "mfu = 0"),
        ({"goodput": 1.1}, "goodput = 1.1"),
        ({"chips": 0}, "chips = 0"),
        ({"peak_flops_per_second": None}, "peak_flops_per_second = None"),
        ({"price_usd_per_chip_hour": -1}, "price_usd_per_chip_hour = -1"),
        ({"total_flops": float("nan")}, "total_flops = nan"),
        ({"effective_tokens": 0}, "tokens = 0"),
        ({"hidden_multiplier_low": 0.5}, "hidden_multiplier_low"),
        ({"hidden_multiplier_low": 6}, "1 <= low <= high"),
    ],
)
def test_a_wrong_argument_is_named(change, words):
    with pytest.raises(ValueError, match="expected") as caught:
        cost(**change)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("mtbf_minutes", "interval_minutes"), [(24 * 60, 117), (6 * 60, 57), (15, 9.1)]
)
def test_daly_reproduces_his_figures_3_to_5(mtbf_minutes, interval_minutes):
    got = daly_interval_seconds(5 * MINUTE, mtbf_minutes * MINUTE) / MINUTE
    assert got == pytest.approx(interval_minutes, rel=0.006)


def test_young_and_daly_agree_when_failures_are_rare():
    young, daly = young_interval_seconds(10, 1e8), daly_interval_seconds(10, 1e8)
    assert young == pytest.approx((2 * 10 * 1e8) ** 0.5)
    assert daly == pytest.approx(young, rel=1e-3)


def test_daly_with_slow_writes_is_the_mtbf():
    assert daly_interval_seconds(200, 100) == 100
    assert daly_interval_seconds(199.999, 100) == pytest.approx(88.9, abs=0.1)


def test_system_mtbf_shrinks_with_chips():
    assert system_mtbf_seconds(3.6e8, 1000) == 3.6e5


@given(
    write=st.floats(1, 600),
    mtbf=st.floats(3600, 1e7),
    restart=st.floats(0, 1200),
    away=st.sampled_from([0.25, 0.5, 2, 4]),
)
def test_dalys_interval_loses_least(write, mtbf, restart, away):
    best = daly_interval_seconds(write, mtbf)

    def lost(interval):
        return expected_loss_seconds(
            work_seconds=1e6,
            interval_seconds=interval,
            write_seconds=write,
            mtbf_seconds=mtbf,
            restart_seconds=restart,
        ).lost_seconds

    assert lost(best) < lost(best * away)


def test_loss_has_its_parts():
    loss = expected_loss_seconds(
        work_seconds=1e6, interval_seconds=1e4, write_seconds=10, mtbf_seconds=1e6
    )
    assert loss.write_seconds == pytest.approx(1000)
    # One failure loses half an interval on average, and about one is expected.
    assert loss.rework_seconds == pytest.approx(5000, rel=0.02)
    assert loss.lost_seconds == loss.write_seconds + loss.rework_seconds
    assert loss.goodput == pytest.approx(1e6 / (1e6 + loss.lost_seconds))


def test_without_failures_only_writes_are_lost():
    loss = expected_loss_seconds(
        work_seconds=1e4, interval_seconds=1e3, write_seconds=1, mtbf_seconds=1e15
    )
    assert loss.lost_seconds == pytest.approx(10, rel=1e-6)


def test_a_run_that_cannot_end_is_refused():
    with pytest.raises(ValueError, match="save more often"):
        expected_loss_seconds(
            work_seconds=1e6, interval_seconds=1e6, write_seconds=1, mtbf_seconds=1
        )
