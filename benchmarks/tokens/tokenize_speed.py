"""Bytes per CPU-second of the Transform step, beside the sentencepiece library and tf.text's op.

    python benchmarks/tokens/tokenize_speed.py --megabytes 50 --model-type bpe [--profile FILE]

All in one process and one run, on the same text: the library alone (texts in lists of 512, one
thread), the op alone (in a tf.function, batches of 512), then the whole step as the pipeline runs
it: read gzipped tf.Examples, tokenize in the graph, write gzipped tf.Examples. CPU time is that of
the process, all its threads. The step's fixed cost is measured with ten documents.
"""

import argparse
import cProfile
import json
import logging
import os
import resource
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "curation"))

import corpus as speed_corpus_module
import sentencepiece
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.artifacts import Examples, Tokenizer
from components.tokenize.component import TokenizingTransformExecutor
from components.tokenize.config import TokenizerConfig
from components.tokenize.training import train_sentencepiece
from tokenmill.beam_arguments import beam_arguments
from tokenmill.contracts.tokenizer import TOKENIZER_MODEL_NAME
from tokenmill.records.documents import document_batch, encode_documents
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import write_tfrecords
from tokenmill.text.tokenization import load_tokenizer, tokenize

BATCH = 512
SCHEMA = """
feature { name: "doc_id" type: BYTES presence { min_fraction: 1 } shape { dim { size: 1 } } }
feature { name: "source" type: BYTES presence { min_fraction: 1 } shape { dim { size: 1 } } }
feature { name: "text" type: BYTES presence { min_fraction: 1 } shape { dim { size: 1 } } }
feature { name: "byte_count" type: INT presence { min_fraction: 1 } shape { dim { size: 1 } } }
"""


def write_examples(uri: str, texts: list[str], shards: int = 4) -> Examples:
    """Curated examples as the Curator writes them; eval holds one document."""
    for split, chosen in (("train", texts), ("eval", texts[:1])):
        for shard in range(shards):
            part = [text.encode() for text in chosen[shard::shards]]
            ids = [b"%d-%d" % (shard, i) for i in range(len(part))]
            pairs = encode_documents(document_batch(ids, [b"s"] * len(part), part))
            path = os.path.join(split_directory(uri, split), f"{shard}.gz")
            write_tfrecords(path, (record for _, record in pairs), gzip=True)
    examples = Examples()
    examples.uri = uri
    examples.split_names = artifact_utils.encode_split_names(["train", "eval"])
    examples.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    examples.set_string_custom_property("file_format", "tfrecords_gzip")
    return examples


def transform(home: str, examples: Examples, model: bytes) -> None:
    """Runs the Transform step's executor."""
    os.makedirs(f"{home}/tokenizer")
    os.makedirs(f"{home}/schema")
    with open(f"{home}/tokenizer/{TOKENIZER_MODEL_NAME}", "wb") as out:
        out.write(model)
    with open(f"{home}/schema/schema.pbtxt", "w", encoding="utf-8") as out:
        out.write(text_format.MessageToString(text_format.Parse(SCHEMA, schema_pb2.Schema())))
    tokenizer, schema = Tokenizer(), standard_artifacts.Schema()
    graph, transformed = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    for artifact, name in (
        (tokenizer, "tokenizer"),
        (schema, "schema"),
        (graph, "graph"),
        (transformed, "transformed"),
    ):
        artifact.uri = f"{home}/{name}"
    context = TokenizingTransformExecutor.Context(
        beam_pipeline_args=beam_arguments(), tmp_dir=f"{home}/tmp", unique_id="1"
    )
    TokenizingTransformExecutor(context).Do(
        {"examples": [examples], "schema": [schema], "tokenizer": [tokenizer]},
        {"transform_graph": [graph], "transformed_examples": [transformed]},
        {
            "preprocessing_fn": "tokenmill.text.tokenization.preprocessing_fn",
            "disable_statistics": 1,
            "force_tf_compat_v1": 0,
        },
    )


def seconds(work) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--model-type", choices=["bpe", "unigram"], default="bpe")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--profile", help="Write cProfile's statistics of the step here.")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    texts = [document["text"] for document in speed_corpus_module.speed_corpus(arguments.megabytes)]
    size = sum(len(text.encode()) for text in texts)
    model = train_sentencepiece(
        texts[:4000],
        TokenizerConfig(model_type=arguments.model_type, vocab_size=arguments.vocab_size),
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    with tempfile.TemporaryDirectory() as home:
        path = os.path.join(home, "tokenizer.model")
        with open(path, "wb") as out:
            out.write(model)
        op = load_tokenizer(path)
        graph = tf.function(
            lambda text: tokenize(op, text).flat_values,
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        graph(tf.constant(texts[:BATCH]))
        batches = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]

        def library() -> None:
            for batch in batches:
                processor.encode(batch, num_threads=1)

        def in_graph() -> None:
            for batch in batches:
                graph(tf.constant(batch))

        for name in ("few", "few_again", "all"):
            os.makedirs(f"{home}/{name}")
        few = write_examples(f"{home}/few/examples", texts[:10])
        everything = write_examples(f"{home}/all/examples", texts)
        results = {"library": seconds(library), "op": seconds(in_graph)}
        results["step_first"] = seconds(lambda: transform(f"{home}/few", few, model))
        results["step_fixed"] = seconds(lambda: transform(f"{home}/few_again", few, model))
        profiler = cProfile.Profile() if arguments.profile else None
        if profiler:
            profiler.enable()
        results["step"] = seconds(lambda: transform(f"{home}/all", everything, model))
        if profiler:
            profiler.disable()
            profiler.dump_stats(arguments.profile)
        results["library_again"] = seconds(library)
    library_cpu = (results["library"][0] + results["library_again"][0]) / 2
    variable_cpu = results["step"][0] - results["step_fixed"][0]
    print(
        json.dumps(
            {
                "model_type": arguments.model_type,
                "vocab_size": arguments.vocab_size,
                "megabytes": round(size / 1e6, 1),
                "documents": len(texts),
                "cpu_and_wall_seconds": {k: [round(x, 2) for x in v] for k, v in results.items()},
                "op_to_library": round(library_cpu / results["op"][0], 3),
                "step_to_library": round(library_cpu / results["step"][0], 3),
                "step_without_fixed_cost_to_library": round(library_cpu / variable_cpu, 3),
                "step_without_fixed_cost_to_op": round(results["op"][0] / variable_cpu, 3),
                "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
