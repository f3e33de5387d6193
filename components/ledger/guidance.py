"""What published fits say of this plan; each line with its source."""

from __future__ import annotations

from typing import Any

from components.ledger.flops import six_n
from components.ledger.scaling import (
    BESIROGLU_2024,
    HOFFMANN_2022,
    R_STAR_REPETITIONS,
    chinchilla_optimal_tokens,
    expected_loss,
    optimal_params_and_tokens,
    token_guidance,
)
from components.model_shape import ModelShape

# "Training with up to 4 epochs of repeated data yields negligible changes to loss".
MAX_EPOCHS = 4.0
REPETITION_SOURCE = "Muennighoff et al. 2023 (arXiv 2305.16264), abstract and eq. 5"


def guidance(
    shape: ModelShape, effective_tokens: float, slots: int, epochs: float, goal: str
) -> dict[str, Any]:
    """Compute-optimal amounts, expected loss, the goal's amounts and the worth of repetition.

    Args:
        shape: The model.
        effective_tokens: Loss-bearing tokens, discounted for repetition.
        slots: Positions computed.
        epochs: Passes over the rows.
        goal: `fine_tune`, `domain_adaptive` or `from_scratch`.
    """
    params = shape.params_total
    flops = six_n(shape).total * slots
    best_params, best_tokens = optimal_params_and_tokens(flops)
    aim = token_guidance(goal, effective_tokens, params)  # type: ignore[arg-type]
    tokens = max(effective_tokens, 1.0)
    return {
        "chinchilla": {
            "optimal_tokens_for_this_model": chinchilla_optimal_tokens(params),
            "optimal_params_for_this_compute": best_params,
            "optimal_tokens_for_this_compute": best_tokens,
            "tokens_per_param": effective_tokens / params,
            "source": f"20 tokens a parameter: Hoffmann et al. 2022, table 3; optimum for these "
            f"FLOPs: {BESIROGLU_2024.source}",
        },
        "expected_loss": {
            "nats_per_token": expected_loss(params, tokens),
            "nats_per_token_hoffmann": expected_loss(params, tokens, HOFFMANN_2022),
            "source": f"{BESIROGLU_2024.source}; second: {HOFFMANN_2022.source}. Of their data "
            "and vocabulary of 32,000, for models of 4e7 parameters and more: an order, no promise",
        },
        "goal": {
            "goal": goal,
            "minimum_tokens": aim.minimum_tokens,
            "usual_tokens": aim.usual_tokens,
            "verdict": aim.verdict,
            "message": aim.message,
            "source": "orders of magnitude of common practice, no measurement",
        },
        "repetition": {
            "epochs": epochs,
            "limit_epochs": MAX_EPOCHS,
            "over_limit": epochs > MAX_EPOCHS,
            "r_star_repetitions": R_STAR_REPETITIONS,
            "source": REPETITION_SOURCE,
        },
    }
