import dataclasses

import pytest

from pipeline.loader import load_config
from pipeline.studies.ladder_plan import Target
from pipeline.studies.proxy_runs import ProxyOutcome
from pipeline.studies.value_plan import (
    PROXY_PARAMS,
    choose_shape,
    equal_compute_steps,
    most_tokens,
    plan_runs,
    plan_steps,
)
from tokenmill.cost.flops import flops_per_token
from tokenmill.errors import TokenmillError


def target(unique_tokens=3_500_000):
    config = load_config("demo")
    rows = unique_tokens // 250
    return Target(shape=config.shape(), train=config.train, tokens=unique_tokens * 0.3,
                  unique_tokens=unique_tokens, rows=rows)  # fmt: skip


class TimedHere:
    """Stands for the timing alone: a machine of so many positions a second."""

    def __init__(self, positions_per_second):
        self.speed = positions_per_second

    def run(self, job):
        step = job.train.global_batch_size * job.shape.sequence_length / self.speed
        (steps,) = job.steps
        return ProxyOutcome([], 10.0 + steps * step, step, None, True)


def plan(seconds, variants=2, speed=40_000, held_out_tokens=100_000, most=1.7e6, **more):
    return plan_runs(target(), PROXY_PARAMS, TimedHere(speed), held_out_tokens, variants, seconds,
                     most, 0, {"a": 1.0}, **more)  # fmt: skip


def tokens_of(made):
    return made.steps * made.train.global_batch_size * target().tokens_per_row


def test_the_small_model_has_the_targets_proportions_and_about_the_size():
    shape = choose_shape(target().shape, PROXY_PARAMS)
    assert 0.5 * PROXY_PARAMS < shape.params_in_products < 2 * PROXY_PARAMS
    assert shape.vocab_size == target().shape.vocab_size


def test_more_time_plans_longer_trainings_and_more_variants_shorter_ones():
    assert tokens_of(plan(900)) > 1.5 * tokens_of(plan(500))
    assert tokens_of(plan(900, variants=8)) < 0.7 * tokens_of(plan(900))
    assert tokens_of(plan(300, speed=80_000)) > 1.5 * tokens_of(plan(300))
    assert tokens_of(plan(900, further_runs=16)) < tokens_of(plan(900))


def test_three_seeds_take_about_half_of_the_budget():
    made = plan(900, held_out_tokens=0)
    of_a_seed = tokens_of(made) * (2 + 0.2 * 1.75 + 1 + 0.2 * 0.25) / 40_000
    assert 300 < 3 * of_a_seed + 2 * 10 < 500


def test_no_text_is_repeated():
    assert tokens_of(plan(1e6, most=500_000)) <= 500_000
    assert most_tokens([1_000_000, 800_000]) == 500_000
    assert most_tokens([1_000_000, 300_000]) == 300_000


def test_the_same_steps_give_the_same_plan():
    made = plan(900)
    assert plan_steps(target(), PROXY_PARAMS, made.steps) == made
    assert made.steps % 4 == 0


def test_too_little_time_or_text_is_told_with_what_would_do():
    with pytest.raises(TokenmillError, match="are too little for 9 variants: three seeds") as error:
        plan(60, variants=9)
    assert "--max-minutes" in error.value.hint
    with pytest.raises(TokenmillError, match="the text is too short: 20,000 loss tokens") as error:
        plan(900, most=20_000)
    assert "more text" in error.value.hint


def test_equal_money_is_equal_compute():
    shape = target().shape
    other = dataclasses.replace(shape, vocab_size=4 * shape.vocab_size)
    steps = equal_compute_steps(400, shape, other)
    assert steps < 400
    assert steps * flops_per_token(other).training == pytest.approx(
        400 * flops_per_token(shape).training, rel=0.01
    )
    assert equal_compute_steps(400, shape, shape) == 400
