"""Plans of ladders: what they spend, and the rules that batch sizes and rates follow."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.loader import load_config
from pipeline.studies.ladder import shortened
from pipeline.studies.ladder_plan import (
    DECAY_FRACTION,
    MOST_EPOCHS,
    Speed,
    Target,
    Timing,
    plan_ladder,
    rule_of_compute,
    small_shapes,
)
from tokenmill.cost.flops import flops_per_token
from tokenmill.errors import TokenmillError

SPEED = Speed(
    timings=(
        Timing(params=156_544, flops_per_second=3e10, start_seconds=12, evaluate_seconds=1),
        Timing(params=1_091_520, flops_per_second=6e10, start_seconds=18, evaluate_seconds=3),
    )
)


def target(preset="demo", tokens=1.05e6, unique=3_500_000, overrides=()):
    config = load_config(preset, None, overrides)
    return Target(
        shape=config.shape(),
        train=config.train,
        tokens=tokens,
        unique_tokens=unique,
        rows=unique // 255,
    )


@pytest.mark.parametrize("preset", ["demo", "gpt2-small"])
def test_small_shapes_keep_the_proportions(preset):
    whole = target(preset).shape
    shapes = small_shapes(whole)
    sizes = [shape.params_in_products for shape in shapes]
    assert sizes == sorted(set(sizes))
    assert shapes[-1] == whole
    for shape in shapes[1:]:
        assert shape.vocab_size == whole.vocab_size
        assert shape.sequence_length == whole.sequence_length
        assert shape.d_ff / shape.d_model == pytest.approx(whole.d_ff / whole.d_model, rel=0.1)
        assert shape.layers == max(2, round(whole.layers * shape.d_model / whole.d_model))
        assert shape.head_width <= 2 * whole.head_width


def test_grouped_heads_stay_whole():
    whole = target(overrides=("model.heads=8", "model.kv_heads=2", "model.positions=rope")).shape
    for shape in small_shapes(whole):
        assert shape.heads % shape.key_value_heads == 0


def test_rates_and_batches_follow_deepseeks_rule():
    aim = target()
    same = rule_of_compute(aim.train, aim.compute, aim)
    assert same.learning_rate == pytest.approx(aim.train.learning_rate)
    assert same.global_batch_size == aim.train.global_batch_size
    small = rule_of_compute(aim.train, aim.compute / 100, aim)
    assert small.learning_rate == pytest.approx(aim.train.learning_rate * 100**0.125, rel=0.01)
    assert small.global_batch_size == 2 * round(aim.train.global_batch_size * 100**-0.3271 / 2)
    assert small.schedule == "wsd"


@settings(max_examples=40, deadline=None)
@given(minutes=st.floats(10, 600), tokens=st.floats(3e5, 1e8), unique=st.integers(10**6, 10**8))
def test_a_plan_spends_its_budget_and_no_more(minutes, tokens, unique):
    aim = target(tokens=tokens, unique=unique)
    trunks = plan_ladder(aim, minutes * 60, SPEED)
    seconds = sum(map(SPEED.seconds, trunks))
    assert seconds <= minutes * 60
    main = [trunk for trunk in trunks if trunk.purpose == "ladder"]
    sizes = [trunk.shape.params_in_products for trunk in main]
    assert len(set(sizes)) >= 3
    assert sizes[-1] >= 3 * sizes[0]
    read = [trunk.steps[-1] * trunk.train.global_batch_size * aim.tokens_per_row for trunk in main]
    capped = max(read) >= 0.98 * MOST_EPOCHS * unique
    largest = sizes[-1] == aim.shape.params_in_products
    assert capped or largest or seconds > 0.6 * minutes * 60
    for trunk, tokens_read in zip(main, read, strict=True):
        assert len(trunk.steps) >= 3
        assert trunk.steps[0] >= 32
        for less, more in itertools.pairwise(trunk.steps):
            assert more == pytest.approx(2 * less, abs=2)
        assert tokens_read <= MOST_EPOCHS * unique * 1.05
    purposes = [trunk.purpose for trunk in trunks]
    for purpose in (
        "other seed",
        "larger batch",
        "half the learning rate",
        "twice the learning rate",
    ):
        assert purposes.count(purpose) == 1
    larger = trunks[purposes.index("larger batch")]
    rows = larger.train.global_batch_size
    assert 1.5 * main[0].train.global_batch_size <= rows <= 4 * main[0].train.global_batch_size + 2
    assert rows * larger.steps[0] == pytest.approx(
        main[0].train.global_batch_size * main[0].steps[-2], rel=0.1
    )


def test_a_trunks_forecast_is_of_what_it_computes():
    trunk = plan_ladder(target(), 600, SPEED)[0]
    rows = trunk.steps[-1] + sum(math.ceil(DECAY_FRACTION * n) for n in trunk.steps[:-1])
    assert trunk.rows_computed == rows * trunk.train.global_batch_size
    flops = trunk.rows_computed * 256 * flops_per_token(trunk.shape).training
    rate = SPEED.flops_per_second(trunk.shape.params_in_products)
    assert SPEED.seconds(trunk) > flops / rate


def test_where_time_runs_short_sizes_are_shortened_and_checks_left_out():
    trunks = plan_ladder(target(), 600, SPEED)
    main, checks = trunks[0], trunks[1:5]
    assert shortened(main, 1.2) == main
    half = shortened(main, 0.5)
    assert half.steps == tuple(count // 2 for count in main.steps)
    assert half.train == main.train
    assert shortened(main, 0.1) is None
    for check in checks:
        assert check.purpose != "ladder"
        assert shortened(check, 0.8) == check  # it is compared with the whole one
        assert shortened(check, 0.5) is None


@pytest.mark.parametrize(
    ("minutes", "aim", "words"),
    [
        (0.5, {}, "buy no ladder"),
        (60, {"unique": 3000}, "no ladder below"),
        (60, {"overrides": ("model.d_model=48", "model.heads=2")}, "no ladder below"),
    ],
)
def test_what_cannot_be_planned_is_said(minutes, aim, words):
    with pytest.raises(TokenmillError, match=words) as caught:
        plan_ladder(target(**aim), minutes * 60, SPEED)
    assert "larger budget" in caught.value.hint
