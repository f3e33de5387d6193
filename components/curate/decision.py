"""What a batch of texts is judged by before copies are looked for.

Emptiness, the user's lists, language, rules, and a score of quality where one was learned.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from components.curate.config import CurateConfig
from components.curate.counts import LANGUAGE, LANGUAGE_DROPPED, NOT_JUDGED
from components.curate.languages import identified
from components.curate.lists import Lists
from components.curate.quality.scorer import Scorer
from components.curate.quality.selection import LOW_QUALITY
from components.curate.rules import RULES, judge, language_thresholds_of, thresholds_of
from tokenmill.contracts.quality_model import NOT_SCORED
from tokenmill.text.language import UNDETERMINED, determined
from tokenmill.text.text_columns import TextColumns

EMPTY = "empty"
WRONG_LANGUAGE = "wrong_language"


class Judged(NamedTuple):
    """What became of a batch of texts.

    Attributes:
        dropped: (reason, value, threshold) of each text that is dropped, by its place.
        languages: The language of each, UNDETERMINED where it is not known.
        not_judged: bool [texts] by reason, which ones a rule has no measure for.
        matched: What of a text is on a list for which it is dropped, by its place.
        scores: Quality of each text that nothing else drops, float32; NOT_SCORED of the others.
    """

    dropped: dict[int, tuple[str, float, float]]
    languages: list[str]
    not_judged: dict[str, np.ndarray]
    matched: dict[int, str]
    scores: np.ndarray

    def tallies(self) -> Counter[tuple[str, ...]]:
        """Count documents by language, those of them that are dropped, and those not judged."""
        counts: Counter[tuple[str, ...]] = Counter()
        for i, language in enumerate(self.languages):
            counts[LANGUAGE, language] += 1
            if i in self.dropped:
                counts[LANGUAGE_DROPPED, language, self.dropped[i][0]] += 1
        for reason, places in self.not_judged.items():
            for i in np.flatnonzero(places).tolist():
                counts[NOT_JUDGED, reason, self.languages[i]] += 1
        return counts


def judge_texts(
    texts: Sequence[str],
    config: CurateConfig,
    declared: Sequence[str] | None = None,
    metadata: Sequence[bytes] | None = None,
    lists: Lists | None = None,
    scorer: Scorer | None = None,
) -> Judged:
    """Judge normalized texts.

    Args:
        texts: The texts.
        config: Thresholds and languages.
        declared: The language that the input says of each, empty for none: what a text is taken
            for that does not show its language.
        metadata: What the input says of each beside; None for nothing of any.
        lists: Of hosts, licenses and words; None for none.
        scorer: Of quality; None for none.
    """
    columns = TextColumns(texts)
    codes = determined(identified(columns), declared, config.min_language_score)
    found = {i: (EMPTY, 0.0, 1.0) for i, text in enumerate(texts) if not text}
    matched = {}
    if lists is not None:
        listed = lists.judge(texts, metadata or [b""] * len(texts))
        for i, (reason, entry) in listed.items():
            if i not in found:
                found[i], matched[i] = (reason, 1.0, 0.0), entry
    if config.languages:
        kept = {*config.languages, *((UNDETERMINED,) if config.unknown_language == "keep" else ())}
        for i, code in enumerate(codes):
            if code not in kept:
                language, score = identified(columns)[i]
                score = score if language in config.languages else 0.0
                found.setdefault(i, (WRONG_LANGUAGE, score, config.min_language_score))
    decisions = judge(columns, thresholds_of(config), language_thresholds_of(config), codes)
    for i in (decisions.rule >= 0).nonzero()[0].tolist():
        reason = RULES[decisions.rule[i]].reason
        value, threshold = float(decisions.value[i]), float(decisions.threshold[i])
        found.setdefault(i, (reason, value, threshold))
    scores = np.full(len(texts), NOT_SCORED)
    if scorer is not None:
        left = [i for i in range(len(texts)) if i not in found]
        scores[left] = scorer.score([texts[i].encode() for i in left])
        least = config.quality.min_score
        if least is not None:
            for i in left:
                if scores[i] < np.float32(least):
                    found[i] = (LOW_QUALITY, float(scores[i]), least)
    return Judged(found, codes, decisions.not_judged, matched, scores)
