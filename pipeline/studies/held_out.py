"""Held-out sets: texts that no proxy run trains on, and what a model's loss on each of them is.

The loss is kept by document, so that two models can be compared on the very same documents.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from components.ingest.config import CorpusConfig
from components.pack.packing import build_rows, pack_parts
from components.train.distributed.cpu_parallelism import replica_parallelism, split
from pipeline.other_texts import read_texts
from tokenmill.errors import TokenmillError
from tokenmill.files import list_files
from tokenmill.model.backbone import Backbone
from tokenmill.records.documents import read_documents
from tokenmill.records.keys import stable_hash
from tokenmill.records.splits import split_directory
from tokenmill.rows.arrays import Layout
from tokenmill.rows.codec import Batch, densify
from tokenmill.text.normalize import normalize
from tokenmill.text.tokenizers.load import read_tokenizer

ALL = "all"
"""Name of the documents of all sets together."""
HELD_OUT_BYTES = 400_000
"""Of held-out text that small models are evaluated on, the same in every study of a text.

Evaluating costs a third of training on as much."""
_BATCH_TEXTS = 512
# What the logits of a batch may take, float32.
_LOGIT_BYTES = 1 << 27
_MOST_ROWS = 64


@dataclass(frozen=True)
class HeldOutSet:
    """Texts under a name.

    Attributes:
        name: Of a source, or of the file that they come from.
        texts: Normalized, UTF-8, in the order of their ids.
    """

    name: str
    texts: tuple[bytes, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the texts."""
        return sum(map(len, self.texts))


