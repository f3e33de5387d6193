"""Beam runs in Python, on this machine, where nobody says otherwise; it looks for no Prism."""

import os
import pathlib
import subprocess
import sys

import pytest
from no_network import why_not, without_network

from tokenmill.beam_arguments import IN_PROCESS, beam_arguments

TWO_PROCESSES = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]

PIPELINE = """
import logging, sys
logging.basicConfig(level=logging.INFO)
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from tokenmill.beam_arguments import beam_arguments

if __name__ == "__main__":
    with beam.Pipeline(options=PipelineOptions(beam_arguments(sys.argv[2:]))) as pipeline:
        labels = pipeline | beam.Create(["b", "a", "b"]) | beam.Distinct()
        labels | beam.io.WriteToText(sys.argv[1], shard_name_template="")
"""


@pytest.mark.parametrize(
    "given",
    [
        ["--runner=DataflowRunner", "--project=p"],
        ["--runner", "FlinkRunner"],
        ["--runner=DirectRunner"],  # who names it may have Prism
    ],
)
def test_who_names_a_runner_has_it_and_nothing_else(given):
    assert beam_arguments(given) == given


@pytest.mark.parametrize("given", [[], TWO_PROCESSES, ("--extra_package=/w.whl",)])
def test_who_names_none_has_pythons_own(given):
    assert beam_arguments(given) == [*IN_PROCESS, *given]


@pytest.mark.parametrize("given", [[], TWO_PROCESSES])
def test_a_pipeline_looks_for_no_other_program(tmp_path, given):
    if why_not():
        pytest.skip(f"no network namespace: {why_not()}")
    result = subprocess.run(
        without_network(sys.executable, "-c", PIPELINE, str(tmp_path / "out"), *given),
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert sorted((tmp_path / "out").read_text().split()) == ["a", "b"]
    assert "prism" not in result.stderr.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_a_whole_run_looks_for_no_other_program(tmp_path):
    if why_not():
        pytest.skip(f"no network namespace: {why_not()}")
    text = pathlib.Path(__file__).parents[2] / "docs" / "*.md"
    small = ("model.layers=1", "model.d_model=32", "model.heads=2", "model.d_ff=64")
    small += ("tokenizer.vocab_size=512", "model.sequence_length=64", "train.max_steps=5")
    small += ("corpus.text_unit=paragraph", "curate.rules=none", "curate.max_drop_fraction=1.0")
    small += ("evaluate.max_bits_per_byte=20.0", "evaluate.beat_baseline=false")
    small += ("evaluate.require_improvement=false",)
    result = subprocess.run(
        without_network(
            *(sys.executable, "-m", "pipeline.cli", "run", "--input", str(text)),
            *("--output-dir", str(tmp_path / "out")),
            *(word for setting in small for word in ("--set", setting)),
        ),
        env={**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    (log,) = tmp_path.glob("out/logs/*/tokenmill.log")
    assert "prism" not in log.read_text().lower()
    assert not (tmp_path / "home" / ".apache_beam").exists()
    assert list(tmp_path.glob("out/serving_model/*/saved_model.pb"))
