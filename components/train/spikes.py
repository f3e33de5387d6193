"""Loss spikes: noticed from the losses alone, so that the same run notices the same ones."""

import math
from collections.abc import Sequence

# Steps that a loss is compared with, and how many it takes before anything is called a spike.
WINDOW, LEAST = 64, 16
# A loss this little above the mean is noise however even the losses before it were.
_LEAST_RISE = 0.02


def is_spike(recent_losses: Sequence[float], loss: float, deviations: float) -> bool:
    """Return whether a loss stands out above the losses of the steps before.

    Args:
        recent_losses: Mean losses of the last steps, at most `WINDOW`, in nats.
        loss: The next one.
        deviations: How many standard deviations above their mean is a spike.
    """
    if len(recent_losses) < LEAST:
        return False
    mean = math.fsum(recent_losses) / len(recent_losses)
    variance = math.fsum((x - mean) ** 2 for x in recent_losses) / len(recent_losses)
    return loss > mean + max(deviations * math.sqrt(variance), _LEAST_RISE * abs(mean))


def remember(recent_losses: list[float], loss: float) -> None:
    """Add a loss to the window and drop what is too old."""
    recent_losses.append(loss)
    del recent_losses[:-WINDOW]
