"""A corpus of counting, a small job, and trainings in processes that can be killed."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import sentencepiece
from made_documents import TokenizedDocument, in_columns

from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from tokenmill.model.shape import ModelShape
from tokenmill.text.vocabulary import CONTROL_TOKENS

VOCAB, LENGTH = 300, 16
SHAPE = ModelShape(
    layers=1,
    d_model=16,
    heads=2,
    d_ff=32,
    vocab_size=VOCAB,
    sequence_length=LENGTH,
    positions="rope",
    norm="layer",
    use_bias=True,
    mlp="gelu",
    tie_embeddings=True,
)


def write_split(uri, split, documents, seed, task="causal-lm"):
    """Documents that count upwards: text in which the next token can be learnt."""
    rng = np.random.default_rng(seed)
    counting = [
        TokenizedDocument(
            b"%04d" % i,
            b"s",
            40,
            4 + (rng.integers(0, 40) + np.arange(rng.integers(3, 20), dtype=np.int32)) % 40,
        )
        for i in range(documents)
    ]
    settings, directory = (
        PackJob(sequence_length=LENGTH, vocab_size=VOCAB, shards=1, task=task),
        os.path.join(uri, f"Split-{split}"),
    )
    shard, flags = (0, [in_columns(counting)]), np.zeros(VOCAB, np.uint8)
    write_manifest([pack_shard(shard, directory, settings, flags)], directory, settings, flags)


@pytest.fixture(scope="session")
def make_split():
    return write_split


@pytest.fixture(scope="session")
def small_shape():
    return SHAPE


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory):
    """The file of a tokenizer of about VOCAB tokens, with the control tokens that rows have."""
    directory = tmp_path_factory.mktemp("tokenizer")
    sentences = (f"{a}{b} and {b}{a} are words" for a in "abcdefghij" for b in "klmnopqrst")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences,
        model_prefix=str(directory / "tokenizer"),
        vocab_size=VOCAB,
        byte_fallback=True,
        model_type="bpe",
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        control_symbols=list(CONTROL_TOKENS[4:]),
    )
    return str(directory / "tokenizer.model")


@pytest.fixture(scope="session")
def counting_rows(tmp_path_factory):
    """A PackedRows artifact's directory: 47 rows to train on."""
    uri = str(tmp_path_factory.mktemp("counting"))
    write_split(uri, "train", 60, seed=1)
    write_split(uri, "eval", 11, seed=2)
    return uri


@dataclasses.dataclass
class Outcome:
    """How a training process ended: its exit code, and what it found (or None) and said."""

    exit_code: int
    result: dict | None
    said: str


class TrainingProcess:
    """One running training.

    Args:
        spec_path: What it was told; beside it are its result and its output.
        pid: Its process.
        end: A function that waits for its exit code.
    """

    def __init__(self, spec_path, pid, end):
        self._spec_path, self.pid, self._end = spec_path, pid, end

    def wait(self) -> Outcome:
        code = self._end()
        result_path = self._spec_path.with_suffix(".result")
        result = json.loads(result_path.read_text()) if result_path.exists() else None
        return Outcome(code, result, self._spec_path.with_suffix(".out").read_text())


class Launcher:
    """Starts trainings by forking a process that has imported TensorFlow already."""

    def __init__(self, root, rows_uri):
        self._root, self._rows_uri, self._count = root, rows_uri, 0
        self._program = str(pathlib.Path(__file__).with_name("training_process.py"))
        self._server = subprocess.Popen(
            [sys.executable, self._program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _write(self, directory, settings, options, rows_uri=None, **change):
        self._count += 1
        train = {
            "learning_rate": 1e-2,
            "warmup_fraction": 0.1,
            "jit_compile": False,
            "global_batch_size": 8,
            "epochs": 1000,
            "max_steps": 40,
            **(settings or {}),
            **change,
        }
        whole = {"shape": SHAPE.__dict__, "seed": 7}
        names = ("shape", "seed", "quantization", "base_model")
        job = {**whole, **{name: train.pop(name) for name in names if name in train}}
        job["train"] = train
        path = self._root / f"{self._count:04d}.json"
        rows_uri = rows_uri or self._rows_uri
        told = {"job": job, "rows_uri": rows_uri, "training_directory": str(directory)}
        path.write_text(json.dumps({**told, "options": options or {}}))
        return path

    def start(self, directory, settings=None, options=None, **job) -> TrainingProcess:
        """Starts a training of the counting rows; `settings`, `options`, `job` change keys."""
        path = self._write(directory, settings, options, **job)
        self._tell(f"{path}\n")
        pid = int(self._hear())
        return TrainingProcess(path, pid, lambda: self._end(pid))

    def run(self, directory, settings=None, options=None, **job) -> Outcome:
        """A training from start to end."""
        return self.start(directory, settings, options, **job).wait()

    def start_process(self, directory, environment, settings=None, options=None, **job):
        """Starts a training in a process of its own, with more environment variables."""
        path = self._write(directory, settings, options, **job)
        with open(path.with_suffix(".out"), "w", encoding="utf-8") as out:
            process = subprocess.Popen(
                [
                    sys.executable,
                    str(pathlib.Path(__file__).with_name("training_process.py")),
                    path,
                ],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        return TrainingProcess(path, process.pid, lambda: process.wait(timeout=240))

    def _tell(self, line):
        self._server.stdin.write(line)
        self._server.stdin.flush()

    def _hear(self):
        return self._server.stdout.readline()

    def _end(self, pid):
        self._tell(f"wait {pid}\n")
        return int(self._hear())

    def close(self):
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()


@pytest.fixture(scope="session")
def launcher(tmp_path_factory, counting_rows):
    launcher = Launcher(tmp_path_factory.mktemp("launcher"), counting_rows)
    yield launcher
    launcher.close()


def wait_for(condition, seconds=120.0):
    """Polls until the condition holds; returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)
    return value


@pytest.fixture(scope="session")
def poll():
    return wait_for
