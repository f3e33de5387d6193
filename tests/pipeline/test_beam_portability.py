"""Every Beam pipeline of a run as another runner gets it: a proto, an environment, our wheel."""

import os
import pathlib
import runpy
import subprocess
import sys
import zipfile

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, SetupOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.transforms import environments
from record_pipelines import IMAGE

ROOT = pathlib.Path(__file__).parents[2]
EXECUTORS = {
    "CorpusExampleGenExecutor",
    "DocumentStatisticsGenExecutor",
    "CuratorExecutor",
    "TokenizingTransformExecutor",
    "PackerExecutor",
    "BaselineEvaluatorExecutor",
}

REBUILD = """
import pathlib, sys
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
import components

assert components.__file__.startswith(sys.argv[1]), components.__file__
for path in sorted(pathlib.Path(sys.argv[2]).iterdir()):
    proto = beam_runner_api_pb2.Pipeline.FromString(path.read_bytes())
    # Every function and coder is unpickled here.
    pipeline = beam.Pipeline.from_runner_api(proto, "DirectRunner", PipelineOptions([]))
    pipeline.to_runner_api()
    print(path.name)
"""


@pytest.fixture(scope="module")
def protos(workspace, tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("protos")
    home = tmp_path_factory.mktemp("home")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "record_pipelines", str(directory), "run"),
            *("--config", str(workspace.config), "--input", str(workspace.corpus)),
            *("--output-dir", str(home), "--set", "train.max_steps=20"),
            *("--set", "evaluate.max_bits_per_byte=20.0"),
            *("--set", "evaluate.beat_baseline=false"),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return directory


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """The project's wheel, as the engines' workers have it."""
    build = runpy.run_path(str(ROOT / "tools" / "engines" / "parts.py"))["build_wheel"]
    home = tmp_path_factory.mktemp("wheel")
    return build(home / "source", home / "out")


@pytest.mark.slow
def test_every_beam_step_is_a_proto_that_leans_on_no_main_session(protos):
    assert {path.name.partition("-")[2] for path in protos.iterdir()} == EXECUTORS
    for path in protos.iterdir():
        proto = beam_runner_api_pb2.Pipeline.FromString(path.read_bytes())
        payloads = [
            transform.spec.payload
            for transform in proto.components.transforms.values()
            if transform.spec.urn == common_urns.primitives.PAR_DO.urn
        ]
        assert payloads, path.name
        for payload in payloads:
            assert b"__main__" not in payload, path.name
            assert b"record_pipelines" not in payload, path.name
        used = {t.environment_id for t in proto.components.transforms.values()} - {""}
        for name in used:
            environment = proto.components.environments[name]
            assert environment.urn == common_urns.environments.DOCKER.urn, path.name
            docker = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
            assert docker.container_image == IMAGE, path.name
            assert common_urns.coders.KV.urn in environment.capabilities, path.name


@pytest.mark.slow
def test_the_wheel_is_all_that_a_worker_needs_of_this_project(protos, wheel, tmp_path):
    unpacked = tmp_path / "wheel"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    result = subprocess.run(
        [sys.executable, "-c", REBUILD, str(unpacked), str(protos)],
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert len(result.stdout.split()) == len(list(protos.iterdir()))


def test_what_is_staged_is_the_wheel_and_no_main_session(wheel, tmp_path):
    options = PipelineOptions(
        [
            f"--extra_package={wheel}",
            "--environment_type=DOCKER",
            f"--environment_config={IMAGE}",
            f"--temp_location={tmp_path}",
        ]
    )
    assert not options.view_as(SetupOptions).save_main_session
    portable = options.view_as(PortableOptions)
    environment = environments.DockerEnvironment.from_options(portable)
    assert environment.container_image == IMAGE
    staged = {
        beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(
            artifact.role_payload
        ).staged_name
        for artifact in environment.artifacts()
    }
    assert wheel.name in staged
    assert not any("main_session" in name for name in staged)


def test_the_wheel_has_all_modules_and_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for package in ("components", "data", "pipeline", "serving", "tokenmill"):
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert modules <= names
    tables = {str(path.relative_to(ROOT)) for path in (ROOT / "data").glob("*.csv")}
    assert tables <= names
    assert "pipeline/presets/demo.toml" in names
