import numpy as np
import pytest

from tokenmill.cost.mixture_regression import (
    best_mixture,
    fit_mixture_law,
    random_mixtures,
    shares_of,
)

NATURAL = shares_of([60, 30, 10])
SET_BYTES = np.array([6e4, 3e4, 1e4])
# Each held-out set falls with its own source's share most; the third source helps nobody else.
EXPONENTS = np.array([[-1.2, 0.1, 0.2], [-0.1, -1.5, 0.3], [-0.1, -0.1, -0.6]])


def losses(weights, noise=0.0, seed=0):
    exact = 1.5 + 1.2 * np.exp(weights @ EXPONENTS.T)
    return exact + np.random.default_rng(seed).normal(0, noise, exact.shape)


def mean_loss(weights):
    return losses(weights) @ shares_of(SET_BYTES)


def least_by_grid():
    grid = [
        (a, b, 1 - a - b)
        for a in np.linspace(0, 1, 101)
        for b in np.linspace(0, 1, 101)
        if a + b <= 1
    ]
    return min(grid, key=lambda w: mean_loss(np.array(w)))


def test_random_mixtures_are_shares_and_spread():
    drawn = random_mixtures(NATURAL, 40, seed=3)
    assert drawn.shape == (40, 3)
    assert drawn.sum(axis=1) == pytest.approx(1)
    assert drawn[0] == pytest.approx(NATURAL)
    assert (drawn > 0).all()
    assert (drawn.max(axis=0) > 0.4).all()
    assert (random_mixtures(NATURAL, 40, seed=3) == drawn).all()
    assert not (random_mixtures(NATURAL, 40, seed=4)[1:] == drawn[1:]).all()


def test_the_law_predicts_mixtures_that_it_has_not_seen():
    seen = random_mixtures(NATURAL, 24, seed=1)
    law = fit_mixture_law(seen, losses(seen), SET_BYTES)
    unseen = random_mixtures(NATURAL, 50, seed=2)[1:]
    assert law.loss(unseen) == pytest.approx(mean_loss(unseen), abs=0.02)
    assert law.cross_validated_error < 0.1 * law.mean_error


def test_the_best_mixture_is_near_the_true_one():
    seen = random_mixtures(NATURAL, 32, seed=1)
    law = fit_mixture_law(seen, losses(seen, noise=0.004), SET_BYTES)
    found = best_mixture(law, NATURAL, np.ones(3), 7)
    assert found.sum() == pytest.approx(1)
    best = mean_loss(np.array(least_by_grid()))
    gain = mean_loss(NATURAL) - best
    assert gain > 0.004
    assert mean_loss(found) < best + gain / 3


def test_a_source_is_read_no_more_than_its_text_allows():
    seen = random_mixtures(NATURAL, 32, seed=1)
    law = fit_mixture_law(seen, losses(seen), SET_BYTES)
    free = best_mixture(law, NATURAL, np.ones(3), 7)
    top = free.argmax()
    most = np.ones(3)
    most[top] = (free[top] + NATURAL[top]) / 2
    held = best_mixture(law, NATURAL, most, 7)
    assert held[top] <= most[top] + 1e-6
    assert law.loss(held) >= law.loss(free) - 1e-9
    assert best_mixture(law, NATURAL, NATURAL, 7) == pytest.approx(NATURAL)


def test_noise_alone_is_told_by_cross_validation():
    seen = random_mixtures(NATURAL, 24, seed=1)
    noise = np.random.default_rng(0).normal(2, 0.02, (24, 3))
    law = fit_mixture_law(seen, noise, SET_BYTES)
    assert law.cross_validated_error > 0.8 * law.mean_error


def test_too_few_runs():
    seen = random_mixtures(NATURAL, 4, seed=1)
    with pytest.raises(ValueError, match="at least 5"):
        fit_mixture_law(seen, losses(seen), SET_BYTES)
