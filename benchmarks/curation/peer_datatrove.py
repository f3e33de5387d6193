"""datatrove on one JSON-lines file; run by run.py with the peer's own Python.

    python peer_datatrove.py INPUT_DIR WORK_DIR filters|minhash|all KEPT_IDS [LANGUAGE]

LANGUAGE, such as deu_Latn, chooses the word tokenizer: English if left out.
One task, one worker, in this process. Prints CPU seconds by stage as JSON; imports are not counted.
"""

import json
import sys
import time

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.typeshelper import Languages
from datatrove.utils.word_tokenizers import load_word_tokenizer


def run(steps: list, work: str, name: str) -> float:
    started = time.process_time()
    LocalPipelineExecutor(
        pipeline=steps, tasks=1, workers=1, logging_dir=f"{work}/logs-{name}"
    ).run()
    return time.process_time() - started


def filters(source: str, work: str, language: str = Languages.english) -> float:
    steps = [
        JsonlReader(source),
        GopherQualityFilter(language=language),
        # As in tokenmill's set `web`: all of C4 but terminal punctuation and citation marks.
        C4QualityFilter(
            filter_no_terminal_punct=False, min_num_sentences=3, min_words_per_line=5,
            remove_citations=False, language=language,
        ),
        FineWebQualityFilter(language=language),
        GopherRepetitionFilter(language=language),
        JsonlWriter(f"{work}/filtered", compression=None),
    ]  # fmt: skip
    return run(steps, work, "filters")


def minhash(source: str, work: str, language: str = Languages.english) -> float:
    load_word_tokenizer.cache_clear()  # jieba's cannot be copied, as the executor does, once used
    config = MinhashConfig()  # 14 buckets of 8 hashes over 5-grams, the default
    signature = MinhashDedupSignature(f"{work}/signatures", config=config, language=language)
    seconds = run([JsonlReader(source), signature], work, "signatures")
    for bucket in range(config.num_buckets):
        # One task a bucket, as datatrove requires; run one after the other.
        step = MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)
        started = time.process_time()
        step.run(rank=bucket, world_size=config.num_buckets)
        seconds += time.process_time() - started
    seconds += run(
        [MinhashDedupCluster(f"{work}/buckets", f"{work}/remove", config=config)], work, "cluster"
    )
    seconds += run(
        [
            JsonlReader(source),
            MinhashDedupFilter(f"{work}/remove"),
            JsonlWriter(f"{work}/deduplicated", compression=None),
        ],
        work,
        "dedup",
    )
    return seconds


def main() -> None:
    source, work, what, kept = sys.argv[1:5]
    language = sys.argv[5] if len(sys.argv) > 5 else Languages.english
    seconds = {}
    if what in ("filters", "all"):
        seconds["filters"] = filters(source, work, language)
    if what in ("minhash", "all"):
        # On the whole input, not only on what the filters left: so that both stages see the same
        # bytes in both systems.
        seconds["minhash"] = minhash(source, work, language)
        with (
            open(f"{work}/deduplicated/00000.jsonl", encoding="utf-8") as lines,
            open(kept, "w", encoding="utf-8") as out,
        ):
            for line in lines:
                out.write(json.loads(line)["id"] + "\n")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
