"""The spec for Kubeflow and Vertex AI, executed task by task in processes of their own."""

import gzip
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tomli
from aborting_destructors import aborting
from click.testing import CliRunner
from google.protobuf import json_format
from kfp import compiler, dsl
from kfp.pipeline_spec import pipeline_spec_pb2
from spec_engine import SpecEngine
from tfx.orchestration.kubeflow.v2.container.kubeflow_v2_entrypoint_utils import (
    parse_execution_properties,
)

from pipeline.cli import cli
from pipeline.config import STEPS
from tokenmill.beam_arguments import IN_PROCESS

# The first test of a session runs the local pipeline and all tasks, each a process of its own.
pytestmark = pytest.mark.timeout(1800)

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


def read_spec(path: pathlib.Path) -> dict:
    """The PipelineSpec, whether it stands alone or in a PipelineJob."""
    document = json.loads(path.read_text())
    return document.get("pipelineSpec", document)


@pytest.fixture(scope="module")
def compiled(workspace, tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("engine")
    trainer = ("cpu=8", "memory_gb=30", "accelerator=NVIDIA_L4")
    result = compile_spec(workspace, root, *(f"engine.resources.Trainer.{key}" for key in trainer))
    assert result.returncode == 0, result.stderr
    said = f"warning: corpus.input = '{workspace.corpus}' lies outside of engine.pipeline_root"
    assert said in result.stderr
    return root / "spec.json"


@pytest.fixture(scope="module")
def executed(compiled) -> SpecEngine:
    """All tasks, each in a process in which a native library aborts after Python's end."""
    environment = aborting(compiled.parent / "aborting")
    tasks = compiled.parent / "tasks"
    # Kubeflow's backend calls no driver of TFX's; Vertex AI does (test_object_store.py).
    engine = SpecEngine(compiled, tasks, environment=environment, drivers=False)
    engine.run()
    failed = [f"{n}: {r.output[-3000:]}" for n, r in engine.runs.items() if r.exit_code]
    assert not failed, failed[0]
    return engine


def test_the_spec_has_images_resources_and_no_path_of_this_checkout(compiled):
    spec = read_spec(compiled)
    executors = spec["deploymentSpec"]["executors"]
    containers = {name: e["container"] for name, e in executors.items() if "container" in e}
    assert {c["image"] for c in containers.values()} == {IMAGE}
    trainer = containers["Trainer_executor"]["resources"]
    assert trainer["cpuLimit"] == 8
    assert trainer["memoryLimit"] == 30
    assert trainer["accelerator"] == {"type": "NVIDIA_L4", "count": "1"}
    assert str(pathlib.Path(__file__).parents[2]) not in compiled.read_text()
    assert set(spec["root"]["dag"]["tasks"]) <= set(STEPS)
    for container in containers.values():
        assert tuple(container["args"][-len(IN_PROCESS) :]) == IN_PROCESS


def test_every_task_ran_and_pushed_what_the_local_run_pushed(first_run, executed):
    tasks = read_spec(executed.spec_path)["root"]["dag"]["tasks"]
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


def test_the_page_is_an_html_artifact_as_kubeflow_has_it(first_run, executed, tmp_path):
    """Declared as Kubeflow's own compiler declares one, and its URI is the file, not a folder."""

    @dsl.component
    def draw(page: dsl.Output[dsl.HTML]):
        pass

    compiler.Compiler().compile(draw, str(tmp_path / "draw.json"))
    ours = read_spec(executed.spec_path)["components"]["ReportPage"]
    theirs = json.loads((tmp_path / "draw.json").read_text())["components"]["comp-draw"]
    assert ours["outputDefinitions"] == theirs["outputDefinitions"]
    page = pathlib.Path(executed.runs["ReportPage"].artifacts["page"]["uri"]).read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "Blessed and pushed" in page
    tokens = first_run.report()["ledger"]["training"]["effective_tokens"]
    assert f"<strong>{tokens:,.0f}</strong>" in page


def ask(*words: str) -> dict:
    result = CliRunner().invoke(cli, [*words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_why_and_runs_need_no_metadata_of_the_engine(first_run, executed):
    """What they say of the run is what they say of the local one, but for places and times."""
    root = str(executed.spec_path.parent)
    mine = next(run for run in ask("runs", "--run", root) if run["run"] == "tasks")
    theirs = first_run.report()
    assert mine["ended"] == ""
    assert mine["trained"]
    tokens = theirs["ledger"]["training"]["effective_tokens"]
    assert mine["estimated"]["effective_tokens"] == pytest.approx(tokens, rel=1e-9)
    assert mine["actual"]["bits_per_byte"] > 0

    kept = ask("why", "--row", "0", "--run", root)
    doc_id = kept["documents"][0]["doc_id"]
    (found,) = ask("why", doc_id, "--run", root)["documents"]
    assert found["status"] == "kept"
    (dropped,) = ask("why", "denied", "--run", root)["documents"]
    assert (dropped["status"], dropped["reason"]) == ("dropped", "denied_url")


@pytest.mark.slow
def test_lineage_needs_no_metadata_of_the_engine(first_run, executed):
    root, home = str(executed.spec_path.parent), str(first_run.home)
    pushed = executed.runs["Pusher"].artifacts["pushed_model"]["metadata"]["pushed_destination"]
    traced = ask("lineage", pushed, "--run", root)
    local = max((first_run.home / "serving_model").iterdir(), key=lambda path: path.name)
    expected = ask("lineage", str(local), "--run", home)
    assert traced["run_id"] == "tasks"
    assert [f["name"] for f in traced["inputs"]] == [f["name"] for f in expected["inputs"]]
    assert set(traced["artifacts"]) >= set(expected["artifacts"])
    assert traced["ledger"]["training"] == expected["ledger"]["training"]
    configs = [tomli.loads(each["config_toml"]) for each in (traced, expected)]
    assert configs[0]["train"] == configs[1]["train"]


def test_the_ledger_is_the_one_of_the_local_run(first_run, executed):
    uri = executed.runs["TokenLedger"].artifacts["ledger"]["uri"]
    ledger = json.loads((pathlib.Path(uri) / "ledger.json").read_text())
    local = first_run.report()["ledger"]
    for part in ("funnel", "packing", "model", "training", "flops"):
        assert ledger[part] == local[part], part


def test_no_secret_is_in_spec_artifacts_logs_or_metadata(first_run, executed, planted_secrets):
    assert len(planted_secrets) == 4
    printed = first_run.output + "".join(run.output for run in executed.runs.values())
    found = [secret for secret in planted_secrets if secret in printed.encode()]
    files = 0
    for root in (first_run.home, executed.spec_path.parent):
        for path in root.rglob("*"):
            if path.is_file():
                files += 1
                found += [(secret, path) for secret in planted_secrets if secret in content(path)]
    assert files > 100
    assert not found


def content(path: pathlib.Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def upstream_of(task: str, executed: SpecEngine, directory, parameters) -> SpecEngine:
    """An engine with other parameters that has done all that comes before a task."""
    engine = SpecEngine(executed.spec_path, directory, parameters)
    order = list(executed.runs)
    engine.runs = {name: executed.runs[name] for name in order[: order.index(task)]}
    return engine


def test_a_budget_given_for_one_run_stops_it_before_the_trainer(executed, tmp_path):
    engine = upstream_of("TokenLedger", executed, tmp_path, {"max_usd": 1e-8})
    before = set(engine.runs)
    engine.run()
    assert engine.runs["TokenLedger"].exit_code != 0
    assert "nothing was trained" in engine.runs["TokenLedger"].output
    assert "Trainer" not in engine.runs
    # What needs no ledger may run; it is not done again.
    assert all(engine.runs[name] is executed.runs[name] for name in before)


def test_ledger_and_trainer_follow_the_parameters_of_the_run(executed, tmp_path):
    parameters = {
        "price_usd_per_chip_hour": 7.5,
        "max_usd": 1000.0,
        "max_steps": 2.0,  # an engine's numbers are all doubles
        "learning_rate": 1e-4,
        "seed": 5,
    }
    engine = upstream_of("TokenLedger", executed, tmp_path, parameters)
    engine.run(until="Trainer")
    for name in ("TokenLedger", "Trainer"):
        assert engine.runs[name].exit_code == 0, engine.runs[name].output[-3000:]
    uri = engine.runs["TokenLedger"].artifacts["ledger"]["uri"]
    ledger = json.loads((pathlib.Path(uri) / "ledger.json").read_text())
    assert ledger["price"]["usd_per_chip_hour"] == 7.5
    assert ledger["budget"]["max_usd"] == 1000.0
    assert ledger["training"]["steps"] == 2
    assert ledger["cost"]["compute_usd"] == pytest.approx(7.5 * ledger["cost"]["chip_hours"])
    uri = engine.runs["Trainer"].artifacts["model_run"]["uri"]
    telemetry = json.loads((pathlib.Path(uri) / "telemetry.json").read_text())
    assert telemetry["steps"] == 2
    work = pathlib.Path(telemetry["training_directory"])
    limits = json.loads((executed.spec_path.parent / "training" / "limits.json").read_text())
    assert limits["usd_per_chip_hour"] == 7.5
    assert limits["max_usd"] == 1000.0
    assert work.is_relative_to(executed.spec_path.parent / "training")


def test_no_ledger_from_the_cache_leaves_the_price_of_another_run(compiled):
    tasks = read_spec(compiled)["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == {*tasks} - {"TokenLedger"}
    limits = {
        name: tasks[name]["inputs"]["parameters"]["limits_path"]["runtimeValue"]["constant"]
        for name in ("TokenLedger", "Trainer")
    }
    assert limits["TokenLedger"] == limits["Trainer"]


def test_what_may_change_per_run_is_a_typed_parameter_with_the_configured_value(compiled):
    declared = read_spec(compiled)["root"]["inputDefinitions"]["parameters"]
    defaults = {name: parameter["defaultValue"] for name, parameter in declared.items()}
    types = {name: parameter["parameterType"] for name, parameter in declared.items()}
    assert (defaults["max_steps"], types["max_steps"]) == (250, "NUMBER_INTEGER")
    assert (defaults["learning_rate"], types["learning_rate"]) == (4e-3, "NUMBER_DOUBLE")
    assert (defaults["max_usd"], types["max_usd"]) == (-1.0, "NUMBER_DOUBLE")
    assert types["input"] == "STRING"
    assert pathlib.Path(defaults["input"]).is_dir()


def test_the_spec_is_what_kubeflows_api_server_takes(compiled, tmp_path):
    """What its NewV2SpecTemplate asks (releases 2.0 to 2.5), and what Kubeflow's compiler says."""
    document = json.loads(compiled.read_text())
    json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())  # unknown fields: an error
    assert document["schemaVersion"] == "2.1.0"
    assert document["pipelineInfo"]["name"]
    assert document["root"]

    @dsl.pipeline
    def theirs(count: int = 3, rate: float = 0.5, name: str = "a"):
        compiler_test_step(count=count, rate=rate, name=name)

    compiler.Compiler().compile(theirs, str(tmp_path / "theirs.json"))
    kinds = json.loads((tmp_path / "theirs.json").read_text())["root"]["inputDefinitions"]
    ours = document["root"]["inputDefinitions"]["parameters"]
    for mine, name in (("max_steps", "count"), ("learning_rate", "rate"), ("input", "name")):
        their = kinds["parameters"][name]
        assert ours[mine]["parameterType"] == their["parameterType"]
        # JSON has one kind of number: Kubeflow's compiler writes a whole one as 3.0.
        kinds_of_default = (isinstance(of["defaultValue"], str) for of in (ours[mine], their))
        assert len(set(kinds_of_default)) == 1


@dsl.component
def compiler_test_step(count: int, rate: float, name: str):
    pass


def execution_properties(path: pathlib.Path) -> dict[str, dict]:
    """Return what TFX's entry point in the container hands to each executor, by task."""
    job, spec, found = json.loads(path.read_text()), read_spec(path), {}
    plain = spec["schemaVersion"] != "2.0.0"
    key, constant = ("parameterValues", "constant") if plain else ("parameters", "constantValue")
    declared = spec["root"]["inputDefinitions"]["parameters"]
    given = (
        {name: parameter["defaultValue"] for name, parameter in declared.items()}
        if plain
        else job["runtimeConfig"][key]
    )
    for name, task in spec["root"]["dag"]["tasks"].items():
        values = {
            parameter: given[source["componentInputParameter"]]
            if "componentInputParameter" in source
            else source["runtimeValue"][constant]
            for parameter, source in task.get("inputs", {}).get("parameters", {}).items()
        }
        invoked, types = pipeline_spec_pb2.ExecutorInput(), pipeline_spec_pb2.ComponentInputsSpec()
        json_format.ParseDict({"inputs": {key: values}}, invoked)
        component = spec["components"][task["componentRef"]["name"]]
        json_format.ParseDict(component.get("inputDefinitions", {}), types)
        found[name] = parse_execution_properties(
            invoked.inputs.parameter_values, invoked.inputs.parameters, types if plain else None
        )
    return found


def test_every_step_is_told_the_same_by_either_schema(workspace, compiled, tmp_path):
    root = compiled.parent
    settings = ('engine.schema_version="2.0.0"', f'engine.pipeline_root="{root}"')
    result = compile_spec(workspace, tmp_path, *settings)
    assert result.returncode == 0, result.stderr
    assert "Kubeflow Pipelines' API server takes 2.1.0 only" in result.stderr
    plain, typed = execution_properties(compiled), execution_properties(tmp_path / "spec.json")
    # The page shows the configuration, which says which schema it is.
    shown = [tomli.loads(found["ReportPage"].pop("config_toml")) for found in (plain, typed)]
    assert [each["engine"].pop("schema_version", None) for each in shown] == [None, "2.0.0"]
    assert json.dumps(plain, sort_keys=True) == json.dumps(typed, sort_keys=True)  # 1 is no 1.0
    assert json.loads(plain["Trainer"]["job"])["train"]["learning_rate"] == 4e-3


@pytest.mark.slow
def test_schema_2_0_runs_to_a_pushed_model_too(workspace, tmp_path):
    settings = ("engine.schema_version='2.0.0'", "evaluate.max_bits_per_byte=20.0")
    settings += ("evaluate.beat_baseline=false", "evaluate.require_improvement=false")
    result = compile_spec(workspace, tmp_path, *settings)
    assert result.returncode == 0, result.stderr
    given = {"max_steps": 3, "price_usd_per_chip_hour": 7.5}
    engine = SpecEngine(tmp_path / "spec.json", tmp_path / "tasks", given)
    engine.run()
    failed = [f"{n}: {r.output[-3000:]}" for n, r in engine.runs.items() if r.exit_code]
    assert not failed, failed[0]
    assert engine.runs["Pusher"].artifacts["pushed_model"]["metadata"]["pushed"] == 1
    uri = engine.runs["TokenLedger"].artifacts["ledger"]["uri"]
    ledger = json.loads((pathlib.Path(uri) / "ledger.json").read_text())
    assert ledger["price"]["usd_per_chip_hour"] == 7.5
    assert ledger["training"]["steps"] == 3


def test_a_learned_score_is_one_more_step_before_the_curator(workspace, tmp_path):
    examples = tmp_path / "good.txt"
    examples.write_text("What is wanted.")
    plain, scored = tmp_path / "plain", tmp_path / "scored"
    tasks = {}
    for root, overrides in (
        (plain, ()),
        (scored, (f'curate.quality.positive=["{examples}"]', "pack.quality_weighting=2")),
    ):
        root.mkdir()
        result = compile_spec(workspace, root, *overrides)
        assert result.returncode == 0, result.stderr
        spec = read_spec(root / "spec.json")
        tasks[root] = spec["root"]["dag"]["tasks"]
    assert set(tasks[scored]) - set(tasks[plain]) == {"QualityTrainer"}
    assert "quality_model" not in tasks[plain]["Curator"]["inputs"]["artifacts"]
    for user in ("Curator", "CostReport"):
        told = tasks[scored][user]["inputs"]["artifacts"]["quality_model"]["taskOutputArtifact"]
        assert told == {"producerTask": "QualityTrainer", "outputArtifactKey": "quality_model"}
        assert "QualityTrainer" in tasks[scored][user]["dependentTasks"]
    read = tasks[scored]["QualityTrainer"]["inputs"]["artifacts"]
    assert {channel["taskOutputArtifact"]["producerTask"] for channel in read.values()} == {
        "CorpusExampleGen"
    }
    packing = tasks[scored]["Packer"]["inputs"]["parameters"]["config"]["runtimeValue"]
    assert json.loads(packing["constant"])["quality_weighting"] == 2.0


def test_a_model_registry_is_one_more_step_behind_the_pusher(workspace, tmp_path):
    settings = (
        'push.registry="vertex"',
        'push.registry_image="europe-docker.pkg.dev/p/r/serving:2.21.0"',
        'push.directory="gs://bucket/serving"',
        'engine.project="p"',
        'engine.region="europe-west4"',
    )
    result = compile_spec(workspace, tmp_path, *settings)
    assert result.returncode == 0, result.stderr
    spec = read_spec(tmp_path / "spec.json")
    task = spec["root"]["dag"]["tasks"]["VertexRegistrar"]
    assert set(task["dependentTasks"]) == {"Pusher", "TokenLedger", "CostReport"}
    told = task["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"]
    assert json.loads(told)["region"] == "europe-west4"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ('engine.image="registry.invalid/tokenmill:latest"', ("engine.image", "digest")),
        ("engine.resources.Trianer.cpu=1", ("engine.resources", "did you mean Trainer?")),
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


def test_vertex_refuses_local_paths_and_a_region_without_the_accelerator(tmp_path):
    settings = (
        f'corpus.input=["{tmp_path}"]',
        'engine.pipeline_root="gs://bucket/root"',
        f'engine.image="{IMAGE}"',
        'engine.project="p"',
        'engine.region="europe-north1"',
        'engine.resources.Trainer.accelerator="NVIDIA_TESLA_A100"',
    )
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline.cli", "compile", "--runner", "vertex"),
            *("--output", str(tmp_path / "spec.json")),
            *(word for setting in settings for word in ("--set", setting)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    for words in ("corpus.input", "not offered in europe-north1", "europe-west4"):
        assert words in result.stderr
    assert not (tmp_path / "spec.json").exists()


def test_without_credentials_a_bucket_is_refused_at_once(workspace, tmp_path, monkeypatch):
    """Beam alone would try for minutes, with stack traces."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    result = compile_spec(workspace, tmp_path, 'engine.pipeline_root="gs://bucket/run"')
    assert result.returncode == 1
    assert "gs://bucket/run: there are no credentials of Google Cloud here" in result.stderr
    assert "Traceback" not in result.stderr
