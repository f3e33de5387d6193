"""What the Calibrator's process held at most against what the training's process then held."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
from made_documents import TokenizedDocument, in_columns

from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from components.train.config import TrainConfig, TrainingJob
from components.train.subprocess_entry import calibrate_in_subprocess
from tokenmill.model.shape import ModelShape
from tokenmill.records.splits import split_directory
from tokenmill.rows.token_flags import CONTROL
from tokenmill.run_in_subprocess import run_in_subprocess

SHAPE = ModelShape(
    layers=4, d_model=256, heads=4, d_ff=1024, vocab_size=4096, sequence_length=256,
    positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
)  # fmt: skip
SHAPES = {
    "the demo's": ({}, {}),
    "16 bits": ({}, {"precision": "mixed_bfloat16"}),
    "rematerialized": ({}, {"rematerialize": True}),
    "long rows": ({"sequence_length": 1024, "layers": 2}, {"global_batch_size": 4}),
    "many tokens": ({"vocab_size": 30_000, "d_model": 128, "d_ff": 512}, {}),
    "wide, in parts": (
        {"d_model": 512, "heads": 8, "d_ff": 2048, "layers": 2},
        {"accumulation_steps": 2, "global_batch_size": 16},
    ),
}


def write_rows(uri, shape):
    """Rows of random tokens, enough for some steps of both splits."""
    flags = np.zeros(shape.vocab_size, np.uint8)
    flags[:16] = CONTROL
    random = np.random.default_rng(1)
    settings = PackJob(sequence_length=shape.sequence_length, vocab_size=shape.vocab_size, shards=1)
    for split, count in (("train", 200), ("eval", 20)):
        made = [
            TokenizedDocument(
                b"%04d" % i, b"s", 9,
                random.integers(16, shape.vocab_size, shape.sequence_length).astype(np.int32),
            )
            for i in range(count)
        ]  # fmt: skip
        directory = split_directory(uri, split)
        entry = pack_shard((0, [in_columns(made)]), directory, settings, flags)
        write_manifest([entry], directory, settings, flags)


@pytest.mark.slow  # a process of its own for each measurement: the peak is the process's
@pytest.mark.parametrize("name", SHAPES)
def test_the_calibrators_peak_is_that_of_the_training_within_15_percent(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), *sys.path]))
    shape_change, train_change = SHAPES[name]
    shape = dataclasses.replace(SHAPE, **shape_change)
    write_rows(str(tmp_path), shape)
    train = TrainConfig(**{"global_batch_size": 16, "max_steps": 8, "epochs": 9, **train_change})
    job = json.loads(TrainingJob(shape=shape, train=train, seed=3).to_json())
    given = {"job": job, "rows_uri": str(tmp_path)}
    measured = run_in_subprocess(calibrate_in_subprocess, "calibration", "", on_cpu=True, **given)
    function = "trained_in_subprocess.train_and_measure"
    trained = run_in_subprocess(function, "training", "", **given)
    peak = trained["peak_process_bytes"]
    print(name, measured["runtime_bytes"] >> 20, measured["peak_process_bytes"] >> 20, peak >> 20)
    assert measured["peak_process_bytes"] == pytest.approx(peak, rel=0.15)
    assert measured["runtime_bytes"] < measured["peak_process_bytes"]
