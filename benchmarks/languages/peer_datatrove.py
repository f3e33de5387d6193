"""datatrove's filters and MinHash on the benchmark corpus, with its own settings by language.

    python3.11 -m venv PEER && PEER/bin/pip install "datatrove[io,multilingual]==0.10.1" orjson \\
      nltk "xxhash<4" tokenizers regex fasteners ftfy tldextract
    git clone --bare https://github.com/huggingface/fineweb-2 FINEWEB2
    PYTHONPATH=. PEER/bin/python benchmarks/languages/peer_datatrove.py WORK_DIR FINEWEB2 FOUND.json

Two sets of filters: FineWeb-2's thresholds for the language, as its fineweb-2-pipeline.py sets them
(English: FineWeb's), and the same filters as datatrove has them by default, but for the word
tokenizer. FTFY, FineWeb-2's last step, is what repairs mojibake. `run.py --peer` prints the tables.
"""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import yaml
from datatrove.data import Document
from datatrove.pipeline.filters import (
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.formatters import FTFYFormatter

from benchmarks.curation.peer_datatrove import minhash

CODES = {
    "en": "eng_Latn",
    "de": "deu_Latn",
    "fr": "fra_Latn",
    "es": "spa_Latn",
    "pt": "por_Latn",
    "ru": "rus_Cyrl",
    "el": "ell_Grek",
    "ar": "arb_Arab",
    "hi": "hin_Deva",
    "ja": "jpn_Jpan",
    "zh": "cmn_Hani",
    "ko": "kor_Hang",
    "th": "tha_Thai",
}


def default_filters(code: str) -> list[Any]:
    """Return the filters with the thresholds for English."""
    return [
        GopherRepetitionFilter(language=code),
        FineWebQualityFilter(language=code),
        GopherQualityFilter(language=code),
    ]


def fineweb2_filters(repository: str, code: str) -> list[Any]:
    """Return the filters of FineWeb-2 for a language; FineWeb's for English."""
    if code == "eng_Latn":
        return default_filters(code)
    shown = subprocess.run(
        ["git", f"--git-dir={repository}", "show", f"HEAD:configs/{code}.yml"],
        check=True,
        capture_output=True,
    )
    config = yaml.safe_load(shown.stdout)
    return [
        GopherRepetitionFilter(
            language=code,
            dup_para_frac=0,
            dup_line_char_frac=0,
            dup_para_char_frac=0,
            dup_line_frac=config["dup_line_frac"],
            top_n_grams=config["top_n_grams"],
            dup_n_grams=config["dup_n_grams"],
        ),
        FineWebQualityFilter(
            language=code,
            short_line_thr=999,
            char_duplicates_ratio=0.1,
            line_punct_thr=config["line_punct_thr"],
            new_line_ratio=config["new_line_ratio"],
        ),
        GopherQualityFilter(
            language=code,
            max_avg_word_length=config["max_avg_word_length"],
            min_avg_word_length=config["min_avg_word_length"],
            stop_words=config["stopwords"],
            max_non_alpha_words_ratio=config["max_non_alpha_words_ratio"],
            min_stop_words=2,
        ),
    ]


def judge(documents: list[dict[str, str]], filters: list[Any]) -> dict[str, str]:
    """Return the reason of each document that a filter drops."""
    reasons = {}
    for document in documents:
        given = Document(text=document["text"], id=document["id"])
        for step in filters:
            answer = step.filter(given)
            if answer is not True:
                reasons[document["id"]] = answer[1] if isinstance(answer, tuple) else step.name
                break
    return reasons


def find_copies(documents: list[dict[str, str]], code: str, work: str) -> list[str]:
    """Return the ids of the documents that MinHash removes."""
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(f"{work}/in")
    with open(f"{work}/in/in.jsonl", "w", encoding="utf-8") as out:
        for document in documents:
            out.write(json.dumps({"id": document["id"], "text": document["text"]}) + "\n")
    minhash(f"{work}/in", work, code)
    with open(f"{work}/deduplicated/00000.jsonl", encoding="utf-8") as lines:
        kept = {json.loads(line)["id"] for line in lines}
    return [document["id"] for document in documents if document["id"] not in kept]


def main() -> None:
    """Write what was dropped, why, and what was repaired."""
    work, repository, path = sys.argv[1:4]
    with open(f"{work}/planted.jsonl", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    found: dict[str, Any] = {
        "languages": [],
        "filters": {"datatrove, FineWeb-2": {}, "datatrove, defaults": {}},
        "copies": [],
        "repaired": {},
    }
    repair = FTFYFormatter()
    for language, code in CODES.items():
        mine = [d for d in documents if d["id"].startswith(f"{language}/")]
        given = [d for d in mine if "copy_of" not in d]
        copies = [d for d in mine if "copy_of" in d or d["id"].split("/")[1] == "clean"]
        try:
            sets = (fineweb2_filters(repository, code), default_filters(code))
            judged = [judge(given, filters) for filters in sets]
            removed = find_copies(copies, code, f"{work}/peer")
        except (
            ImportError,
            OSError,
            LookupError,
        ) as error:  # a tokenizer that has to be downloaded
            print(f"{language}: left out: {error}", flush=True)
            continue
        found["languages"].append(language)
        for reasons, into in zip(judged, found["filters"].values(), strict=True):
            into.update(reasons)
        found["copies"] += removed
        found["repaired"].update(
            {d["id"]: repair.format(d["text"]) for d in given if "original" in d}
        )
        print(f"{language}: done", flush=True)
        with open(path, "w", encoding="utf-8") as out:  # so that what is done can be seen
            json.dump(found, out)


if __name__ == "__main__":
    main()
