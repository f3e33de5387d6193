"""Makes the benchmark corpus: clean documents, noise of known kinds, and copies, by language.

    python benchmarks/languages/corpus.py WORK_DIR

Reads WORK_DIR/pool.jsonl (sources.py) and writes WORK_DIR/planted.jsonl. An id says what a document
is: LANGUAGE/KIND/NUMBER. `clean` are CLEAN documents of each language, in equal parts from its
sources. Noise of the kinds of NOISE is made from text of the same language that is not among the
clean documents (`original` is what mojibake was made of); copies (COPIES) from the clean documents
of LONG_BYTES or more, no two from one, whose id is in `copy_of`. The same pool gives the same
bytes.
"""

import collections
import json
import os
import random
import re
import sys
from collections.abc import Callable, Iterator

from benchmarks.languages.sources import LANGUAGES, SCRIPTS, read_pool

CLEAN, NOISY, COPIED = 300, 50, 30
LONG_BYTES = 1_500

# Written without blanks: what is edited are characters, and a "word" is some of them.
UNSPACED = ("ja", "zh", "th")

_END = re.compile(r"(?<=[.!?।؟。！？])\s*")
_NOT_WORD = re.compile(r"[^\w\u0900-\u097f\u0e00-\u0e7f]+")


class Vocabulary:
    """Words and phrases of a language, from documents that are not planted themselves."""

    def __init__(self, language: str, texts: list[str]) -> None:
        self.unspaced = language in UNSPACED
        text = "\n".join(texts)
        if self.unspaced:
            letters = re.findall(f"[{SCRIPTS[language]}]", text)
            letters = [c for c in letters if c.isalpha()]
            self.units = [c for c, _ in collections.Counter(sorted(letters)).most_common(600)]
            self.words = sorted({w for run in _NOT_WORD.split(text) for w in _pieces(run)})
        else:
            counts: dict[str, int] = {}
            for word in text.split():
                counts[word] = counts.get(word, 0) + 1
            self.units = sorted(counts)
            frequent = set(sorted(counts, key=lambda w: (-counts[w], w))[:100])
            bare = {word.strip(".,:;()[]{}\"'«»„“”–-") for word in counts}
            # As in a list of keywords: no function words, no numbers.
            self.words = sorted(w for w in bare if len(w) > 3 and w.isalpha() and w not in frequent)
        self.phrases = sorted({p for p in map(self._phrase, text.split("\n")) if p})

    def _phrase(self, line: str) -> str:
        if self.unspaced:
            return next((run for run in _NOT_WORD.split(line) if 2 <= len(run) <= 10), "")
        return " ".join(line.split()[:3]).strip(".,:;•- ")

    def join(self, words: list[str]) -> str:
        """Join words of the language to a phrase."""
        return ("" if self.unspaced else " ").join(words)


def _pieces(run: str) -> Iterator[str]:
    """Cut a run of letters into pieces of the length of a word, no mark at the start of one."""
    if not run or ord(run[0]) < 0x0E00:
        return
    size = 5 if "\u0e00" <= run[0] <= "\u0e7f" else 2
    for start in range(0, len(run) - size + 1, size):
        piece = run[start : start + size]
        if piece[0].isalpha():
            yield piece


def menu(text: str, words: Vocabulary, rng: random.Random) -> str:
    """A page that is nothing but links."""
    links = rng.sample(words.phrases, min(len(words.phrases), rng.randint(20, 60)))
    if rng.random() < 0.5:
        return "\n".join(links)
    return "\n".join(" | ".join(links[i : i + 6]) for i in range(0, len(links), 6))


def repeated_lines(text: str, words: Vocabulary, rng: random.Random) -> str:
    """A document half of whose text are the same two lines again and again."""
    lines = [line for line in text.split("\n") if line]
    again = [line[:120] for line in rng.sample(lines, min(2, len(lines)))]
    size = sum(map(len, lines))
    while sum(map(len, lines)) < 2 * size:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(again))
    return "\n".join(lines)


