"""How small and how long the trainings of `tokenmill value` are: what a budget pays for.

The small model has the target's proportions, its batch and learning rate follow the rule of the
ladder (pipeline/studies/ladder_plan.py). Its length is what three seeds of all variants take of
half the budget: the other half is for seeds that turn out to be needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from components.train.config import TrainConfig
from pipeline.studies.ladder_plan import (
    DECAY_FRACTION,
    LEAST_ROWS,
    Target,
    rule_of_compute,
    small_shapes,
)
from pipeline.studies.paired_runs import CURVE
from pipeline.studies.proxy_runs import ProxyJob, ProxyRuns
from tokenmill.cost.flops import TRAINING_FLOPS_PER_PARAM, flops_per_token
from tokenmill.cost.paired_comparison import LEAST_SEEDS
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape
from tokenmill.number_format import count, duration

PROXY_PARAMS = 150_000
"""Parameters in matrix products of the small model, about; --params."""
# Of the branch at a quarter of the compared steps: before, losses are on no power law yet.
_LEAST_STEPS = 64
_BUDGET_SHARE = 0.5
# Where that is too short for any training: seeds beyond the third are then not to be expected.
_MOST_BUDGET_SHARE = 0.9
_TIMED_STEPS = 12
_SHORTEST_STEPS = 8
# What a held-out token takes beside one that is trained on.
_FORWARD_SHARE = 1 / 3


@dataclass(frozen=True)
class Plan:
    """The small trainings.

    Attributes:
        shape: Of the small model, with the base's vocabulary.
        train: The section [train] for it.
        steps: Steps at which variants are compared.
    """

    shape: ModelShape
    train: TrainConfig
    steps: int


def choose_shape(target: ModelShape, params: int) -> ModelShape:
    """Return a shape of the target's proportions with about so many parameters in products."""
    near = lambda shape: abs(math.log(shape.params_in_products / params))  # noqa: E731
    return min(small_shapes(target), key=near)


def plan_runs(
    target: Target,
    params: int,
    runs: ProxyRuns,
    held_out_tokens: int,
    variants: int,
    budget_seconds: float,
    most_tokens: float,
    seed: int,
    source_weights: dict[str, float],
    further_runs: float = 0.0,
) -> Plan:
    """Plan trainings whose first look costs half of a budget.

    Args:
        target: What the small trainings stand for.
        params: Of the small model, in products.
        runs: Of the base, by which the machine is timed.
        held_out_tokens: Tokens of the held-out texts.
        variants: Variants in all.
        budget_seconds: Wall time that is left.
        most_tokens: Most loss tokens of a variant's training: beyond, text would be repeated.
        seed: Of the training that is timed.
        source_weights: Of the base's rows.
        further_runs: Trainings beside those of the seeds, in lengths up to where variants are
            compared.

    Raises:
        TokenmillError: The budget or the text is too small.
    """
    shape = choose_shape(target.shape, params)
    train = _train_for(target, shape, most_tokens)
    job = ProxyJob(shape, train, (_TIMED_STEPS,), seed, source_weights)
    timed = runs.run(job)
    step_seconds = timed.step_seconds or timed.seconds / _TIMED_STEPS
    seconds_per_token = step_seconds / (train.global_batch_size * shape.sequence_length)
    compile_seconds = max(0.0, timed.seconds - _TIMED_STEPS * step_seconds)
    evaluating = held_out_tokens * seconds_per_token * _FORWARD_SHARE
    # Of a seed: the reference's trunk up to its last count, each variant's to where it is compared.
    passes = CURVE[-1] + DECAY_FRACTION * sum(CURVE[:-1])
    passes += (variants - 1) * (1 + DECAY_FRACTION * CURVE[0]) + further_runs / LEAST_SEEDS
    evaluations = len(CURVE) + 2 * (variants - 1) + 2 * further_runs / LEAST_SEEDS
    fixed = evaluations * evaluating + variants * compile_seconds / LEAST_SEEDS
    least, per_step = _LEAST_STEPS / CURVE[0], 1.0
    for share in (_BUDGET_SHARE, _MOST_BUDGET_SHARE):
        of_a_seed = budget_seconds * share / LEAST_SEEDS - fixed
        tokens = min(max(of_a_seed, 0.0) / (passes * seconds_per_token), most_tokens)
        found = _longest(target, params, tokens)
        per_step = found.train.global_batch_size * target.tokens_per_row
        if found.steps >= least:
            return found
        if tokens == most_tokens:
            raise TokenmillError(
                f"the text is too short: {count(most_tokens)} loss tokens, which a small training "
                f"reads once, are fewer than {count(least)} steps.",
                "Give more text, or set --steps, which repeats what there is.",
            )
    needed = (least * per_step * passes * seconds_per_token + fixed) * LEAST_SEEDS
    raise TokenmillError(
        f"{duration(budget_seconds)} are too little for {count(variants)} variants: three seeds of "
        f"{count(least)} steps need about {duration(needed / _MOST_BUDGET_SHARE)} here now.",
        "Give more (--max-minutes, --max-usd), compare fewer variants, or set --params or --steps.",
    )


def _longest(target: Target, params: int, tokens: float) -> Plan:
    """Return the plan of most steps that reads at most so many tokens, or the shortest one."""
    steps = tokens / (LEAST_ROWS * target.tokens_per_row)
    while True:
        plan = plan_steps(target, params, _round_steps(steps))
        read = plan.steps * plan.train.global_batch_size * target.tokens_per_row
        if read <= tokens or plan.steps <= _SHORTEST_STEPS:
            return plan
        steps *= 0.97


def plan_steps(target: Target, params: int, steps: int) -> Plan:
    """Plan trainings of a given number of steps.

    The batch follows from the tokens and these from the batch: a few rounds find both, from the
    least on, so that no more tokens are read than were paid for.
    """
    shape, steps = choose_shape(target.shape, params), max(_SHORTEST_STEPS, steps)
    train = _train_for(target, shape, 1.0)
    for _ in range(16):
        tokens = steps * train.global_batch_size * target.tokens_per_row
        train = _train_for(target, shape, tokens)
    return Plan(shape, train, steps)


def equal_compute_steps(steps: int, reference: ModelShape, other: ModelShape) -> int:
    """Return the steps that cost as many FLOPs with another tokenizer's vocabulary."""
    ratio = flops_per_token(reference).training / flops_per_token(other).training
    return max(2, round(steps * ratio))


def most_tokens(unique_tokens: Sequence[int]) -> float:
    """Return how long trainings may be without repeating text.

    Args:
        unique_tokens: Loss tokens of a pass, of each variant; the reference first, which is trained
            twice as long as what is compared.
    """
    reference, *others = unique_tokens
    return min([reference / CURVE[-1], *others])


def _train_for(target: Target, shape: ModelShape, tokens: float) -> TrainConfig:
    compute = TRAINING_FLOPS_PER_PARAM * shape.params_in_products * tokens
    return rule_of_compute(target.train, compute, target)


def _round_steps(steps: float) -> int:
    """Round down to two digits and a multiple of four, so that a like machine plans the same."""
    if steps < 4:
        return 0
    power = 10 ** max(0, math.floor(math.log10(steps)) - 1)
    return max(4, int(steps // power * power) // 4 * 4)
