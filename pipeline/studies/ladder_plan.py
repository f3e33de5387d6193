"""What a ladder trains: sizes, counts of tokens, batch sizes and learning rates for a budget.

Sizes are a factor of about two apart and have the target's proportions. Each is one trunk with a
decayed model at an eighth, a quarter, a half and all of its tokens; a model of half the size reads
sqrt(2) times as many, so that the points spread over both, and the largest cost most. The smallest
size is trained again with another seed, with a larger batch, and at half and twice its learning
rate.

Batch size and learning rate follow compute C = 6 N D as DeepSeek LLM found (Bi et al. 2024, arXiv
2401.02954, sec. 3.1): B ~ C^0.3271, eta ~ C^-0.1250. The user's own values hold at the target's
compute, so that a rule, not chance, sets those of the small ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from components.train.config import TrainConfig
from pipeline.config import Config
from pipeline.studies.corpus import StudyCorpus
from tokenmill.contracts.ladder import TrunkPurpose
from tokenmill.cost.flops import TRAINING_FLOPS_PER_PARAM, flops_per_token
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape
from tokenmill.number_format import duration
from tokenmill.rows.mixture import plan_steps

BATCH_EXPONENT, RATE_EXPONENT = 0.3271, -0.1250
DECAY_FRACTION = 0.2
"""Of a trunk's points; as good as a cosine from 10 to 20 % on (Hägele et al. 2024)."""
MOST_EPOCHS = 4.0
"""Passes over the text in a small training; beyond, repeated tokens are worth much less."""

_SIZES, _SIZE_RATIO, _LEAST_SPAN = 4, 2.0, 3.5
_COUNTS = 4  # each half of the next
_TOKENS_EXPONENT = 0.5  # tokens of a trunk fall with its size to this power
_LEAST_STEPS = 32  # of the shortest branch
_LEAST_COUNTS = 3
LEAST_ROWS = 2
"""Of a batch at least."""
# Times its trunk's, the batch of the training that tells what a larger one costs: the target's
# between these.
_LEAST_LARGER_BATCH, _MOST_LARGER_BATCH = 2.0, 4.0
_LEAST_WIDTH, _WIDTHS = 32, 64
# Tokens a parameter of the largest trunk: the target's, within these.
_FEWEST_TOKENS, _MOST_TOKENS = 0.5, 20.0
# Times the target's tokens a parameter that a largest trunk reads at least; the second where the
# budget does not reach for the first.
_TOKEN_SHARES, _MOST_SHARE = (0.5, 0.01), 64.0
_BUDGET_SHARE = 0.95  # the rest is for what the forecast of seconds misses
_HEAD_STEP = 2  # rope turns pairs of features


@dataclass(frozen=True, kw_only=True)
class Target:
    """The training that the configuration asks for.

    Attributes:
        shape: Its model.
        train: Its section [train].
        tokens: Loss tokens that it reads.
        unique_tokens: Loss tokens of one pass.
        rows: Rows of one pass.
    """

    shape: ModelShape
    train: TrainConfig
    tokens: float
    unique_tokens: int
    rows: int

    @property
    def compute(self) -> float:
        """FLOPs by 6 N D."""
        return TRAINING_FLOPS_PER_PARAM * self.shape.params_in_products * self.tokens

    @property
    def tokens_per_row(self) -> float:
        """Loss tokens a row."""
        return self.unique_tokens / self.rows


def target_of(config: Config, corpus: StudyCorpus) -> Target:
    """Return the training that a configuration asks for, on the rows of a corpus."""
    manifest, train = corpus.train, config.train
    plan = plan_steps(manifest.rows, train.global_batch_size, train.epochs, train.max_steps)
    return Target(
        shape=replace(config.shape(), vocab_size=manifest.vocab_size),
        train=train,
        tokens=manifest.loss_tokens * plan.epochs,
        unique_tokens=manifest.loss_tokens,
        rows=manifest.rows,
    )


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """A small training to be done.

    Attributes:
        name: Names it: size and seed.
        purpose: What it is for.
        shape: Its model.
        train: Its section [train].
        steps: Counts of steps of its decayed models, ascending.
        seed: Offset to the run's seed.
    """

    name: str
    purpose: TrunkPurpose
    shape: ModelShape
    train: TrainConfig
    steps: tuple[int, ...]
    seed: int = 0

    @property
    def rows_computed(self) -> int:
        """Rows of the trunk and of all branches."""
        decays = sum(math.ceil(DECAY_FRACTION * count) for count in self.steps[:-1])
        return (self.steps[-1] + decays) * self.train.global_batch_size


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of a size that was timed here.

    Attributes:
        params: N.
        flops_per_second: Of its steps.
        start_seconds: To build and compile training and evaluation.
        evaluate_seconds: Of one evaluation on the held-out text.
    """

    params: int
    flops_per_second: float
    start_seconds: float
    evaluate_seconds: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How long small trainings take on this machine, between and beyond the sizes that were timed.

    Attributes:
        timings: By ascending size; at least one.
    """

    timings: tuple[Timing, ...]

    def flops_per_second(self, params: float) -> float:
        """Return the speed of a size: on a line in logarithms, level beyond the ends."""
        first, last = self.timings[0], self.timings[-1]
        if params <= first.params or len(self.timings) == 1:
            return first.flops_per_second
        if params >= last.params:
            return last.flops_per_second
        low, high = next(
            pair for pair in itertools.pairwise(self.timings) if params <= pair[1].params
        )
        share = math.log(params / low.params) / math.log(high.params / low.params)
        return low.flops_per_second ** (1 - share) * high.flops_per_second**share

    def seconds(self, trunk: Trunk) -> float:
        """Forecast a trunk with its branches and evaluations."""
        params = trunk.shape.params_in_products
        slots = trunk.rows_computed * trunk.shape.sequence_length
        steps = slots * flops_per_token(trunk.shape).training / self.flops_per_second(params)
        near = min(self.timings, key=lambda timing: abs(math.log(timing.params / params)))
        evaluating = len(trunk.steps) * near.evaluate_seconds * params / near.params
        # Trainings of one size and batch are compiled once.
        compiles = trunk.purpose in ("ladder", "larger batch")
        starting = near.start_seconds if compiles else 0.0
        return starting + steps + evaluating