@dataclass(frozen=True)
class HeldOutLoss:
    """Losses of a set's documents.

    Attributes:
        nll: Negative log-likelihood of each document, nats, float64 [documents].
        bytes: Bytes of each, int64 [documents].
    """

    nll: np.ndarray
    bytes: np.ndarray

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model takes for a byte of the set."""
        return float(self.nll.sum() / math.log(2) / self.bytes.sum())


def held_out_of_split(
    documents_uri: str, most_bytes: int | None = None, most_sources: int = 8, name: str = ""
) -> list[HeldOutSet]:
    """Read the eval split of documents, a set a source.

    Args:
        documents_uri: An Examples artifact; ingested texts are normalized, curated ones are so.
        most_bytes: Of all sets; documents are chosen by a hash of their ids. None takes all.
        most_sources: Sources with a set of their own, those with most bytes; the others share one.
        name: What is put before the names of the sources.

    Raises:
        TokenmillError: There is no document with text.
    """
    chosen: list[tuple[int, str, bytes, bytes]] = []
    for file in list_files(split_directory(documents_uri, "eval")):
        for batch in read_documents(file):
            columns = (batch.column(n).to_pylist() for n in ("doc_id", "source", "text"))
            for doc_id, source, text in zip(*columns, strict=True):
                if normal := normalize(text.decode()).encode():
                    chosen.append((stable_hash(doc_id), source.decode(), doc_id, normal))
    chosen.sort()
    kept: list[tuple[int, str, bytes, bytes]] = []
    size = 0
    for document in chosen:
        if most_bytes is not None and kept and size + len(document[3]) > most_bytes:
            continue
        kept.append(document)
        size += len(document[3])
    if not kept:
        raise TokenmillError(
            f"{documents_uri}: the eval split has no text to compare models on.",
            "Give more text, or hold out more of it: --set corpus.eval_fraction=0.2",
        )
    by_source: dict[str, list[tuple[bytes, bytes]]] = {}
    for _, source, doc_id, text in kept:
        by_source.setdefault(source, []).append((doc_id, text))
    sizes = {source: sum(len(text) for _, text in docs) for source, docs in by_source.items()}
    largest = sorted(sizes, key=lambda source: (-sizes[source], source))
    own = largest if len(largest) <= most_sources + 1 else largest[:most_sources]
    sets = {f"{name}{source}": by_source[source] for source in sorted(own)}
    if rest := [document for source in largest[len(own) :] for document in by_source[source]]:
        sets[f"{name}other sources"] = rest
    return [
        HeldOutSet(title, tuple(text for _, text in sorted(docs))) for title, docs in sets.items()
    ]


def held_out_of_files(
    paths: Sequence[str], settings: CorpusConfig, option: str = "--held-out"
) -> list[HeldOutSet]:
    """Read files as sets, one a path.

    Args:
        paths: Files, directories or globs, as for corpus.input.
        settings: How files are read.
        option: What named them, for messages.

    Raises:
        TokenmillError: A file is missing, a record cannot be read, or there is no text.
    """
    sets = []
    for path in paths:
        texts = (normalize(text.decode()).encode() for text in read_texts([path], option, settings))
        found = tuple(text for text in texts if text)
        if not found:
            raise TokenmillError(
                f"{option} {path}: there is no document in it.",
                "Expected text, read as corpus.input is.",
            )
        sets.append(HeldOutSet(path, found))
    return sets


class HeldOutEvaluator:
    """Computes the losses of models on held-out sets, of one tokenizer and sequence length.

    Documents are cut as the served model cuts them, so that bits per byte are the Evaluator's.

    Args:
        sets: The texts; no two of a name.
        tokenizer_path: The tokenizer's file.
        sequence_length: Slots of a row.
    """

    def __init__(self, sets: Sequence[HeldOutSet], tokenizer_path: str, sequence_length: int):
        self.sets = tuple(sets)
        self._length = sequence_length
        texts = [text for each in sets for text in each.texts]
        self._bytes = np.array([len(text) for text in texts], np.int64)
        tokenizer = read_tokenizer(tokenizer_path)
        ragged = [
            tokenizer.tokenize(tf.constant(texts[i : i + _BATCH_TEXTS]))
            for i in range(0, len(texts), _BATCH_TEXTS)
        ]
        counts = np.concatenate([r.row_lengths().numpy() for r in ragged]).astype(np.int64)
        tokens = np.concatenate([r.flat_values.numpy() for r in ragged]).astype(np.int32)
        layout = Layout(sequence_length, fixed_cuts=True, control_ids=tokenizer.control_ids)
        parts = pack_parts(counts + (counts > 0), layout)
        self._rows = build_rows(parts, tokens, counts, layout).split()
        self._document_of_segment = parts.document
        per_row = np.bincount(parts.row) if len(parts.row) else np.zeros(0, np.int64)
        self._first_segment = np.cumsum(per_row) - per_row
        self.loss_tokens = int(parts.length.sum())
        digest = hashlib.sha256()
        for each in sets:
            digest.update(each.name.encode() + b"\0")
            for text in each.texts:
                digest.update(len(text).to_bytes(8, "little") + text)
        self.fingerprint = digest.hexdigest()[:32]
        """Hash of names and texts."""

    def bind(self, model: Backbone) -> Callable[[Backbone], Mapping[str, HeldOutLoss]]:
        """Compile the evaluation of a model; returns a function that evaluates it as it is then."""
        slots = model.shape_config.vocab_size * self._length * 4
        rows = max(1, min(_MOST_ROWS, _LOGIT_BYTES // slots, len(self._rows)))
        parallelism = replica_parallelism(tf.distribute.get_strategy())

        @tf.function(jit_compile=True, autograph=False)
        def of_part(batch: Batch) -> tf.Tensor:
            hidden = model.hidden(batch.inputs, batch.segment_ids, batch.positions)
            logits = model.logits(hidden)
            of_target = tf.gather(logits, batch.targets, batch_dims=2)
            return (tf.reduce_logsumexp(logits, -1) - of_target) * batch.loss_weights

        @tf.function(autograph=False)
        def of_batch(batch: Batch) -> tf.Tensor:
            return tf.concat([of_part(part) for part in split(batch, parallelism)], 0)

        def evaluate(same: Backbone) -> Mapping[str, HeldOutLoss]:
            assert same is model, "compiled for another model"
            nll = np.zeros(len(self._bytes))
            for first in range(0, len(self._rows), rows):
                mine = self._rows[first : first + rows]
                batch = densify(mine, self._length)
                segments = batch.segment_ids
                if missing := rows - len(mine):  # one shape, one compilation
                    batch = Batch(*(np.pad(x, ((0, missing), (0, 0))) for x in batch))
                losses = of_batch(Batch(*map(tf.constant, batch))).numpy()[: len(mine)]
                used = segments > 0
                offsets = self._first_segment[first : first + len(mine), None] - 1
                owner = self._document_of_segment[(segments + offsets)[used]]
                nll += np.bincount(owner, losses[used].astype(np.float64), len(nll))
            return self._by_set(nll)

        return evaluate

    def _by_set(self, nll: np.ndarray) -> dict[str, HeldOutLoss]:
        losses, first = {}, 0
        for each in self.sets:
            mine = slice(first, first + len(each.texts))
            losses[each.name] = HeldOutLoss(nll[mine], self._bytes[mine])
            first += len(each.texts)
        losses[ALL] = HeldOutLoss(nll, self._bytes)
        return losses
