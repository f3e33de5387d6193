"""Whole runs on Flink, Spark and Prism, fetched and started by tools/engines: `make engines`.

On small text: what is asked is whether an engine does all of it, to the same bytes, and what
happens when one of its machines dies.
"""

import importlib
import json
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = ROOT / "tools" / "engines"
SMALL = (
    "model.layers=2", "model.d_model=64", "model.heads=2", "model.d_ff=128",
    "model.sequence_length=64", "tokenizer.vocab_size=512", "train.global_batch_size=8",
    "curate.rules=none", "corpus.eval_fraction=0.1",
)  # fmt: skip
OPTIONS = [word for key in SMALL for word in ("--set", key)]
NEEDS = {"flink": ("java", "mvn"), "spark": ("java", "mvn"), "prism": ("go",)}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def tools():
    """Give the modules of tools/engines."""
    sys.path.insert(0, str(ROOT))
    try:
        yield {
            name: importlib.import_module(f"tools.engines.{name}")
            for name in ("parts", "cluster", "run")
        }
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Return what all runs are told: some hundred kilobytes of text that nobody edits meanwhile."""
    text = tmp_path_factory.mktemp("text")
    for path in (ROOT / "docs").glob("*.md"):
        shutil.copy(path, text)
    return ["--input", str(text / "*.md"), *OPTIONS]


@pytest.fixture(scope="module")
def expected(tools, options, tmp_path_factory):
    """Return the hashes of what the run without an engine leaves."""
    home = tmp_path_factory.mktemp("in_process") / "run"
    code, _, told = tools["run"].run(home, [], options)
    assert code == 0, told[-3000:]
    found = tools["run"].digests(home)
    assert len(found) > 40
    return found


def parts_of(tools, engine):
    missing = [program for program in NEEDS[engine] if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    return tools["parts"].fetch(engine)


def asked(cluster, path):
    """Ask Flink's REST API."""
    with urllib.request.urlopen(f"{cluster.rest}/{path}", timeout=30) as answer:
        return json.load(answer)


def busy_task_manager(cluster):
    """Return the name of a task manager that works on a job; None if none does."""
    for job in asked(cluster, "jobs/overview")["jobs"]:
        if job["state"] != "RUNNING" or not job["tasks"]["running"]:
            continue
        for vertex in asked(cluster, f"jobs/{job['jid']}")["vertices"]:
            path = f"jobs/{job['jid']}/vertices/{vertex['id']}/taskmanagers"
            for each in asked(cluster, path)["taskmanagers"]:
                if each["status"] == "RUNNING":
                    return each["taskmanager-id"]
    return None


def failures(cluster):
    """Yield what Flink says of the failures of all jobs."""
    for job in asked(cluster, "jobs/overview")["jobs"]:
        history = asked(cluster, f"jobs/{job['jid']}/exceptions")["exceptionHistory"]["entries"]
        yield from (each["stacktrace"] for each in history)


@pytest.mark.parametrize("engine", ["flink", "spark", "prism"])
def test_a_whole_run_has_the_bytes_of_the_run_without(engine, tools, options, expected, tmp_path):
    parts = parts_of(tools, engine)
    with tools["cluster"].started(engine, parts, tmp_path / "cluster") as cluster:
        code, _, told = tools["run"].run(tmp_path / "run", cluster.settings(), options)
    assert code == 0, told[-3000:]
    found = tools["run"].digests(tmp_path / "run")
    assert tools["run"].differing(expected, found) == []
    assert list((tmp_path / "run" / "serving_model").iterdir())


def test_a_task_manager_that_dies_in_curation_changes_nothing(tools, options, expected, tmp_path):
    """kill -9 of one of two task managers of Flink while Curator's pipeline runs."""
    parts = parts_of(tools, "flink")
    run, home = tools["run"], tmp_path / "run"
    with tools["cluster"].started("flink", parts, tmp_path / "cluster") as cluster:
        with (tmp_path / "out").open("wb") as out:
            process = subprocess.Popen(
                run.command(home, cluster.settings(), options), cwd=ROOT, stdout=out, stderr=out
            )
        try:
            curated, busy = home / "artifacts" / "Curator", None
            while not busy:  # in the middle: its job is on the engine and works
                assert process.poll() is None, (tmp_path / "out").read_text()[-3000:]
                time.sleep(0.2)
                busy = busy_task_manager(cluster) if curated.exists() else None
            cluster.kill(busy)
            assert not list(curated.glob("curated_examples/*/Split-train/*.gz"))
            code = process.wait()
        finally:
            process.kill()
        told = (tmp_path / "out").read_text()
        assert any("TaskManager" in each for each in failures(cluster))
        # What is promised: the run ends right, or it ends with the reason and the next one does.
        assert code == 0 or "error: " in told, told[-3000:]
        if code:
            code, _, told = run.run(home, cluster.settings(), options)
    assert code == 0, told[-3000:]
    assert run.differing(expected, run.digests(home)) == []
