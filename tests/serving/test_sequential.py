"""The sequential test: it must not lie to who looks at every moment, and it must see."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.sequential import MIN_VALUES, Arm, compare, radius


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_running_moments_are_those_of_the_whole(values):
    arm = Arm()
    for value in values:
        arm.add(value)
    assert arm.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert arm.squares == pytest.approx(np.var(values) * len(values), rel=1e-6, abs=1e-5)


def false_alarms(draw, streams=300, values=2000):
    """Shares of A/A streams in which some look finds a difference: ours, and a z-test's."""
    rng = np.random.default_rng(7)
    ours = naive = 0
    for _ in range(streams):
        arms, found, fooled = (Arm(), Arm()), False, False
        pairs = draw(rng, (values, 2))
        for n, pair in enumerate(pairs.tolist(), 1):
            for arm, value in zip(arms, pair, strict=True):
                arm.add(value)
            if n >= MIN_VALUES and n % 10 == 0:
                found |= compare(*arms).verdict != "undecided"
                error = np.sqrt(sum(arm.variance / arm.count for arm in arms))
                fooled |= abs(arms[0].mean - arms[1].mean) > 1.96 * error
        ours, naive = ours + found, naive + fooled
    return ours / streams, naive / streams


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, size: rng.normal(5.0, 2.0, size),
        lambda rng, size: rng.lognormal(0.0, 0.5, size),
        lambda rng, size: (rng.random(size) < 0.2).astype(float),
    ],
    ids=["normal", "skewed", "binary"],
)
def test_peeking_does_not_find_what_is_not_there(draw):
    ours, naive = false_alarms(draw)
    assert ours <= 0.05
    assert naive > 0.15  # the test would notice a procedure that does not allow for peeking


def test_a_real_difference_is_found_and_its_sign_is_right():
    rng = np.random.default_rng(3)
    stable, canary = Arm(), Arm()
    for value in rng.normal(0, 1, (3000, 2)).tolist():
        stable.add(value[0])
        canary.add(value[1] + 0.4)
    found = compare(stable, canary)
    assert found.verdict == "higher"
    assert found.low < 0.4 < found.high
    assert compare(canary, stable).verdict == "lower"


def test_too_few_values_decide_nothing():
    stable, canary = Arm(), Arm()
    for _ in range(MIN_VALUES - 1):
        stable.add(0.0)
        canary.add(1.0)
    assert radius(canary, 0.05) == float("inf")
    assert compare(stable, canary).verdict == "undecided"
