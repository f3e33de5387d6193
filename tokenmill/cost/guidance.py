"""Published fits applied to a plan; each line with its source."""

from __future__ import annotations

from typing import Literal

from tokenmill.contracts.ladder import LadderLoss
from tokenmill.contracts.ledger import Chinchilla, ExpectedLoss, GoalTokens, Guidance, Repetition
from tokenmill.cost.checks import check_positive
from tokenmill.cost.scaling import (
    BESIROGLU_2024,
    HOFFMANN_2022,
    R_STAR_REPETITIONS,
    SPARSE_NOTE,
    Goal,
    chinchilla_optimal_tokens,
    expected_loss,
    optimal_params_and_tokens,
)
from tokenmill.number_format import approximate

# "Training with up to 4 epochs of repeated data yields negligible changes to loss".
MAX_EPOCHS = 4.0
REPETITION_SOURCE = "Muennighoff et al. 2023 (arXiv 2305.16264), abstract and eq. 5"

# Orders of magnitude by common experience, not thresholds that anyone has measured.
FINE_TUNE_TOKENS = 1e6
DOMAIN_ADAPTIVE_TOKENS = 1e9
# "1e12 and more at 1e10 parameters": recent releases train well past the compute-optimal 20.
FROM_SCRATCH_USUAL_TOKENS_PER_PARAM = 100.0

_GOAL_SOURCE = (
    "orders of magnitude: fine-tuning 1e6, domain-adaptive 1e9 (Gururangan et al. 2020), from "
    "scratch 20 to 100 tokens a parameter, 1e12 at 1e10 (Hoffmann et al. 2022; Touvron et al. 2023)"
)
_GOAL_NAMES: dict[Goal, str] = {
    "fine_tune": "fine-tuning",
    "domain_adaptive": "domain-adaptive pretraining",
    "from_scratch": "training from scratch",
}


def guidance(
    *,
    params_total: float,
    params_active: float,
    flops_6n: float,
    effective_tokens: float,
    epochs: float,
    goal: Goal | None,
    ladder: LadderLoss | None = None,
) -> Guidance:
    """Compare a plan with compute-optimal amounts, expected loss, its goal and useful repetition.

    Args:
        params_total: All parameters.
        params_active: Those that one token passes.
        flops_6n: FLOPs of the whole run by the rule 6·N.
        effective_tokens: Loss tokens, discounted for repetition.
        epochs: Passes over the tokens.
        goal: `fine_tune`, `domain_adaptive` or `from_scratch`; None leaves it out.
        ladder: What the text's own ladder expects; None leaves it out.
    """
    sparse = params_active < params_total
    best_params, best_tokens = optimal_params_and_tokens(flops_6n)
    tokens = max(effective_tokens, 1.0)
    found = Guidance(
        chinchilla=Chinchilla(
            optimal_tokens_for_this_model=chinchilla_optimal_tokens(params_active),
            optimal_params_for_this_compute=best_params,
            optimal_tokens_for_this_compute=best_tokens,
            tokens_per_param=effective_tokens / params_active,
            source="20 tokens a parameter: Hoffmann et al. 2022 (arXiv 2203.15556), table 3; "
            f"optimum for these FLOPs: {BESIROGLU_2024.source}",
        ),
        expected_loss=ExpectedLoss(
            nats_per_token=expected_loss(params_active, tokens),
            nats_per_token_hoffmann=expected_loss(params_active, tokens, HOFFMANN_2022),
            source=f"{BESIROGLU_2024.source}; second: {HOFFMANN_2022.source}. Of their data "
            "and vocabulary of 32,000, for models of 4e7 parameters and more: an order, no promise"
            + (f"; {SPARSE_NOTE}" if sparse else ""),
        ),
        repetition=Repetition(
            epochs=epochs,
            limit_epochs=MAX_EPOCHS,
            over_limit=epochs > MAX_EPOCHS,
            r_star_repetitions=R_STAR_REPETITIONS,
            source=REPETITION_SOURCE,
        ),
    )
    if goal is not None:
        found.goal = token_guidance(goal, effective_tokens, params_active, sparse)
    if ladder is not None:
        found.ladder = ladder
    return found


def token_guidance(goal: Goal, tokens: float, params: float, sparse: bool = False) -> GoalTokens:
    """Judge an amount of effective tokens by the user's goal.

    Args:
        goal: ``fine_tune`` (a classifier on BERT-base: millions of tokens), ``domain_adaptive``
            (1e9 and more) or ``from_scratch`` (at least 20·N, usually 100·N: 1e12 at N = 1e10).
        tokens: Effective tokens at hand.
        params: N, parameters that a token passes.
        sparse: Whether that is not all of them, as in a mixture of experts.

    Returns:
        The judgement.

    Raises:
        ValueError: If the goal is unknown or a number is out of range.
    """
    check_positive("tokens", tokens, "tokens", zero_ok=True)
    check_positive("params", params, "parameters")
    if goal not in _GOAL_NAMES:
        raise ValueError(
            f"goal = {goal!r}: expected one of {', '.join(_GOAL_NAMES)}; choose one of them."
        )
    if goal == "from_scratch":
        minimum = chinchilla_optimal_tokens(params)
        usual = FROM_SCRATCH_USUAL_TOKENS_PER_PARAM * params
    else:
        minimum = usual = FINE_TUNE_TOKENS if goal == "fine_tune" else DOMAIN_ADAPTIVE_TOKENS
    verdict: Literal["below_minimum", "enough", "usual"] = "below_minimum"
    words = "is too little: collect more, or set a smaller goal or model"
    if tokens >= usual:
        verdict, words = "usual", "is a usual amount"
    elif tokens >= minimum:
        verdict, words = "enough", "is enough, though such models usually see more"
    need = approximate(minimum)
    if minimum != usual:
        need += f", usually {approximate(usual)}"
    return GoalTokens(
        goal=goal,
        minimum_tokens=minimum,
        usual_tokens=usual,
        verdict=verdict,
        message=f"{approximate(tokens)} effective tokens for {_GOAL_NAMES[goal]} of "
        f"{approximate(params)} {'active ' * sparse}parameters {words} (at least {need}).",
        source=_GOAL_SOURCE,
    )
