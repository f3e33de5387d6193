"""Runs ingest or curation as a job file says, in a process that a test may kill."""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main(path):
    """Runs the step; an error ends the process with its message and code 1."""
    from components.artifacts import DroppedDocuments, Examples, Quarantine
    from components.curate.component import CuratorExecutor
    from components.ingest.component import CorpusExampleGenExecutor

    with open(path, encoding="utf-8") as source:
        told = json.load(source)
    cls, outputs = {
        "ingest": (CorpusExampleGenExecutor, {"examples": Examples, "quarantine": Quarantine}),
        "curate": (
            CuratorExecutor,
            {"curated_examples": Examples, "dropped": DroppedDocuments},
        ),
    }[told["step"]]
    inputs = {}
    if told["step"] == "curate":
        examples = Examples()
        examples.uri = told["examples"]
        examples.split_names = json.dumps(["train", "eval"])
        inputs = {"examples": [examples]}
    artifacts = {}
    for name, kind in outputs.items():
        artifact = kind()
        artifact.uri = os.path.join(told["home"], name)
        artifacts[name] = [artifact]
    context = cls.Context(
        beam_pipeline_args=told["beam"], tmp_dir=os.path.join(told["home"], "tmp"), unique_id="1"
    )
    try:
        cls(context).Do(inputs, artifacts, told["properties"])
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
