"""`tokenmill ladder` for real: a few dozen seconds of training on this repository's own docs."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from pipeline.studies.ladder import HELD_OUT_BYTES
from tokenmill.contracts.ladder import read_ladder

ROOT = pathlib.Path(__file__).parents[2]
MODEL = ("model.layers=2", "model.d_model=128", "model.heads=2", "model.d_ff=512")
SMALL = (
    *MODEL, "model.sequence_length=64", "tokenizer.vocab_size=512", "train.global_batch_size=8",
    "train.learning_rate=4e-3", "train.epochs=2", "curate.rules=none", "corpus.eval_fraction=0.1",
)  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def call(directory, *arguments):
    overrides = [f"--set={each}" for each in (*SMALL, f"run.output_dir={directory}")]
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "ladder", str(ROOT / "docs" / "*.md"),
         "--preset=demo", *overrides, *arguments],
        capture_output=True, text=True, cwd=directory, timeout=2400,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ladder")
    return directory, call(directory, "--max-minutes=25", "--out=ladder.json")


def test_it_ends_with_a_law_a_page_and_a_file(study):
    directory, done = study
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    lines = done.stdout.rstrip("\n").split("\n")
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100 + len(str(directory))
    ladder = read_ladder(str(directory / "ladder.json"))
    sizes = {point.params for point in ladder.points}
    assert len(sizes) >= 3
    for point in ladder.points:
        assert 0 < point.bits_per_byte < 8
        assert point.flops > 6 * point.params * point.tokens
    assert ladder.held_out.bytes <= HELD_OUT_BYTES
    assert (ladder.fit is None) == bool(ladder.problems)
    (batch,) = (line for line in lines if line.startswith("Batch: "))
    # Trainings of some seconds do not always tell.
    assert (ladder.critical_batch is None) == batch.startswith("Batch: no training was long")
    pages = list(directory.glob("studies/ladder/*/ladder.html"))
    assert len(pages) == 1
    assert ladder.spending.seconds <= 1.2 * ladder.spending.max_seconds


def test_more_tokens_and_more_parameters_lower_the_loss(study):
    directory, _ = study
    ladder = read_ladder(str(directory / "ladder.json"))
    trunks = {}
    for point in ladder.points:
        if point.purpose == "ladder":
            trunks.setdefault(point.trunk, []).append(point)
    for points in trunks.values():
        ordered = sorted(points, key=lambda point: point.steps)
        assert ordered[-1].bits_per_byte < ordered[0].bits_per_byte


def test_the_same_ladder_costs_nothing_more(study):
    directory, _ = study
    done = call(directory, "--max-minutes=25", "--json")
    assert done.returncode == 0, done.stderr
    first = read_ladder(str(directory / "ladder.json")).model_dump()
    again = json.loads(done.stdout)
    assert again["spending"].pop("new_seconds") == 0
    first["spending"].pop("new_seconds")
    assert again["points"] == first["points"]
    assert again["fit"] == json.loads(json.dumps(first["fit"]))
    assert again["prediction"] == first["prediction"]


def test_a_budget_that_buys_nothing_is_said(study):
    directory, _ = study
    done = call(directory, "--max-minutes=0.2")
    assert done.returncode == 1
    assert "buy no ladder" in done.stderr + done.stdout
    assert "--max-minutes" in done.stderr + done.stdout


def test_a_file_that_cannot_be_written_is_refused_first(study):
    directory, _ = study
    done = call(directory, "--out=/nowhere/ladder.json")
    assert done.returncode == 1
    assert "--out /nowhere/ladder.json" in done.stderr
