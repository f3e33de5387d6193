"""What curation does, as one value that travels through ML Metadata."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from components.curate.near_duplicates import NearDuplicateSettings

GivesWay = Literal["held-out", "train", "off"]


@dataclass(frozen=True)
class CurateSettings:
    """What curation does.

    Attributes:
        thresholds: Threshold by rule setting; a rule without one is off.
        languages: ISO 639 codes to keep; empty means all, and no identification.
        min_language_score: Least probability of one of these languages, 0 to 1.
        mask: Kinds of personal data to mask (mask.KINDS).
        exact_duplicates: Whether copies go.
        near_duplicates: How near copies are found; None keeps them.
        decontaminate: Which split gives way where train and held-out text overlap.
        decontaminate_ngram_words: Length of an overlap, in words.
        benchmarks: Texts that must not occur in train.
        partitions: Parts in which copies are looked for side by side.
        boilerplate_documents: Lines in more documents than this are removed; None removes none.
    """

    thresholds: dict[str, float]
    languages: tuple[str, ...]
    min_language_score: float
    mask: tuple[str, ...]
    exact_duplicates: Literal["drop", "keep"]
    near_duplicates: NearDuplicateSettings | None
    decontaminate: GivesWay
    decontaminate_ngram_words: int
    benchmarks: tuple[str, ...]
    partitions: int
    boilerplate_documents: int | None = None

    def to_json(self) -> str:
        """The same settings give the same text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "CurateSettings":
        """What `to_json` wrote."""
        values = json.loads(text)
        near = values["near_duplicates"]
        values["near_duplicates"] = near and NearDuplicateSettings(**near)
        for key in ("languages", "mask", "benchmarks"):
            values[key] = tuple(values[key])
        return cls(**values)
