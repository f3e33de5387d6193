"""Peak memory of ingest and of curation by the size of the corpus, one worker each.

    python benchmarks/curation/memory.py WORK_DIR INPUT.jsonl...

Prints for each input a JSON line with what `ours.py` measures of each step: one step is one
process, and its peak is that of the kernel's high-water mark (VmHWM).
"""

import json
import os
import shutil
import sys

from ours import curate, ingest, measure

from components.ingest.manifest import list_inputs, write_manifest
from pipeline.dag import create_components
from pipeline.loader import load_config


def main() -> None:
    work, *inputs = sys.argv[1:]
    config = load_config(
        overrides=[
            "curate.rules=web",
            "curate.max_drop_fraction=1",
            "corpus.shards=16",
            "corpus.eval_fraction=0.01",
        ]
    )
    for source in inputs:
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work)
        manifest = write_manifest(list_inputs([source]), work)
        steps = {c.id: c for c in create_components(config, manifest)}
        properties = dict(steps["CorpusExampleGen"].exec_properties)
        found = {"bytes": os.path.getsize(source), "ingest": measure(ingest, work, 1, properties)}
        print(source, json.dumps(found), flush=True)
        properties = {
            "config": config.curate.to_json(),
            "benchmarks": "[]",
            "lists": "{}",
            "shards": config.corpus.shards,
        }
        found["curate"] = measure(curate, f"{work}/examples", work, 1, properties)
        with open(f"{work}/dropped/curation.json", encoding="utf-8") as report:
            found["documents"] = json.load(report)["total"]["kept"]["documents"]
        print(source, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
