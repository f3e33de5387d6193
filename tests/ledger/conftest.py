"""A small artifact of packed rows, both splits, of made documents."""

import numpy as np
import pytest
from made_documents import TokenizedDocument, in_columns

from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from tokenmill.records.splits import split_directory
from tokenmill.rows.token_flags import CONTROL

VOCAB, LENGTH = 300, 32


@pytest.fixture(scope="session")
def packed_documents():
    """{split: [(id, number of tokens)]}; every tenth fills more than a row, two share an id."""
    documents = {
        split: [(f"{split}-{i:03d}", 70 if i % 10 == 0 else 9 + i % 13) for i in range(count)]
        for split, count in (("train", 120), ("eval", 30))
    }
    documents["eval"] += [("shared", 11), ("shared#same-id-00000000000000aa", 17)]
    return documents


@pytest.fixture(scope="session")
def rows_uri(tmp_path_factory, packed_documents):
    uri = str(tmp_path_factory.mktemp("rows"))
    random = np.random.default_rng(1)
    flags = np.zeros(VOCAB, np.uint8)
    flags[:16] = CONTROL
    settings = PackJob(sequence_length=LENGTH, vocab_size=VOCAB, shards=1)
    for split, documents in packed_documents.items():
        made = [
            TokenizedDocument(
                name.encode(), b"made", 3 * n, random.integers(16, VOCAB, n).astype(np.int32)
            )
            for name, n in documents
        ]
        directory = split_directory(uri, split)
        entry = pack_shard((0, [in_columns(made)]), directory, settings, flags)
        write_manifest([entry], directory, settings, flags)
    return uri
