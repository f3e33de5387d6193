"""gs:// as TensorFlow and Beam speak it, against an emulator (fake_gcs.py)."""

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from fake_gcs import fake_gcs
from spec_engine import SpecEngine

BUCKET = "bucket"
IMAGE = "registry.invalid/tokenmill@sha256:" + "a" * 64


class Store:
    """The bucket, as seen from this process, and the environment for others."""

    def __init__(self, environment):
        self.environment = environment
        self._base = environment["STORAGE_EMULATOR_HOST"]

    def _open(self, path, data=None):
        method = "GET" if data is None else "POST"
        request = urllib.request.Request(self._base + path, data=data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return answer.read()

    def write(self, name, data):
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        self._open(f"/upload/storage/v1/b/{BUCKET}/o?{query}", data)

    def read(self, name):
        return self._open(f"/{BUCKET}/{urllib.parse.quote(name)}")

    def names(self, prefix):
        query = urllib.parse.urlencode({"prefix": prefix})
        listing = json.loads(self._open(f"/storage/v1/b/{BUCKET}/o?{query}"))
        return sorted(item["name"] for item in listing.get("items", ()))

    def python(self, *words):
        """Runs Python in the environment of the store."""
        return subprocess.run(
            [sys.executable, *words],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    credentials = os.environ.pop("GOOGLE_APPLICATION_CREDENTIALS", None)  # a planted secret
    with fake_gcs(tmp_path_factory.mktemp("gcs"), BUCKET) as environment:
        yield Store(environment)
    if credentials is not None:
        os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = credentials


READ = """
import json
from components.ingest.manifest import list_inputs, read_manifest, write_manifest
from components.ingest.config import CorpusConfig
from components.ingest.readers import read_file

files = list_inputs(["gs://bucket/in"])
settings = CorpusConfig(max_document_bytes=1000, eval_fraction=0.05)
texts = [item.text.decode() for file in files for item in read_file(file, settings)]
manifest = write_manifest(files, "gs://bucket/manifests")
assert read_manifest(manifest)[0] == files
newest = list_inputs(["gs://bucket/spans/{SPAN}/*.txt"])
print(json.dumps([[f.name for f in files], texts, [f.path for f in newest]]))
"""


def test_inputs_are_listed_and_read(store):
    store.write("in/a.jsonl", b'{"text": "line"}\n')
    store.write("in/wiki/b.txt", b"whole")
    store.write("elsewhere/c.txt", b"no")
    for span in ("1", "20", "3"):
        store.write(f"spans/{span}/a.txt", b"t")
    result = store.python("-c", READ)
    assert result.returncode == 0, result.stderr[-3000:]
    names, texts, newest = json.loads(result.stdout.splitlines()[-1])
    assert names == ["a.jsonl", "wiki/b.txt"]
    assert texts == ["line", "whole"]
    assert newest == ["gs://bucket/spans/20/a.txt"]
    assert len(store.names("manifests/")) == 1


PUBLISH = """
import os, sys
from tfx.dsl.io import fileio
from components.push.publish import publish

copied, copy, limit = [], fileio.copy, int(sys.argv[1])

def watched(source, target, overwrite=False):
    if len(copied) == limit:
        os._exit(9)
    copy(source, target, overwrite)
    copied.append(target)

fileio.copy = watched
publish("gs://bucket/serving/.pushing/7", "gs://bucket/serving/7")
print(copied[-1])
"""
MODEL = ("saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index")


def lay_out_push(store):
    for name in MODEL:
        store.write(f"serving/.pushing/7/{name}", name.encode())


def test_a_version_whose_push_was_killed_is_no_model(store):
    lay_out_push(store)
    killed = store.python("-c", PUBLISH, "2")
    assert killed.returncode == 9, killed.stderr[-3000:]
    assert store.names("serving/7/variables/v")
    assert "serving/7/saved_model.pb" not in store.names("serving/7/")


def test_a_whole_push_ends_with_the_graph_and_leaves_nothing_aside(store):
    lay_out_push(store)
    pushed = store.python("-c", PUBLISH.replace("serving/7", "serving/8"), "99")
    assert pushed.returncode == 0, pushed.stderr[-3000:]
    assert pushed.stdout.split()[-1] == "gs://bucket/serving/8/saved_model.pb"
    for name in MODEL:
        assert store.read(f"serving/8/{name}") == name.encode()
    assert not [n for n in store.names("serving/.pushing/7/") if not n.endswith("/")]


@pytest.mark.slow
def test_the_spec_for_vertex_ai_runs_with_everything_in_a_bucket(
    store, workspace, first_run, tmp_path
):
    for path in workspace.corpus.iterdir():
        store.write(f"corpus/{path.name}", path.read_bytes())
    settings = (
        'corpus.input=["gs://bucket/corpus"]',
        'engine.pipeline_root="gs://bucket/root"',
        f'engine.image="{IMAGE}"',
        'engine.project="p"',
        'engine.region="europe-west4"',
    )
    compiled = store.python(
        *("-m", "pipeline.cli", "compile", "--runner", "vertex"),
        *("--config", str(workspace.config), "--output", str(tmp_path / "spec.json")),
        *(word for setting in settings for word in ("--set", setting)),
    )
    assert compiled.returncode == 0, compiled.stderr[-3000:]
    engine = SpecEngine(
        tmp_path / "spec.json",
        tmp_path / "tasks",
        artifacts="gs://bucket/tasks",
        environment=store.environment,
    )
    engine.run()
    failed = [f"{n}: {r.output[-3000:]}" for n, r in engine.runs.items() if r.exit_code]
    assert not failed, failed[0]

    pushed = engine.runs["Pusher"].artifacts["pushed_model"]["metadata"]
    target = pushed["pushed_destination"]
    assert target.startswith("gs://bucket/root/serving_model/")
    names = store.names(target.removeprefix("gs://bucket/") + "/")
    local = max((p for p in (first_run.home / "serving_model").iterdir()), key=lambda p: p.name)
    here = tmp_path / "model"
    for name in names:
        if not name.endswith("/"):
            file = here / name.removeprefix(target.removeprefix("gs://bucket/") + "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(store.read(name))
    mine, theirs = (
        tf.train.load_checkpoint(str(directory / "variables" / "variables"))
        for directory in (here, local)
    )
    weights = [n for n in theirs.get_variable_to_shape_map() if not n.startswith("_CHECKPOINTABLE")]
    assert weights
    for name in weights:
        np.testing.assert_array_equal(mine.get_tensor(name), theirs.get_tensor(name), err_msg=name)
    uri = engine.runs["TokenLedger"].artifacts["ledger"]["uri"]
    ledger = json.loads(store.read(uri.removeprefix("gs://bucket/") + "/ledger.json"))
    for part in ("funnel", "packing", "training"):
        assert ledger[part] == first_run.report()["ledger"][part], part
    assert any("/checkpoints/step-" in name for name in store.names("root/training/"))