def mojibake(text: str, words: Vocabulary, rng: random.Random) -> str:
    """UTF-8 read as Windows-1252, as browsers do."""
    return "".join(_as_cp1252(byte) for byte in text.encode())


def double_mojibake(text: str, words: Vocabulary, rng: random.Random) -> str:
    """The same twice."""
    return mojibake(mojibake(text, words, rng), words, rng)


def latin1_mojibake(text: str, words: Vocabulary, rng: random.Random) -> str:
    """UTF-8 read as Latin-1, the control characters removed, so that it cannot be undone."""
    return "".join(
        c for c in text.encode().decode("latin-1") if c == "\n" or c >= "\xa0" or " " <= c <= "~"
    )


def _as_cp1252(byte: int) -> str:
    return bytes([byte]).decode("cp1252", "ignore") or chr(byte)


def replacement_characters(text: str, words: Vocabulary, rng: random.Random) -> str:
    """A fifth of the letters are U+FFFD."""
    return "".join("\ufffd" if c.isalpha() and rng.random() < 0.2 else c for c in text)


def keyword_list(text: str, words: Vocabulary, rng: random.Random) -> str:
    """Keywords, one after the other, some of them often."""
    chosen = rng.sample(words.words, min(len(words.words), 120))
    listed = [rng.choice(chosen[:20]) if rng.random() < 0.4 else w for w in chosen + chosen]
    return rng.choice((", ", " ", "\n")).join(listed)


def price_list(text: str, words: Vocabulary, rng: random.Random) -> str:
    """Articles with prices and telephone numbers."""
    lines = []
    for _ in range(rng.randint(25, 60)):
        article = words.join(rng.sample(words.words, 2))
        price = f"{rng.randint(1, 2000)},{rng.randint(0, 99):02d} {rng.choice('€$')}"
        phone = f"+{rng.randint(30, 99)} {rng.randint(100, 999)} {rng.randint(100000, 9999999)}"
        lines.append(f"{article} {price} {phone}")
    return "\n".join(lines)


def hashtags(text: str, words: Vocabulary, rng: random.Random) -> str:
    """A sentence, then a hundred hashtags."""
    tags = [
        f"#{words.join(rng.sample(words.words, rng.randint(1, 2))).replace(' ', '')}"
        for _ in range(100)
    ]
    return _END.split(text)[0] + "\n" + " ".join(tags)


NOISE: dict[str, Callable[[str, Vocabulary, random.Random], str]] = {
    "menu": menu,
    "repeated lines": repeated_lines,
    "mojibake": mojibake,
    "double mojibake": double_mojibake,
    "lossy mojibake": latin1_mojibake,
    "replacement": replacement_characters,
    "keywords": keyword_list,
    "prices": price_list,
    "hashtags": hashtags,
}
"""Kinds of noise; each function takes a text, the vocabulary and the source of chance."""

MOJIBAKE = ("mojibake", "double mojibake", "lossy mojibake")


def exact_copy(text: str, words: Vocabulary, rng: random.Random) -> str:
    """Other blanks, line breaks and, of ASCII letters, case."""
    return re.sub("[a-z]+", lambda found: found[0].upper(), text.replace("\n\n", "\n  "))


def edit_passage(share: float) -> Callable[[str, Vocabulary, random.Random], str]:
    """Return what replaces one passage of this share of the words (characters)."""

    def edit(text: str, words: Vocabulary, rng: random.Random) -> str:
        parts = split_units(text, words)
        places = [i for i, part in enumerate(parts) if is_unit(part, words)]
        count = max(1, round(share * len(places)))
        first = rng.randrange(len(places) - count + 1)
        for i in places[first : first + count]:
            parts[i] = rng.choice(words.units)
        return "".join(parts)

    return edit


