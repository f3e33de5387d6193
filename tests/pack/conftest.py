"""Packed splits of made documents, shared by the tests of the step."""

import itertools

import numpy as np
import pytest
from made_documents import TokenizedDocument, in_columns

from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from components.tokenize.config import TokenizerConfig
from components.tokenize.training import train_sentencepiece
from tokenmill.records.keys import stable_hash
from tokenmill.rows.token_flags import CONTROL, STARTS_WORD

VOCAB = 300


def make_flags():
    """Control tokens first; then every second token begins a word."""
    flags = np.zeros(VOCAB, np.uint8)
    flags[:16] = CONTROL
    flags[16::2] = STARTS_WORD
    return flags


@pytest.fixture(scope="session")
def sentencepiece_model():
    """A small trained vocabulary."""
    text = ["Some words. And a sentence, with commas;\n\nthen a new paragraph.\n"] * 20
    return train_sentencepiece(
        text, TokenizerConfig(model_type="bpe", vocab_size=VOCAB, sample_bytes=1000)
    )


@pytest.fixture(scope="session")
def flags():
    return make_flags()


@pytest.fixture(scope="session")
def pack_documents(tmp_path_factory):
    """(documents as (id, source, ids), **settings) -> URI of an artifact with a train split."""

    def pack(documents, sequence_length=32, shards=3, **options):
        uri = tmp_path_factory.mktemp("packed")
        directory, flags = str(uri / "Split-train"), make_flags()
        settings = PackJob(
            sequence_length=sequence_length, vocab_size=VOCAB, shards=shards, **options
        )

        def shard_of(document):
            return stable_hash(document[0]) % shards

        entries = []
        for shard, mine in itertools.groupby(sorted(documents, key=shard_of), shard_of):
            columns = in_columns(
                [TokenizedDocument(i, s, 2 * len(t), np.array(t, np.int32)) for i, s, t in mine]
            )
            entries.append(pack_shard((shard, [columns]), directory, settings, flags))
        write_manifest(entries, directory, settings, flags)
        return str(uri)

    return pack


@pytest.fixture(scope="session")
def random_documents():
    """(count, seed, longest) -> documents of (id, source, ids), one in ten empty."""

    def make(count, seed, longest=90):
        rng = np.random.default_rng(seed)
        return [
            (
                b"doc-%05d" % i,
                (b"wiki", b"code", b"news")[i % 3],
                [] if i % 10 == 9 else rng.integers(16, VOCAB, rng.integers(1, longest)).tolist(),
            )
            for i in range(count)
        ]

    return make
