"""Quality rules, one file a family; each measures all documents of a batch at once.

A rule drops a document whose value is beyond its threshold, and the dropped document records the
rule's reason, the value and the threshold. Thresholds come in named sets for kinds of text; the
numbers that the papers give are the sets `web` and `c4`. Rules for single lines (lines.py) remove a
line instead, before the documents are judged.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from components.curate.config import CurateConfig
from components.curate.rules import c4, fineweb, gopher, repetition
from components.curate.rules.lines import LINE_RULES
from components.curate.rules.rule import Rule
from components.curate.text_columns import TextColumns

# In the order in which they are asked: the first that drops a document gives the reason.
RULES: tuple[Rule, ...] = (*gopher.RULES, *c4.RULES, *fineweb.RULES, *repetition.RULES)
RULE_SETS = ("web", "technical-prose", "code-docs", "c4", "none")


@dataclass(frozen=True)
class Decisions:
    """What the rules say of a batch.

    Attributes:
        rule: int64 [documents], index into RULES of the rule that drops it; -1 if it stays.
        value: float64 [documents], what that rule measured (NaN if it stays).
        threshold: float64 [documents], what it is held against (NaN if it stays).
        not_judged: bool [documents] by reason, those that a rule has no measure for.
    """

    rule: np.ndarray
    value: np.ndarray
    threshold: np.ndarray
    not_judged: dict[str, np.ndarray]


@functools.lru_cache(maxsize=8)
def thresholds_of(config: CurateConfig) -> dict[str, float]:
    """Return the threshold of each rule that is in use, by its key.

    The rule set's own numbers, with the section's on top; zero is a threshold like any other.
    """
    thresholds = {}
    for rule in (*LINE_RULES, *RULES):
        given = getattr(config, rule.setting)
        value = rule.thresholds.get(config.rules) if given is None else given
        if value is not None and value != "off":
            thresholds[rule.setting] = float(value)
    return thresholds


def judge(columns: TextColumns, thresholds: Mapping[str, float]) -> Decisions:
    """Find the first rule that drops each document.

    Args:
        columns: The normalized texts.
        thresholds: By setting; a rule without one does not run.
    """
    count = columns.documents
    decisions = Decisions(np.full(count, -1), np.full(count, np.nan), np.full(count, np.nan), {})
    for index, rule in enumerate(RULES):
        threshold = thresholds.get(rule.setting)
        if threshold is None:
            continue
        values = rule.measure(columns)
        if (unknown := np.isnan(values)).any():
            decisions.not_judged[rule.reason] = unknown
        drops = values < threshold if rule.drop_if == "below" else values > threshold
        new = drops & (decisions.rule < 0)
        decisions.rule[new] = index
        decisions.value[new] = values[new]
        decisions.threshold[new] = threshold
    return decisions
