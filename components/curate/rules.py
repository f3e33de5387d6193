"""Quality rules: each looks at one normalised text and gives the value that it judges.

A rule drops a document when its value is beyond the threshold; the rejected document records
rule, value and threshold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rule:
    """A named test of a text.

    Attributes:
        reason: The drop reason, as counted and reported.
        setting: The key of the [curate] section that holds the threshold.
        measure: Text -> value.
        drop_if: Whether values below or above the threshold are dropped.
    """

    reason: str
    setting: str
    measure: Callable[[str], float]
    drop_if: Literal["below", "above"]

    def drops(self, value: float, threshold: float) -> bool:
        """True if a document with this value goes."""
        return value < threshold if self.drop_if == "below" else value > threshold


def letter_fraction(text: str) -> float:
    """Letters among the non-blank characters, 0 to 1 (0 for an empty text)."""
    solid = "".join(text.split())
    return sum(map(str.isalpha, solid)) / len(solid) if solid else 0.0


def duplicate_line_fraction(text: str) -> float:
    """Share of the non-blank lines that repeat an earlier one (Rae et al. 2021, Gopher, A1.1)."""
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


RULES = (
    Rule("too_short", "min_characters", len, "below"),
    Rule("few_letters", "min_letter_fraction", letter_fraction, "below"),
    Rule("repeated_lines", "max_duplicate_line_fraction", duplicate_line_fraction, "above"),
)
EXACT_DUPLICATE = "exact_duplicate"


@dataclass(frozen=True)
class Verdict:
    """Why a document is dropped: the reason, the value found and the threshold it missed."""

    reason: str
    value: float
    threshold: float


def judge(text: str, thresholds: dict[str, float]) -> Verdict | None:
    """The first rule that drops `text`, in the order of RULES; None if it stays.

    Args:
        text: Normalised text.
        thresholds: Threshold by rule setting; a rule without one does not run.
    """
    for rule in RULES:
        threshold = thresholds.get(rule.setting)
        if threshold is None:
            continue
        value = rule.measure(text)
        if rule.drops(value, threshold):
            return Verdict(rule.reason, value, threshold)
    return None
