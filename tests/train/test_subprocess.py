"""The chief in a process of its own and another worker: trained, exported, evaluated."""

import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from components.train.config import TrainConfig, TrainingJob
from components.train.distributed.cpu_parallelism import CPU_PARALLELISM
from components.train.distributed.rendezvous import Rendezvous, call_workers
from components.train.execution import Execution
from components.train.subprocess_entry import OUT_OF_MEMORY_HINT as HINT
from components.train.subprocess_entry import train_in_subprocess
from tokenmill import progress
from tokenmill.errors import TokenmillError
from tokenmill.machine import vcpus
from tokenmill.preemption import StoppedError
from tokenmill.run_in_subprocess import run_in_subprocess

NAME = "the training process"
TEXTS = [f"{a}{b} and {b}{a} are words" for a in "abcdefghij" for b in "klmnopqrst"]


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """A tokenizer of the rows' vocabulary and a transform graph."""
    import tensorflow as tf
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    from components.tokenize.config import TokenizerConfig
    from components.tokenize.preprocessing import TOKENIZER_PATH_KEY, preprocessing_fn
    from components.tokenize.training import train_sentencepiece

    root = tmp_path_factory.mktemp("assets")
    tokenizer, graph = root / "tokenizer.model", str(root / "graph")
    settings = TokenizerConfig(model_type="bpe", vocab_size=300, sample_bytes=10**6)
    tokenizer.write_bytes(train_sentencepiece(TEXTS * 10, settings))
    names = ("text", "source", "doc_id")
    spec = {name: tf.io.FixedLenFeature([1], tf.string) for name in names}
    spec["byte_count"] = tf.io.FixedLenFeature([1], tf.int64)
    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))
    row = {name: np.array([b"x"], object) for name in names} | {"byte_count": np.array([1])}
    path = {TOKENIZER_PATH_KEY: str(tokenizer)}
    with tft_beam.Context(temp_dir=str(root / "temporary")):
        analyse = tft_beam.AnalyzeDataset(functools.partial(preprocessing_fn, custom_config=path))
        (([row], metadata) | analyse) | tft_beam.WriteTransformFn(graph)
    return {"transform_graph_uri": graph, "tokenizer_path": str(tokenizer)}


