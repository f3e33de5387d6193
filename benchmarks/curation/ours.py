"""tokenmill's ingest and curation on one JSON-lines file, through the TFX executors; run by run.sh.

    python benchmarks/curation/ours.py INPUT WORK_DIR filters|near|all KEPT_IDS [WORKERS]

INPUT is a JSON-lines file, or the directory of an Examples artifact, which is then just curated.
Each step runs in a process of its own. Prints as JSON, by step, CPU seconds (the process and its
children, imports not counted), wall seconds, and the peak of resident memory of the process and of
its largest child.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import tensorflow as tf
from peak_memory import PeakMemory, cpu_seconds
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import standard_artifacts

from components import DroppedDocuments, Quarantine
from components.curate.component import CuratorExecutor
from components.ingest.component import CorpusExampleGenExecutor
from components.ingest.manifest import list_inputs, write_manifest
from pipeline.dag import create_components
from pipeline.loader import load_config
from tokenmill.beam_arguments import beam_arguments
from tokenmill.records.documents import decode_documents
from tokenmill.records.splits import split_directory

FILTERS_ONLY = (
    "curate.exact_duplicates=keep",
    "curate.near_duplicates=keep",
    "curate.decontaminate=off",
)
NEAR_ONLY = ("curate.rules=none", "curate.exact_duplicates=keep", "curate.decontaminate=off")


def measure(do: Callable[..., None], *arguments) -> dict:
    """Runs a step in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, do, *arguments).result()


def measured(do: Callable[..., None], *arguments) -> dict:
    memory = PeakMemory()
    before, started = cpu_seconds(), time.perf_counter()
    do(*arguments)
    return {
        "cpu_seconds": cpu_seconds() - before,
        "wall_seconds": time.perf_counter() - started,
        "peak_memory_mb": memory.peaks_mb(),
    }


def artifact(kind, uri: str):
    instance = kind()
    instance.uri = uri
    os.makedirs(uri, exist_ok=True)
    return instance


def executor(cls, work: str, workers: int) -> BaseBeamExecutor:
    mode = "in_memory" if workers == 1 else "multi_processing"
    context = BaseBeamExecutor.Context(
        beam_pipeline_args=beam_arguments(
            [f"--direct_running_mode={mode}", f"--direct_num_workers={workers}"]
        ),
        tmp_dir=f"{work}/tmp",
        unique_id="1",
    )
    return cls(context)


def ingest(work: str, workers: int, properties: dict) -> None:
    examples = artifact(standard_artifacts.Examples, f"{work}/examples")
    quarantine = artifact(Quarantine, f"{work}/quarantine")
    executor(CorpusExampleGenExecutor, work, workers).Do(
        {}, {"examples": [examples], "quarantine": [quarantine]}, properties
    )


def curate(examples_uri: str, work: str, workers: int, properties: dict) -> None:
    examples = artifact(standard_artifacts.Examples, examples_uri)
    examples.split_names = json.dumps(["train", "eval"])
    curated = artifact(standard_artifacts.Examples, f"{work}/curated")
    dropped = artifact(DroppedDocuments, f"{work}/dropped")
    executor(CuratorExecutor, work, workers).Do(
        {"examples": [examples]},
        {"curated_examples": [curated], "dropped": [dropped]},
        properties,
    )


def main() -> None:
    source, work, what, kept = sys.argv[1:5]
    workers = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    extra = {"filters": FILTERS_ONLY, "near": NEAR_ONLY, "all": ("curate.decontaminate=off",)}
    config = load_config(
        overrides=[
            "curate.rules=web",
            "curate.max_drop_fraction=1",  # web rules drop half of the docstrings: no matter here
            *extra[what],
            "corpus.shards=16",
            "corpus.eval_fraction=0.01",
        ]
    )
    result = {}
    examples = source
    if not os.path.isdir(source):
        manifest = write_manifest(list_inputs([source]), work)
        steps = {c.id: c for c in create_components(config, manifest)}
        properties = dict(steps["CorpusExampleGen"].exec_properties)
        result["ingest"] = measure(ingest, work, workers, properties)
        examples = f"{work}/examples"
    properties = {
        "config": config.curate.to_json(),
        "benchmarks": "[]",
        "lists": "{}",
        "shards": config.corpus.shards,
    }
    result["curate"] = measure(curate, examples, work, workers, properties)
    with open(f"{work}/dropped/curation.json", encoding="utf-8") as report:
        result["documents"] = json.load(report)["total"]["kept"]["documents"]
    for split in ("train", "eval"):
        directory = split_directory(f"{work}/curated", split)
        with open(f"{kept}-{split}-00000-of-00001", "w", encoding="utf-8") as out:
            files = [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
            for records in tf.data.TFRecordDataset(files, "GZIP").batch(512).as_numpy_iterator():
                ids = decode_documents(list(records)).column(0).to_pylist()
                out.writelines(f"{doc_id.decode()}\n" for doc_id in ids)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
