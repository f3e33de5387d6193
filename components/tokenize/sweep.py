"""Which vocabulary suits a text: trains several, and counts what each costs in training.

A larger vocabulary makes fewer tokens of the same bytes, but each token costs more: the output
projection, its memory, and embeddings of tokens that are hardly ever seen. The text is fixed, so
vocabularies are compared for the same bytes, not the same tokens.

FLOPs do not say how well a model learns. For that the recommendation takes the size that Tao et
al. 2024 ("Scaling Laws with Vocabulary: Larger Models Deserve Larger Vocabularies", arXiv
2407.13623) fitted to the losses of trained models: `predicted_vocab_size`.
"""

import dataclasses
import functools
import math
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from components.tokenize.config import ModelType, TokenizerConfig
from components.tokenize.import_model import load_processor
from components.tokenize.training import (
    Document,
    Sentences,
    sample_documents,
    sampling_rates,
    train_sentencepiece,
)
from tokenmill.cost.flops import flops_per_token
from tokenmill.cost.memory import Precision, estimate_memory
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape
from tokenmill.records.keys import stable_hash
from tokenmill.text.language import determined, identify
from tokenmill.text.tokenization import load_tokenizer, tokenize
from tokenmill.text.vocabulary import UNLEARNED_TOKENS

MAX_UNUSED = 0.2
"""Ours: above it more than every fifth learned embedding row is not seen in the held-out text."""
DEFAULT_SIZES = (4096, 8192, 16384, 32768, 65536)
# Tao et al. 2024, derivative-based estimate, as their code has it: 33M parameters outside the
# vocabulary go with 6,144 tokens x 512; fitted to models of 33M to 2.87B.
_FITTED_PARAMS, _FITTED_VOCABULARY_PARAMS, _FITTED_EXPONENT = 33e6, 3_145_728, 0.8354
FITTED_RANGE = (33e6, 2.87e9)
_HELD_OUT = 0.1
_BATCH = 512


@dataclass(frozen=True)
class Candidate:
    """One vocabulary and what it means for a model; ratios are of the held-out text.

    Attributes:
        model_type: `bpe` or `unigram`.
        vocab_size: Tokens in all.
        bytes_per_token: Held-out bytes over tokens (without begin and end tokens).
        bytes_per_token_by_language: The same of each language that has tokens.
        tokens_per_word_by_source: Tokens over words (runs without white space).
        unused_fraction: Share of the learned tokens that no held-out text has.
        byte_token_fraction: Share of the tokens that are single bytes of byte fallback.
        unigram_bits_per_byte: Loss of the best model without context: each token's bits by its
            frequency in the sample (plus one), over the bytes.
        embedding_params: Parameters of the token embedding, and the output projection if untied.
        embedding_param_fraction: Their share of all parameters.
        vocabulary_memory_fraction: Share of training memory: weights, gradients and moments of
            these parameters, and the logits.
        softmax_flop_fraction: The output projection's share of the forward FLOPs.
        training_flops: For `corpus_bytes` of text, once.
    """

    model_type: str
    vocab_size: int
    bytes_per_token: float
    bytes_per_token_by_language: dict[str, float]
    tokens_per_word_by_source: dict[str, float]
    unused_fraction: float
    byte_token_fraction: float
    unigram_bits_per_byte: float
    embedding_params: int
    embedding_param_fraction: float
    vocabulary_memory_fraction: float
    softmax_flop_fraction: float
    training_flops: float


