"""tokenmill's ingest and curation on one JSON-lines file, through the TFX executors; run by run.py.

    python benchmarks/curation/ours.py INPUT.jsonl WORK_DIR filters|near|all KEPT_IDS [WORKERS]

Prints CPU seconds (this process and its children), wall seconds and peak memory by stage as JSON.
"""

import json
import os
import resource
import sys
import time

from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import standard_artifacts

from components import Quarantine, RejectedDocuments
from components.curate.component import CuratorExecutor
from components.documents import ReadDocuments
from components.ingest.component import CorpusExampleGenExecutor
from components.ingest.manifest import list_inputs, write_manifest
from pipeline.config_loader import load_config
from pipeline.dag import create_components
from pipeline.step_settings import curate_settings

FILTERS_ONLY = (
    "curate.exact_duplicates=keep",
    "curate.near_duplicates=keep",
    "curate.decontaminate=off",
)
NEAR_ONLY = ("curate.rules=none", "curate.exact_duplicates=keep", "curate.decontaminate=off")


def cpu_seconds() -> float:
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def peak_memory_mb() -> dict[str, float]:
    """Of this process and of the largest of its children that has ended."""
    return {
        name: resource.getrusage(who).ru_maxrss / 1024
        for name, who in (("self", resource.RUSAGE_SELF), ("child", resource.RUSAGE_CHILDREN))
    }


def artifact(kind, uri: str):
    instance = kind()
    instance.uri = uri
    os.makedirs(uri, exist_ok=True)
    return instance


def executor(cls, work: str, workers: int) -> BaseBeamExecutor:
    mode = "in_memory" if workers == 1 else "multi_processing"
    context = BaseBeamExecutor.Context(
        beam_pipeline_args=[
            f"--direct_running_mode={mode}",
            f"--direct_num_workers={workers}",
        ],
        tmp_dir=f"{work}/tmp",
        unique_id="1",
    )
    return cls(context)


def main() -> None:
    source, work, what, kept = sys.argv[1:5]
    workers = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    extra = {"filters": FILTERS_ONLY, "near": NEAR_ONLY, "all": ("curate.decontaminate=off",)}
    config = load_config(
        overrides=[
            "curate.rules=web",
            *extra[what],
            "corpus.shards=16",
            "corpus.eval_fraction=0.01",
        ]
    )
    steps = {
        c.id: c for c in create_components(config, write_manifest(list_inputs([source]), work))
    }
    result = {}
    examples = artifact(standard_artifacts.Examples, f"{work}/examples")
    quarantine = artifact(Quarantine, f"{work}/quarantine")
    before, started = cpu_seconds(), time.perf_counter()
    executor(CorpusExampleGenExecutor, work, workers).Do(
        {},
        {"examples": [examples], "quarantine": [quarantine]},
        dict(steps["CorpusExampleGen"].exec_properties),
    )
    result["ingest"] = {
        "cpu_seconds": cpu_seconds() - before,
        "wall_seconds": time.perf_counter() - started,
        "peak_memory_mb": peak_memory_mb(),
    }
    curated = artifact(standard_artifacts.Examples, f"{work}/curated")
    rejected = artifact(RejectedDocuments, f"{work}/rejected")
    before, started = cpu_seconds(), time.perf_counter()
    executor(CuratorExecutor, work, workers).Do(
        {"examples": [examples]},
        {"curated_examples": [curated], "rejected": [rejected]},
        {"settings": curate_settings(config).to_json(), "shards": config.corpus.shards},
    )
    result["curate"] = {
        "cpu_seconds": cpu_seconds() - before,
        "wall_seconds": time.perf_counter() - started,
        "peak_memory_mb": peak_memory_mb(),
    }
    import apache_beam as beam

    with beam.Pipeline() as pipeline:
        for split in ("train", "eval"):
            (
                pipeline
                | f"Read[{split}]" >> ReadDocuments(curated.uri, split)
                | f"Ids[{split}]" >> beam.FlatMap(lambda batch: batch.column(0).to_pylist())
                | f"Decode[{split}]" >> beam.Map(bytes.decode)
                | f"Write[{split}]" >> beam.io.WriteToText(f"{kept}-{split}", num_shards=1)
            )
    print(json.dumps(result))


main()
