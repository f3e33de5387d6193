"""Subword regularization: another split of the same text, drawn at random, for training.

A unigram model draws from all splits of a text (Kudo 2018, "Subword Regularization"), a BPE model
leaves merges out (Provilkov et al. 2020, "BPE-Dropout"). tf.text's op cannot be seeded, so the
sentencepiece library draws here, on Beam's workers, for the train split only; what is evaluated
and served is split by Transform's graph, which does not draw.

The library's generator belongs to a thread and takes the seed when it is first used: each draw
has a thread of its own. (That holds up to sentencepiece 0.2.1; 0.2.3 draws otherwise in every
process, whatever the seed. Hence the pin in pyproject.toml.)

Each document is drawn once, when it is tokenized: every epoch sees the same split of it.
"""

import concurrent.futures
import threading
from dataclasses import dataclass

import pyarrow as pa
import sentencepiece

from tokenmill.records.keys import stable_hash
from tokenmill.text.parts import cut_before_blanks

# Part of a text that is drawn at once; it bounds the memory.
_PART_CHARACTERS = 65_536
# The seed that new threads take belongs to the process.
_LOCK = threading.Lock()


@dataclass(frozen=True)
class SubwordRegularization:
    """How training documents are split.

    Attributes:
        alpha: For unigram the smoothing: a split is drawn by its probability to the power of
            alpha, so small values mean even choice. For BPE the probability to leave a merge out.
        seed: With a document's id it decides on the document's split.
    """

    alpha: float
    seed: int


class Sampler:
    """Draws token ids.

    Args:
        model: A SentencePiece model file's content.
        settings: Alpha and seed.
    """

    def __init__(self, model: bytes, settings: SubwordRegularization):
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._settings = settings

    def encode(self, doc_id: bytes, text: bytes) -> list[int]:
        """Draw the token ids of a document: the same for the same id, text and seed."""
        ids: list[int] = []
        parts = cut_before_blanks(text.decode("utf-8", "replace"), _PART_CHARACTERS)
        for number, part in enumerate(parts):
            key = b"%d/%d/%s" % (self._settings.seed, number, doc_id)
            with _LOCK:
                sentencepiece.set_random_generator_seed(stable_hash(key) % 2**32)
                with concurrent.futures.ThreadPoolExecutor(max_workers=1) as thread:
                    ids += thread.submit(self._draw, part).result()
        return ids

    def _draw(self, text: str) -> list[int]:
        return self._processor.encode(
            text, out_type=int, enable_sampling=True, alpha=self._settings.alpha, nbest_size=-1
        )

    def encode_batch(self, batch: pa.RecordBatch) -> list[list[int]]:
        """Draw the token ids of each document of a batch (DOCUMENT_SCHEMA)."""
        doc_ids, texts = (batch.column(name).to_pylist() for name in ("doc_id", "text"))
        return [self.encode(*pair) for pair in zip(doc_ids, texts, strict=True)]