@dataclass(frozen=True)
class Sweep:
    """What was found.

    Attributes:
        corpus_bytes: Bytes that `training_flops` is for.
        held_out_bytes: Bytes that the ratios were measured on.
        held_out_bytes_by_language: The same by language as in curation (ISO 639; und:
            not known).
        candidates: The vocabularies, by type and size.
        impossible: (model type, size, reason) of those that the text does not support.
        predicted_vocab_size: The best size for this model by Tao et al. 2024.
        cheapest: Index of the candidate with the least training FLOPs.
        recommended: Index into candidates.
        reason: Why.
    """

    corpus_bytes: int
    held_out_bytes: int
    held_out_bytes_by_language: dict[str, int]
    candidates: list[Candidate]
    impossible: list[tuple[str, int, str]]
    predicted_vocab_size: int
    cheapest: int
    recommended: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the result as a JSON value."""
        return dataclasses.asdict(self)


def sweep(
    documents: Sequence[Document],
    sizes: Sequence[int],
    model_types: Sequence[ModelType],
    settings: TokenizerConfig,
    shape: ModelShape,
    precision: Precision,
    batch_per_device: int,
    progress: Callable[[str, int], None] = lambda *_: None,
    workers: int = 1,
    declared: Sequence[str] | None = None,
) -> Sweep:
    """Train and measure a vocabulary of each type and size.

    A tenth of the documents, chosen by a hash, is held out; ratios are measured on it.

    Args:
        documents: The text.
        sizes: Vocabulary sizes.
        model_types: `bpe`, `unigram` or both.
        settings: Sample size, source weights, user's symbols; its type and size are not used.
        shape: The model; its vocab_size is not used.
        precision: Of training.
        batch_per_device: Rows of sequence_length tokens on one chip in one step.
        progress: Told the name of what is next and how many are done.
        workers: Processes that train vocabularies at the same time.
        declared: The language that the input says of each document, empty for none: counted where
            the text does not show its own.

    Raises:
        TokenmillError: There are too few documents, or the text supports none of the sizes.
    """
    held_out, train, held_out_declared = [], [], []
    for document, language in zip(documents, declared or [""] * len(documents), strict=True):
        if stable_hash(b"held-out/" + document[0]) < _HELD_OUT * 2**64:
            held_out.append(document)
            held_out_declared.append(language)
        else:
            train.append(document)
    languages = determined(identify([d[2].decode() for d in held_out]), held_out_declared)
    bytes_by_language = _add_up(languages, [len(d[2]) for d in held_out])
    held_out_bytes = sum(bytes_by_language.values())
    if not held_out_bytes or not train:
        raise TokenmillError(
            f"{len(documents):,} documents are too few: a tenth is held out to measure on.",
            "Give more documents.",
        )
    by_source = _add_up([d[1].decode() for d in train], [len(d[2]) for d in train])
    rates = sampling_rates(by_source, settings.sample_bytes, settings.source_weights)
    texts = list(Sentences(sample_documents(train, rates)))
    corpus_bytes = sum(len(d[2]) for d in documents)
    candidates: list[Candidate] = []
    impossible: list[tuple[str, int, str]] = []
    wanted = [
        settings.model_copy(update={"model_type": t, "vocab_size": size})
        for t in model_types
        for size in sorted(set(sizes))
    ]
    progress(f"{wanted[0].model_type} {wanted[0].vocab_size:,}", 0)
    measure = functools.partial(_train_and_measure, texts, held_out, languages)
    for done, (each, measured) in enumerate(_in_processes(measure, wanted, workers), start=1):
        following = wanted[min(done, len(wanted) - 1)]
        progress(f"{following.model_type} {following.vocab_size:,}", done)
        if isinstance(measured, str):
            impossible.append((each.model_type, each.vocab_size, measured))
            continue
        costs = vocabulary_costs(
            dataclasses.replace(shape, vocab_size=each.vocab_size),
            corpus_bytes / measured["bytes_per_token"],
            precision,
            batch_per_device,
        )
        candidates.append(Candidate(each.model_type, each.vocab_size, **measured, **costs))
    progress("done", len(wanted))
    if not candidates:
        raise TokenmillError(
            "the text supports none of these vocabularies: " + impossible[0][2],
            "Give more text or smaller --sizes.",
        )
    predicted = predicted_vocab_size(shape)
    cheapest = min(range(len(candidates)), key=lambda i: candidates[i].training_flops)
    best, reason = recommend(candidates, predicted)
    return Sweep(
        corpus_bytes, held_out_bytes, bytes_by_language, candidates, impossible, predicted,
        cheapest, best, reason,
    )  # fmt: skip


def _in_processes(
    measure: Callable[[TokenizerConfig], Any], wanted: list[TokenizerConfig], workers: int
) -> Iterator[tuple[TokenizerConfig, Any]]:
    """Yield settings and result of each vocabulary, in order."""
    if min(workers, len(wanted)) <= 1:
        yield from ((each, measure(each)) for each in wanted)
        return
    # A fresh process: TensorFlow does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(wanted)), context) as pool:
        yield from zip(wanted, pool.map(measure, wanted), strict=True)


def _train_and_measure(
    texts: Sequence[str],
    held_out: Sequence[Document],
    languages: Sequence[str],
    settings: TokenizerConfig,
) -> dict[str, Any] | str:
    """Return what `_measure` gives, or why the text does not support the vocabulary."""
    try:
        model = train_sentencepiece(texts, settings)
    except TokenmillError as error:
        return error.message
    return _measure(model, texts, held_out, languages, len(settings.user_symbols))


def predicted_vocab_size(shape: ModelShape) -> int:
    """Predict the compute-optimal vocabulary size of a model (Tao et al. 2024).

    Vocabulary parameters grow with the other parameters to the power 0.8354; an extrapolation
    outside FITTED_RANGE. It is for a training as long as is compute-optimal. Of a mixture of
    experts the parameters that a token passes count: the paper weighs the vocabulary's FLOPs
    against the model's.
    """
    parts = shape.params_by_part()
    others = shape.params_active - parts["token_embedding"] - parts["output_projection"]
    params = _FITTED_VOCABULARY_PARAMS * (others / _FITTED_PARAMS) ** _FITTED_EXPONENT
    return round(params / shape.d_model)


def vocabulary_costs(
    shape: ModelShape, tokens: float, precision: Precision, batch_per_device: int
) -> dict[str, Any]:
    """Compute what a vocabulary costs a model, by the ledger's formulas.

    Args:
        shape: The model with this vocabulary.
        tokens: To train on.
        precision: Of training.
        batch_per_device: Rows on one chip in one step.
    """
    parts = shape.params_by_part()
    embedding = parts["token_embedding"] + parts["output_projection"]
    memory = estimate_memory(shape, batch_per_device=batch_per_device, precision=precision)
    share = embedding / shape.params_total
    per_param = memory.weights + memory.compute_copy + memory.gradients + memory.optimizer
    flops = flops_per_token(shape)
    return {
        "embedding_params": embedding,
        "embedding_param_fraction": share,
        "vocabulary_memory_fraction": (share * per_param + memory.logits) / memory.total,
        "softmax_flop_fraction": flops.output_projection / flops.forward,
        "training_flops": flops.training * tokens,
    }


def recommend(candidates: Sequence[Candidate], predicted: int) -> tuple[int, str]:
    """Choose a candidate; return its index and the reason.

    Among those with at most MAX_UNUSED unused tokens the size nearest to the predicted one, by
    ratio, and of the two types at that size the one with less training FLOPs for the same bytes.
    If all leave more unused, the one that leaves the fewest.
    """
    used = [i for i, c in enumerate(candidates) if c.unused_fraction <= MAX_UNUSED]
    if not used:
        best = min(range(len(candidates)), key=lambda i: candidates[i].unused_fraction)
        return best, (
            f"all leave more than {MAX_UNUSED:.0%} of their learned tokens unused on held-out "
            "text; this one the fewest: the text is small for such vocabularies"
        )

    def rank(i: int) -> tuple[float, float]:
        distance = abs(math.log(candidates[i].vocab_size / predicted))
        return distance, candidates[i].training_flops

    best = min(used, key=rank)
    same_size = [i for i in used if candidates[i].vocab_size == candidates[best].vocab_size]
    reason = (
        f"nearest to {predicted:,}, the best size for this model by Tao et al. 2024, among the "
        f"{len(used)} of {len(candidates)} vocabularies that use at least {1 - MAX_UNUSED:.0%} of "
        "their learned tokens on held-out text"
    )
    if len(same_size) > 1:
        reason += "; of this size the type with less training FLOPs for the same bytes"
    return best, reason


def _measure(
    model: bytes,
    sample: Sequence[str],
    held_out: Sequence[Document],
    languages: Sequence[str],
    user_symbols: int,
) -> dict[str, Any]:
    """Measure ratios of one model on held-out text, counted by the graph's op as everywhere."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "tokenizer.model")
        with open(path, "wb") as out:
            out.write(model)
        op = load_tokenizer(path)
    size = load_processor(model, path).get_piece_size()
    graph = tf.function(
        lambda text: tokenize(op, text), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    counts, seen = np.zeros(size, np.int64), np.ones(size, np.int64)
    for start in range(0, len(sample), _BATCH):
        ids = graph(tf.constant(sample[start : start + _BATCH]))
        seen += np.bincount(ids.flat_values.numpy(), minlength=size)
    lengths: list[int] = []
    for start in range(0, len(held_out), _BATCH):
        batch = held_out[start : start + _BATCH]
        ids = graph(tf.constant([text for _, _, text in batch]))
        counts += np.bincount(ids.flat_values.numpy(), minlength=size)
        lengths += ids.row_lengths().numpy().tolist()
    sources = [source.decode() for _, source, _ in held_out]
    tokens, words = (
        _add_up(sources, values) for values in (lengths, [len(d[2].split()) for d in held_out])
    )
    sizes = [len(d[2]) for d in held_out]
    language_bytes, language_tokens = (_add_up(languages, values) for values in (sizes, lengths))
    first_learned = UNLEARNED_TOKENS + user_symbols
    total, held_out_bytes = int(counts.sum()), sum(sizes)
    bits = -(counts * np.log2(seen / seen.sum())).sum()
    return {
        "bytes_per_token": held_out_bytes / total,
        "bytes_per_token_by_language": {
            code: language_bytes[code] / n for code, n in language_tokens.items() if n
        },
        "tokens_per_word_by_source": {
            name: n / words[name] for name, n in tokens.items() if words[name]
        },
        "unused_fraction": float((counts[first_learned:] == 0).mean()),
        "byte_token_fraction": float(counts[first_learned - 256 : first_learned].sum() / total),
        "unigram_bits_per_byte": float(bits / held_out_bytes),
    }


def _add_up(names: Sequence[str], values: Sequence[int]) -> dict[str, int]:
    """Add up a value of each document by the document's name, ascending by name."""
    sums: dict[str, int] = {}
    for name, value in zip(names, values, strict=True):
        sums[name] = sums.get(name, 0) + value
    return dict(sorted(sums.items()))
