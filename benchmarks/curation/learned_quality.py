"""What the learned score tells apart, by the n-grams it sees, and how fast it is.

    python benchmarks/curation/learned_quality.py [SECTION ..]

Sections: speed (the embedded corpus, CPU seconds of one process), features (ROC AUC on held-out
fifths, of other n-grams and other strengths of regularization). Texts: the embedded corpus, and the
manual pages in German and Japanese under /usr/share/man, without their macros, in pieces of 1,500
characters. Noise is made by benchmarks/languages/corpus.py.
"""

import glob
import gzip
import json
import random
import re
import sys
import time

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.languages.corpus import MOJIBAKE, NOISE, Vocabulary
from components.curate.quality.features import JoinedTexts, mean_weights, ngram_shares
from components.curate.quality.training import train_linear
from data.embedded_corpus import ensure_embedded_corpus
from tokenmill.text.text_columns import TextColumns, ngrams

BITS = 18
PER_CLASS = 800


def embedded() -> list[dict]:
    with open(ensure_embedded_corpus().path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def manual_pages(language: str) -> list[str]:
    pieces = []
    for path in sorted(glob.glob(f"/usr/share/man/{language}/man*/*.gz")):
        with gzip.open(path, "rt", errors="replace") as page:
            lines = [line for line in page.read().split("\n") if not line.startswith('.\\"')]
        text = "\n".join(re.sub(r"^\.\w+ ?", "", line) for line in lines)
        text = re.sub(r"\\f[BIRP]|\\-|\\&", "", text).replace('"', "")
        pieces += [p for i in range(0, len(text), 1500) if len(p := text[i : i + 1500]) > 500]
    return pieces


def tasks() -> dict[str, tuple[list[str], list[str]]]:
    """Name -> (positive, negative)."""
    rng = random.Random(1)
    documents = [d for d in embedded() if len(d["text"]) > 300]
    rng.shuffle(documents)
    by_source: dict[str, list[str]] = {}
    for document in documents:
        by_source.setdefault(document["source"], []).append(document["text"])
    found = {
        "nltk / keras and apache-beam": (
            by_source["nltk"],
            by_source["keras"] + by_source["apache-beam"],
        )
    }
    for name, code, texts in (
        ("English", "en", [d["text"] for d in documents]),
        ("German", "de", manual_pages("de")),
        ("Japanese", "ja", manual_pages("ja")),
    ):
        rng.shuffle(texts)
        half = len(texts) // 2
        vocabulary = Vocabulary(code, texts[half : half + 2000])
        # Of ASCII, mojibake is the text itself.
        kinds = [kind for kind in NOISE if code != "en" or kind not in MOJIBAKE]
        noise = [
            NOISE[kinds[i % len(kinds)]](text, vocabulary, rng)
            for i, text in enumerate(texts[half : half + PER_CLASS])
        ]
        found[f"{name} / noise"] = (texts[:half], noise)
    return {name: (p[:PER_CLASS], n[:PER_CLASS]) for name, (p, n) in found.items()}


def byte_columns(texts: list[str], lengths: tuple[int, ...]) -> list[np.ndarray]:
    columns = []
    for text in texts:
        joined = JoinedTexts([text.encode()], lengths)
        mine = [np.zeros(0, np.int64)]
        for number, start, places in joined.buckets(BITS):
            _, begins, ends = joined.bounds(number, start, len(places))
            mine.append(places[int(begins[0]) : int(ends[0])] + (number << BITS))
        columns.append(np.concatenate(mine))
    return columns


def word_columns(texts: list[str], lengths: tuple[int, ...]) -> list[np.ndarray]:
    words = TextColumns(texts, cut_long_words=True)
    found, document = [], []
    for number, length in enumerate(lengths):
        hashes, first = ngrams(words.word_hashes, words.words, length)
        found.append((hashes >> np.uint64(64 - BITS)).astype(np.int64) + (number << BITS))
        document.append(words.words.document[first])
    all_found, all_documents = np.concatenate(found), np.concatenate(document)
    order = np.argsort(all_documents, kind="stable")
    edges = np.searchsorted(all_documents[order], np.arange(1, len(texts)))
    return np.split(all_found[order], edges)


def auc(columns: list[np.ndarray], is_positive: np.ndarray, lengths: int, strength: float) -> float:
    counted = [np.unique(c, return_counts=True) for c in columns]
    matrix = sparse.csr_matrix(
        (
            np.concatenate([n / max(1, n.sum()) for _, n in counted]),
            np.concatenate([places for places, _ in counted]),
            np.concatenate(([0], np.cumsum([len(places) for places, _ in counted]))),
        ),
        (len(columns), lengths << BITS),
    )
    order = np.random.default_rng(0).permutation(len(columns))
    train, held_out = order[: len(order) * 4 // 5], order[len(order) * 4 // 5 :]
    model = LogisticRegression(
        C=strength, solver="liblinear", class_weight="balanced", tol=1e-3, random_state=0
    ).fit(matrix[train], is_positive[train])
    return roc_auc_score(is_positive[held_out], model.decision_function(matrix[held_out]))


def features() -> None:
    found = tasks()
    print("| n-grams | C | " + " | ".join(found) + " |")
    print("| --- " * (2 + len(found)) + "|")
    for kind, make, lengths, strength in (
        ("bytes", byte_columns, (3,), 3000),
        ("bytes", byte_columns, (5,), 3000),
        ("bytes", byte_columns, (3, 5), 3000),
        ("bytes", byte_columns, (3, 6), 3000),
        ("bytes", byte_columns, (3, 6), 30),
        ("bytes", byte_columns, (3, 6), 300_000),
        ("bytes", byte_columns, (3, 5, 7), 3000),
        ("words", word_columns, (1,), 3000),
        ("words", word_columns, (1, 2), 3000),
    ):
        cells = []
        for positive, negative in found.values():
            classes = np.arange(len(positive) + len(negative)) < len(positive)
            value = auc(make([*positive, *negative], lengths), classes, len(lengths), strength)
            cells.append(f"{value:.4f}")
        of = " and ".join(map(str, lengths))
        print(f"| {kind} {of} | {strength:,} | {' | '.join(cells)} |", flush=True)


def speed() -> None:
    documents = embedded()
    texts = [d["text"] for d in documents]
    encoded = [text.encode() for text in texts]
    size = sum(map(len, encoded)) / 1e6
    weights = np.random.default_rng(0).integers(-3000, 3000, (2, 1 << BITS)).astype(np.int16)
    vectorizer = HashingVectorizer(n_features=1 << BITS, alternate_sign=False, norm="l1")
    some = range(0, len(texts), 512)
    quarter = slice(0, len(texts) // 4)
    for name, run, share in (
        (
            "score, batches of 512",
            lambda: [mean_weights(encoded[i : i + 512], weights) for i in some],
            1,
        ),
        ("features of training examples", lambda: [ngram_shares(t) for t in encoded[quarter]], 4),
        (
            "HashingVectorizer, words",
            lambda: vectorizer.transform(texts[quarter]),
            4,
        ),
    ):
        started = time.process_time()
        run()
        seconds = time.process_time() - started
        mine = size if share == 1 else sum(map(len, encoded[quarter])) / 1e6
        print(f"{name}: {mine:.2f} MB, {seconds:.3f} CPU s, {mine / seconds:.1f} MB per CPU-second")
    is_positive = np.array([d["source"] in ("numpy", "scikit-learn") for d in documents])
    clipped = [text[: 16 << 10] for text in encoded]
    started = time.process_time()
    train_linear(clipped, is_positive)
    seconds = time.process_time() - started
    size = sum(map(len, clipped)) / 1e6
    print(f"training on {len(texts):,} documents, {size:.1f} MB: {seconds:.1f} CPU s")


if __name__ == "__main__":
    for section in sys.argv[1:] or ("speed", "features"):
        {"speed": speed, "features": features}[section]()
