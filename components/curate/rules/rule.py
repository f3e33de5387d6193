"""What a quality rule is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tokenmill.text.text_columns import PIECES, TextColumns

# What ends a sentence: Unicode's property Sentence_Terminal for the scripts that are in use, and
# the Tibetan shad, which ends a clause or a sentence.
SENTENCE_ENDS = (
    ".!?‼‽⁇⁈⁉。．！？｡︒︕︖﹒﹖﹗"  # Latin, Greek, Cyrillic; Chinese, Japanese and Korean
    "؞؟؝۔܀܁܂߹।॥։።፧፨"  # Arabic, Urdu, Syriac, N'Ko, Indian scripts, Armenian, Ethiopic
    "၊။។៕།༎᠃᠉꧈꧉᭚᭛᭞᭟᪨᪩᪪᪫"  # Burmese, Khmer, Tibetan, Mongolian, Javanese, Balinese, Tai Tham
    "᱾᱿᰻᰼꓿꘎꘏꣎꣏꤯꩝꩞꩟꫰꫱꯫"  # Ol Chiki, Lepcha, Lisu, Vai, Saurashtra, Kayah Li, Cham, Meetei
)
CLOSING_QUOTES = "\"'”’»)）」』】》"


@dataclass(frozen=True)
class Rule:
    """A named measure of documents (or lines) and the side on which they are dropped.

    Attributes:
        reason: The drop reason, as counted and reported.
        setting: The key of the [curate] section that holds the threshold.
        measure: Batch -> float64 [documents]; of a rule for lines, float64 [lines]. NaN: the rule
            has no measure for the language of this document, and does not judge it.
        drop_if: Whether values below or above the threshold are dropped.
        source: Where the rule and the threshold of the set `web` come from.
        thresholds: Threshold by rule set; a set without one does not use the rule.
    """

    reason: str
    setting: str
    measure: Callable[[TextColumns], np.ndarray]
    drop_if: Literal["below", "above"]
    source: str
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def drops(self, values: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
        """Tell which values (float64 [documents]) are beyond the threshold; a NaN is not."""
        return values < threshold if self.drop_if == "below" else values > threshold


def fraction(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part / whole, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def parts_sentences_by_blanks(columns: TextColumns) -> np.ndarray:
    """Tell which documents are mostly in Thai, Lao and the like, bool [documents]."""
    pieces = columns.count((columns.classes & PIECES) > 0)
    return pieces * 2 > columns.solid_characters


def sets(
    web: float | None = None,
    prose: float | None = None,
    code_docs: float | None = None,
    *,
    c4: float | None = None,
    fineweb2: float | None = None,
) -> dict[str, float]:
    """Thresholds by rule set; None leaves the rule out of the set."""
    named = {
        "web": web,
        "technical-prose": prose,
        "code-docs": code_docs,
        "c4": c4,
        "fineweb-2": fineweb2,
    }
    return {name: value for name, value in named.items() if value is not None}