def small_shapes(target: ModelShape) -> list[ModelShape]:
    """Return shapes of the target's proportions up to the target itself, the smallest first.

    Layers and widths shrink together; two layers stay, as one cannot copy from the context.
    """
    step = max(16, -(-target.d_model // _WIDTHS // 16) * 16)
    widths = [*range(_LEAST_WIDTH, target.d_model, step), target.d_model]
    return [_at_width(target, width) for width in widths]


def rule_of_compute(train: TrainConfig, compute: float, target: Target) -> TrainConfig:
    """Return the section [train] of a training of other compute than the target's.

    Args:
        train: The target's.
        compute: FLOPs by 6 N D of the small one.
        target: Where the user's own values hold.
    """
    ratio = compute / target.compute
    rows = train.global_batch_size * ratio**BATCH_EXPONENT
    even = max(LEAST_ROWS, 2 * round(rows / 2))  # two halves tell of the gradient's noise
    return train.model_copy(
        update={
            "schedule": "wsd",
            "decay_fraction": DECAY_FRACTION,
            "global_batch_size": even,
            "accumulation_steps": 1,
            "learning_rate": float(f"{train.learning_rate * ratio**RATE_EXPONENT:.3g}"),
        }
    )


def plan_ladder(target: Target, budget_seconds: float, speed: Speed) -> list[Trunk]:
    """Plan the trunks that a budget of time pays for, in the order in which they are trained.

    Args:
        target: What is to be predicted; no small training is larger.
        budget_seconds: Wall time.
        speed: Of this machine.

    Raises:
        TokenmillError: The budget, the text or the target is too small for a ladder.
    """
    budget = budget_seconds * _BUDGET_SHARE
    shapes = small_shapes(target.shape)
    ladders = [sizes for i in range(len(shapes)) if (sizes := _spread(shapes[: i + 1]))]
    ratio = target.tokens / target.shape.params_in_products
    ratio = min(max(ratio, _FEWEST_TOKENS), _MOST_TOKENS)
    for least_share in _TOKEN_SHARES:
        found: list[Trunk] = []
        for sizes in ladders:
            share = _largest_share(target, sizes, ratio, least_share, budget, speed)
            if share is None:
                continue
            found = _trunks(target, sizes, ratio * share)
            if share <= 1.0:  # a larger one would read too little
                break
        if found:
            return found
    made = [_trunks(target, sizes, ratio * 2.0**k) for sizes in ladders for k in range(-8, 7)]
    cheapest = min((sum(map(speed.seconds, each)) for each in made if each), default=math.inf)
    raise TokenmillError(_why_none(target, budget_seconds, cheapest), _WHAT_TO_DO)


def _largest_share(
    target: Target,
    sizes: Sequence[ModelShape],
    ratio: float,
    least: float,
    budget: float,
    speed: Speed,
) -> float | None:
    """Return how many times `ratio` tokens a parameter a budget pays for.

    Args:
        target: What is to be predicted.
        sizes: Of the ladder.
        ratio: Tokens a parameter of the target.
        least: Less than this is not looked for.
        budget: Seconds.
        speed: Of this machine.

    Returns:
        The multiple; None where even the least is not paid for, or the least that has steps enough.
    """

    def seconds(share: float) -> float:
        trunks = _trunks(target, sizes, ratio * share)
        return sum(map(speed.seconds, trunks)) if trunks else math.inf

    low = least
    while not _trunks(target, sizes, ratio * low):
        low *= 1.4
        if low > _MOST_SHARE:
            return None
    if seconds(low) > budget:
        return None
    high = max(low, _MOST_SHARE)
    for _ in range(30):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if seconds(middle) <= budget else (low, middle)
    return low


_WHAT_TO_DO = "Give a larger budget (--max-minutes, --max-usd), more text or a larger target."


def _why_none(target: Target, budget_seconds: float, cheapest: float) -> str:
    if math.isfinite(cheapest):
        return (
            f"{duration(budget_seconds)} buy no ladder: the smallest one takes about "
            f"{duration(cheapest / _BUDGET_SHARE)} on this machine."
        )
    return (
        f"no ladder below {target.shape.params_in_products:,} parameters and "
        f"{target.unique_tokens:,} tokens of text: {_SIZES - 1} sizes over a factor of "
        f"{_LEAST_SPAN:g}, of {_LEAST_STEPS} steps at least, are needed."
    )


def _spread(shapes: Sequence[ModelShape]) -> list[ModelShape]:
    """Return sizes about a factor of two apart up to the last; none where they span too little."""
    most = shapes[-1].params_in_products
    lowest = shapes[0].params_in_products
    if most < _LEAST_SPAN * lowest:
        return []
    ratio = min(_SIZE_RATIO, (most / lowest) ** (1 / (_SIZES - 1)))
    chosen: list[ModelShape] = []
    for k in reversed(range(_SIZES)):
        wanted = most / ratio**k
        near = min(shapes, key=lambda s: abs(math.log(s.params_in_products / wanted)))
        if near not in chosen:
            chosen.append(near)
    return chosen if len(chosen) >= _SIZES - 1 else []


def _trunks(target: Target, sizes: Sequence[ModelShape], ratio: float) -> list[Trunk]:
    """Return the trunks of sizes, the largest reading so many tokens a parameter; none if short."""
    largest = sizes[-1].params_in_products
    most_tokens = MOST_EPOCHS * target.unique_tokens
    made: list[Trunk] = []
    for place, shape in enumerate(sizes):
        params = shape.params_in_products
        tokens = ratio * largest * (largest / params) ** _TOKENS_EXPONENT
        tokens = min(tokens, most_tokens)
        compute = TRAINING_FLOPS_PER_PARAM * params * tokens
        train = rule_of_compute(target.train, compute, target)
        total = round(tokens / (train.global_batch_size * target.tokens_per_row))
        steps = [total // 2**k for k in reversed(range(_COUNTS))]
        counts = tuple(count for count in steps if count >= _LEAST_STEPS)
        if len(counts) < _LEAST_COUNTS:
            return []
        trunk = Trunk(name=f"{params:,}", purpose="ladder", shape=shape, train=train, steps=counts)
        made.append(trunk)
        if place == 0:
            made.extend(_checks(trunk, target.train.global_batch_size))
    return made


def _checks(trunk: Trunk, target_rows: int) -> list[Trunk]:
    """Return the trainings that tell of noise, of the learning rate and of the batch size.

    What a larger batch costs is asked at the rate that suits it: Adam's grows with the root of the
    batch (Malladi et al. 2022, arXiv 2205.10287).
    """
    own = trunk.train.global_batch_size
    times = min(max(target_rows / own, _LEAST_LARGER_BATCH), _MOST_LARGER_BATCH)
    rows = 2 * round(own * times / 2)
    larger = replace(
        trunk,
        name=f"{trunk.name}, batch {rows}",
        purpose="larger batch",
        train=trunk.train.model_copy(
            update={
                "global_batch_size": rows,
                "learning_rate": float(f"{trunk.train.learning_rate * math.sqrt(rows / own):.3g}"),
            }
        ),
        steps=(max(2, round(trunk.steps[-2] * own / rows)),),
    )

    def at(factor: float, purpose: TrunkPurpose) -> Trunk:
        rate = trunk.train.learning_rate * factor
        return replace(
            trunk,
            name=f"{trunk.name}, rate {rate:g}",
            purpose=purpose,
            train=trunk.train.model_copy(update={"learning_rate": rate}),
            steps=trunk.steps[-2:-1],
        )

    return [
        replace(trunk, name=f"{trunk.name}, other seed", purpose="other seed", seed=1),
        at(0.5, "half the learning rate"),
        at(2.0, "twice the learning rate"),
        larger,
    ]


def _at_width(target: ModelShape, width: int) -> ModelShape:
    if width == target.d_model:
        return target
    share = width / target.d_model
    layers = max(min(2, target.layers), round(target.layers * share))
    if target.head_dim is not None:
        heads = max(1, round(target.heads * share))
    else:
        even = [n for n in range(1, width + 1) if width % (n * _HEAD_STEP) == 0]
        heads = min(even, key=lambda n: (abs(width / n - target.head_width), n))
    wanted = heads * target.key_value_heads / target.heads
    groups = [n for n in range(1, heads + 1) if heads % n == 0]
    kv_heads = min(groups, key=lambda n: (abs(n - wanted), n))
    return target.resized(
        layers=layers,
        d_model=width,
        heads=heads,
        kv_heads=None if target.kv_heads is None else kv_heads,
        d_ff=max(8, round(target.d_ff * share / 8) * 8),
    )
