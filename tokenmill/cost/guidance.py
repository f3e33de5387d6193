"""Published fits applied to a plan; each line with its source."""

from __future__ import annotations

from tokenmill.contracts.ledger import Chinchilla, ExpectedLoss, Guidance, Repetition
from tokenmill.cost.scaling import (
    BESIROGLU_2024,
    HOFFMANN_2022,
    R_STAR_REPETITIONS,
    Goal,
    chinchilla_optimal_tokens,
    expected_loss,
    optimal_params_and_tokens,
    token_guidance,
)

# "Training with up to 4 epochs of repeated data yields negligible changes to loss".
MAX_EPOCHS = 4.0
REPETITION_SOURCE = "Muennighoff et al. 2023 (arXiv 2305.16264), abstract and eq. 5"


def guidance(
    *,
    params_total: float,
    params_active: float,
    flops_6n: float,
    effective_tokens: float,
    epochs: float,
    goal: Goal | None,
) -> Guidance:
    """Compare a plan with compute-optimal amounts, expected loss, its goal and useful repetition.

    Args:
        params_total: All parameters.
        params_active: Those that one token passes.
        flops_6n: FLOPs of the whole run by the rule 6·N.
        effective_tokens: Loss-bearing tokens, discounted for repetition.
        epochs: Passes over the tokens.
        goal: `fine_tune`, `domain_adaptive` or `from_scratch`; None leaves it out.
    """
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
            nats_per_token=expected_loss(params_total, tokens),
            nats_per_token_hoffmann=expected_loss(params_total, tokens, HOFFMANN_2022),
            source=f"{BESIROGLU_2024.source}; second: {HOFFMANN_2022.source}. Of their data "
            "and vocabulary of 32,000, for models of 4e7 parameters and more: an order, no promise",
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
        found.goal = token_guidance(goal, effective_tokens, params_total)
    return found
