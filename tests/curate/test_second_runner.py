"""Ingest and curation on another Beam runner: job service, worker pool and workers are processes.

Nothing of the client's process is there for the workers but the portable pipeline: what comes out
is, byte for byte, what DirectRunner gives.
"""

import json
import random

import pytest
from beam_services import job_service, worker_pool

from components.artifacts import DroppedDocuments, Examples, Quarantine
from components.curate import distributed_clusters
from components.curate.component import CuratorExecutor
from components.curate.config import CurateConfig
from components.ingest.component import CorpusExampleGenExecutor
from components.ingest.config import CorpusConfig
from components.ingest.manifest import list_inputs, write_manifest
from tokenmill.beam_arguments import beam_arguments
from tokenmill.contracts.curation import CURATION_NAME

SHARDS = 3
CONFIG = CurateConfig(
    rules="none",
    min_words=10.0,
    min_line_words=2.0,
    mask=("email",),
    max_line_documents=20,
    max_drop_fraction=1.0,  # all short texts are taken for English
)
CORPUS = CorpusConfig(
    max_document_bytes=10_000, eval_fraction=0.2, max_quarantine_fraction=0.1, shards=SHARDS
)


def corpus(directory):
    """Files with copies, near copies, overlaps, boilerplate, short texts and a broken line."""
    rng = random.Random(11)
    lines = []

    def add(text):
        record = {"id": f"d{len(lines)}", "source": rng.choice(["web", "books"]), "text": text}
        lines.append(json.dumps(record))

    for i in range(300):
        words = [f"{rng.choice('bdfgk')}{rng.choice('aeiou')}{rng.randrange(900)}"
                 for _ in range(60)]  # fmt: skip
        footer = "\nThis line is at the foot of a good many of all these pages." * (i % 8 == 0)
        add(f"{' '.join(words)} x{i}@example.org\nMenu{footer}")
        if i % 5 == 0:
            add(" ".join(words).upper() + f" X{i}@EXAMPLE.ORG\nmenu")
        if i % 5 == 1:
            add(" ".join([*words[:30], "other", *words[31:]]))
        if i % 5 == 2:
            add(" ".join([*words[5:25], *(f"z{i}{k}" for k in range(40))]))
        if i % 5 == 3:
            add("too short")
    lines.append('{"text": "broken')
    directory.mkdir()
    for i in range(4):
        (directory / f"part{i}.jsonl").write_text("\n".join(lines[i::4]) + "\n")
    return directory


def run(home, source, beam_arguments):
    """Ingest, then curation; returns path -> content of what they wrote, without staging files."""
    artifacts = {}
    for name, kind in (
        ("examples", Examples),
        ("quarantine", Quarantine),
        ("curated", Examples),
        ("dropped", DroppedDocuments),
    ):
        artifacts[name] = kind()
        artifacts[name].uri = str(home / name)

    def executor(cls):
        tmp_dir = str(home / "tmp")
        return cls(cls.Context(beam_arguments, unique_id=cls.__name__, tmp_dir=tmp_dir))

    manifest = write_manifest(list_inputs([str(source)]), str(home / "manifests"))
    executor(CorpusExampleGenExecutor).Do(
        {},
        {name: [artifacts[name]] for name in ("examples", "quarantine")},
        {"input_base": manifest, "config": CORPUS.to_json(), "release": "test"},
    )
    executor(CuratorExecutor).Do(
        {"examples": [artifacts["examples"]]},
        {"curated_examples": [artifacts["curated"]], "dropped": [artifacts["dropped"]]},
        {"config": CONFIG.to_json(), "benchmarks": "[]", "lists": "{}", "shards": SHARDS},
    )
    files = [p for name in artifacts for p in (home / name).rglob("*") if p.is_file()]
    assert not [p for p in (home / "tmp").rglob("*") if p.is_file()]
    return {str(p.relative_to(home)): p.read_bytes() for p in files}


@pytest.fixture
def portable(tmp_path):
    """Give the pipeline options of a job service and a worker pool, each a process of its own."""
    with job_service(tmp_path) as endpoint, worker_pool(tmp_path) as pool:
        yield [
            "--runner=PortableRunner",
            f"--job_endpoint={endpoint}",
            "--environment_type=EXTERNAL",
            f"--environment_config={pool}",
        ]


@pytest.mark.slow
def test_the_same_bytes_as_by_direct_runner(tmp_path, portable, monkeypatch):
    # The other runner's workers then find the clusters in rounds, DirectRunner's does it alone.
    monkeypatch.setattr(distributed_clusters, "ONE_WORKER_DOCUMENTS", 0)
    source = corpus(tmp_path / "in")
    outputs = []
    for name, arguments in (
        ("direct", beam_arguments()),
        ("portable", portable),
    ):
        (tmp_path / name).mkdir()
        outputs.append(run(tmp_path / name, source, arguments))
    report = json.loads(outputs[0][f"dropped/{CURATION_NAME}"])
    reasons = {"exact_duplicate", "near_duplicate", "contaminated", "too_few_words"}
    assert set(report["total"]["dropped"]) == reasons
    assert set(report["removed_lines"]) == {"boilerplate_lines", "line_few_words"}
    assert report["total"]["kept"]["documents"] > 100
    # Gzip keeps no time here, so files agree to the byte; quarantine names its file the same.
    assert outputs[0].keys() == outputs[1].keys()
    for path, content in outputs[0].items():
        assert content == outputs[1][path], path
