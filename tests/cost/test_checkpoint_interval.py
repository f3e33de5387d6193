import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.cost.checkpoint_interval import CHIP_MTBF_HOURS, plan_checkpoints


def test_default_failures_are_those_of_llama_3():
    # 419 unexpected interruptions in 54 days on 16,384 chips.
    plan = plan_checkpoints(checkpoint_bytes=10**12, work_seconds=54 * 86400, chips=16384)
    assert plan.expected_failures == pytest.approx(419, rel=0.15)
    assert 0.8 < plan.goodput < 1
    assert pytest.approx(16384 * 54 * 24 / 419, rel=1e-4) == CHIP_MTBF_HOURS


def test_disk_and_write_time_have_units():
    plan = plan_checkpoints(
        checkpoint_bytes=4 * 10**9,
        work_seconds=86400,
        chips=1,
        write_bytes_per_second=2e9,
        kept=5,
    )
    assert plan.write_seconds == 2.0
    assert plan.disk_bytes == 20 * 10**9
    assert plan.mtbf_seconds == CHIP_MTBF_HOURS * 3600


@given(
    size=st.integers(10**6, 10**13),
    days=st.floats(0.01, 100),
    chips=st.sampled_from([1, 8, 64, 512, 4096]),
)
def test_a_plan_never_saves_less_often_than_the_run_lasts(size, days, chips):
    plan = plan_checkpoints(checkpoint_bytes=size, work_seconds=days * 86400, chips=chips)
    assert 0 < plan.interval_seconds <= days * 86400
    assert 0 < plan.goodput <= 1
    assert plan.lost_seconds >= 0


def test_a_run_that_cannot_end_is_refused():
    with pytest.raises(ValueError, match="expected"):
        plan_checkpoints(
            checkpoint_bytes=10**15,
            work_seconds=1e6,
            chips=10**6,
            write_bytes_per_second=1e6,
            chip_mtbf_hours=1,
        )


def test_a_short_run_saves_once_and_a_long_one_by_daly():
    short = plan_checkpoints(checkpoint_bytes=10**9, work_seconds=60.0, chips=1)
    assert (short.checkpoints, short.interval_seconds) == (1, 60.0)
    long = plan_checkpoints(checkpoint_bytes=84 * 10**9, work_seconds=30 * 86400.0, chips=1024)
    assert long.interval_seconds == long.daly_seconds
    assert long.checkpoints == round(30 * 86400 / long.interval_seconds)
    assert 0 < long.writing_seconds < long.lost_seconds
