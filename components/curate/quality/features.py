"""Hashed n-grams of bytes: what a document's score is computed from.

An n-gram is a run of bytes of the UTF-8 text, wherever it stands, so there is nothing to split into
words and scripts without blanks are as good as others: 3 bytes are a Chinese character or half a
Latin word, 6 are two characters or a word. Each length has a table of weights of its own, of
2^BUCKET_BITS places; which place an n-gram has is said by a multiplicative hash (Knuth, The Art of
Computer Programming 3, 6.4). Weights are whole numbers of 16 bits, so that their sums are exact,
whatever the batch, and the tables stay in a core's cache.
"""

from collections.abc import Iterator, Sequence

import numpy as np

NGRAM_BYTES = (3, 6)
"""Lengths of the n-grams; benchmarks/curation/learned_quality.py compares others."""
BUCKET_BITS = 18
"""Binary logarithm of the places of a table."""

# Bytes that are looked at together: what is made of them stays in the cache.
_CHUNK = 1 << 15
_WINDOW = 8  # bytes of a uint64
# 2^64 / golden ratio, odd.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class JoinedTexts:
    """Texts, one after the other, and where their n-grams are.

    Args:
        texts: UTF-8.
        ngram_bytes: Lengths of the n-grams, up to 8 bytes.
    """

    def __init__(self, texts: Sequence[bytes], ngram_bytes: Sequence[int] = NGRAM_BYTES):
        sizes = np.array([len(text) for text in texts], np.int64)
        self.first = np.concatenate(([0], np.cumsum(sizes)))
        self._lengths = tuple(ngram_bytes)
        self._data = b"".join(texts) + bytes(2 * _WINDOW)
        of_lengths = [np.maximum(0, sizes - length + 1) for length in self._lengths]
        self.ngrams = np.sum(of_lengths, axis=0)
        """N-grams of each text, of all lengths, int64 [texts]."""

    def buckets(self, bucket_bits: int = BUCKET_BITS) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (number of the length, first byte, int64 places) of each stretch of the texts.

        A place stands for the n-gram that begins at its byte, even if it runs on into the next
        text: `bounds` says which ones do not.
        """
        end = int(self.first[-1])
        for start in range(0, end, _CHUNK):
            count = min(_CHUNK, end - start)
            windows = np.empty((-(-count // _WINDOW), _WINDOW), np.uint64)
            for offset in range(_WINDOW):
                windows[:, offset] = np.frombuffer(
                    self._data, "<u8", count=len(windows), offset=start + offset
                )
            of_bytes = windows.reshape(-1)[:count]
            for number, length in enumerate(self._lengths):
                places = of_bytes << np.uint64(64 - 8 * length)
                places *= _MULTIPLIER
                places >>= np.uint64(64 - bucket_bits)
                yield number, start, places.view(np.int64)

    def bounds(self, number: int, start: int, count: int) -> tuple[slice, np.ndarray, np.ndarray]:
        """Find the n-grams of each text in a stretch that `buckets` gave.

        Args:
            number: Of the length.
            start: First byte of the stretch.
            count: Its places.

        Returns:
            The texts in it, and where the n-grams of each begin and end in it, int64.
        """
        low = int(np.searchsorted(self.first, start, side="right")) - 1
        high = int(np.searchsorted(self.first, start + count, side="left"))
        begins = self.first[low:high]
        ends = np.maximum(begins, self.first[low + 1 : high + 1] - self._lengths[number] + 1)
        return (
            slice(low, high),
            np.clip(begins - start, 0, count),
            np.clip(ends - start, 0, count),
        )


def mean_weights(texts: Sequence[bytes], weights: np.ndarray) -> np.ndarray:
    """Return the mean weight of each text's n-grams, float64 [texts]; 0 for one without any.

    Args:
        texts: UTF-8.
        weights: int16 [lengths of NGRAM_BYTES, 2^bits].
    """
    joined = JoinedTexts(texts)
    sums = np.zeros(len(texts), np.int64)
    for number, start, places in joined.buckets(weights.shape[1].bit_length() - 1):
        running = np.zeros(len(places) + 1, np.int64)
        np.cumsum(weights[number].take(places), dtype=np.int64, out=running[1:])
        some, begins, ends = joined.bounds(number, start, len(places))
        sums[some] += running[ends] - running[begins]
    return sums / np.maximum(1, joined.ngrams)


def ngram_shares(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of a text's n-grams over all tables, ascending, and the share of each.

    Returns:
        int64 and float64 [different places]; the shares are of all n-grams of the text.
    """
    joined = JoinedTexts([text])
    found = []
    for number, start, places in joined.buckets():
        _, begins, ends = joined.bounds(number, start, len(places))
        found.append(places[int(begins[0]) : int(ends[0])] + (number << BUCKET_BITS))
    columns, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *found]), return_counts=True)
    return columns, counts / max(1, int(joined.ngrams[0]))
