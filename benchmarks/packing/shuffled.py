"""Bytes that packing sends through Beam's shuffle, and what the same would be by reference.

    python benchmarks/packing/shuffled.py RUN [SHARDS]

RUN is the output directory of a finished run (tokenmill run). Elements are encoded as Beam encodes
them. A reference is a shard, a file, a place in it and a number of tokens: REFERENCE_BYTES.
"""

import json
import pathlib
import sys

from apache_beam.coders import FastPrimitivesCoder
from measure import files_of, newest

from components.pack.tokenized import read_tokenized
from components.pack.transforms import _shard

REFERENCE_BYTES = 24


def main() -> None:
    run, shards = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4
    files = files_of(newest(run, "Transform", "transformed_examples"))
    coder = FastPrimitivesCoder()
    tokens = documents = shuffled = ids = 0
    for path in files:
        for batch in read_tokenized(path):
            tokens += len(batch.tokens)
            documents += len(batch.doc_ids)
            ids += batch.tokens.nbytes
            shuffled += sum(len(coder.encode(element)) for element in _shard(batch, shards))
    stored = sum(pathlib.Path(path).stat().st_size for path in files)
    print(
        json.dumps(
            {
                "documents": documents,
                "tokens": tokens,
                "shards": shards,
                "shuffled_bytes_per_token": shuffled / tokens,
                "of_which_token_ids": ids / tokens,
                "shuffled_bytes_per_document_beside_token_ids": (shuffled - ids) / documents,
                "by_reference_bytes_per_token": REFERENCE_BYTES * documents / tokens,
                "transformed_files_bytes_per_token": stored / tokens,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
