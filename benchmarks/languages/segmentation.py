"""Scripts without blanks: tokenmill's own words beside those of a segmenter.

    PEER/bin/python benchmarks/languages/segment.py WORK_DIR
    PYTHONPATH=. python benchmarks/languages/segmentation.py WORK_DIR

For Chinese, Japanese and Thai, run.py's tables of planted.jsonl as it is and of segmented.jsonl,
whose words are a segmenter's. The rules on stop words, on the length of words and on ends of
sentences are off in both: they judge by the script. (What mojibake is repaired to is not segmented,
so repairs do not count in the second.) Then the held-out documents dropped as contaminated though
no two documents have a paragraph in common (a third of the clean ones held out, 13 words a run and
more), English and German beside them, and MB a CPU second of cutting into words and hashing their
5-grams.
"""

import os
import sys
import time
from collections import Counter

from benchmarks.languages.run import (
    SETS,
    kind_of,
    measure_copies,
    measure_rules,
    read_planted,
    run,
    table,
)
from components.curate.near_duplicates import all_ngrams
from tokenmill.text.normalize import normalize
from tokenmill.text.text_columns import character_classes

SEGMENTED = ("zh", "ja", "th")
OFF = tuple(
    f"curate.{setting}=off"
    for setting in (
        "min_stop_words",
        "min_mean_word_length",
        "max_mean_word_length",
        "min_sentences",
        "min_punctuated_line_fraction",
    )
)
RUNS_OF_WORDS = (13, 20, 26)


def measure_overlaps(documents: list[dict[str, str]], work: str) -> None:
    """Print how many held-out clean documents go for an overlap, by words of a run."""
    clean = [d for d in documents if kind_of(d["id"]) == "clean"]
    values: dict[tuple[str, str], str] = {}
    for words in RUNS_OF_WORDS:
        settings = [
            "curate.rules=none",
            "corpus.eval_fraction=0.33",
            f"curate.decontaminate_ngram_words={words}",
        ]
        outcome = run(clean, work, settings)
        held_out = Counter(doc_id[:2] for doc_id in outcome.held_out)
        dropped = Counter(i[:2] for i, (r, _) in outcome.dropped.items() if r == "contaminated")
        for language, count in held_out.items():
            values[language, str(words)] = f"{dropped[language]} of {count}"
    title = "Held-out documents dropped as contaminated, by words of a run"
    table(title, [str(words) for words in RUNS_OF_WORDS], values)


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
