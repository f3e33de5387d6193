"""Weights of sources from small trainings over random mixtures.

The loss on each held-out set follows a data mixing law, L(w) = c + k exp(t . w) over the shares w
(Ye et al. 2024, arXiv 2403.16952); what is minimized is their mean by bytes, which is convex, so
that its least is a mixture and seldom a single source. Random mixtures around the natural
proportions and a regression instead of a search run by run are RegMix's (Liu et al. 2024, arXiv
2407.01492).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REGRESSION = "c + k exp(t . w) on each held-out set, weighted by bytes; ridge, leave-one-out"

# Shares of the least loss that is seen: c, what no mixture avoids.
_FLOORS = (0.0, 0.5, 0.8, 0.9, 0.95)
_RIDGES = np.geomspace(1e-6, 1e1, 15)
# Concentrations of the Dirichlet distribution: mixtures far from the natural one, and near.
_CONCENTRATIONS = (4.0, 12.0, 40.0)
_LEAST_SHARE = 1e-3
_DRAWN, _AVERAGED = 20_000, 100


@dataclass(frozen=True)
class SetLaw:
    """The law of one held-out set.

    Attributes:
        c: What no mixture avoids, bits per byte.
        log_k: Logarithm of the factor.
        t: Exponents, one a source.
        error: Root mean square of leave-one-out predictions, bits per byte.
    """

    c: float
    log_k: float
    t: np.ndarray
    error: float

    def loss(self, weights: np.ndarray) -> np.ndarray:
        """Return the loss of mixtures, float [..., sources] -> [...]."""
        return np.asarray(self.c + np.exp(self.log_k + weights @ self.t))


@dataclass(frozen=True)
class MixtureLaw:
    """The laws of all held-out sets.

    Attributes:
        sets: One for each.
        set_share: Share of each in the bytes that the loss is of.
        cross_validated_error: Of the mean loss, root mean square of leave-one-out predictions.
        mean_error: The same of predicting the mean of the other runs.
    """

    sets: tuple[SetLaw, ...]
    set_share: np.ndarray
    cross_validated_error: float
    mean_error: float

    def loss(self, weights: np.ndarray) -> np.ndarray:
        """Return the mean loss by bytes of mixtures, bits per byte."""
        losses = [
            share * law.loss(weights) for law, share in zip(self.sets, self.set_share, strict=True)
        ]
        return np.asarray(sum(losses))


def random_mixtures(natural: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw mixtures around the natural one, which is the first.

    Args:
        natural: Shares, of sum 1.
        count: How many.
        seed: Of the drawing.

    Returns:
        Shares, float64 [count, sources].
    """
    random = np.random.default_rng(seed)
    # Between natural and equal shares: a source of a hundredth is else hardly ever tried.
    center = (natural + 1 / len(natural)) / 2
    drawn = [
        random.dirichlet(np.maximum(center * _CONCENTRATIONS[i % len(_CONCENTRATIONS)], 0.05))
        for i in range(count - 1)
    ]
    mixtures = np.maximum(np.array([natural, *drawn]), _LEAST_SHARE)
    return np.asarray(mixtures / mixtures.sum(axis=1, keepdims=True))


def fit_mixture_law(weights: np.ndarray, losses: np.ndarray, set_bytes: np.ndarray) -> MixtureLaw:
    """Fit a law to each held-out set.

    Args:
        weights: Shares of each run, float [runs, sources].
        losses: Bits per byte, float [runs, sets].
        set_bytes: Bytes of each set.

    Raises:
        ValueError: There are fewer runs than sources + 2.
    """
    runs, sources = weights.shape
    if runs < sources + 2:
        raise ValueError(f"{runs} runs: expected at least {sources + 2} for {sources} sources")
    share = set_bytes / set_bytes.sum()
    fitted = [_fit_set(weights, losses[:, i]) for i in range(losses.shape[1])]
    mean = losses @ share
    predicted = sum(s * left_out for s, (_, left_out) in zip(share, fitted, strict=True))
    of_others = (mean.sum() - mean) / (runs - 1)
    return MixtureLaw(
        tuple(law for law, _ in fitted),
        share,
        float(np.sqrt(np.mean((predicted - mean) ** 2))),
        float(np.sqrt(np.mean((of_others - mean) ** 2))),
    )


def best_mixture(law: MixtureLaw, natural: np.ndarray, most: np.ndarray, seed: int) -> np.ndarray:
    """Propose a mixture: the mean of those of least predicted loss among many that are drawn.

    A law's own least lies in a corner where nothing was tried; a mean of the best of what might
    have been tried does not (RegMix, sec. 3).

    Args:
        law: What is predicted by.
        natural: Shares of the natural mixture.
        most: Largest share of each source that its text allows.
        seed: Of the drawing.

    Returns:
        Shares, of sum 1; the natural ones if no mixture is within the limits.
    """
    drawn = random_mixtures(natural, _DRAWN, seed)
    allowed = drawn[(drawn <= np.maximum(most, natural) + 1e-12).all(axis=1)]
    best = allowed[np.argsort(law.loss(allowed), kind="stable")[:_AVERAGED]]
    weights = best.mean(axis=0)
    return np.asarray(weights / weights.sum())


def _fit_set(weights: np.ndarray, losses: np.ndarray) -> tuple[SetLaw, np.ndarray]:
    """Fit one set by ridge regression of log(L - c); return what each run is predicted without it.

    c and the ridge are those of the least leave-one-out error, which for ridge regression is known
    without fitting anew: residual / (1 - leverage).
    """
    best: tuple[float, SetLaw, np.ndarray] | None = None
    x_mean = weights.mean(axis=0)
    x = weights - x_mean
    gram, runs = x.T @ x, len(losses)
    for floor in _FLOORS:
        c = floor * float(losses.min())
        y = np.log(losses - c)
        for ridge in _RIDGES:
            inverse = np.linalg.inv(gram + ridge * np.eye(x.shape[1]))
            t = inverse @ (x.T @ (y - y.mean()))
            leverage = np.einsum("ij,jk,ik->i", x, inverse, x) + 1 / runs
            residual = (y - y.mean() - x @ t) / (1 - np.minimum(leverage, 0.999))
            left_out = c + np.exp(y - residual)
            error = float(np.sqrt(np.mean((left_out - losses) ** 2)))
            if best is None or error < best[0]:
                log_k = float(y.mean() - x_mean @ t)
                best = error, SetLaw(c, log_k, t, error), left_out
    assert best is not None
    return best[1], best[2]


def shares_of(weights: Sequence[float]) -> np.ndarray:
    """Return weights as shares of sum 1."""
    found = np.asarray(weights, np.float64)
    return np.asarray(found / found.sum())
