"""Faults in ingest and curation, injected for real: killed workers and runs, a full disk, hot keys.

Each step runs in a process of its own (step_process.py).
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from components.curate.config import CurateConfig
from components.ingest.config import CorpusConfig
from components.ingest.manifest import list_inputs, write_manifest
from tokenmill.beam_arguments import beam_arguments
from tokenmill.contracts.curation import CURATION_NAME
from tokenmill.records.tfrecord import read_tfrecords

pytestmark = pytest.mark.slow

PROCESS = pathlib.Path(__file__).with_name("step_process.py")
SHARDS = 4
CONFIG = CurateConfig(
    rules="none",
    min_words=2.0,
    mask=(),
)
ONE = beam_arguments()
TWO = beam_arguments(["--direct_running_mode=multi_processing", "--direct_num_workers=2"])


class Step:
    """A step that can be started in a directory of its own."""

    def __init__(self, home, step, properties, examples=None):
        self.home = home
        self._told = {"step": step, "home": str(home), "properties": properties}
        self._told["examples"] = examples and str(examples)

    def start(self, beam, **changed):
        """The process."""
        self.home.mkdir(exist_ok=True)
        job = self.home / "job.json"
        job.write_text(json.dumps({**self._told, "beam": beam, **changed}))
        return subprocess.Popen(
            [sys.executable, str(PROCESS), str(job)],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, beam=ONE):
        """Path -> content of what a run wrote, which must succeed."""
        process = self.start(beam)
        said = process.communicate()[1]
        assert process.returncode == 0, said[-2000:]
        return self.files()

    def files(self, *where):
        root = self.home.joinpath(*where)
        found = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
        return {name: p.read_bytes() for name, p in found.items() if name != "job.json"}

    def staged(self):
        return self.files("tmp")


def ingest_step(home, source, **read):
    config = CorpusConfig(
        **{"eval_fraction": 0.1, "max_quarantine_fraction": 0.0, "shards": SHARDS, **read}
    ).to_json()
    manifest = write_manifest(list_inputs([str(source)]), str(home.parent / "manifests"))
    return Step(home, "ingest", {"input_base": manifest, "config": config, "release": "test"})


def curate_step(home, examples, settings=CONFIG):
    properties = {"config": settings.to_json(), "benchmarks": "[]", "lists": "{}", "shards": SHARDS}
    return Step(home, "curate", properties, examples)


def write_corpus(directory, texts, files=4):
    directory.mkdir()
    handles = [open(directory / f"{i}.jsonl", "w") for i in range(files)]  # noqa: SIM115
    for i, text in enumerate(texts):
        record = {"id": f"{i:07d}", "source": "web", "text": text}
        handles[i % files].write(json.dumps(record) + "\n")
    for handle in handles:
        handle.close()
    return directory


def wait_for(what, process, seconds=120):
    """Waits until `what()` gives something, while the process lives; returns it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert process.poll() is None, process.stderr.read()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def workers_of(process):
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            command = child.cmdline()
            if "python" in command[0] and any("sdk_worker_main" in part for part in command):
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Some seconds of work for each step; (directory of the texts, Step of a whole ingest)."""
    root = tmp_path_factory.mktemp("corpus")
    texts = (" ".join(f"word{(i * j) % 9973}" for j in range(1, 200)) for i in range(12_000))
    source = write_corpus(root / "in", texts)
    step = ingest_step(root / "whole", source)
    step.run()
    return source, step


def step_of(name, home, corpus):
    source, whole = corpus
    if name == "ingest":
        return ingest_step(home, source)
    return curate_step(home, whole.home / "examples")


@pytest.mark.parametrize("name", ["ingest", "curate"])
def test_a_killed_worker_is_an_error_and_leaves_nothing(tmp_path, corpus, name):
    step = step_of(name, tmp_path / "killed", corpus)
    process = step.start(TWO)
    wait_for(step.staged, process)
    wait_for(lambda: workers_of(process), process)[0].send_signal(signal.SIGKILL)
    said = process.communicate(timeout=90)[1]
    assert process.returncode == 1
    assert "TokenmillError: a Beam worker process ended before its work was done" in said
    assert step.staged() == {}
    for path in step.home.rglob("*.gz"):  # what was renamed into its place is whole
        list(read_tfrecords(str(path)))
    again = step_of(name, tmp_path / "again", corpus)
    assert step.run(TWO) == again.run()


@pytest.mark.parametrize("name", ["ingest", "curate"])
def test_after_a_killed_run_the_same_step_gives_the_same(tmp_path, corpus, name):
    step = step_of(name, tmp_path / "killed", corpus)
    process = step.start(ONE)
    wait_for(step.staged, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert step.staged()
    again = step_of(name, tmp_path / "again", corpus)
    assert step.run() == again.run()  # the same names: nothing is left of the killed run
    assert step.staged() == {}


@pytest.mark.parametrize("name", ["ingest", "curate"])
def test_a_full_disk_is_an_error_that_leaves_no_staging(tmp_path, corpus, name):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        step = step_of(name, small / "home", corpus)
        process = step.start(ONE)
        said = process.communicate()[1]
        staged = step.staged()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    assert process.returncode == 1
    assert "No space left on device" in said
    assert staged == {}


def children_core_seconds():
    """Return the seconds of a core that processes took which this one has waited for."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize("exact", ["drop", "keep"])
def test_a_text_a_hundred_thousand_times(tmp_path, exact):
    """A hot key: all copies fall into one range of contents; with "keep" into the same bands.

    In seconds of a core: others may use the machine, too.
    """
    text = "A notice that a crawler found on every single page of the site it was sent to."
    others = [f"Text {i} of its own, of a good many words as it is" for i in range(50)]
    texts = [text] * 100_000 + others
    step = ingest_step(tmp_path / "ingested", write_corpus(tmp_path / "in", texts))
    step.run()
    settings = CONFIG.model_copy(update={"exact_duplicates": exact})
    curated = curate_step(tmp_path / "curated", step.home / "examples", settings)
    started = children_core_seconds()
    files = curated.run()
    assert children_core_seconds() - started < 120
    report = json.loads(files[f"dropped/{CURATION_NAME}"])
    reason = "exact_duplicate" if exact == "drop" else "near_duplicate"
    assert report["total"]["dropped"][reason]["documents"] == 99_999
    assert report["total"]["kept"]["documents"] >= 2


def test_a_million_tiny_documents(tmp_path):
    texts = (f"tiny number {i}" for i in range(1_000_000))
    step = ingest_step(tmp_path / "ingested", write_corpus(tmp_path / "in", texts))
    step.run()
    curated = curate_step(tmp_path / "curated", step.home / "examples")
    process = curated.start(ONE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, psutil.Process(process.pid).memory_info().rss)
        time.sleep(0.2)
    assert process.returncode == 0, process.stderr.read()[-2000:]
    report = json.loads(curated.files()[f"dropped/{CURATION_NAME}"])
    assert report["total"]["in"]["documents"] == 1_000_000
    assert report["total"]["kept"]["documents"] == 1_000_000
    assert peak < 2e9
