"""A ladder's outcomes of known constants, so that its document and screens need no training."""

import math

import numpy as np

from components.train.gradient_noise import GradientNoise
from pipeline.loader import load_config
from pipeline.studies.held_out import ALL, HeldOutLoss
from pipeline.studies.ladder import overhead_of
from pipeline.studies.ladder_document import Measured, TrunkOutcome, ladder_document
from pipeline.studies.ladder_plan import Speed, Target, Timing, plan_ladder
from pipeline.studies.proxy_runs import ProxyOutcome, ProxyResult
from tokenmill.contracts.ladder import LadderSpending
from tokenmill.cost.flops import flops_per_token
from tokenmill.cost.scaling import LossFit, repetition_discounted_tokens
from tokenmill.cost.scaling_fit import worth_of_tokens
from tokenmill.cost.scaling_purchases import Compute

LAW = LossFit(e=0.7, a=0.5 * 1e6**0.34, b=0.7 * 5e5**0.33, alpha=0.34, beta=0.33, source="made")
CRITICAL_BATCH = 9000.0
UNIQUE_TOKENS, DOCUMENTS, DOCUMENT_BYTES = 3_500_000, 100, 4000
SPEED = Speed(
    timings=(
        Timing(params=156_544, flops_per_second=4e10, start_seconds=10, evaluate_seconds=1),
        Timing(params=1_091_520, flops_per_second=7e10, start_seconds=15, evaluate_seconds=3),
    )
)


def loss_of(params, tokens):
    return LAW.e + LAW.a / params**LAW.alpha + LAW.b / tokens**LAW.beta


def made_target(overrides=(), tokens=1_050_000.0):
    config = load_config("demo", None, overrides)
    return Target(
        shape=config.shape(),
        train=config.train,
        tokens=tokens,
        unique_tokens=UNIQUE_TOKENS,
        rows=UNIQUE_TOKENS // 255,
    )


def made_outcome(trunk, target, random, factor=1.0, noise=0.004):
    """What the trunk would leave by the law; `factor` makes it worse."""
    shift, results = random.normal() * noise, []
    for steps in trunk.steps:
        slots = steps * trunk.train.global_batch_size * trunk.shape.sequence_length
        read = round(steps * trunk.train.global_batch_size * target.tokens_per_row)
        worth = repetition_discounted_tokens(UNIQUE_TOKENS, read / UNIQUE_TOKENS)
        worth *= worth_of_tokens(
            trunk.train.global_batch_size * target.tokens_per_row,
            target.train.global_batch_size * target.tokens_per_row,
            CRITICAL_BATCH,
        )
        loss = loss_of(trunk.shape.params_in_products, worth) * factor
        loss *= math.exp(shift + random.normal() * noise / 2)
        nll = np.full(DOCUMENTS, loss * math.log(2) * DOCUMENT_BYTES)
        held = HeldOutLoss(nll, np.full(DOCUMENTS, DOCUMENT_BYTES))
        half = HeldOutLoss(nll[:50], held.bytes[:50])
        results.append(
            ProxyResult(
                shape=trunk.shape,
                steps=steps,
                loss_tokens=read,
                slots=slots,
                flops=flops_per_token(trunk.shape).training * slots,
                losses={"docs": half, ALL: held},
            )
        )
    return ProxyOutcome(results, 60.0, 0.1, GradientNoise(CRITICAL_BATCH, 700.0, 500), True)


def made_measured(minutes=12.0, seed=0, factors=None, noise=0.004, unigram=2.95, **target):
    """Outcomes of a planned ladder; `factors` by purpose make some worse, None diverge."""
    aim, random = made_target(**target), np.random.default_rng(seed)
    outcomes = []
    for trunk in plan_ladder(aim, minutes * 60, SPEED):
        factor = (factors or {}).get(trunk.purpose, 1.0)
        outcome = None if factor is None else made_outcome(trunk, aim, random, factor, noise)
        outcomes.append(TrunkOutcome(trunk, outcome))
    return Measured(
        target=aim,
        seed=0,
        outcomes=outcomes,
        spending=LadderSpending(
            max_usd=None, max_seconds=minutes * 60, usd=0.02, seconds=700.0, new_seconds=700.0,
            usd_per_hour=0.1,
        ),
        compute=Compute(usd_per_flop=0.1 / 3600 / 6e10, overhead=overhead_of(aim)),
        unigram_bits_per_byte=unigram,
        held_out_documents=DOCUMENTS,
        held_out_bytes=DOCUMENTS * DOCUMENT_BYTES,
        train_bytes=11_900_000,
        prepare_seconds=45.0,
        prepare_usd=0.001,
        seconds_per_flop=1 / 6e10,
    )  # fmt: skip


def made_ladder(**how):
    return ladder_document(made_measured(**how))
