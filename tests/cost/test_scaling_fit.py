"""Fits of made ladders whose constants are known: what is found, and how honest intervals are."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmill.cost.scaling import LossFit, expected_loss
from tokenmill.cost.scaling_checks import LEAST_LEARNED, checked_fit, why_no_fit, why_too_far
from tokenmill.cost.scaling_fit import (
    BatchSizes,
    ScalingPoint,
    fit_scaling,
    worth_of_tokens,
)
from tokenmill.cost.scaling_purchases import (
    Compute,
    Text,
    best_plan,
    purchases,
    worthwhile_text_price,
)

SIZES = (0.3e6, 0.6e6, 1.2e6, 2e6)
TARGET = (4.2e6, 4e6)  # parameters and tokens of a run at 8 times the largest point's compute


def constants(e=0.7, a=0.5, b=0.7, alpha=0.34, beta=0.33, gamma=1.0):
    """The law whose terms are a and b at a million parameters and half a million tokens."""
    return LossFit(
        e=e,
        a=a * 1e6**alpha,
        b=b * 5e5**beta,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        source="made",
    )


def loss_of(law, params, tokens):
    return expected_loss(params, tokens, law)


def ladder(law, random=None, trunk_noise=0.0, point_noise=0.0, sizes=SIZES, counts=4, **batches):
    """Each size on half, a quarter, .. of its tokens, which are fewer for larger ones.

    With `target` and `critical` sizes have batches of their own, and the law is of the target's.
    """
    points = []
    for params in sizes:
        shift = random.normal() * trunk_noise if random else 0.0
        for halving in range(counts):
            tokens = 1e6 * math.sqrt(2e6 / params) / 2**halving
            noise = shift + (random.normal() * point_noise if random else 0.0)
            batch, worth = 0.0, 1.0
            if batches:
                batch = batches["target"] * math.sqrt(params / 20e6)
                worth = worth_of_tokens(batch, batches["target"], batches["critical"])
            loss = loss_of(law, params, tokens * worth) * math.exp(noise)
            points.append(
                ScalingPoint(
                    params=params, tokens=tokens, loss=loss, trunk=f"{params:g}", batch_tokens=batch
                )
            )
    return points


laws = st.builds(
    constants,
    e=st.floats(0.3, 1.2),
    a=st.floats(0.2, 1.0),
    b=st.floats(0.3, 1.2),
    alpha=st.floats(0.2, 0.6),
    beta=st.floats(0.2, 0.6),
    gamma=st.floats(0.2, 1.0),
)


@settings(max_examples=25, deadline=None)
@given(law=laws)
def test_points_without_noise_are_found_again(law):
    points = ladder(law)
    fit = fit_scaling(points, replicates=30)
    assert max(map(abs, fit.residuals)) < 0.004
    predicted = fit.predict(*TARGET)
    truth = loss_of(law, *TARGET)
    assert predicted.value == pytest.approx(truth, rel=0.03)
    assert predicted.low < truth < predicted.high
    assert predicted.low < predicted.value < predicted.high


@settings(max_examples=10, deadline=None)
@given(law=laws, times=st.floats(0.01, 100))
def test_the_unit_of_size_does_not_matter(law, times):
    points = ladder(law, np.random.default_rng(1), 0.005, 0.002)
    fit = fit_scaling(points, replicates=1)
    other = fit_scaling([replace(p, params=p.params * times) for p in points], replicates=1)
    ours = fit.predict(*TARGET).value
    assert other.predict(TARGET[0] * times, TARGET[1]).value == pytest.approx(ours, rel=2e-3)


def test_the_same_points_give_the_same_fit():
    points = ladder(constants(), np.random.default_rng(2), 0.005, 0.002)
    assert fit_scaling(points, replicates=20) == fit_scaling(points, replicates=20)
    assert fit_scaling(points, replicates=20, seed=1) != fit_scaling(points, replicates=20)


def test_intervals_cover_new_runs_as_often_as_they_say():
    """48 ladders of drawn laws, each with the noise of real ones; a new run has its own, too."""
    random = np.random.default_rng(3)
    within, errors, widths = 0, [], []
    for _ in range(48):
        law = constants(
            e=random.uniform(0.4, 1.1),
            a=random.uniform(0.3, 0.8),
            b=random.uniform(0.4, 1.0),
            alpha=random.uniform(0.2, 0.5),
            beta=random.uniform(0.2, 0.5),
            gamma=random.uniform(0.3, 1.0),
        )
        fit = fit_scaling(ladder(law, random, 0.006, 0.003), replicates=60)
        predicted = fit.predict(*TARGET)
        truth = loss_of(law, *TARGET) * math.exp(random.normal() * 0.0067)
        within += predicted.low <= truth <= predicted.high
        errors.append(math.log(truth / predicted.value))
        widths.append(math.log(predicted.high / predicted.low) / 2)
    assert within >= 42  # of 48 at 90 %: fewer than 40 have a chance of 5 % if they are honest
    assert np.std(errors) < 0.02
    # Honest, and not useless: made ladders have the form that real ones miss by some percent.
    assert np.mean(widths) < 0.12


@given(batch=st.floats(1, 1e6), target=st.floats(1, 1e6), critical=st.floats(100, 1e6))
def test_a_token_of_a_smaller_batch_is_worth_more(batch, target, critical):
    worth = worth_of_tokens(batch, target, critical)
    assert (worth - 1) * (target - batch) >= 0
    assert worth * worth_of_tokens(target, batch, critical) == pytest.approx(1)
    assert worth_of_tokens(target, target, critical) == 1


def test_batches_of_other_sizes_do_not_bias_a_prediction():
    """The small trainings have batches of a third of the target's and less."""
    target, critical = 4000.0, 2500.0
    known, unknown, within, told = [], [], 0, 0
    for seed in range(12):
        random = np.random.default_rng(seed)
        points = ladder(constants(), random, 0.005, 0.002, target=target, critical=critical)
        # One more at the first size with a larger batch, as a ladder has it.
        tokens, batch = points[0].tokens, 3 * points[0].batch_tokens
        worth = worth_of_tokens(batch, target, critical)
        loss = loss_of(constants(), SIZES[0], tokens * worth) * math.exp(random.normal() * 0.005)
        points.append(
            ScalingPoint(
                params=SIZES[0], tokens=tokens, loss=loss, trunk="larger", batch_tokens=batch
            )
        )
        guess = BatchSizes(target=target, critical=critical * math.exp(random.normal() * 0.6))
        fit = fit_scaling(points, replicates=40, batches=guess)
        predicted, truth = fit.predict(*TARGET), loss_of(constants(), *TARGET)
        within += predicted.low <= truth <= predicted.high
        known.append(math.log(predicted.value / truth))
        unknown.append(math.log(fit_scaling(points, replicates=1).predict(*TARGET).value / truth))
        told += fit.critical_batch.low < critical < fit.critical_batch.high
    assert within >= 10
    assert told >= 9
    assert abs(np.mean(known)) < 0.012
    assert np.mean(unknown) < np.mean(known) - 0.01  # what leaving the batches out would cost


