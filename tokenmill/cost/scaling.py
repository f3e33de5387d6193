"""Worth of data: repetition, compute-optimal amounts, expected loss, goals.

Fits of other people's runs. They guide; they promise nothing for other data, tokenizers or sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tokenmill.cost.checks import check_positive
from tokenmill.cost.flops import TRAINING_FLOPS_PER_PARAM

# Repetitions after which a repeated token has lost 1 - 1/e of its value: the fit of Muennighoff et
# al. 2023 ("Scaling Data-Constrained Language Models", eq. 5), 15.39 before rounding.
R_STAR_REPETITIONS = 15.4
# Hoffmann et al. 2022 ("Chinchilla"), table 3: 67e9 parameters for 1.5e12 tokens and alike.
CHINCHILLA_TOKENS_PER_PARAM = 20.0


def repetition_discounted_tokens(
    unique_tokens: float, epochs: float, r_star: float = R_STAR_REPETITIONS
) -> float:
    """Return how many unique tokens are worth as much as these are with repetition.

    Args:
        unique_tokens: U, unique tokens.
        epochs: Passes over them; may be a fraction.
        r_star: R*, repetitions after which the worth has mostly decayed.

    Returns:
        Tokens: U·epochs up to one epoch, beyond it D' = U + U·R*·(1 − exp(−R/R*)) with R =
        epochs − 1 (Muennighoff et al. 2023, eq. 5). At most U·(1 + R*).
    """
    check_positive("unique_tokens", unique_tokens, "tokens", zero_ok=True)
    check_positive("epochs", epochs, "epochs", zero_ok=True)
    check_positive("r_star", r_star, "repetitions")
    if epochs <= 1:
        return float(unique_tokens * epochs)
    repetitions = epochs - 1
    return unique_tokens - unique_tokens * r_star * math.expm1(-repetitions / r_star)


def chinchilla_optimal_tokens(params: float) -> float:
    """Return the tokens that use training compute best for a model of this size.

    Args:
        params: N, all parameters; of a mixture of experts those that a token passes.

    Returns:
        Tokens, about 20·N (Hoffmann et al. 2022). Models meant for heavy use train on far more.
    """
    check_positive("params", params, "parameters")
    return CHINCHILLA_TOKENS_PER_PARAM * params


@dataclass(frozen=True, kw_only=True)
class LossFit:
    """Constants of L(N, D) = E + ((A/N^alpha)^(1/gamma) + (B/D^beta)^(1/gamma))^gamma.

    Published ones are in nats per token, a ladder's in bits per byte.

    Attributes:
        e: E, loss that no model and no data avoid.
        a: A, factor of the term in parameters.
        b: B, factor of the term in tokens.
        alpha: Exponent of parameters.
        beta: Exponent of tokens.
        source: Where the constants stand.
        gamma: How the two terms join: 1 adds them (Hoffmann et al. 2022); the less it is, the more
            the larger of the two decides (Kaplan et al. 2020, eq. 1.5: gamma = beta).
    """

    e: float
    a: float
    b: float
    alpha: float
    beta: float
    source: str
    gamma: float = 1.0


HOFFMANN_2022 = LossFit(
    e=1.69,
    a=406.4,
    b=410.7,
    alpha=0.34,
    beta=0.28,
    source="Hoffmann et al. 2022 (arXiv 2203.15556), approach 3, eq. 10 as printed (rounded)",
)
BESIROGLU_2024 = LossFit(
    e=1.8172,
    a=482.01,
    b=2085.43,
    alpha=0.3478,
    beta=0.3658,
    source="Besiroglu et al. 2024 (arXiv 2404.10102), refit of Hoffmann et al.'s own runs",
)

LEAST_FITTED_PARAMS = 4e7
"""Parameters of the smallest models that both fits were made on."""

SPARSE_NOTE = (
    "N is the parameters that a token passes: the laws are of dense models, and a mixture of "
    "experts with as many comes out below them (Clark et al. 2022, arXiv 2202.01169; Ludziejewski "
    "et al. 2025, arXiv 2502.05172)"
)
"""How the fits, which are all of dense models, are applied to a mixture of experts.

By all parameters they would promise too much: most of them see a small share of the tokens. FLOPs
go by those that a token passes, and so does what is compute-optimal.
"""


def expected_loss(params: float, tokens: float, fit: LossFit = BESIROGLU_2024) -> float:
    """Estimate the loss of a decoder of this size after this many tokens.

    Holds for Chinchilla's data and its vocabulary of 32,000; a loss per token of another
    tokenizer cannot be compared with it.

    Args:
        params: N, all parameters; of a mixture of experts those that a token passes (SPARSE_NOTE).
        tokens: D, unique tokens (put repetition-discounted tokens here where epochs exceed one).
        fit: Which constants; the corrected fit by default.

    Returns:
        Nats per token.
    """
    check_positive("params", params, "parameters")
    check_positive("tokens", tokens, "tokens")
    terms = (fit.a / params**fit.alpha, fit.b / tokens**fit.beta)
    return fit.e + sum(term ** (1 / fit.gamma) for term in terms) ** fit.gamma


def optimal_params_and_tokens(
    total_flops: float, fit: LossFit = BESIROGLU_2024
) -> tuple[float, float]:
    """Split a compute budget for the least expected loss.

    Args:
        total_flops: C, training FLOPs by the rule C = 6·N·D.
        fit: Which constants.

    Returns:
        N parameters and D tokens: N = G·(C/6)^(beta/(alpha+beta)), D = C/(6·N), with G =
        (A/B·(alpha/beta)^gamma)^(1/(alpha+beta)) (Hoffmann et al. 2022, eq. 4, for gamma = 1).
        The printed constants of 2022 give over 90 tokens a parameter at Chinchilla's budget:
        Besiroglu et al. show that this fit disagrees with the paper's other two approaches; theirs
        gives about 20.
    """
    check_positive("total_flops", total_flops, "FLOPs")
    exponents = fit.alpha + fit.beta
    g = ((fit.alpha / fit.beta) ** fit.gamma * fit.a / fit.b) ** (1 / exponents)
    products = total_flops / TRAINING_FLOPS_PER_PARAM
    params = g * products ** (fit.beta / exponents)
    return params, products / params


Goal = Literal["fine_tune", "domain_adaptive", "from_scratch"]
