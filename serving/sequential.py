"""Comparison of two arms that may be looked at any time: always-valid confidence sequences.

A fixed-sample test that is looked at again and again finds a difference where there is none. A
confidence sequence holds at all times at once, so that one may stop whenever one likes. This is the
asymptotic one of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2021, arXiv:2103.06476, theorem
2.2), a normal mixture after Robbins (1970): with sample mean m and variance v after n values,

    m +- sqrt(v * 2 (n rho^2 + 1) / (n^2 rho^2) * log(sqrt(n rho^2 + 1) / alpha))

covers the true mean for all n at once with probability 1 - alpha, up to an error that vanishes with
n; therefore nothing is decided before `MIN_VALUES`. (The mixture SPRT of Johari et al. 2015 is the
same mixture, seen as a test.) Two arms share alpha evenly (a union bound).
"""

import math
from dataclasses import dataclass

# Below, the normal approximation is no good.
MIN_VALUES = 100
# The boundary is tightest near this many values an arm.
_TIGHTEST_AT = 1000


@dataclass
class Arm:
    """Running moments of one arm's values (Welford 1962)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Add one value."""
        self.count += 1
        change = value - self.mean
        self.mean += change / self.count
        self.squares += change * (value - self.mean)

    @property
    def variance(self) -> float:
        """Return the sample's variance; floored, since no spread so far is not certainty."""
        if self.count < 2:
            return math.inf
        # A value one unit of the mean's scale away may still come, once in count values.
        floor = max(abs(self.mean), 1e-3) ** 2 / self.count
        return max(self.squares / (self.count - 1), floor)


def radius(arm: Arm, alpha: float) -> float:
    """Return half the width of the arm's confidence sequence."""
    if arm.count < MIN_VALUES:
        return math.inf
    n = arm.count
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / _TIGHTEST_AT
    scale = 2 * (n * rho2 + 1) / (n * n * rho2)
    return math.sqrt(arm.variance * scale * math.log(math.sqrt(n * rho2 + 1) / alpha))


@dataclass(frozen=True)
class Comparison:
    """Difference of the canary's mean to the stable arm's, with bounds that hold at all times."""

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Return what is known of the canary's mean: "higher", "lower" or "undecided"."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "undecided"


def compare(stable: Arm, canary: Arm, alpha: float = 0.05) -> Comparison:
    """Compare the means of two arms.

    Args:
        stable: Moments of the arm in use.
        canary: Moments of the arm on trial.
        alpha: Probability, over all looks together, of a verdict where there is no difference.
    """
    width = radius(stable, alpha / 2) + radius(canary, alpha / 2)
    difference = canary.mean - stable.mean
    return Comparison(difference, difference - width, difference + width)
