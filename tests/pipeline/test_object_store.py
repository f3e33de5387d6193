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
from tokenmill.files import list_files

files = list_inputs(["gs://bucket/in"])
settings = CorpusConfig(max_document_bytes=1000, eval_fraction=0.05)
for spelled in ("gs://bucket/in/", "gs://bucket/in/**"):
    assert list_inputs([spelled]) == files, spelled
assert list_files("gs://bucket/in") == ["gs://bucket/in/a.jsonl"]
texts = [item.text.decode() for file in files for item in read_file(file, settings)]
manifest = write_manifest(files, "gs://bucket/manifests")
assert read_manifest(manifest)[0] == files
newest = list_inputs(["gs://bucket/spans/{SPAN}/*.txt"])
print(json.dumps([[f.name for f in files], texts, [f.path for f in newest]]))
"""


def test_inputs_are_listed_and_read_and_markers_of_directories_are_none(store):
    store.write("in/a.jsonl", b'{"text": "line"}\n')
    store.write("in/wiki/b.txt", b"whole")
    store.write("elsewhere/c.txt", b"no")
    for marker in ("in/", "in/wiki/", "in/empty/"):  # Google's console makes them, and TensorFlow
        store.write(marker, b"")
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


TRAIN = """
import json, os, threading
import numpy as np
import tensorflow as tf
from components.train.checkpoint.store import Checkpoint, CheckpointDirectory
from components.train.config import TrainConfig, TrainingJob
from components.train.distributed import rendezvous
from components.train.telemetry.metrics_log import MetricsLog, read_metrics
from tokenmill.model.shape import ModelShape

home = "gs://bucket/training"
# Before there is anything.
directory = CheckpointDirectory(f"{home}/checkpoints")
assert directory.newest() == (None, []) and directory.delete_unfinished() == []
assert read_metrics(f"{home}/metrics.jsonl") == [] and rendezvous._read(home) is None

for step in (1, 2, 3):
    directory.write(Checkpoint(step, {"w": np.full(3, step, np.float32)}, {"seen": step}))
tf.io.gfile.remove(f"{directory.path(3)}/manifest.json")  # a killed save
assert directory.steps() == [1, 2] and directory.delete_unfinished() == [3]
with tf.io.gfile.GFile(f"{directory.path(2)}/variables-00000.safetensors", "wb") as out:
    out.write(b"torn")
newest, problems = directory.newest()
assert newest.step == 1 and newest.variables["w"].tolist() == [1, 1, 1] and len(problems) == 1

log = MetricsLog(home)
for step in (1, 2):  # each flush appends
    log.append({"step": step, "seconds": 1.5})
    log.flush()
assert [x["step"] for x in read_metrics(f"{home}/metrics.jsonl")] == [1, 2]
assert log.rewind(1) == (2, 1.5)

writer = tf.summary.create_file_writer(f"{home}/tensorboard")
with writer.as_default(step=1):
    tf.summary.scalar("loss", 2.0)
writer.close()
(events,) = tf.io.gfile.glob(f"{home}/tensorboard/events*")
assert len(list(tf.data.TFRecordDataset(events))) > 1

variable = tf.Variable([1.0, 2.0])
prefix = tf.train.Checkpoint(v=variable).write(f"{home}/native")
variable.assign([0.0, 0.0])
tf.train.Checkpoint(v=variable).read(prefix).assert_consumed()
assert variable.numpy().tolist() == [1.0, 2.0]

shape = ModelShape(
    layers=1, d_model=8, heads=1, d_ff=8, vocab_size=9, sequence_length=8, positions="rope",
    norm="rms", use_bias=False, mlp="gelu", tie_embeddings=True,
)
cluster = {"chief": ["c:1"], "worker": ["w:1"]}
os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "chief", "index": 0}})
told = rendezvous.Rendezvous(
    job=TrainingJob(shape=shape, train=TrainConfig(), seed=1), rows_uri="rows", tokenizer_path="t"
)
heard = []
worker = threading.Thread(
    target=lambda: heard.append(rendezvous.wait_for_chief(home, 1, 60.0)), daemon=True
)
worker.start()
with rendezvous.call_workers(home, told):
    rendezvous.wait_for_workers(home, 60.0)
    worker.join(60)
print(json.dumps([heard[0].rows_uri, heard[0].complete]))
"""


def test_what_a_training_leaves_for_itself_and_its_workers_may_lie_in_a_bucket(store):
    result = store.python("-c", TRAIN)
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout.splitlines()[-1]) == ["rows", True]
    assert [n for n in store.names("training/") if n.endswith(".json")] == [
        "training/checkpoints/step-0000000001/manifest.json",
        "training/checkpoints/step-0000000001/state.json",
        "training/checkpoints/step-0000000002/manifest.json",
        "training/checkpoints/step-0000000002/state.json",
        "training/chief.json",
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)  # the local pipeline, and all tasks, each a process or two of its own
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

    def ask(*words):
        command = ("-m", "pipeline.cli", *words, "--run", "gs://bucket/root", "--json")
        result = store.python(*command)
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads(result.stdout)

    (run,) = ask("runs")
    tokens = first_run.report()["ledger"]["training"]["effective_tokens"]
    assert run["estimated"]["effective_tokens"] == pytest.approx(tokens, rel=1e-9)
    row = ask("why", "--row", "0")
    assert row["documents"]
    assert row["models"][0]["pushed_to"] == [target]
    traced = ask("lineage", "gs://bucket/root/serving_model")
    assert traced["run_id"] == run["run"]
    assert traced["model"] == target
    assert [file["name"] for file in traced["inputs"]] == sorted(
        path.name for path in workspace.corpus.iterdir()
    )
