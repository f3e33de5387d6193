"""A small vocabulary, rows of two sources made with it, and a small model."""

import os

import numpy as np
import pytest
import sentencepiece
from made_documents import TokenizedDocument, in_columns

from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from pipeline.loader import load_config
from pipeline.studies.corpus import StudyCorpus
from tokenmill.model.shape import ModelShape
from tokenmill.text.tokenizers.load import read_tokenizer
from tokenmill.text.vocabulary import CONTROL_TOKENS

LENGTH = 16


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    sentences = (f"{a}{b} and {b}{a} are words" for a in "abcdefghij" for b in "klmnopqrst")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_prefix=str(directory / "tokenizer"), vocab_size=320,
        byte_fallback=True, model_type="bpe", hard_vocab_limit=False, minloglevel=2, pad_id=0,
        unk_id=1, bos_id=2, eos_id=3, control_symbols=list(CONTROL_TOKENS[4:]),
    )  # fmt: skip
    return str(directory / "tokenizer.model")


@pytest.fixture(scope="session")
def shape(tokenizer_path):
    return ModelShape(
        layers=1, d_model=16, heads=2, d_ff=32, sequence_length=LENGTH, positions="rope",
        vocab_size=read_tokenizer(tokenizer_path).vocab_size, norm="layer", use_bias=True,
        mlp="gelu", tie_embeddings=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def rows_uri(tmp_path_factory, shape):
    """Documents that count upwards, of source `up`, and ones that count downwards, of `down`."""
    uri = str(tmp_path_factory.mktemp("rows"))
    rng = np.random.default_rng(3)
    settings = PackJob(
        sequence_length=LENGTH, vocab_size=shape.vocab_size, shards=1,
        source_weights={"up": 1.0, "down": 1.0},
    )  # fmt: skip
    for split, documents in (("train", 120), ("eval", 10)):
        made = []
        for i in range(documents):
            ids = 10 + (rng.integers(0, 40) + np.arange(rng.integers(3, 40), dtype=np.int32)) % 40
            source, ids = (b"down", ids[::-1].copy()) if i % 3 == 0 else (b"up", ids)
            made.append(TokenizedDocument(b"%04d" % i, source, 40, ids))
        directory = os.path.join(uri, f"Split-{split}")
        flags = np.zeros(shape.vocab_size, np.uint8)
        shard = pack_shard((0, [in_columns(made)]), directory, settings, flags)
        write_manifest([shard], directory, settings, flags)
    return uri


@pytest.fixture(scope="session")
def corpus(rows_uri, tokenizer_path):
    """What `prepare_corpus` would say of the rows."""
    return StudyCorpus(
        config=load_config("demo"), rows_uri=rows_uri, tokenizer_path=tokenizer_path,
        examples_uri="", curated_uri="", dropped_uri="", rows_by_source={"down": 60, "up": 120},
        seconds=1.0, core_seconds={}, usd_per_core_hour=0.0,
    )  # fmt: skip
