"""Near-duplicates: MinHash signatures, LSH bands, exact Jaccard, connected components.

Plain functions over arrays; deduplicate.py strings them together in Beam. Two documents are near
duplicates if the Jaccard similarity of their sets of word n-grams is at least `min_jaccard`:
MinHash (Broder 1997) in `bands` bands of `rows` rows only proposes the pairs, and each pair is
verified on the sets themselves. A pair of similarity s is proposed with probability
1 - (1 - s^rows)^bands: with 14 bands of 8 rows 0.92 at s = 0.8, 0.9996 at 0.9.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import rensa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from components.curate.config import CurateConfig
from tokenmill.text.text_columns import Spans, TextColumns, mix, ngrams

# Of MinHash itself; a constant, so that signatures of different runs can be compared.
_SEED = 42


def proposal_probability(jaccard: float, config: CurateConfig) -> float:
    """Return the probability that a pair of this similarity is looked at (and then verified)."""
    return 1 - (1 - jaccard**config.near_duplicate_rows) ** config.near_duplicate_bands


@dataclass(frozen=True)
class Shingles:
    """The n-gram hashes of some documents.

    Attributes:
        hashes: uint64; from `shingle`, each document's in ascending order, without repeats.
        first: int64 [documents + 1], where each document's begin.
    """

    hashes: np.ndarray
    first: np.ndarray

    def of(self, document: int) -> np.ndarray:
        """Return the n-grams of one document."""
        return self.hashes[self.first[document] : self.first[document + 1]]


def shingle(texts: Sequence[str], ngram_words: int, bare: bool = False) -> Shingles:
    """Return the n-gram sets of texts; `bare` and the rest as for `all_ngrams`."""
    grams = all_ngrams(texts, ngram_words, bare)
    document = np.repeat(np.arange(len(texts)), np.diff(grams.first))
    order = np.lexsort((grams.hashes, document))
    hashes, document = grams.hashes[order], document[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (document[1:] != document[:-1])
    counts = np.bincount(document[new], minlength=len(texts))
    return Shingles(hashes[new], np.concatenate(([0], np.cumsum(counts))))


def all_ngrams(texts: Sequence[str], ngram_words: int, bare: bool = False) -> Shingles:
    """Return the n-grams of texts as they stand, repeats included: all that MinHash needs.

    Args:
        texts: The texts; case is ignored, and long words are cut into pieces.
        ngram_words: Words of an n-gram.
        bare: Whether words are those of `bare_words`.
    """
    if bare:
        columns, words = bare_words(texts)
    else:
        lowered = [text.lower() for text in texts]
        columns = TextColumns(lowered, cut_long_words=True, east_asian="characters")
        words = columns.words
    hashes, first_word = ngrams(columns.hash_spans(words), words, ngram_words)
    counts = np.bincount(words.document[first_word], minlength=len(texts))
    return Shingles(hashes, np.concatenate(([0], np.cumsum(counts))))


def bare_words(texts: Sequence[str]) -> tuple[TextColumns, Spans]:
    """Return the words that overlaps are found by: case and the punctuation around them ignored.

    Thirteen Chinese characters are eight words, which many texts have in common: they are joined.
    """
    lowered = [text.lower() for text in texts]
    columns = TextColumns(lowered, cut_long_words=True, east_asian="words")
    return columns, columns.bare_words


def band_hashes(shingles: Shingles, config: CurateConfig) -> np.ndarray:
    """Return hashes, uint64 [documents, bands]; documents that agree in a band are candidates.

    The band's number is mixed in, so that bands never meet each other's hashes.
    """
    documents, bands = len(shingles.first) - 1, config.near_duplicate_bands
    rows = config.near_duplicate_rows
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        shingles.hashes, shingles.first.astype(np.uint64), bands * rows, _SEED
    )
    values = itertools.chain.from_iterable(matrix.to_rows())
    signatures = np.fromiter(values, np.uint64, documents * bands * rows)
    signatures = signatures.reshape(documents, bands, rows)
    combined = np.broadcast_to(mix(np.arange(1, bands + 1, dtype=np.uint64)), (documents, bands))
    for row in range(rows):
        combined = mix(combined ^ signatures[:, :, row])
    return combined


def propose_pairs(
    hashes: np.ndarray, keys: np.ndarray, references: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of documents that share a band hash.

    Within a group each document is paired with the first one and with its neighbor, not with
    all others: a band that n documents share (boilerplate) gives 2n pairs instead of n^2 / 2, and
    the components over all bands still hold what belongs together. Which is first and which are
    neighbors goes by the documents' content, so that the pairs are the same however the
    documents are partitioned.

    Args:
        hashes: uint64 [entries], band hashes.
        keys: uint64 [entries], a hash of the document's content.
        references: int64 [entries], the document.

    Returns:
        int64 [pairs, 2], distinct, first < second; int64 [pairs], the first of a group of each.
    """
    order = np.lexsort((references, keys, hashes))
    hashes, references = hashes[order], references[order]
    starts = np.ones(len(hashes), bool)
    starts[1:] = hashes[1:] != hashes[:-1]
    leader = references[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
    others = ~starts
    with_leader = np.stack([leader[others], references[others]], axis=1)
    neighbor = np.roll(references, 1)
    with_neighbor = np.stack([neighbor[others], references[others]], axis=1)
    pairs = np.concatenate([with_leader, with_neighbor])
    leaders = np.concatenate([leader[others], leader[others]])
    two = pairs[:, 0] != pairs[:, 1]
    distinct, place = np.unique(np.sort(pairs[two], axis=1), axis=0, return_index=True)
    return distinct, leaders[two][place]


def jaccards(shingles: Shingles, pairs: np.ndarray) -> np.ndarray:
    """Compute the similarity of sets: common over all; 0 if both are empty.

    Args:
        shingles: From `shingle`.
        pairs: int64 [pairs, 2], documents.

    Returns:
        float64 [pairs].
    """
    distinct, ids = np.unique(shingles.hashes, return_inverse=True)
    counts = np.diff(shingles.first)
    # Ascending, since each document's hashes are.
    members = np.repeat(np.arange(len(counts)), counts) * len(distinct) + ids
    lengths = counts[pairs[:, 0]]
    pair = np.repeat(np.arange(len(pairs)), lengths)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    wanted = pairs[pair, 1] * len(distinct) + ids[shingles.first[pairs[pair, 0]] + within]
    place = np.minimum(np.searchsorted(members, wanted), max(len(members) - 1, 0))
    common = np.bincount(pair[members[place] == wanted], minlength=len(pairs))
    union = lengths + counts[pairs[:, 1]] - common
    return np.divide(common, union, out=np.zeros(len(pairs)), where=union > 0)


def components(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find clusters over any number of hops.

    Args:
        pairs: int64 [pairs, 2], connected documents.

    Returns:
        int64 [documents], those in `pairs`, ascending; int64 [pairs, 2], the pairs as places in
        it; int32 [documents], a number that is equal for connected documents.
    """
    documents, index = np.unique(pairs, return_inverse=True)
    index = index.reshape(-1, 2)
    graph = coo_array(
        (np.ones(len(index), np.int8), (index[:, 0], index[:, 1])),
        shape=(len(documents), len(documents)),
    )
    _, labels = connected_components(graph, directed=False)
    return documents, index, labels
