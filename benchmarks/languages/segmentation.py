"""Scripts without blanks: tokenmill's own words beside those of a segmenter.

    PEER/bin/python benchmarks/languages/segment.py WORK_DIR
    PYTHONPATH=. python benchmarks/languages/segmentation.py WORK_DIR

For Chinese, Japanese and Thai, run.py's tables of planted.jsonl as it is and of segmented.jsonl,
whose words are a segmenter's. The rules on stop words and on the length of words are off in both:
they judge neither in the same way. Then the held-out documents dropped as contaminated though no
two documents have a paragraph in common (a third of the clean ones held out, 13 words a run and
more), English and German beside them, and MB a CPU second of cutting into words and hashing their
5-grams.
"""

import os
import sys
import time

from benchmarks.languages.run import (
    SETS,
    kind_of,
    measure_copies,
    measure_rules,
    read_planted,
    run,
)
from components.curate.near_duplicates import all_ngrams
from components.curate.text_columns import character_classes
from tokenmill.text.normalize import normalize

SEGMENTED = ("zh", "ja", "th")
OFF = tuple(
    f"curate.{setting}=off"
    for setting in ("min_stop_words", "min_mean_word_length", "max_mean_word_length")
)
RUNS_OF_WORDS = (13, 20, 26)


def measure_overlaps(documents: list[dict[str, str]], work: str) -> None:
    """Print the share of held-out clean documents that lose to an overlap, by words of a run."""
    clean = [d for d in documents if kind_of(d["id"]) == "clean"]
    print("\nHeld-out documents dropped as contaminated, by words of a run\n")
    print(f"| | {' | '.join(map(str, RUNS_OF_WORDS))} |\n|{' --- |' * (1 + len(RUNS_OF_WORDS))}")
    for language in sorted({d["id"][:2] for d in clean}):
        mine = [d for d in clean if d["id"].startswith(language)]
        cells = []
        for words in RUNS_OF_WORDS:
            settings = [
                "curate.rules=none",
                "corpus.eval_fraction=0.33",
                f"curate.decontaminate_ngram_words={words}",
            ]
            outcome = run(mine, work, settings)
            dropped = [r for r, _ in outcome.dropped.values() if r == "contaminated"]
            cells.append(f"{len(dropped)} of {outcome.held_out}")
        print(f"| {language} | {' | '.join(cells)} |")


def measure_speed(documents: list[dict[str, str]]) -> None:
    """Print MB of UTF-8 a CPU second of cutting into words and hashing n-grams."""
    character_classes()
    for language in SEGMENTED:
        texts = [normalize(d["text"]) for d in documents if d["id"].startswith(language)]
        started = time.process_time()
        for start in range(0, len(texts), 64):
            all_ngrams(texts[start : start + 64], 5)
        seconds = time.process_time() - started
        size = sum(len(text.encode()) for text in texts)
        print(f"{language}: {size / 1e6 / seconds:.1f} MB per CPU second")


def main() -> None:
    """Print the tables for both ways of cutting."""
    work = sys.argv[1]
    for name in ("planted", "segmented"):
        everything = read_planted(work, name)
        documents = [d for d in everything if d["id"][:2] in SEGMENTED]
        print(f"\n## {name}.jsonl")
        for rules in SETS:
            measure_rules(documents, os.path.join(work, "segmentation"), rules, OFF)
        measure_copies(documents, os.path.join(work, "segmentation"))
        compared = [d for d in everything if d["id"][:2] in (*SEGMENTED, "en", "de")]
        measure_overlaps(compared, os.path.join(work, "segmentation"))
        if name == "planted":
            measure_speed(documents)


if __name__ == "__main__":
    main()
