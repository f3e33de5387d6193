"""Whether the network is the limit: what a chip sends in a step, beside what it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenmill.cost.sharding import Traffic

if TYPE_CHECKING:
    from data.catalog.chips import Chip


@dataclass(frozen=True, kw_only=True)
class Hop:
    """A way that bytes go, and how fast.

    Attributes:
        sent_bytes: By one chip in a step.
        bytes_per_second: Of one chip, one way; None if the catalog has none.
    """

    sent_bytes: float
    bytes_per_second: float | None

    @property
    def seconds(self) -> float | None:
        """Seconds that sending takes if nothing disturbs it; None if the bandwidth is unknown."""
        if not self.sent_bytes:
            return 0.0
        return None if self.bytes_per_second is None else self.sent_bytes / self.bytes_per_second


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a chip sends in a step, beside the time of its computation.

    Attributes:
        sent_bytes: By formula (tokenmill/cost/sharding.py), wherever they go.
        chips_per_machine: As the catalog has it; None if unknown.
        link: To chips of its own machine; all bytes where it is not known how many those are.
        between: To chips of other machines.
        step_seconds: Of computation.
    """

    sent_bytes: int
    chips_per_machine: int | None
    link: Hop
    between: Hop
    step_seconds: float

    @classmethod
    def of(cls, sent: Traffic, chip: Chip, step_seconds: float) -> Network:
        """Set what a chip sends in a step beside its bandwidths.

        Args:
            sent: By hop.
            chip: Of the catalog.
            step_seconds: Of computation.
        """
        return cls(
            sent_bytes=sent.total,
            chips_per_machine=chip.chips_per_machine,
            link=Hop(sent_bytes=sent.link, bytes_per_second=chip.interconnect_bytes_per_second),
            between=Hop(sent_bytes=sent.network, bytes_per_second=chip.network_bytes_per_second),
            step_seconds=step_seconds,
        )

    @property
    def seconds(self) -> float | None:
        """Seconds of the slower hop; both are under way at once. None if a figure is missing."""
        link, between = self.link.seconds, self.between.seconds
        if self.missing or link is None or between is None:
            return None
        return max(link, between)

    @property
    def is_the_limit(self) -> bool:
        """Whether sending takes longer than computing; False where a figure is missing."""
        return self.seconds is not None and self.seconds > self.step_seconds

    @property
    def missing(self) -> str:
        """What the catalog does not say and the seconds depend on; empty where it says all."""
        if not self.sent_bytes:
            return ""
        if self.chips_per_machine is None:
            return "how many chips a machine has"
        if self.link.seconds is None:
            return "how fast the chips of a machine are joined"
        return "" if self.between.seconds is not None else "how fast machines are joined"