class Training:
    """A job on the counting rows, trained into a directory."""

    def __init__(self, root, rows_uri, shape, assets, **job):
        self.root, self.directory = root, root / "training"
        config = TrainConfig(
            **{"learning_rate": 1e-2, "warmup_fraction": 0.1, "global_batch_size": 8,
               "epochs": 1000, "max_steps": 20, **job}
        )  # fmt: skip
        self.job = TrainingJob(shape=shape, train=config, seed=7)
        self.directory.mkdir()
        options = Execution(log_steps=1, detail_steps=10, checkpoint_steps=5)
        options.write(str(self.directory))
        self.arguments = {
            **assets,
            "rows_uri": rows_uri,
            "model_directory": str(root / "model"),
            "run_directory": str(root / "run"),
            "training_directory": str(self.directory),
        }

    def run(self):
        calling = contextlib.nullcontext()
        if self.job.train.strategy == "multi_worker":
            calling = call_workers(str(self.directory), self.call())
        with calling:
            job = self.job.model_dump(mode="json")
            return run_in_subprocess(train_in_subprocess, NAME, HINT, job=job, **self.arguments)

    def call(self):
        names = ("rows_uri", "tokenizer_path")
        return Rendezvous(job=self.job, **{name: self.arguments[name] for name in names})

    def score(self):
        """The exported model's losses of the texts, in nats."""
        import tensorflow as tf
        import tensorflow_text  # noqa: F401

        model = tf.saved_model.load(str(self.root / "model"))
        return model.signatures["score"](text=tf.constant(TEXTS[:8]))["nll_sum"].numpy()

    def start_worker(self, monkeypatch, after_seconds=0.0):
        """Starts the other worker, and sets this process's TF_CONFIG to the chief's."""
        sockets = [socket.socket() for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        for each in sockets:
            each.close()

        def config(index):
            task = {"type": "worker", "index": index}
            return json.dumps({"cluster": {"worker": addresses}, "task": task})

        monkeypatch.setenv("TF_CONFIG", config(0))
        words = ["-m", "components.train.distributed.worker", str(self.directory)]
        late = f"import os, time; time.sleep({after_seconds}); os.execv({sys.executable!r}, "
        late += f"{[sys.executable, *words]!r})"
        with open(self.root / "worker.out", "w", encoding="utf-8") as out:
            return subprocess.Popen(
                [sys.executable, "-c", late],
                env={**os.environ, "TF_CONFIG": config(1)},
                stdout=out,
                stderr=subprocess.STDOUT,
            )


@pytest.fixture
def job(counting_rows, small_shape, tmp_path):
    return Training(tmp_path, counting_rows, small_shape, {}).job


@pytest.fixture
def where_it_runs(monkeypatch):
    directory = os.path.dirname(__file__)
    monkeypatch.syspath_prepend(directory)
    paths = (directory, os.environ.get("PYTHONPATH"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    return importlib.import_module("called_in_subprocess").where_it_runs


def _run(function, job, **arguments):
    job = job.model_dump(mode="json")
    return run_in_subprocess(function, NAME, HINT, job=job, **arguments)


def test_a_function_runs_in_a_process_whose_cores_are_divided(job, where_it_runs):
    result = _run(where_it_runs, job, ending="well")
    assert result["pid"] != os.getpid()
    assert 0.5 < result["seconds"] < 60
    assert result["rows"] == job.train.max_steps
    assert result["threads"] == max(1, vcpus() // CPU_PARALLELISM)


@pytest.mark.parametrize(
    ("ending", "error", "told"),
    [
        ("killed", TokenmillError, "killed by SIGKILL"),
        ("ended", StoppedError, "ended by SIGTERM"),
        ("broken", TokenmillError, "ValueError: no such row: 17"),
        ("refused", TokenmillError, "the rows are damaged"),
    ],
)
def test_how_the_process_ended_is_told(job, where_it_runs, ending, error, told):
    with pytest.raises(error, match=told) as caught:
        _run(where_it_runs, job, ending=ending)
    assert caught.value.hint
    assert getattr(caught.value, "exit_code", None) == (75 if ending == "ended" else None)


def test_ctrl_c_in_the_process_is_one_here(job, where_it_runs):
    with pytest.raises(KeyboardInterrupt):
        _run(where_it_runs, job, ending="interrupted")


@pytest.mark.slow
def test_two_workers_train_and_export_the_model_of_one(
    counting_rows, small_shape, assets, tmp_path, monkeypatch
):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = Training(tmp_path / "one", counting_rows, small_shape, assets)
    expected = one.run()
    two = Training(tmp_path / "two", counting_rows, small_shape, assets, strategy="multi_worker")
    worker = two.start_worker(monkeypatch)
    heard = []
    progress.set_listener(lambda done, total, detail: heard.append((done, total)))
    try:
        telemetry = two.run()
    finally:
        progress.set_listener(None)
    assert worker.wait(timeout=60) == 0, (two.root / "worker.out").read_text()
    assert heard == [(step, 20) for step in range(1, 21)]
    assert (expected["replicas"], telemetry["replicas"]) == (1, 2)
    for mine, its in zip(expected["loss_curve"], telemetry["loss_curve"], strict=True):
        assert its[1] == pytest.approx(mine[1], rel=1e-3)
    assert telemetry["eval_after"]["loss"] == pytest.approx(
        expected["eval_after"]["loss"], rel=1e-3
    )
    np.testing.assert_allclose(two.score(), one.score(), rtol=1e-3)
    assert (two.root / "run" / "telemetry.json").exists()


@pytest.mark.slow
def test_sigterm_goes_through_to_the_training(counting_rows, small_shape, assets, tmp_path):
    training = Training(tmp_path, counting_rows, small_shape, assets, max_steps=100_000)

    def send():
        while not list(training.directory.glob("*/checkpoints/step-*/manifest.json")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(StoppedError, match="by SIGTERM; it is saved") as caught:
        training.run()
    assert caught.value.exit_code == 75


STARTS = 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_workers_meet_whatever_the_order_in_which_they_start(
    counting_rows, small_shape, assets, tmp_path, monkeypatch
):
    delays = np.random.default_rng(7).uniform(0.0, 12.0, STARTS)
    for i, delay in enumerate([*delays, 60.0]):
        (tmp_path / str(i)).mkdir()
        training = Training(
            tmp_path / str(i), counting_rows, small_shape, assets,
            strategy="multi_worker", max_steps=2, jit_compile=False,
        )  # fmt: skip
        worker = training.start_worker(monkeypatch, after_seconds=delay if i % 2 else 0.0)
        with contextlib.ExitStack() as stack:
            stack.callback(worker.wait)
            stack.callback(worker.kill)
            time.sleep(0.0 if i % 2 else min(delay, 12.0))
            assert training.run()["replicas"] == 2
            said = (training.root / "worker.out").read_text()
            assert worker.wait(timeout=60) == 0, said
