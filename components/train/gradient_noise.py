"""How much the gradients of two batch sizes differ, and which batch size that makes sensible.

The parts of a batch that are computed side by side are batches of their own: their gradients are
there anyway, so that the noise costs one norm a part.
"""

from dataclasses import dataclass, field

import numpy as np

# A ratio of means needs a few terms before it means anything.
_LEAST_STEPS = 16


@dataclass(frozen=True)
class GradientNoise:
    """The simple noise scale of a stretch of training.

    Attributes:
        tokens: tr(Sigma) / |G|^2, loss tokens: the batch at which noise and gradient are equal, an
            estimate of the critical batch size (McCandlish et al. 2018, "An Empirical Model of
            Large-Batch Training", sec. 2.2 and appendix A.1).
        standard_error: Its standard error by the jackknife over blocks of steps, loss tokens.
        steps: Steps that it was measured over, the last half.
    """

    tokens: float
    standard_error: float
    steps: int


@dataclass
class GradientNoiseMeter:
    """Adds up the squared gradient norms of whole batches and of their parts, step by step."""

    _noise: list[float] = field(default_factory=list)
    _signal: list[float] = field(default_factory=list)

    def add(self, batch_square: float, part_square: float, tokens: float, parts: int) -> None:
        """Take a step's norms.

        Args:
            batch_square: Squared norm of the whole batch's mean gradient.
            part_square: Mean over the parts of the squared norms of their mean gradients.
            tokens: Loss tokens of the whole batch.
            parts: How many parts it has, two at least.
        """
        small = tokens / parts
        self._signal.append((tokens * batch_square - small * part_square) / (tokens - small))
        self._noise.append((part_square - batch_square) / (1 / small - 1 / tokens))

    def result(self) -> GradientNoise | None:
        """Return the noise scale of the last half of the steps, as it grows while the loss falls.

        Gradients are largest at the beginning, and a mean over all steps would be of those.

        Returns:
            The scale; None where too few steps were measured, or noise hides the gradient.
        """
        steps = len(self._noise) - len(self._noise) // 2
        if steps < _LEAST_STEPS:
            return None
        noise, signal = np.array(self._noise[-steps:]), np.array(self._signal[-steps:])
        if noise.mean() <= 0 or signal.mean() <= 0:
            return None
        blocks = np.array_split(np.arange(steps), 8)
        left_out = []
        for block in blocks:
            rest = np.delete(np.arange(steps), block)
            if signal[rest].mean() <= 0:
                return None
            left_out.append(noise[rest].mean() / signal[rest].mean())
        spread = (len(blocks) - 1) * float(np.var(left_out))
        return GradientNoise(float(noise.mean() / signal.mean()), float(np.sqrt(spread)), steps)