def test_noise_is_told_by_the_points():
    quiet, loud = (
        np.median(
            [
                fit_scaling(
                    ladder(constants(), np.random.default_rng(seed), noise, noise / 2),
                    replicates=1,
                ).noise
                for seed in range(8)
            ]
        )
        for noise in (0.002, 0.03)
    )
    assert quiet < 0.007
    assert loud > 0.015


def test_one_bad_point_hardly_moves_the_fit():
    points = ladder(constants(), np.random.default_rng(4), 0.003, 0.001)
    bad = [*points]
    bad[5] = replace(bad[5], loss=bad[5].loss * 1.15)
    honest, moved = (
        fit_scaling(each, replicates=1).predict(*TARGET).value for each in (points, bad)
    )
    assert moved == pytest.approx(honest, rel=0.02)


def test_farther_is_less_certain():
    fit = fit_scaling(ladder(constants(), np.random.default_rng(5), 0.005, 0.002), replicates=60)
    widths = []
    for times in (1, 4, 16, 64):
        predicted = fit.predict(2e6 * math.sqrt(times), 1e6 * math.sqrt(times))
        widths.append(math.log(predicted.high / predicted.low))
    assert widths == sorted(widths)
    assert not why_too_far(fit, *TARGET)
    assert "times the compute" in why_too_far(fit, 1e9, 1e9)


def test_what_a_backtest_missed_widens_the_interval():
    points = ladder(constants(), np.random.default_rng(6), 0.003, 0.001)
    narrow, wide = (
        fit_scaling(points, replicates=40, missed=missed).predict(*TARGET)
        for missed in ([(0.001, 0.005, 1.0)] * 2, [(0.04, 0.005, 1.0)] * 2)
    )
    assert math.log(wide.high / wide.low) > 1.5 * math.log(narrow.high / narrow.low)


def check(points, unigram=6.0):
    return checked_fit(points, unigram_loss=unigram)


def test_a_good_ladder_has_a_fit_and_backtests():
    found = check(ladder(constants(), np.random.default_rng(7), 0.004, 0.002))
    assert found.fit is not None
    assert not found.problems
    assert found.backtests
    assert all(abs(test.missed) < 0.03 for test in found.backtests)
    for test in found.backtests:
        assert test.largest_compute < test.point.compute


@pytest.mark.parametrize(
    ("sizes", "counts", "words"),
    [
        (SIZES[:1], 4, "sizes of model"),
        (SIZES, 1, "counts of tokens"),
        (SIZES[:3], 2, "points are too few"),
        ((1e6, 1.1e6, 1.2e6), 4, "parameters is a factor of 1.2"),
    ],
)
def test_too_few_points_get_words_and_no_number(sizes, counts, words):
    points = ladder(constants(), sizes=sizes, counts=counts)
    assert any(words in each for each in why_no_fit(points))
    assert check(points).fit is None


