"""What data validation leaves: the gate's decision, and the numbers of a split's statistics."""

from __future__ import annotations

from typing import Any

from tokenmill.contracts.base import Document, Part, key

DECISION_NAME = "decision.json"


class GateDecision(Document):
    """decision.json: why the gate let a run go on. A run that it stops leaves none."""

    anomalies: list[str] = key("What was found; empty, as the gate stops a run otherwise.")
    previous_statistics: str = key("Statistics of the earlier run; empty if none was compared.")
    comparisons: list[dict[str, Any]] = key(
        "What drift and skew were measured, with their thresholds: TFDV's DriftSkewInfo as JSON."
    )


class Distribution(Part):
    """How a number is distributed over the documents of a split."""

    mean: float = key("Mean.")
    min: float = key("Least.")
    p10: float = key("First decile.")
    p50: float = key("Median.")
    p90: float = key("Ninth decile.")
    max: float = key("Most.")


class SplitSummary(Part):
    """The numbers that a report shows of a split's statistics."""

    documents: int = key("Documents.", ge=0)
    byte_count: Distribution = key("UTF-8 bytes of a document.")
    characters: Distribution = key("Unicode characters of a document.")
    words: Distribution = key("Words of a document.")
    sources: list[tuple[str, int]] = key("The most frequent sources and their documents.")
    distinct_sources: int = key("How many sources there are.", ge=0)
    languages: list[tuple[str, int]] | None = key(
        "The most frequent languages and their documents; null where none was identified.",
        default=None,
    )
