"""Packing against tokenising, and reading rows against plain tf.data; ratios of one process.

python benchmarks/packing/measure.py RUN [--demo-tokens-per-second N]

RUN is the output directory of a finished causal-lm run (tokenmill run). CPU seconds are those of
the whole process, all threads; each figure is the median of three rounds, taken in turns.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import numpy as np
import tensorflow as tf

from components.documents import decode_documents, split_directory, stable_hash
from components.pack.pieces import piece_flags
from components.pack.rows import PackedSplit
from components.pack.transforms import (
    PackSettings,
    TokenisedDocuments,
    decode_tokenised,
    pack_shard,
    write_manifest,
)
from components.tokenize.preprocessing import load_tokenizer
from components.train.data import training_batches

BATCH, SHARDS, LENGTH = 16, 4, 256


def newest(run: pathlib.Path, step: str, key: str) -> pathlib.Path:
    return max((run / "artifacts" / step / key).iterdir(), key=lambda p: int(p.name))


def records(uri: pathlib.Path) -> list[bytes]:
    files = sorted(str(p) for p in pathlib.Path(split_directory(str(uri), "train")).iterdir())
    return list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())


def batches_of(items: list, size: int = 512):
    return [items[i : i + size] for i in range(0, len(items), size)]


def tokenise(tokenizer, texts: list[list[bytes]]) -> int:
    return sum(int(tokenizer.tokenize(tf.constant(batch)).flat_values.shape[0]) for batch in texts)


def pack(parts, directory: str, settings: PackSettings, flags: np.ndarray) -> dict:
    """What a worker does with its shards: sort, cut, pack, write, checksum, provenance, counts."""
    entries = [pack_shard((i, [part]), directory, settings, flags) for i, part in enumerate(parts)]
    return write_manifest(entries, directory, settings, flags)


def write_examples(split: PackedSplit, path: str) -> None:
    """The same rows as tf.Examples of dense features, as a plain tf.data pipeline has them."""
    with tf.io.TFRecordWriter(path) as writer:
        for start in range(0, split.rows, 512):
            batch = split.read(np.arange(start, min(start + 512, split.rows)))
            for row in zip(*batch, strict=True):
                feature = {
                    name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
                    for name, values in zip(batch._fields[:4], row[:4], strict=True)
                }
                weights = tf.train.FloatList(value=row[4])
                feature["loss_weights"] = tf.train.Feature(float_list=weights)
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())


def plain_tf_data(path: str) -> tf.data.Dataset:
    spec = {
        name: tf.io.FixedLenFeature([LENGTH], tf.int64)
        for name in ("inputs", "targets", "segment_ids", "positions")
    }
    spec["loss_weights"] = tf.io.FixedLenFeature([LENGTH], tf.float32)
    return (
        tf.data.TFRecordDataset(path)
        .batch(BATCH, drop_remainder=True)
        .map(lambda batch: tf.io.parse_example(batch, spec), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def clock(work) -> tuple[float, float]:
    """(CPU seconds, seconds)."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def exhaust(dataset) -> None:
    for _ in dataset:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--demo-tokens-per-second", type=float, default=5600.0)
    arguments = parser.parse_args()
    run = arguments.run
    model = newest(run, "TokenizerTrainer", "tokenizer") / "tokenizer.model"
    flags = piece_flags(model.read_bytes())
    tokenizer = load_tokenizer(str(model))
    curated = records(newest(run, "Curator", "curated_examples"))
    texts = [decode_documents(b).column(2).to_pylist() for b in batches_of(curated)]
    examples = records(newest(run, "Transform", "transformed_examples"))
    documents = TokenisedDocuments.join([decode_tokenised(b) for b in batches_of(examples)])
    numbers = np.array([stable_hash(doc_id) % SHARDS for doc_id in documents.doc_ids])
    parts = [documents.take(np.flatnonzero(numbers == s)) for s in range(SHARDS)]
    settings = PackSettings(LENGTH, len(flags), SHARDS)
    tokens = len(documents.tokens)
    with tempfile.TemporaryDirectory() as place:
        directory = split_directory(place, "train")
        manifest = pack(parts, directory, settings, flags)
        split = PackedSplit(place, "train")
        plain = str(pathlib.Path(place) / "plain.tfrecord")
        write_examples(split, plain)
        steps = split.rows // BATCH
        work = {
            "tokenise": lambda: tokenise(tokenizer, texts),
            "decode tf.Examples": lambda: [decode_tokenised(b) for b in batches_of(examples)],
            "pack and write": lambda: pack(parts, directory, settings, flags),
            "read, shuffled": lambda: exhaust(training_batches(split, BATCH, steps, seed=1)),
            "plain tf.data, in order": lambda: exhaust(plain_tf_data(plain)),
        }
        rounds = [{name: clock(w) for name, w in work.items()} for _ in range(3)]
        sizes = {p.suffix: 0 for p in pathlib.Path(directory).iterdir()}
        for path in pathlib.Path(directory).iterdir():
            sizes[path.suffix] += path.stat().st_size
        plain_bytes = pathlib.Path(plain).stat().st_size
    cpu = {n: statistics.median(r[n][0] for r in rounds) for n in work}
    wall = {n: statistics.median(r[n][1] for r in rounds) for n in work}
    slots = manifest["slots"]
    print(json.dumps({
        "tokens": tokens,
        "documents": manifest["documents"],
        "filled": 1 - manifest["padding_slots"] / slots,
        "rows_bytes_per_token": sizes[".tfrecord"] / tokens,
        "rows_and_index_bytes_per_token": (sizes[".tfrecord"] + sizes[".index"]) / tokens,
        "provenance_bytes_per_token": sizes[".provenance"] / tokens,
        "tf_example_bytes_per_token": plain_bytes / tokens,
        "cpu_nanoseconds_per_token": {n: 1e9 * s / tokens for n, s in cpu.items()},
        "packing_over_tokenising": cpu["tokenise"] / cpu["pack and write"],
        "with_decoding_over_tokenising": cpu["tokenise"]
        / (cpu["pack and write"] + cpu["decode tf.Examples"]),
        "slots_per_second": {n: slots / wall[n] for n in list(work)[3:]},
        "read_over_plain_tf_data": wall["plain tf.data, in order"] / wall["read, shuffled"],
        "read_over_demo_training": slots / wall["read, shuffled"]
        / arguments.demo_tokens_per_second,
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
