"""What to set so that a document which curation dropped stays."""

from __future__ import annotations

import math

from components.curate.conversations import CHAT_TEMPLATE
from components.curate.decision import EMPTY, WRONG_LANGUAGE
from components.curate.losses import KEEP_CONTAMINATED
from components.curate.quality.selection import LOW_QUALITY
from components.curate.rules import RULES
from tokenmill.contracts.document_status import DroppedDocument

_RULES = {rule.reason: rule for rule in RULES}
_DIGITS = 3
_COPIES = {
    "exact_duplicate": "--set curate.exact_duplicates=keep",
    "near_duplicate": "--set curate.near_duplicates=keep, or a curate.near_duplicate_min_jaccard "
    "above the similarity",
}
_OTHER = {
    EMPTY: "nothing keeps a text that is empty; corpus.text_field names its column",
    WRONG_LANGUAGE: "add its language to curate.languages",
    CHAT_TEMPLATE: "tokenizer.chat_template takes another template",
}


def how_to_keep(document: DroppedDocument) -> str:
    """Return the settings that keep a document, or its like; empty if its reason says it itself.

    A threshold that is named is one that this document just meets: other rules may still drop it.
    """
    if (rule := _RULES.get(document.reason)) is not None:
        met = _rounded(document.value, down=rule.drop_if == "below")
        key = f"curate.{rule.setting}"
        return f"--set {key}={met} or off (of all languages; of one: [curate.language_thresholds])"
    if document.reason == LOW_QUALITY:
        return (
            f"--set curate.quality.min_score={_rounded(document.value, down=True)}, or a larger "
            "curate.quality.top_share"
        )
    if document.reason == "contaminated":
        advice = KEEP_CONTAMINATED[document.split]
        return advice.partition(": ")[2].strip().removesuffix(".")
    return _COPIES.get(document.reason) or _OTHER.get(document.reason, "")


def _rounded(value: float, down: bool) -> str:
    """Write a measure with a few digits, on the side of it where the document stays."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, _DIGITS - 1 - math.floor(math.log10(abs(value))))
    scaled = value * 10**digits
    # What is whole but for the binary fraction's last bits must not move by a whole digit.
    if abs(scaled - round(scaled)) < 1e-9 * abs(scaled):
        return f"{round(scaled) / 10**digits:.10g}"
    whole = math.floor(scaled) if down else math.ceil(scaled)
    return f"{whole / 10**digits:.10g}"
