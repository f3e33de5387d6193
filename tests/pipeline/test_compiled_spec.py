"""The spec for Kubeflow and Vertex AI, executed task by task in processes of their own."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from spec_engine import SpecEngine

IMAGE = "registry.invalid/tokenmill@sha256:" + "a" * 64


def compile_spec(workspace, root: pathlib.Path, *overrides: str) -> subprocess.CompletedProcess:
    settings = (
        f'corpus.input=["{workspace.corpus}"]',
        f'engine.pipeline_root="{root}"',
        f'engine.image="{IMAGE}"',
        *overrides,
    )
    return subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.cli", "compile", "--runner", "kubeflow"),
            *("--config", str(workspace.config), "--output", str(root / "spec.json")),
            *(word for setting in settings for word in ("--set", setting)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def compiled(workspace, tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("engine")
    trainer = ("cpu=8", "memory_gb=30", "accelerator=NVIDIA_L4")
    result = compile_spec(workspace, root, *(f"engine.resources.Trainer.{key}" for key in trainer))
    assert result.returncode == 0, result.stderr
    return root / "spec.json"


@pytest.fixture(scope="module")
def executed(compiled) -> SpecEngine:
    engine = SpecEngine(compiled, compiled.parent / "tasks")
    engine.run()
    failed = [f"{n}: {r.output[-3000:]}" for n, r in engine.runs.items() if r.exit_code]
    assert not failed, failed[0]
    return engine


def test_the_spec_has_images_resources_and_no_path_of_this_checkout(compiled):
    spec = json.loads(compiled.read_text())["pipelineSpec"]
    executors = spec["deploymentSpec"]["executors"]
    containers = {name: e["container"] for name, e in executors.items() if "container" in e}
    assert {c["image"] for c in containers.values()} == {IMAGE}
    trainer = containers["Trainer_executor"]["resources"]
    assert trainer["cpuLimit"] == 8
    assert trainer["memoryLimit"] == 30
    assert trainer["accelerator"] == {"type": "NVIDIA_L4", "count": "1"}
    assert str(pathlib.Path(__file__).parents[2]) not in compiled.read_text()


def test_every_task_ran_and_pushed_what_the_local_run_pushed(first_run, executed):
    tasks = json.loads((executed.spec_path).read_text())["pipelineSpec"]["root"]["dag"]["tasks"]
    assert set(executed.runs) == set(tasks)
    pushed = executed.runs["Pusher"].artifacts["pushed_model"]["metadata"]
    assert pushed["pushed"] == 1
    local = max((p for p in (first_run.home / "serving_model").iterdir()), key=lambda p: p.name)
    mine, theirs = (
        tf.train.load_checkpoint(str(pathlib.Path(directory) / "variables" / "variables"))
        for directory in (pushed["pushed_destination"], local)
    )
    names = set(mine.get_variable_to_shape_map())
    assert names == set(theirs.get_variable_to_shape_map())
    weights = [name for name in names if not name.startswith("_CHECKPOINTABLE")]
    assert weights
    for name in weights:
        np.testing.assert_array_equal(mine.get_tensor(name), theirs.get_tensor(name), err_msg=name)


def test_the_ledger_is_the_one_of_the_local_run(first_run, executed):
    uri = executed.runs["TokenLedger"].artifacts["ledger"]["uri"]
    ledger = json.loads((pathlib.Path(uri) / "ledger.json").read_text())
    local = first_run.report()["ledger"]
    for part in ("funnel", "packing", "model", "training", "flops"):
        assert ledger[part] == local[part], part


def test_a_failed_task_stops_what_comes_after_and_a_retry_goes_on(workspace, executed, tmp_path):
    """The ledger over its budget: the trainer does not start; the rest of the run is not redone."""
    result = compile_spec(workspace, tmp_path, "cost.budget_usd=0.00000001")
    assert result.returncode == 0, result.stderr
    engine = SpecEngine(tmp_path / "spec.json", tmp_path / "tasks")
    done = [name for name in executed.runs if name != "TokenLedger"]
    upstream = done[: done.index("Trainer")]
    engine.runs = {name: executed.runs[name] for name in upstream}
    engine.run()
    assert engine.runs["TokenLedger"].exit_code != 0
    assert "nothing was trained" in engine.runs["TokenLedger"].output
    assert set(engine.runs) == {*upstream, "TokenLedger"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ('engine.image="registry.invalid/tokenmill:latest"', ("engine.image", "digest")),
        ("engine.resources.Trianer.cpu=1", ("engine.resources.Trianer", "Trainer")),
        ("corpus.input=[]", ("corpus.input", "this machine")),
    ],
)
def test_what_the_engine_would_refuse_is_said_before_anything_is_written(
    workspace, tmp_path, override, words
):
    result = compile_spec(workspace, tmp_path, override)
    assert result.returncode == 1
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "spec.json").exists()


def test_vertex_names_everything_that_is_missing_at_once(tmp_path):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.cli", "compile", "--runner", "vertex"),
            *("--output", str(tmp_path / "spec.json")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    for key in ("corpus.input", "pipeline_root", "image", "project", "region"):
        assert key in result.stderr
