"""Quality rules, one file a family; each measures all documents of a batch at once.

A rule drops a document whose value is beyond its threshold, and the dropped document records the
rule's reason, the value and the threshold. Thresholds come in named sets for kinds of text; the
numbers that the papers give are the sets `web`, `c4` and `fineweb-2`, which has thresholds for each
language. Rules for single lines (lines.py) remove a line instead, before the documents are judged.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.curate import fineweb2
from components.curate.config import CurateConfig
from components.curate.rules import c4, fineweb, gopher, repetition
from components.curate.rules.lines import LINE_RULES
from components.curate.rules.rule import Rule
from tokenmill.text.text_columns import TextColumns

# In the order in which they are asked: the first that drops a document gives the reason.
RULES: tuple[Rule, ...] = (*gopher.RULES, *c4.RULES, *fineweb.RULES, *repetition.RULES)
LanguageThresholds = Mapping[str, Mapping[str, float | None]]
"""Threshold by language and setting, where it differs from that of all languages; None: off."""

RULE_SETS = ("web", "technical-prose", "code-docs", "c4", fineweb2.RULE_SET, "none")


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


@functools.lru_cache(maxsize=8)
def language_thresholds_of(config: CurateConfig) -> LanguageThresholds:
    """Return where the threshold of a language is not that of `thresholds_of`.

    A language's threshold in the section is before one for all languages there, and that is before
    one that the rule set has for the language.
    """
    found: dict[str, dict[str, float | None]] = {}
    if config.rules == fineweb2.RULE_SET:
        for code, of_set in fineweb2.thresholds_by_language().items():
            found[code] = {s: v for s, v in of_set.items() if getattr(config, s) is None}
    for code, given in config.language_thresholds.items():
        mine = {setting: None if v == "off" else float(v) for setting, v in given.items()}
        found[code] = {**found.get(code, {}), **mine}
    return found


def is_in_use(rule: Rule, config: CurateConfig) -> bool:
    """Tell whether a rule has a threshold, for all languages or for one."""
    return rule.setting in thresholds_of(config) or any(
        of_language.get(rule.setting) is not None
        for of_language in language_thresholds_of(config).values()
    )


def judge(
    columns: TextColumns,
    thresholds: Mapping[str, float],
    of_languages: LanguageThresholds | None = None,
    codes: Sequence[str] | None = None,
) -> Decisions:
    """Find the first rule that drops each document.

    Args:
        columns: The normalized texts.
        thresholds: By setting; a rule without one does not run.
        of_languages: What differs from them; None: nothing.
        codes: The language of each document; needed with `of_languages`.
    """
    count = columns.documents
    of_languages, codes = of_languages or {}, codes or [""] * count
    decisions = Decisions(np.full(count, -1), np.full(count, np.nan), np.full(count, np.nan), {})
    for index, rule in enumerate(RULES):
        limits = _limits(rule.setting, thresholds, of_languages, codes)
        is_on = ~np.isnan(limits)
        if not is_on.any():
            continue
        values = rule.measure(columns)
        if (unknown := np.isnan(values) & is_on).any():
            decisions.not_judged[rule.reason] = unknown
        new = rule.drops(values, limits) & (decisions.rule < 0)
        decisions.rule[new] = index
        decisions.value[new] = values[new]
        decisions.threshold[new] = limits[new]
    return decisions


def limits_of(rule: Rule, config: CurateConfig, codes: Sequence[str]) -> np.ndarray:
    """Return what documents in these languages are held against, float64; NaN: the rule is off."""
    return _limits(rule.setting, thresholds_of(config), language_thresholds_of(config), codes)


def _limits(
    setting: str,
    thresholds: Mapping[str, float],
    of_languages: LanguageThresholds,
    codes: Sequence[str],
) -> np.ndarray:
    of_all = thresholds.get(setting)
    of_language = {code: of_languages.get(code, {}).get(setting, of_all) for code in set(codes)}
    return np.array([of_language[code] for code in codes], np.float64)
