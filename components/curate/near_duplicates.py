"""Near-duplicates: MinHash signatures, LSH bands, exact Jaccard, connected components.

Plain functions over arrays; deduplicate.py strings them together in Beam. Two documents are near
duplicates if the Jaccard similarity of their sets of word n-grams is at least `min_jaccard`:
MinHash (Broder 1997) in `bands` bands of `rows` rows only proposes the pairs, and each pair is
verified on the sets themselves. A pair of similarity s is proposed with probability
1 - (1 - s^rows)^bands: with 14 bands of 8 rows 0.92 at s = 0.8, 0.9996 at 0.9.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import rensa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from components.curate.text_columns import TextColumns, mix, ngrams

# Of MinHash itself; a constant, so that signatures of different runs can be compared.
_SEED = 42


@dataclass(frozen=True)
class NearDuplicateSettings:
    """How near duplicates are found.

    Attributes:
        min_jaccard: Documents at least this similar are copies of each other.
        ngram_words: Words of an n-gram; shorter documents are compared for exact copies only.
        bands: LSH bands.
        rows: MinHash values a band.
    """

    min_jaccard: float
    ngram_words: int
    bands: int
    rows: int

    def proposal_probability(self, jaccard: float) -> float:
        """Probability that a pair of this similarity is looked at (and then verified)."""
        return 1 - (1 - jaccard**self.rows) ** self.bands


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
        """Those of one document."""
        return self.hashes[self.first[document] : self.first[document + 1]]


def shingle(texts: Sequence[str], ngram_words: int) -> Shingles:
    """The n-gram sets of texts, case ignored."""
    grams = all_ngrams(texts, ngram_words)
    document = np.repeat(np.arange(len(texts)), np.diff(grams.first))
    order = np.lexsort((grams.hashes, document))
    hashes, document = grams.hashes[order], document[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (document[1:] != document[:-1])
    counts = np.bincount(document[new], minlength=len(texts))
    return Shingles(hashes[new], np.concatenate(([0], np.cumsum(counts))))


def all_ngrams(texts: Sequence[str], ngram_words: int) -> Shingles:
    """The n-grams of texts as they stand, repeats included: all that MinHash needs."""
    columns = TextColumns([text.lower() for text in texts])
    hashes, first_word = ngrams(columns.word_hashes, columns.words, ngram_words)
    counts = np.bincount(columns.words.document[first_word], minlength=len(texts))
    return Shingles(hashes, np.concatenate(([0], np.cumsum(counts))))


def band_hashes(shingles: Shingles, settings: NearDuplicateSettings) -> np.ndarray:
    """uint64 [documents, bands]: documents that agree in a band are candidates.

    The band's number is mixed in, so that bands never meet each other's hashes.
    """
    documents = len(shingles.first) - 1
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        shingles.hashes, shingles.first.astype(np.uint64), settings.bands * settings.rows, _SEED
    )
    signatures = np.array(matrix.to_rows(), np.uint64).reshape(
        documents, settings.bands, settings.rows
    )
    combined = np.broadcast_to(
        mix(np.arange(1, settings.bands + 1, dtype=np.uint64)), (documents, settings.bands)
    )
    for row in range(settings.rows):
        combined = mix(combined ^ signatures[:, :, row])
    return combined


def propose_pairs(hashes: np.ndarray, keys: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Pairs of documents that share a band hash, int64 [pairs, 2], first < second.

    Within a group each document is paired with the first one and with its neighbour, not with
    all others: a band that n documents share (boilerplate) gives 2n pairs instead of n^2 / 2, and
    the components over all bands still hold what belongs together. Which is first and which are
    neighbours goes by the documents' content, so that the pairs are the same however the
    documents are partitioned.

    Args:
        hashes: uint64 [entries], band hashes.
        keys: uint64 [entries], a hash of the document's content.
        references: int64 [entries], the document.
    """
    order = np.lexsort((references, keys, hashes))
    hashes, references = hashes[order], references[order]
    starts = np.ones(len(hashes), bool)
    starts[1:] = hashes[1:] != hashes[:-1]
    leader = references[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
    others = ~starts
    with_leader = np.stack([leader[others], references[others]], axis=1)
    neighbour = np.roll(references, 1)
    with_neighbour = np.stack([neighbour[others], references[others]], axis=1)
    pairs = np.concatenate([with_leader, with_neighbour])
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Similarity of two ascending sets: common over all; 0 if both are empty."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - common
    return common / union if union else 0.0


def components(edges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Cluster by document for all documents in `edges`, over any number of hops.

    Returns:
        document -> an arbitrary number that is equal for connected documents.
    """
    pairs = np.array(list(edges), np.int64).reshape(-1, 2)
    documents, index = np.unique(pairs, return_inverse=True)
    index = index.reshape(-1, 2)
    graph = coo_array(
        (np.ones(len(index), np.int8), (index[:, 0], index[:, 1])),
        shape=(len(documents), len(documents)),
    )
    _, labels = connected_components(graph, directed=False)
    return dict(zip(documents.tolist(), labels.tolist(), strict=True))
