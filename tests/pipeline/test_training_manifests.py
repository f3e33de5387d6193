"""Distributed training on Vertex AI and Kubernetes: what is written fits the APIs' own models."""

import json
import re

import kubernetes.client
import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.config_loader import load_config

IMAGE = "registry.invalid/tokenmill@sha256:" + "a" * 64
COMMON = (
    'corpus.input=["gs://corpus/*.jsonl"]',
    f'engine.image="{IMAGE}"',
    'train.strategy="multi_worker"',
    "engine.workers=3",
    "engine.resources.Trainer.cpu=8",
)
VERTEX = (
    *COMMON,
    'engine.pipeline_root="gs://bucket/run"',
    'engine.region="us-central1"',
    'engine.machine_type="a2-highgpu-1g"',
    'engine.resources.Trainer.accelerator="NVIDIA_TESLA_A100"',
)
KUBERNETES = (
    *COMMON,
    'engine.pipeline_root="/shared/run"',
    'engine.volume_claim="shared"',
    'engine.resources.Trainer.accelerator="nvidia.com/gpu"',
)


def write(directory, engine, settings):
    words = [word for setting in settings for word in ("--set", setting)]
    return CliRunner().invoke(
        cli,
        ["manifests", "training", "--engine", engine, "--output", str(directory), *words],
    )


def check(value, type_name):
    """Every key is a field of the Kubernetes client's model, every required field is there."""
    if match := re.fullmatch(r"list\[(.+)\]|dict\(str, (.+)\)", type_name):
        for item in value.values() if isinstance(value, dict) else value:
            check(item, match[1] or match[2])
    elif type_name in ("str", "int", "bool"):
        assert type(value).__name__ == type_name
    elif type_name != "object":
        model = getattr(kubernetes.client, type_name)
        names = {key: name for name, key in model.attribute_map.items()}
        assert not set(value) - set(names)
        for key, item in value.items():
            check(item, model.openapi_types[names[key]])
        model(**{names[key]: item for key, item in value.items()})  # raises if one is missing


@pytest.fixture
def documents(tmp_path):
    result = write(tmp_path, "kubernetes", KUBERNETES)
    assert result.exit_code == 0, result.output
    found = yaml.safe_load_all((tmp_path / "training.yaml").read_text())
    return {document["kind"]: document for document in found}


def jobs_of(job_set):
    return {job["name"]: job["template"]["spec"] for job in job_set["spec"]["replicatedJobs"]}


def test_jobs_and_config_map_fit_their_models(documents):
    check(documents["ConfigMap"], "V1ConfigMap")
    jobs = jobs_of(documents["JobSet"])
    assert set(jobs) == {"chief", "worker"}
    for job in jobs.values():
        check(job, "V1JobSpec")
    broken = {**jobs["chief"], "backofLimit": 1}
    with pytest.raises(AssertionError):
        check(broken, "V1JobSpec")


def test_only_a_preemption_starts_all_again(documents):
    for name, job in jobs_of(documents["JobSet"]).items():
        assert job["backoffLimit"] == 0
        disrupted, failed = job["podFailurePolicy"]["rules"]
        assert disrupted["action"] == "Count"
        assert failed["action"] == "FailJob"
        assert failed["onExitCodes"] == {
            "containerName": name,
            "operator": "NotIn",
            "values": [75],
        }
        assert job["template"]["spec"]["restartPolicy"] == "Never"
    policy = documents["JobSet"]["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 20
    assert policy["rules"][0]["action"] == "FailJobSet"
    assert policy["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_every_pod_knows_its_place_in_one_cluster(documents):
    clusters, tasks = [], []
    for job in jobs_of(documents["JobSet"]).values():
        environment = {e["name"]: e for e in job["template"]["spec"]["containers"][0]["env"]}
        for index in range(job["completions"]):
            text = environment["TF_CONFIG"]["value"].replace("$(TASK_INDEX)", str(index))
            config = json.loads(text)
            clusters.append(config["cluster"])
            tasks.append((config["task"]["type"], config["task"]["index"]))
    assert tasks == [("chief", 0), ("worker", 0), ("worker", 1)]
    assert all(cluster == clusters[0] for cluster in clusters)
    hosts = clusters[0]["chief"] + clusters[0]["worker"]
    assert len(set(hosts)) == 3
    assert hosts[-1] == "demo-worker-0-1.demo:2222"


def test_the_chiefs_configuration_reads_back_and_names_the_shared_place(documents, tmp_path):
    path = tmp_path / "read-back.toml"
    path.write_text(documents["ConfigMap"]["data"]["config.toml"])
    config = load_config("demo", str(path), ())
    assert config.output_dir == "/shared/run"
    worker = jobs_of(documents["JobSet"])["worker"]["template"]["spec"]["containers"][0]
    assert worker["command"][-1] == "/shared/run/training"
    mounts = {m["name"]: m["mountPath"] for m in worker["volumeMounts"]}
    assert mounts["shared"] == "/shared/run"


def test_a_training_on_one_machine_has_no_worker(tmp_path):
    result = write(tmp_path, "kubernetes", (*KUBERNETES, 'train.strategy="mirrored"'))
    assert result.exit_code == 0, result.output
    found = list(yaml.safe_load_all((tmp_path / "training.yaml").read_text()))
    (chief,) = jobs_of(found[1]).values()
    assert chief["template"]["spec"]["containers"][0]["env"] == []


def test_the_custom_job_fits_vertex_ai(tmp_path):
    from google.cloud.aiplatform_v1.types import CustomJob

    result = write(tmp_path, "vertex", VERTEX)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "custom_job.json").read_text()
    job = CustomJob.from_json(text, ignore_unknown_fields=False)
    chief, workers = job.job_spec.worker_pool_specs
    assert (chief.replica_count, workers.replica_count) == (1, 2)
    assert chief.machine_spec.accelerator_type.name == "NVIDIA_TESLA_A100"
    assert list(chief.container_spec.command)[-1] == "/gcs/bucket/run/config.toml"
    assert list(workers.container_spec.command)[-1] == "/gcs/bucket/run/training"
    assert job.job_spec.scheduling.restart_job_on_worker_restart


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ('engine.region="us-east4"', ("not offered in us-east4", "us-east1")),
        ('engine.resources.Trainer.accelerator="NVIDIA_A100"', ("NVIDIA_TESLA_A100",)),
        ("engine.workers=1", ("engine.workers",)),
    ],
)
def test_a_pair_that_is_not_there_is_one_message_before_anything_is_written(
    tmp_path, override, words
):
    result = write(tmp_path / "out", "vertex", (*VERTEX, override))
    assert result.exit_code == 1
    for word in words:
        assert word in result.output
    assert not (tmp_path / "out").exists()


def test_what_the_catalogue_does_not_list_can_be_let_pass(tmp_path):
    settings = (*VERTEX, 'engine.region="us-east4"', "engine.allow_unlisted=true")
    assert write(tmp_path, "vertex", settings).exit_code == 0


def test_the_catalogue_has_vertex_ais_own_names():
    from google.cloud.aiplatform_v1.types import AcceleratorType

    from data.vertex_accelerators import load_accelerators

    names = {kind.name for kind in AcceleratorType} - {"ACCELERATOR_TYPE_UNSPECIFIED"}
    assert set(load_accelerators()) == names
