"""Derives thresholds for each language from the statistics of its own documents.

The methods are those of FineWeb-2 (Penedo et al. 2025), which took Wikipedia for the documents:

- tail: the threshold drops a given share of the language's documents.
- quantile: it drops the share that the rule set's threshold drops of another language's documents.
- mean-std: it is as many standard deviations from the mean as the rule set's is in another
  language.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from components.curate import fineweb2
from components.curate.config import CurateConfig
from components.curate.preview import (
    Example,
    Preview,
    SampledDocument,
    in_use,
    preview,
)
from components.curate.rules.rule import Rule
from tokenmill.errors import TokenmillError
from tokenmill.text.language import UNDETERMINED

METHODS = ("tail", "quantile", "mean-std")
Method = Literal["tail", "quantile", "mean-std"]

_BY_LANGUAGE = {setting for of in fineweb2.thresholds_by_language().values() for setting in of}


class RuleCalibration(NamedTuple):
    """A rule's threshold for a language, as it is and as the language's documents have it.

    Attributes:
        setting: Its key.
        reason: Its drop reason.
        drop_if: Whether values below or above the threshold are dropped.
        before: The threshold as it is; None: off.
        after: The derived one.
        dropped_before: Documents of the language that it drops by itself.
        dropped_after: Documents that the derived one drops by itself.
    """

    setting: str
    reason: str
    drop_if: str
    before: float | None
    after: float
    dropped_before: int
    dropped_after: int


class LanguageCalibration(NamedTuple):
    """What was derived for a language.

    Attributes:
        documents: Documents in it.
        dropped_before: Those that all rules drop as they are.
        dropped_after: Those that they drop with the derived thresholds.
        rules: The rules.
        examples: Some of the last, by drop reason.
    """

    documents: int
    dropped_before: int
    dropped_after: int
    rules: list[RuleCalibration]
    examples: dict[str, list[Example]]


def calibrate(
    documents: Sequence[SampledDocument],
    config: CurateConfig,
    method: Method,
    share: float = 0.01,
    reference: str = "en",
    min_documents: int = 100,
    examples: int = 3,
) -> tuple[dict[str, LanguageCalibration], dict[str, int]]:
    """Derive thresholds of the rules that depend on the language, by language.

    Those are the rules for which FineWeb-2 has thresholds by language. Others, and languages with
    few documents, keep theirs.

    Args:
        documents: A sample in all languages.
        config: The rule set, and thresholds that are set.
        method: One of METHODS.
        share: Of `tail`: the share of its documents that each rule drops at most, from 0 to 1.
        reference: Of the other methods: the language whose thresholds are right.
        min_documents: Languages with fewer documents are left out.
        examples: How many dropped documents of each language to show.

    Returns:
        What was derived by language, and how many documents there are in languages that are left
        out: the reference, and those with few.

    Raises:
        TokenmillError: There are too few documents in the reference language.
    """
    found = preview(documents, config, 0)
    counts = Counter(code for code in found.languages if code != UNDETERMINED)
    if method != "tail" and counts[reference] < min_documents:
        raise TokenmillError(
            f"{counts[reference]:,} documents are in {reference}, the language whose thresholds "
            f"{method} takes for right.",
            f"Give --min-documents and more of them, another --reference, or --method tail. "
            f"Documents by language: {_listed(counts)}.",
        )
    codes = [
        code
        for code in sorted(counts)
        if counts[code] >= min_documents and (method == "tail" or code != reference)
    ]
    languages = np.array(found.languages)
    rules = [rule for rule in in_use(config) if rule.setting in _BY_LANGUAGE]
    derived: dict[str, list[RuleCalibration]] = {}
    for code in codes:
        mine, its = languages == code, languages == reference
        calibrated = (_calibrate(rule, found, mine, its, method, share) for rule in rules)
        derived[code] = [rule for rule in calibrated if rule]
    changed = with_thresholds(config, derived)
    after = preview(documents, changed, 0)
    calibrations = {}
    for code in codes:
        before = [place for place in found.reasons if languages[place] == code]
        dropped = [place for place in sorted(after.reasons) if languages[place] == code]
        shown = preview([documents[place] for place in dropped[:examples]], changed, examples)
        calibrations[code] = LanguageCalibration(
            counts[code], len(before), len(dropped), derived[code], shown.examples
        )
    return calibrations, {code: counts[code] for code in sorted(counts) if code not in derived}


def with_thresholds(
    config: CurateConfig, derived: Mapping[str, Sequence[RuleCalibration]]
) -> CurateConfig:
    """Return the section with derived thresholds; what it says of a language stays beside them."""
    thresholds = {code: dict(given) for code, given in config.language_thresholds.items()}
    for code, rules in derived.items():
        thresholds.setdefault(code, {}).update({rule.setting: rule.after for rule in rules})
    return config.model_copy(update={"language_thresholds": thresholds})


def as_toml(derived: Mapping[str, LanguageCalibration]) -> str:
    """Write the thresholds as the configuration has them."""
    lines = []
    for code, language in derived.items():
        lines.append(f"[curate.language_thresholds.{code}]")
        for rule in language.rules:
            before = "off" if rule.before is None else f"{rule.before:g}"
            drops = f"drops {rule.dropped_after:,} of {language.documents:,}"
            lines.append(f"{rule.setting} = {rule.after:g}  # was {before}; {drops}")
        lines.append("")
    return "\n".join(lines)


def _calibrate(
    rule: Rule,
    found: Preview,
    mine: np.ndarray,
    reference: np.ndarray,
    method: Method,
    share: float,
) -> RuleCalibration | None:
    """Derive the threshold of a rule; None if it has no measure for most of the language's texts.

    Args:
        rule: The rule.
        found: What was measured.
        mine: bool [documents], those in the language.
        reference: bool [documents], those in the reference language.
        method: One of METHODS.
        share: Of `tail`.
    """
    all_values, all_limits = found.values[rule.setting], found.limits[rule.setting]
    values = all_values[mine & ~np.isnan(all_values)]
    if len(values) * 2 <= mine.sum():
        return None
    if method == "tail":
        after = _tail(values, share, rule)
    else:
        its = reference & ~np.isnan(all_values) & ~np.isnan(all_limits)
        if not its.any():
            return None
        if method == "quantile":
            dropped = rule.drops(all_values[its], all_limits[its])
            after = _tail(values, float(dropped.mean()), rule)
        else:
            spread = float(all_values[its].std())
            if not spread:
                return None
            deviations = (float(all_limits[its][0]) - float(all_values[its].mean())) / spread
            after = float(values.mean()) + deviations * float(values.std())
    after = _rounded(max(0.0, after), rule)
    before = float(all_limits[mine][0])
    return RuleCalibration(
        rule.setting,
        rule.reason,
        rule.drop_if,
        None if math.isnan(before) else before,
        after,
        int(rule.drops(values, before).sum()),
        int(rule.drops(values, after).sum()),
    )


def _tail(values: np.ndarray, share: float, rule: Rule) -> float:
    """Return the threshold that drops this share of the values, or less."""
    in_order = np.sort(values)
    place = min(int(share * len(values)), len(values) - 1)
    return float(in_order[place if rule.drop_if == "below" else -1 - place])


def _rounded(value: float, rule: Rule) -> float:
    """Round to three digits, to the side that drops less."""
    if not value:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    steps = value / unit
    return float(f"{(math.floor if rule.drop_if == 'below' else math.ceil)(steps) * unit:.3g}")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in counts.most_common()) or "none"