def test_points_that_learned_nothing_are_left_out():
    points = ladder(constants())
    losses = sorted(point.loss for point in points)
    found = check(points, unigram=(losses[-2] + losses[-3]) / 2 / (1 - LEAST_LEARNED))
    assert len(found.left_out) == 2
    assert len(found.used) == len(points) - 2
    assert any("unigram" in each for each in found.cautions)
    nothing = check(points, unigram=0.1)
    assert nothing.fit is None
    assert nothing.problems


def test_a_loss_that_rises_is_no_fit():
    points = ladder(constants())
    points[0] = replace(points[0], loss=points[1].loss * 1.04)
    found = check(points)
    assert found.fit is None
    assert any("learning rate" in each for each in found.problems)


def test_noise_is_no_fit():
    random = np.random.default_rng(8)
    found = check([replace(p, loss=random.uniform(1.5, 3)) for p in ladder(constants())])
    assert found.fit is None
    assert found.problems


TEXT = Text(unique_tokens=3e6, bytes_per_token=3.3, usd_per_byte=1e-10)
COMPUTE = Compute(usd_per_flop=5e-16, overhead=1.1)


@pytest.fixture(scope="module")
def fit():
    return fit_scaling(ladder(constants(), np.random.default_rng(9), 0.004, 0.002), replicates=60)


@pytest.mark.parametrize("times", [1, 10, 100])
@pytest.mark.parametrize("away", [0.5, 0.8, 1.25, 2])
def test_no_other_size_is_better_for_the_money(fit, times, away):
    usd = COMPUTE.usd(2e6, 1e6) * times
    best = best_plan(fit, usd, COMPUTE, TEXT)
    assert COMPUTE.usd(best.params, best.tokens) == pytest.approx(usd)
    assert best.params_low <= best.params <= best.params_high
    assert best.epochs == pytest.approx(best.tokens / TEXT.unique_tokens)
    tokens = COMPUTE.tokens(best.params * away, usd)
    if tokens > 40 * TEXT.unique_tokens:
        return
    worth = min(tokens, TEXT.unique_tokens)
    if tokens > TEXT.unique_tokens:
        again = tokens / TEXT.unique_tokens - 1
        worth += TEXT.unique_tokens * 15.4 * -math.expm1(-again / 15.4)
    assert loss_of(fit.best, best.params * away, worth) >= best.loss.value - 1e-9


def test_without_enough_text_a_best_plan_repeats_it(fit):
    usd = COMPUTE.usd(2e6, 1e6) * 1000
    plenty = replace(TEXT, unique_tokens=1e12)
    assert best_plan(fit, usd, COMPUTE, plenty).epochs < 1
    scarce = best_plan(fit, usd, COMPUTE, TEXT)
    assert scarce.epochs > 1
    assert scarce.loss.value > best_plan(fit, usd, COMPUTE, plenty).loss.value


def test_purchases(fit):
    params, tokens = 4e6, 2 * TEXT.unique_tokens
    found = purchases(fit, params, tokens, COMPUTE, TEXT)
    assert sorted(each.name for each in found) == ["larger model", "more epochs", "more text"]
    assert sum(each.wins for each in found) == pytest.approx(1)
    rates = [each.gain_per_usd for each in found]
    assert rates == sorted(rates, reverse=True)
    by_name = {each.name: each for each in found}
    # Twice the text costs more than twice the epochs by its preparation, and is worth more.
    prepared = TEXT.unique_tokens * TEXT.bytes_per_token * TEXT.usd_per_byte
    assert by_name["more text"].usd == pytest.approx(by_name["more epochs"].usd + prepared)
    assert by_name["more text"].gain.value > by_name["more epochs"].gain.value > 0
    for each in found:
        assert each.gain.low <= each.gain.value <= each.gain.high


def test_the_price_at_which_text_stops_to_pay(fit):
    params, tokens = 40e6, 4 * TEXT.unique_tokens  # a large model that is short of text
    found = purchases(fit, params, tokens, COMPUTE, TEXT)
    price = worthwhile_text_price(found, TEXT)
    assert price is not None
    dearer = replace(TEXT, usd_per_byte=TEXT.usd_per_byte + price * 1.01)
    cheaper = replace(TEXT, usd_per_byte=TEXT.usd_per_byte + price * 0.99)
    best = [purchases(fit, params, tokens, COMPUTE, text)[0].name for text in (dearer, cheaper)]
    assert best[0] != "more text"
    assert best[1] == "more text"
    small = purchases(fit, 1e5, TEXT.unique_tokens, COMPUTE, TEXT)
    assert worthwhile_text_price(small, TEXT) is None
