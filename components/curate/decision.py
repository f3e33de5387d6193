"""What a batch of texts is judged by before copies are looked for: emptiness, language, rules."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from components.curate.rules import RULES, judge
from components.curate.text_columns import TextColumns
from tokenmill.text.language import identify

EMPTY = "empty"
WRONG_LANGUAGE = "wrong_language"


class Criteria(Protocol):
    """The settings that judging needs; components/curate/settings.py: CurateSettings has them."""

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Threshold by rule setting."""

    @property
    def languages(self) -> Sequence[str]:
        """ISO 639 codes to keep; empty means all."""

    @property
    def min_language_score(self) -> float:
        """Least probability of one of these languages."""


def judge_texts(texts: Sequence[str], criteria: Criteria) -> dict[int, tuple[str, float, float]]:
    """(reason, value, threshold) of each normalized text that is dropped, by its place."""
    found = {i: (EMPTY, 0.0, 1.0) for i, text in enumerate(texts) if not text}
    if criteria.languages:
        for i, (language, score) in enumerate(identify(texts)):
            score = score if language in criteria.languages else 0.0
            if score < criteria.min_language_score:
                found.setdefault(i, (WRONG_LANGUAGE, score, criteria.min_language_score))
    decisions = judge(TextColumns(texts), criteria.thresholds)
    for i in (decisions.rule >= 0).nonzero()[0].tolist():
        reason = RULES[decisions.rule[i]].reason
        value, threshold = float(decisions.value[i]), float(decisions.threshold[i])
        found.setdefault(i, (reason, value, threshold))
    return found