def edit_scattered(share: float) -> Callable[[str, Vocabulary, random.Random], str]:
    """Return what replaces each word (character) with this probability."""

    def edit(text: str, words: Vocabulary, rng: random.Random) -> str:
        return "".join(
            rng.choice(words.units) if is_unit(part, words) and rng.random() < share else part
            for part in split_units(text, words)
        )

    return edit


def split_units(text: str, words: Vocabulary) -> list[str]:
    """Split into words and blanks, or into characters."""
    return list(text) if words.unspaced else re.split(r"(\s+)", text)


def is_unit(part: str, words: Vocabulary) -> bool:
    """Say whether a part of a text may be replaced."""
    return part.isalpha() if words.unspaced else bool(part.strip())


COPIES: dict[str, Callable[[str, Vocabulary, random.Random], str]] = {
    "exact": exact_copy,
    "5 % passage": edit_passage(0.05),
    "10 % passage": edit_passage(0.10),
    "1 % scattered": edit_scattered(0.01),
    "5 % scattered": edit_scattered(0.05),
    "10 % scattered": edit_scattered(0.10),
}
"""Kinds of copies. Words of 5-grams: 1 % scattered leaves a Jaccard similarity of 0.9, 5 % one of
0.6, 10 % one of 0.4; a passage of 5 % one of 0.9, of 10 % one of 0.8."""


def choose_clean(
    pool: list[dict[str, str]], count: int, rng: random.Random
) -> list[dict[str, str]]:
    """Draw documents in equal parts from each source, as far as it has them."""
    by_source: dict[str, list[dict[str, str]]] = {}
    for document in pool:
        by_source.setdefault(document["source"], []).append(document)
    queues = [rng.sample(documents, len(documents)) for documents in by_source.values()]
    chosen: list[dict[str, str]] = []
    while len(chosen) < count and any(queues):
        chosen += [queue.pop() for queue in queues if queue]
    return chosen[:count]


def plant(language: str, pool: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Yield the clean documents, noise and copies of a language."""
    rng = random.Random(f"{language} 18")
    clean = choose_clean(pool, min(CLEAN, 2 * len(pool) // 3), rng)
    chosen = {document["id"] for document in clean}
    others = [document["text"] for document in pool if document["id"] not in chosen]
    words = Vocabulary(language, others[:400])
    names = {}
    for number, document in enumerate(clean):
        names[document["id"]] = f"{language}/clean/{number}"
        yield _planted(language, "clean", number, document["text"], source=document["source"])
    for kind, spoil in NOISE.items():
        if language == "en" and kind in MOJIBAKE:
            continue  # ASCII stays what it is
        for number in range(NOISY):
            text = rng.choice(others)
            original = text if kind in MOJIBAKE else ""
            yield _planted(language, kind, number, spoil(text, words, rng), original=original)
    long = [d for d in clean if len(d["text"].encode()) >= LONG_BYTES]
    bases = rng.sample(long, len(long))
    for kind, edit in COPIES.items():
        for number in range(COPIED):
            base = bases.pop()
            text = edit(base["text"], words, rng)
            yield _planted(language, kind, number, text, copy_of=names[base["id"]])


def _planted(language: str, kind: str, number: int, text: str, **fields: str) -> dict[str, str]:
    source = f"{language} {fields.pop('source', 'planted')}"
    return {"id": f"{language}/{kind}/{number}", "source": source, "text": text, **fields}


def main() -> None:
    """Write the planted corpus."""
    work = sys.argv[1]
    pool = read_pool(os.path.join(work, "pool.jsonl"))
    with open(os.path.join(work, "planted.jsonl"), "w", encoding="utf-8") as out:
        for language in LANGUAGES:
            count = size = 0
            for document in plant(language, pool[language]):
                out.write(json.dumps(document, ensure_ascii=False) + "\n")
                count, size = count + 1, size + len(document["text"].encode())
            print(f"{language}: {count:,} documents, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
