import math

import numpy as np
import pytest

from tokenmill.cost.paired_comparison import PairedDifference, paired_difference
from tokenmill.cost.token_multiplier import (
    NoCurveError,
    fit_loss_curve,
    fit_reference,
    token_multiplier,
)

COUNTS = (250_000.0, 500_000.0, 1e6, 2e6)
COMPARED = 1e6


def loss(tokens, e=1.2, b=60.0, beta=0.3):
    return e + b / tokens**beta


def exactly(mean):
    return PairedDifference(mean, mean, mean, 3, 10, 0.0, 0.0)


def make_reference(seeds=1, documents=40, noise=0.0, random=None):
    """Losses of a curve by seed, count and document, and the documents' bytes."""
    random = random or np.random.default_rng(0)
    size = random.lognormal(7, 1, documents).astype(np.int64) + 50
    level = random.normal(0, 0.3, documents)
    level -= (level @ size) / size.sum()
    bits = np.array([loss(d) for d in COUNTS])[None, :, None] + level
    bits = bits + random.normal(0, noise, (seeds, len(COUNTS), 1))
    return bits * size * math.log(2), size


@pytest.mark.parametrize("beta", [0.1, 0.3, 0.9])
def test_the_curve_of_exact_points_is_found(beta):
    b = 0.8 * COUNTS[0] ** beta
    curve = fit_loss_curve(COUNTS, [loss(d, 1.2, b, beta) for d in COUNTS])
    for tokens in (3e5, 8e5, 1.9e6):
        assert curve.loss(tokens) == pytest.approx(loss(tokens, 1.2, b, beta), abs=2e-4)
        assert curve.tokens_for(curve.loss(tokens)) == pytest.approx(tokens)


def test_a_curve_has_no_loss_below_zero():
    curve = fit_loss_curve(COUNTS, [3.0, 2.0, 1.0, 0.01])
    assert curve.e >= 0
    assert curve.tokens_for(curve.e) == math.inf


@pytest.mark.parametrize("ratio", [0.4, 0.8, 1.0, 1.3, 1.9])
def test_the_multiplier_is_the_ratio_of_tokens_for_equal_loss(ratio):
    reference = fit_reference(COUNTS, *make_reference())
    found = token_multiplier(
        reference, exactly(loss(ratio * COMPARED) - loss(COMPARED)), COMPARED, COMPARED
    )
    assert found.value == pytest.approx(ratio, rel=0.02)
    assert found.low <= found.value <= found.high


def test_a_variant_that_read_fewer_tokens_for_the_same_loss_is_worth_more():
    reference = fit_reference(COUNTS, *make_reference())
    found = token_multiplier(reference, exactly(0.0), COMPARED, COMPARED / 1.25)
    assert found.value == pytest.approx(1.25)


def test_beyond_what_the_reference_read_there_is_a_bound_and_no_number():
    reference = fit_reference(COUNTS, *make_reference())
    better = token_multiplier(reference, exactly(loss(2.6e6) - loss(1e6)), COMPARED, COMPARED)
    assert (better.value, better.low, better.high, better.most) == (None, 2.0, None, 2.0)
    worse = token_multiplier(reference, exactly(loss(1e5) - loss(1e6)), COMPARED, COMPARED)
    assert (worse.value, worse.low, worse.high, worse.least) == (None, None, 0.25, 0.25)
    # An end of the interval may be outside although the value is not.
    mean = loss(1.8e6) - loss(1e6)
    wide = PairedDifference(mean, mean - 0.1, mean + 0.02, 3, 10, 0.0, 0.0)
    found = token_multiplier(reference, wide, COMPARED, COMPARED)
    assert found.value == pytest.approx(1.8, rel=0.03)
    assert found.low < found.value
    assert found.high is None


def test_the_interval_covers():
    truth, covered, studies = 1.3, 0, 120
    for seed in range(studies):
        random = np.random.default_rng(seed)
        losses, size = make_reference(3, noise=0.004, random=random)
        effect = loss(truth * COMPARED) - loss(COMPARED) + random.normal(0, 0.01, len(size))
        noise = random.normal(0, 0.004, (3, 1))
        at = losses[:, COUNTS.index(COMPARED)]
        variant = at + (effect + noise) * size * math.log(2)
        difference = paired_difference(list(at), list(variant), size)
        reference = fit_reference(COUNTS, losses, size)
        found = token_multiplier(reference, difference, COMPARED, COMPARED)
        low, high = found.low or found.least, found.high or found.most
        covered += low <= truth <= high
    assert covered / studies > 0.93


def test_the_same_numbers_give_the_same_interval():
    losses, size = make_reference(3, noise=0.01)
    assert fit_reference(COUNTS, losses, size) == fit_reference(COUNTS, losses, size)


def test_points_that_lie_on_no_curve_give_no_number():
    losses, size = make_reference()
    with pytest.raises(NoCurveError, match="after 2 numbers of tokens"):
        fit_reference(COUNTS[:2], losses[:, :2], size)
    with pytest.raises(NoCurveError, match="does not fall"):
        fit_reference(COUNTS, losses[:, ::-1], size)
    bent = losses.copy()
    bent[:, 1] = losses[:, 0] * 0.999
    with pytest.raises(NoCurveError, match="a curve through all its points has"):
        fit_reference(COUNTS, bent, size)
