"""What a batch of texts is judged by before copies are looked for: emptiness, language, rules."""

from collections.abc import Sequence

from components.curate.config import CurateConfig
from components.curate.rules import RULES, judge, thresholds_of
from components.curate.text_columns import TextColumns
from tokenmill.text.language import identify

EMPTY = "empty"
WRONG_LANGUAGE = "wrong_language"


def judge_texts(texts: Sequence[str], config: CurateConfig) -> dict[int, tuple[str, float, float]]:
    """Return (reason, value, threshold) of each normalized text that is dropped, by its place."""
    found = {i: (EMPTY, 0.0, 1.0) for i, text in enumerate(texts) if not text}
    if config.languages:
        for i, (language, score) in enumerate(identify(texts)):
            score = score if language in config.languages else 0.0
            if score < config.min_language_score:
                found.setdefault(i, (WRONG_LANGUAGE, score, config.min_language_score))
    decisions = judge(TextColumns(texts), thresholds_of(config))
    for i in (decisions.rule >= 0).nonzero()[0].tolist():
        reason = RULES[decisions.rule[i]].reason
        value, threshold = float(decisions.value[i]), float(decisions.threshold[i])
        found.setdefault(i, (reason, value, threshold))
    return found
