"""Run the pipeline with Beam's steps on Flink, Spark and Prism; compare with the run without.

    python -m tools.engines.run [flink spark prism ..] [-- tokenmill run's options ..]

Each engine is fetched (.uv/engines), started on this machine with two workers, given a whole
`tokenmill run`, and stopped. Every file of the steps from ingest to packing has to be the same to
the byte. What came out is build/engines/results.json. An engine that cannot be had is said, and
the exit code is 2; where files differ or a run fails, it is 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tools.engines.cluster import started
from tools.engines.parts import ROOT, MissingError, fetch

ENGINES = ("flink", "spark", "prism")
OUT = ROOT / "build" / "engines"
SHORT = (
    "train.max_steps=20", "evaluate.max_bits_per_byte=20", "evaluate.beat_baseline=false",
)  # fmt: skip
# The steps before those that depend on time. Of the Evaluator, which Beam does, too, the records
# are the same, and their order and shards are not.
COMPARED = (
    "CorpusExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "AnomalyGate", "Curator",
    "TokenizerTrainer", "Transform", "Packer",
)  # fmt: skip


def command(directory: Path, settings: list[str], options: list[str]) -> list[str]:
    """Return the command of a run."""
    words = [sys.executable, "-m", "pipeline.cli", "run", "--output-dir", str(directory)]
    for each in (*SHORT, *settings):
        words += ["--set", each]
    return [*words, *options]


def run(directory: Path, settings: list[str], options: list[str]) -> tuple[int, float, str]:
    """Run the pipeline; return its exit code, the seconds it took and what it said."""
    begin = time.monotonic()
    done = subprocess.run(
        command(directory, settings, options), cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, time.monotonic() - begin, done.stdout + done.stderr


def digests(directory: Path) -> dict[str, str]:
    """Return the hashes of the files that the compared steps have left last, by path.

    The number of an execution is no part of a path here: a second try has another.
    """
    found = {}
    for step in COMPARED:
        for output in sorted((directory / "artifacts" / step).glob("[!.]*")):
            last = max(output.iterdir(), key=lambda execution: int(execution.name))
            for path in sorted(last.rglob("*")):
                if path.is_file():
                    name = f"{step}/{output.name}/{path.relative_to(last)}"
                    found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Return the paths that only one has, or whose content differs."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def try_engine(engine: str, expected: dict[str, str], options: list[str]) -> dict[str, Any]:
    """Fetch, start, run, compare and stop an engine."""
    begin = time.monotonic()
    try:
        parts = fetch(engine)
    except MissingError as error:
        print(f"{engine}: cannot be had: {error}", flush=True)
        return {"engine": engine, "missing": str(error)}
    fetched = time.monotonic()
    home = OUT / engine
    with started(engine, parts, home / "cluster") as cluster:
        ready = time.monotonic()
        code, seconds, told = run(home / "run", cluster.settings(), options)
    (home / "run.txt").write_text(told)
    found = digests(home / "run")
    result = {
        "engine": engine,
        "exit_code": code,
        "fetch_seconds": round(fetched - begin, 1),
        "start_seconds": round(ready - fetched, 1),
        "run_seconds": round(seconds, 1),
        "files": len(found),
        "differing": differing(expected, found),
    }
    print(json.dumps(result), flush=True)
    if code:
        print(told[-3000:], flush=True)
    return result


def main(arguments: list[str]) -> int:
    """Try the engines; return the exit code."""
    options: list[str] = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, options = arguments[:at], arguments[at + 1 :]
    if unknown := [name for name in arguments if name not in ENGINES]:
        print(f"unknown engine {unknown[0]}; engines: {', '.join(ENGINES)}", file=sys.stderr)
        return 1
    # As an interrupt does: what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    code, seconds, told = run(OUT / "in_process", [], options)
    if code:
        print(told[-3000:], f"the run in this process failed ({code})", sep="\n", file=sys.stderr)
        return 1
    expected = digests(OUT / "in_process")
    print(f"in process: {seconds:.1f} s, {len(expected)} files to compare", flush=True)
    results = [try_engine(engine, expected, options) for engine in arguments or ENGINES]
    (OUT / "results.json").write_text(
        json.dumps({"in_process_seconds": round(seconds, 1), "engines": results}, indent=1) + "\n"
    )
    if any(result.get("exit_code") or result.get("differing") for result in results):
        return 1
    return 2 if any("missing" in result for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
