"""Trains a SentencePiece model on documents; no TFX here."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import sentencepiece

from components.documents import stable_hash
from components.errors import TokenmillError
from components.tokenize.vocabulary import BOS_ID, CONTROL_TOKENS, EOS_ID, PAD_ID, UNK_ID


@dataclass(frozen=True)
class TokenizerSettings:
    """The [tokenizer] section."""

    model_type: Literal["bpe", "unigram"]
    vocab_size: int
    sample_bytes: int


def sample_documents(
    documents: Iterable[tuple[bytes, bytes]], total_bytes: int, sample_bytes: int
) -> Iterator[str]:
    """A sample of about `sample_bytes` of (doc_id, text), chosen by a hash of the id.

    Which documents are in it depends on nothing but their ids, so that the sample is the same in
    whatever order they come, and it is drawn in one pass.
    """
    limit = 2**64 if total_bytes <= sample_bytes else int(sample_bytes / total_bytes * 2**64)
    for doc_id, text in documents:
        if stable_hash(doc_id) < limit:
            yield text.decode()


def train_sentencepiece(texts: Iterable[str], settings: TokenizerSettings) -> bytes:
    """Trains a model with byte fallback and without normalisation: decode(encode(x)) == x.

    One thread, so that the sums of floating-point numbers always come in the same order.

    Raises:
        TokenmillError: The text holds too few different pieces for the vocabulary asked for.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=settings.model_type,
            vocab_size=settings.vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,  # indentation
            split_digits=True,
            character_coverage=0.9999,
            max_sentence_length=1 << 24,  # documents are long "sentences"; none is left out
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            control_symbols=list(CONTROL_TOKENS[4:]),
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise TokenmillError(
            f"SentencePiece could not train {settings.vocab_size:,} {settings.model_type} pieces "
            f"on this text: {' '.join(str(error).split())}",
            "Give more text or a smaller tokenizer.vocab_size.",
        ) from error
    return model.getvalue()
