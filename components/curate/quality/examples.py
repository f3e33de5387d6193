"""Gathers the examples that a scorer is trained on, and keeps evaluation text out of them.

Examples are of the training split, or of files of their own. One that shares words with a held-out
document, as decontamination has it, or with a benchmark text, is left out: what the scorer has seen
decides what is trained on, and held-out text has no say in that.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import AnyStr, NamedTuple

import numpy as np

from components.curate.benchmarks import read_benchmark_texts, short_hits
from components.curate.config import CurateConfig
from components.curate.decontaminate import common_above, count_in, shared_runs
from components.curate.mask import mask
from components.curate.near_duplicates import shingle
from components.curate.quality.config import LABEL_SIGN, SOURCE_SIGN, QualityConfig
from tokenmill.contracts.quality_model import ExampleCounts
from tokenmill.errors import TokenmillError
from tokenmill.records.documents import BATCH_BYTES, BATCH_DOCUMENTS
from tokenmill.records.keys import content_key, stable_hash
from tokenmill.text.normalize import normalize
from tokenmill.visible import visible

MIN_EXAMPLES = 20
"""Of a class: with fewer nothing can be measured on the held-out fifth."""
MAX_CLASS_BYTES = 16 << 20
"""Of a class; of more examples those with the least hash are taken, the same every time."""
MAX_EXAMPLE_BYTES = 16 << 10
"""Of an example; of a longer one the beginning is taken."""
_NAMES_SHOWN = 12
_HELD_OUT_PARTS = 5  # one in so many examples is held out

HELD_OUT_TEXT, BENCHMARK_TEXT, COPY, IN_BOTH = "held_out_text", "benchmark_text", "copy", "in_both"


class TrainDocument(NamedTuple):
    """A document of the training split."""

    source: str
    label: str
    text: bytes


class ExampleSet(NamedTuple):
    """Examples that are left, positive and negative, in the order of their hashes.

    Attributes:
        texts: Normalized.
        is_positive: bool [examples].
        is_held_out: bool [examples], those to be measured on.
        left_out: How many are not among them, by reason.
    """

    texts: list[bytes]
    is_positive: np.ndarray
    is_held_out: np.ndarray
    left_out: dict[str, int]

    def part(self, held_out: bool) -> tuple[list[bytes], np.ndarray]:
        """Return the texts and classes of the examples that are held out, or of all others."""
        places = np.flatnonzero(self.is_held_out == held_out)
        return [self.texts[i] for i in places.tolist()], self.is_positive[places]

    def counts(self, positive: bool) -> ExampleCounts:
        """Count the examples of one class."""
        mine = self.is_positive == positive
        return ExampleCounts(
            documents=int(mine.sum()),
            bytes=sum(len(self.texts[i]) for i in np.flatnonzero(mine).tolist()),
            held_out=int((mine & self.is_held_out).sum()),
        )


class _Pool:
    """Texts of one class, of which those with the least hash stay, up to MAX_CLASS_BYTES."""

    def __init__(self) -> None:
        self._texts: dict[tuple[int, bytes], bytes] = {}
        self._bytes = self.copies = 0

    def add(self, text: bytes) -> None:
        key = content_key(text)
        place = (stable_hash(key), key)
        if place in self._texts:
            self.copies += 1
            return
        self._texts[place] = text[: 2 * MAX_EXAMPLE_BYTES]  # normalization may shorten it
        self._bytes += self._size(text)
        if self._bytes > 2 * MAX_CLASS_BYTES:
            self._texts = self.chosen()
            self._bytes = sum(map(self._size, self._texts.values()))

    def chosen(self) -> dict[tuple[int, bytes], bytes]:
        """Return the texts that stay, in the order of their hashes."""
        size = 0
        chosen: dict[tuple[int, bytes], bytes] = {}
        for place in sorted(self._texts):
            size += self._size(self._texts[place])
            if size > MAX_CLASS_BYTES and chosen:
                break
            chosen[place] = self._texts[place]
        return chosen

    @staticmethod
    def _size(text: bytes) -> int:
        return min(len(text), MAX_EXAMPLE_BYTES)


def gather_examples(
    train: Iterable[TrainDocument],
    positive_texts: Iterable[bytes],
    negative_texts: Iterable[bytes],
    held_out_texts: Iterable[bytes],
    benchmarks: Sequence[str],
    config: CurateConfig,
) -> ExampleSet:
    """Gather examples and leave out those that share words with evaluation text.

    Args:
        train: The training split, as ingested; not read if files have all examples.
        positive_texts: Those of the files of curate.quality.positive.
        negative_texts: Those of the files of curate.quality.negative.
        held_out_texts: The evaluation split, as ingested.
        benchmarks: Texts that must not occur in train.
        config: What is an example, what is masked, and how many words are an overlap.

    Raises:
        TokenmillError: There are too few examples of a class.
    """
    quality = config.quality
    pools = {True: _Pool(), False: _Pool()}
    for text in positive_texts:
        pools[True].add(text)
    for text in negative_texts:
        pools[False].add(text)
    in_both = 0
    if _names_documents(quality):
        found: set[str] = set()
        for document in train:
            found |= _signs(document)
            is_positive = _is_named(document, quality.positive)
            is_negative = _is_named(document, quality.negative)
            if not quality.negative:
                is_negative = not is_positive
            if is_positive and is_negative:
                in_both += 1
            elif is_positive or is_negative:
                pools[is_positive].add(document.text)
        _check_names(quality, found)
    chosen = {is_positive: pool.chosen() for is_positive, pool in pools.items()}
    both = chosen[True].keys() & chosen[False].keys()
    left_out = {COPY: sum(pool.copies for pool in pools.values()), IN_BOTH: in_both + len(both)}
    hashed = sorted(
        (place, is_positive, text)
        for is_positive, texts in chosen.items()
        for place, text in texts.items()
        if place not in both
    )
    texts = [_normalized(text, config) for _, _, text in hashed]
    kept = np.array([bool(text) for text in texts], bool)
    for reason, shares in (
        (HELD_OUT_TEXT, lambda: _shares_words(texts, held_out_texts, config)),
        (BENCHMARK_TEXT, lambda: _has_benchmark(texts, benchmarks, config)),
    ):
        gone = shares() & kept
        left_out[reason] = int(gone.sum())
        kept &= ~gone
    places = np.flatnonzero(kept).tolist()
    examples = ExampleSet(
        [texts[i].encode() for i in places],
        np.array([hashed[i][1] for i in places], bool),
        # Of the hash that orders them other bits: so those held out are spread over the order.
        np.array([hashed[i][0][1][0] % _HELD_OUT_PARTS == 0 for i in places], bool),
        dict(sorted(left_out.items())),
    )
    _check(examples)
    return examples


def _check(examples: ExampleSet) -> None:
    for key, of_class in (
        ("positive", examples.is_positive),
        ("negative", ~examples.is_positive),
    ):
        count, held_out = int(of_class.sum()), int((of_class & examples.is_held_out).sum())
        if count < MIN_EXAMPLES or not held_out or held_out == count:
            reasons = ", ".join(f"{n:,} {why}" for why, n in examples.left_out.items() if n)
            raise TokenmillError(
                f"curate.quality.{key}: {count:,} examples are left to learn from, expected at "
                f"least {MIN_EXAMPLES} (left out: {reasons or 'none'}).",
                "Name more files, sources or labels there; those left out as held_out_text share "
                "words with evaluation text, and larger curate.decontaminate_ngram_words finds "
                "fewer.",
            )


def _names_documents(quality: QualityConfig) -> bool:
    """Tell whether some example is a document of the training split."""
    signs = (SOURCE_SIGN, LABEL_SIGN)
    return not quality.negative or any(
        entry.startswith(signs) for entry in (*quality.positive, *quality.negative)
    )


def _is_named(document: TrainDocument, entries: Sequence[str]) -> bool:
    names = _signs(document)
    return any(entry in names for entry in entries)


def _signs(document: TrainDocument) -> set[str]:
    """Return how examples name a document: by its source, and by its label."""
    named = ((SOURCE_SIGN, document.source), (LABEL_SIGN, document.label))
    return {f"{sign}{name}" for sign, name in named if name}


def _check_names(quality: QualityConfig, found: set[str]) -> None:
    """Refuse a source or label that no document has, as a mistyped one would go unnoticed."""
    for key, entries in (("positive", quality.positive), ("negative", quality.negative)):
        for entry in entries:
            sign = next((s for s in (SOURCE_SIGN, LABEL_SIGN) if entry.startswith(s)), None)
            if sign is None or entry in found:
                continue
            there = sorted(name for name in found if name.startswith(sign))[:_NAMES_SHOWN]
            raise TokenmillError(
                f"curate.quality.{key}: {visible(entry)}: no document of the training split is "
                "called so.",
                f"Among those that are there: {visible(', '.join(there)) or 'none'}.",
            )


def _normalized(text: bytes, config: CurateConfig) -> str:
    """Return the beginning of a text as the scorer will see its like."""
    shown = normalize(text.decode(errors="ignore"))  # it may end within a character
    if config.mask:
        shown, _ = mask(shown, config.mask)
    return shown.encode()[:MAX_EXAMPLE_BYTES].decode(errors="ignore")


def _shares_words(
    texts: Sequence[str], held_out_texts: Iterable[bytes], config: CurateConfig
) -> np.ndarray:
    """Tell which examples share a run of words with held-out text, or all their words.

    As decontamination has it: a run that many documents have is boilerplate, unless an example has
    no others. What is held are the n-grams of the examples, 12 bytes each.

    Returns:
        bool [texts].
    """
    words = config.decontaminate_ngram_words
    shingles = [shingle(part, words, bare=True) for part in _batches(texts)]
    hashes, counts = np.unique(
        np.concatenate([np.zeros(0, np.uint64), *(part.hashes for part in shingles)]),
        return_counts=True,
    )
    own = {content_key(text.encode()): place for place, text in enumerate(texts)}
    gone = np.zeros(len(texts), bool)
    in_held_out = np.zeros(len(hashes), np.int64)
    documents = len(texts)
    for batch in _batches(held_out_texts):
        shown = [normalize(text.decode()) for text in batch]
        documents += len(shown)
        for text in shown:  # also those of fewer words than a run
            if (copy := own.get(content_key(text.encode()))) is not None:
                gone[copy] = True
        found = shingle(shown, words, bare=True).hashes
        if len(hashes) and len(found):
            place = np.minimum(np.searchsorted(hashes, found), len(hashes) - 1)
            in_held_out += np.bincount(place[hashes[place] == found], minlength=len(hashes))
    in_both = in_held_out > 0
    few = counts + in_held_out <= common_above(documents, config.decontaminate_max_documents)
    shared, many = hashes[in_both], hashes[in_both & ~few]
    first = 0
    for part in shingles:
        hits = count_in(part, shared)
        all_shared = (hits == np.diff(part.first)) & (hits > 0)
        for place in np.flatnonzero(hits).tolist():
            runs = shared_runs(texts[first + place], words, shared)
            gone[first + place] |= bool(len(runs.without(many).hashes)) or all_shared[place]
        first += len(part.first) - 1
    return gone


def _has_benchmark(
    texts: Sequence[str], benchmarks: Sequence[str], config: CurateConfig
) -> np.ndarray:
    """Tell which examples have a run of words of a benchmark text, or a short one, bool [texts]."""
    words = config.decontaminate_ngram_words
    if not benchmarks:
        return np.zeros(len(texts), bool)
    guarded = read_benchmark_texts(benchmarks, words)
    hits = [np.zeros(0, np.int64)]
    for batch in _batches(texts):
        hits.append(count_in(shingle(batch, words, bare=True), guarded.table.hashes))
        if len(guarded.short):
            hits[-1] = hits[-1] + count_in(short_hits(batch, guarded), guarded.short)
    return np.concatenate(hits) > 0


def _batches(texts: Iterable[AnyStr]) -> Iterator[list[AnyStr]]:
    batch: list[AnyStr] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) == BATCH_DOCUMENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
