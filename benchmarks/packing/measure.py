"""Packing against tokenizing, and reading rows against plain tf.data; ratios of one process.

python benchmarks/packing/measure.py RUN [--demo-tokens-per-second N]

RUN is the output directory of a finished causal-lm run (tokenmill run). CPU seconds are those of
the whole process, all threads; each figure is the median of three rounds, taken in turns. "Whole"
is a Beam pipeline as the step runs it, from its input files to its output files, the train split.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import apache_beam as beam
import numpy as np
import tensorflow as tf

from components.pack.job import PackJob
from components.pack.tokenized import TokenizedDocuments, read_tokenized
from components.pack.transforms import PackSplit, pack_shard, write_manifest
from components.tokenize.apply_transform import ApplyTransform
from components.tokenize.graph import graph_token_ids
from components.train.data import training_batches
from tokenmill.beam_arguments import RUNNER
from tokenmill.provenance.rows import find_document
from tokenmill.records.documents import decode_documents
from tokenmill.records.splits import split_directory
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.token_flags import token_flags
from tokenmill.text.tokenization import load_tokenizer
from tokenmill.text.tokenizers.load import read_tokenizer

BATCH, LENGTH = 16, 256


def newest(run: pathlib.Path, step: str, key: str) -> pathlib.Path:
    return max((run / "artifacts" / step / key).iterdir(), key=lambda p: int(p.name))


def files_of(uri: pathlib.Path) -> list[str]:
    return sorted(str(p) for p in pathlib.Path(split_directory(str(uri), "train")).iterdir())


def batches_of(items, size: int = 512):
    return [items[i : i + size] for i in range(0, len(items), size)]


def tokenize(tokenizer, texts: list[list[bytes]]) -> int:
    return sum(int(tokenizer.tokenize(tf.constant(batch)).flat_values.shape[0]) for batch in texts)


def pack(documents, directory: str, settings: PackJob, flags: np.ndarray) -> dict:
    """What a worker does with a shard: sort, cut, pack, write, checksum, provenance, counts."""
    entry = pack_shard((0, [documents]), directory, settings, flags)
    return write_manifest([entry], directory, settings, flags)


def whole(transform: beam.PTransform) -> None:
    with beam.Pipeline(runner=RUNNER) as pipeline:
        pipeline | transform


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
    flags = token_flags(read_tokenizer(str(model)).token_bytes)
    tokenizer = load_tokenizer(str(model))
    curated, transformed = (
        newest(run, "Curator", "curated_examples"),
        newest(run, "Transform", "transformed_examples"),
    )
    graph = str(newest(run, "Transform", "transform_graph"))
    curated_records = list(tf.data.TFRecordDataset(files_of(curated), "GZIP").as_numpy_iterator())
    documents_of_batches = [decode_documents(batch) for batch in batches_of(curated_records, 8192)]
    texts = batches_of([t for d in documents_of_batches for t in d.column(2).to_pylist()])
    parts = [part for path in files_of(transformed) for part in read_tokenized(path)]
    documents = TokenizedDocuments.join(parts)
    settings = PackJob(sequence_length=LENGTH, vocab_size=len(flags), shards=1)
    tokens = len(documents.tokens)
    with tempfile.TemporaryDirectory() as place:
        directory = split_directory(place, "train")
        manifest = pack(documents, directory, settings, flags)
        split = PackedSplit(place, "train")
        plain = str(pathlib.Path(place) / "plain.tfrecord")
        write_examples(split, plain)
        steps = split.rows // BATCH
        shuffled = batches_of(np.random.default_rng(1).permutation(split.rows), BATCH)
        work = {
            "tokenize": lambda: tokenize(tokenizer, texts),
            "tokenize in Transform's graph": lambda: [
                graph_token_ids(graph)(batch) for batch in documents_of_batches
            ],
            "read tf.Examples": lambda: [
                part for path in files_of(transformed) for part in read_tokenized(path)
            ],
            "pack and write": lambda: pack(documents, directory, settings, flags),
            "whole tokenizing": lambda: whole(
                ApplyTransform(str(curated), f"{place}/again", "train", graph, str(model))
            ),
            "whole packing": lambda: whole(
                PackSplit(
                    f"{split_directory(str(transformed), 'train')}/*",
                    f"{place}/packed",
                    "train",
                    settings,
                    flags,
                )
            ),
            "read rows at random": lambda: [split.read_rows(b) for b in shuffled],
            "read, shuffled": lambda: exhaust(training_batches(split, BATCH, steps, seed=1)),
            "plain tf.data, in order": lambda: exhaust(plain_tf_data(plain)),
        }
        rounds = [{name: clock(w) for name, w in work.items()} for _ in range(3)]
        sizes = {p.suffix: 0 for p in pathlib.Path(directory).iterdir()}
        for path in pathlib.Path(directory).iterdir():
            sizes[path.suffix] += path.stat().st_size
        wanted = documents.doc_ids[:: max(1, len(documents.doc_ids) // 200)]
        look_up = clock(lambda: [find_document(place, "train", doc_id) for doc_id in wanted])[1]
        plain_bytes = pathlib.Path(plain).stat().st_size
    cpu = {n: statistics.median(r[n][0] for r in rounds) for n in work}
    wall = {n: statistics.median(r[n][1] for r in rounds) for n in work}
    slots = manifest.slots
    print(json.dumps({
        "tokens": tokens,
        "documents": manifest.documents,
        "filled": 1 - manifest.padding_slots / slots,
        "rows_bytes_per_token": sizes[".tfrecord"] / tokens,
        "rows_and_index_bytes_per_token": (sizes[".tfrecord"] + sizes[".index"]) / tokens,
        "provenance_bytes_per_token": sizes[".provenance"] / tokens,
        "tf_example_bytes_per_token": plain_bytes / tokens,
        "cpu_nanoseconds_per_token": {n: 1e9 * s / tokens for n, s in cpu.items()},
        "packing_over_tokenizing": cpu["tokenize"] / cpu["pack and write"],
        "with_reading_over_tokenizing": cpu["tokenize"]
        / (cpu["pack and write"] + cpu["read tf.Examples"]),
        "whole_over_whole": cpu["whole tokenizing"] / cpu["whole packing"],
        "provenance_look_up_milliseconds": 1e3 * look_up / len(wanted),
        "random_row_cpu_microseconds": 1e6 * cpu["read rows at random"] / split.rows,
        "slots_per_second": {n: slots / wall[n] for n in ("read, shuffled",
                                                          "plain tf.data, in order")},
        "read_over_plain_tf_data": wall["plain tf.data, in order"] / wall["read, shuffled"],
        "read_over_demo_training": slots / wall["read, shuffled"]
        / arguments.demo_tokens_per_second,
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
