"""Makes the benchmark corpora from installed packages' documentation; nothing is downloaded.

    python benchmarks/curation/corpus.py speed OUT.jsonl --megabytes 100
    python benchmarks/curation/corpus.py planted OUT.jsonl --truth OUT-truth.json

`speed` repeats the embedded corpus with a fifth of each copy's words replaced, so that the copies
are new documents to every stage but a share of natural duplicates stays. `planted` adds edited
copies of long documents with known edit rates.
"""

import argparse
import json
import random
from collections.abc import Iterable, Iterator

from data.embedded_corpus import ensure_embedded_corpus

EDIT_RATES = (0.01, 0.02, 0.05, 0.10, 0.15, 0.20, 0.30)
KINDS = ("edit", "truncate", "concatenate", "shuffle")


def embedded_documents() -> list[dict]:
    with open(ensure_embedded_corpus().path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def edit_words(text: str, rate: float, vocabulary: list[str], rng: random.Random) -> str:
    """Replaces, deletes or inserts words at the given rate; blanks stay as they are."""
    parts = []
    for line in text.split("\n"):
        words = line.split(" ")
        edited = []
        for word in words:
            if not word or rng.random() >= rate:
                edited.append(word)
                continue
            action = rng.random()
            if action < 0.6:
                edited.append(rng.choice(vocabulary))
            elif action < 0.8:
                edited += [word, rng.choice(vocabulary)]
        parts.append(" ".join(edited))
    return "\n".join(parts)


def speed_corpus(megabytes: float) -> Iterator[dict]:
    documents = embedded_documents()
    vocabulary = sorted({w for d in documents[::50] for w in d["text"].split()})
    size, copy = 0, 0
    while True:
        rng = random.Random(copy)
        for document in documents:
            text = document["text"]
            if copy:
                text = edit_words(text, 0.2, vocabulary, rng)
            size += len(text.encode())
            yield {"id": f"{copy}/{document['id']}", "source": document["source"], "text": text}
            if size >= megabytes * 1e6:
                return
        copy += 1


def planted_corpus(bases: int = 1500) -> tuple[list[dict], dict[str, list[str]]]:
    """Documents with planted copies, and for each kind and rate the planted (base, copy) pairs.

    Bases are documents of 600 to 6,000 characters that are alone: no other document shares more
    than a fifth of their word 5-grams.
    """
    rng = random.Random(20240607)
    documents = embedded_documents()
    vocabulary = sorted({w for d in documents[::50] for w in d["text"].split()})
    chosen = _loners(documents, bases)
    others = [d for d in documents if d["id"] not in {c["id"] for c in chosen}]
    planted: list[dict] = []
    pairs: dict[str, list[str]] = {}
    for number, base in enumerate(chosen):
        rate = EDIT_RATES[number % len(EDIT_RATES)]
        kind = KINDS[(number // len(EDIT_RATES)) % len(KINDS)]
        text = base["text"]
        if kind == "edit":
            copy, label = edit_words(text, rate, vocabulary, rng), f"edit {rate:.0%}"
        elif kind == "truncate":
            copy, label = text[: int(len(text) * (1 - rate))], f"truncate {rate:.0%}"
        elif kind == "concatenate":
            tail = rng.choice(others)["text"][: int(len(text) * rate)]
            copy, label = f"{text}\n{tail}", f"concatenate {rate:.0%}"
        else:
            lines = text.split("\n")
            for _ in range(max(1, int(len(lines) * rate / 2))):
                a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[a], lines[b] = lines[b], lines[a]
            copy, label = "\n".join(lines), f"shuffle lines {rate:.0%}"
        copy_id = f"planted/{number}"
        planted.append({"id": copy_id, "source": "planted", "text": copy})
        pairs.setdefault(label, []).append(f"{base['id']}\t{copy_id}")
    return [*chosen, *planted], pairs


def _loners(documents: list[dict], wanted: int) -> list[dict]:
    owners: dict[tuple, int] = {}
    ngrams = []
    for document in documents:
        words = document["text"].lower().split()
        mine = {tuple(words[i : i + 5]) for i in range(len(words) - 4)}
        ngrams.append(mine)
        for gram in mine:
            owners[gram] = owners.get(gram, 0) + 1
    alone = [
        document
        for document, mine in zip(documents, ngrams, strict=True)
        if 600 <= len(document["text"]) <= 6000
        and mine
        and sum(owners[g] > 1 for g in mine) <= 0.2 * len(mine)
    ]
    return alone[:: max(1, len(alone) // wanted)][:wanted]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "planted"))
    parser.add_argument("out")
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--truth")
    arguments = parser.parse_args()
    documents: Iterable[dict]
    if arguments.what == "speed":
        documents = speed_corpus(arguments.megabytes)
    else:
        documents, pairs = planted_corpus()
        with open(arguments.truth or f"{arguments.out}.truth.json", "w", encoding="utf-8") as out:
            json.dump(pairs, out, indent=1)
    count = 0
    with open(arguments.out, "w", encoding="utf-8") as out:
        for document in documents:
            out.write(json.dumps(document, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count:,} documents in {arguments.out}")


if __name__ == "__main__":
    main()
