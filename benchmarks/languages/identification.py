"""Language identification on documents, sentences and lines, and on documents of two languages.

    PYTHONPATH=. python benchmarks/languages/identification.py WORK_DIR

Of the clean documents of WORK_DIR/planted.jsonl (corpus.py), by language: the share whose
identified language (tokenmill.text.language) is right, unsure (und) and wrong, for whole documents,
for single sentences, and for lines of 20 to 80 characters. Sentences and lines that sources.is_in
takes for another language are not asked.

Mixed documents are an English license header before a text in the language, and a text in the
language before an English one of the same length; right is the language of the text, or either.
"""

import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from benchmarks.languages.run import kind_of, read_planted
from benchmarks.languages.sources import LANGUAGES, is_in
from tokenmill.text.language import UNDETERMINED, determined, identify
from tokenmill.text.normalize import normalize

UNITS = 1_000
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？।؟])\s*|\n+")

LICENSE = """Copyright (c) 2019 The authors of this manual.

Permission is granted to copy, distribute and/or modify this document under the terms of the GNU
Free Documentation License, Version 1.3 or any later version published by the Free Software
Foundation; with no Invariant Sections, no Front-Cover Texts, and no Back-Cover Texts. A copy of
the license is included in the section entitled "GNU Free Documentation License". This document is
distributed in the hope that it will be useful, but without any warranty.

"""


def sentences(texts: Iterable[str]) -> list[str]:
    """Cut texts at ends of sentences and lines; what has no four letters is none."""
    found = [s.strip() for text in texts for s in SENTENCE_END.split(text)]
    return [s for s in found if sum(map(str.isalpha, s)) >= 4]


def lines(texts: Iterable[str]) -> list[str]:
    """Return the lines of 20 to 80 characters."""
    return [line for text in texts for line in text.split("\n") if 20 <= len(line) <= 80]


def shares(texts: Sequence[str], right: Sequence[str]) -> str:
    """Return "right unsure wrong" in percent, and the commonest wrong answers."""
    answers = Counter(determined(identify(texts)))
    count = max(1, len(texts))
    good = sum(answers[code] for code in right)
    unsure = answers[UNDETERMINED]
    wrong = [(c, n) for c, n in answers.most_common() if c not in (*right, UNDETERMINED)]
    said = ", ".join(f"{code} {number}" for code, number in wrong[:3])
    percent = " / ".join(f"{100 * n / count:.1f}" for n in (good, unsure, count - good - unsure))
    return f"{percent} ({said})" if said else percent


def main() -> None:
    """Print a table: right / unsure / wrong in percent, and what the wrong answers were."""
    clean: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    for document in read_planted(sys.argv[1]):
        if kind_of(document["id"]) == "clean":
            clean[document["id"][:2]].append(normalize(document["text"]))
    rng = random.Random(18)
    print("| | documents | sentences | lines | license before text | text before English |")
    print("| --- | --- | --- | --- | --- | --- |")
    for language, texts in clean.items():
        cells = [shares(texts, [language])]
        for units in (sentences(texts), lines(texts)):
            units = [unit for unit in units if is_in(unit, language)]
            units = rng.sample(units, min(UNITS, len(units)))
            cells.append(f"{shares(units, [language])}")
        cells.append(shares([LICENSE + text for text in texts], [language]))
        english = [t + "\n\n" + e[: len(t)] for t, e in zip(texts, clean["en"], strict=False)]
        cells.append(shares(english, [language]))
        print(f"| {language} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
