"""Distributed training on Vertex AI and Kubernetes: what is written fits the APIs' own schemas."""

import json
import re

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from published_schemas import VERSIONS, problems

from pipeline.cli import cli
from pipeline.loader import load_config
from pipeline.runners.kubernetes.templates import block, quoted

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


@pytest.fixture
def documents(tmp_path):
    result = write(tmp_path, "kubernetes", KUBERNETES)
    assert result.exit_code == 0, result.output
    found = yaml.safe_load_all((tmp_path / "training.yaml").read_text())
    return {document["kind"]: document for document in found}


BUCKET = (
    *COMMON,
    'engine.pipeline_root="gs://bucket/run"',
    'engine.service_account="trainer"',
    'run.metadata_url="mysql://me@host/runs"',
    'engine.resources.Trainer.accelerator="nvidia.com/gpu"',
)


def write_train_job(directory, *settings):
    result = write(directory, "trainjob", settings)
    assert result.exit_code == 0, result.output
    found = yaml.safe_load_all((directory / "training.yaml").read_text())
    return {document["kind"]: document for document in found}


@pytest.mark.parametrize("settings", [KUBERNETES, BUCKET])
@pytest.mark.parametrize("engine", ["kubernetes", "trainjob"])
def test_every_object_fits_the_published_schema_of_each_release(tmp_path, engine, settings):
    result = write(tmp_path, engine, settings)
    assert result.exit_code == 0, result.output
    found = list(yaml.safe_load_all((tmp_path / "training.yaml").read_text()))
    kinds = ["JobSet"] if engine == "kubernetes" else ["TrainingRuntime", "TrainJob"]
    assert [document["kind"] for document in found] == ["ConfigMap", "NetworkPolicy", *kinds]
    for document in found:
        versions = [version for kind, version in VERSIONS if kind == document["kind"]]
        assert versions
        for version in versions:
            assert not problems(document, version), version
    (jobs,) = (
        spec["replicatedJobs"]
        for spec in (d["spec"].get("template", d).get("spec", {}) for d in found[2:3])
    )
    for job in jobs:  # as the Job itself, which is checked when JobSet makes it
        made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}}
        assert not problems({**made, "spec": job["template"]["spec"]})


def test_a_train_job_is_of_the_runtime_beside_it(tmp_path):
    documents = write_train_job(tmp_path, *KUBERNETES)
    assert documents["TrainJob"]["spec"]["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": documents["TrainingRuntime"]["metadata"]["name"],
    }


def changed(document, path, value):
    copy = json.loads(json.dumps(document))
    *parents, last = path
    inner = copy
    for key in parents:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return copy


POD = ("spec", "replicatedJobs", 0, "template", "spec", "template", "spec")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("spec", "failurePolicy", "maxRestart"), 3, "maxRestart"),
        (("spec", "failurePolicy", "maxRestarts"), "3", "not of type"),
        (("spec", "failurePolicy", "rules", 0, "action"), "Fail", "is not one of"),
        (("spec", "replicatedJobs", 0, "name"), None, "required"),
        ((*POD, "containers", 0, "image"), 7, "not of type"),
        ((*POD, "containers", 0, "env"), [{"name": "A"}, {"name": "A"}], "the same name"),
        (("metadata", "label"), {}, "label"),
    ],
)
def test_the_schema_would_find_a_mistake(documents, path, value, words):
    found = problems(changed(documents["JobSet"], path, value))
    assert len(found) >= 1
    assert any(words in line for line in found), found


def test_the_rules_of_a_train_jobs_name_are_checked(tmp_path):
    job = write_train_job(tmp_path, *KUBERNETES)["TrainJob"]
    for name in ("Demo", "demo-", "2024-run", "a" * 64):
        assert problems(changed(job, ("metadata", "name"), name)), name


@limits(max_examples=50, deadline=None)  # the machine may be busy
@given(st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.text()))
def test_a_value_of_a_template_reads_back_as_itself(text, texts, mapping):
    for value in (text, texts, mapping):
        assert yaml.safe_load(f"k: {quoted(value)}") == {"k": value}
    for value in (text, text + "\n", "\n".join(texts), " " + text):
        indented = block(value).replace("\n", "\n  ")
        assert yaml.safe_load(f"k:\n  l: {indented}\n  m: 1\n") == {"k": {"l": value, "m": 1}}


def test_the_train_jobs_pods_are_those_of_the_job_set(tmp_path, documents):
    """But for the chief's container, which has the name that Trainer gives to a node."""
    runtime = write_train_job(tmp_path / "out", *KUBERNETES)["TrainingRuntime"]["spec"]
    theirs, mine = runtime["template"]["spec"], documents["JobSet"]["spec"]
    chief = theirs["replicatedJobs"][0]
    # What Trainer's webhook asks of the trainer's job: one replica, a container named node.
    labels = chief["template"].pop("metadata")["labels"]
    assert labels == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert chief["replicas"] == runtime["mlPolicy"]["numNodes"] == 1
    (container,) = chief["template"]["spec"]["template"]["spec"]["containers"]
    (disrupted, failed) = chief["template"]["spec"]["podFailurePolicy"]["rules"]
    assert container["name"] == failed["onExitCodes"]["containerName"] == "node"
    assert disrupted["action"] == "Count"
    container["name"] = failed["onExitCodes"]["containerName"] = "chief"
    assert theirs == mine


def test_on_a_bucket_checkpoints_are_objects_and_the_model_is_not_pushed_by_the_mount(tmp_path):
    documents = write_train_job(tmp_path, *BUCKET)
    for job in documents["TrainingRuntime"]["spec"]["template"]["spec"]["replicatedJobs"]:
        pod = job["template"]["spec"]["template"]
        assert pod["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
        assert pod["spec"]["serviceAccountName"] == "trainer"
        shared = next(v for v in pod["spec"]["volumes"] if v["name"] == "shared")
        assert shared["csi"]["volumeAttributes"]["bucketName"] == "bucket"
        (container,) = pod["spec"]["containers"]
        assert {m["name"]: m["mountPath"] for m in container["volumeMounts"]}["shared"] == (
            "/gcs/bucket"
        )
    assert container["command"][-1] == "/gcs/bucket/run/training"
    path = tmp_path / "read-back.toml"
    path.write_text(documents["ConfigMap"]["data"]["config.toml"])
    config = load_config("demo", str(path), ())
    assert config.output_dir == "/gcs/bucket/run"
    assert config.push.directory == "gs://bucket/run/serving_model"


def test_only_the_chief_gets_the_metadata_servers_password_and_from_a_secret(tmp_path):
    documents = write_train_job(tmp_path, *BUCKET)
    chief, worker = (
        {e["name"]: e for e in job["template"]["spec"]["template"]["spec"]["containers"][0]["env"]}
        for job in documents["TrainingRuntime"]["spec"]["template"]["spec"]["replicatedJobs"]
    )
    secret = chief["TOKENMILL_METADATA_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "demo-metadata", "key": "password", "optional": True}
    assert "TOKENMILL_METADATA_PASSWORD" not in worker


def test_what_a_bucket_needs_is_said_at_once(tmp_path):
    settings = [s for s in BUCKET if "service_account" not in s and "metadata" not in s]
    result = write(tmp_path / "out", "trainjob", settings)
    assert result.exit_code == 1
    for key in ("engine.service_account", "run.metadata_url"):
        assert key in result.output
    assert not (tmp_path / "out").exists()


def jobs_of(job_set):
    return {job["name"]: job["template"]["spec"] for job in job_set["spec"]["replicatedJobs"]}


def test_only_its_own_pods_reach_a_pod(documents):
    policy = documents["NetworkPolicy"]
    own = {"podSelector": {"matchLabels": {"jobset.sigs.k8s.io/jobset-name": "demo"}}}
    assert policy["spec"] == {**own, "policyTypes": ["Ingress"], "ingress": [{"from": [own]}]}


def test_a_pod_may_do_little_and_is_bounded(tmp_path):
    plain = [s for s in KUBERNETES if "resources" not in s]
    for engine, settings in (("kubernetes", plain), ("trainjob", KUBERNETES)):
        assert write(tmp_path, engine, settings).exit_code == 0
        found = list(yaml.safe_load_all((tmp_path / "training.yaml").read_text()))
        spec = found[2]["spec"]
        spec = spec["template"]["spec"] if engine == "trainjob" else spec
        for job in spec["replicatedJobs"]:
            pod = job["template"]["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            allowed = container["securityContext"]
            assert allowed["readOnlyRootFilesystem"] is True
            assert allowed["allowPrivilegeEscalation"] is False
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
            assert {"name": "temporary", "emptyDir": {}} in pod["volumes"]
            assert mounts["temporary"] == "/tmp"
            assert {"name": "HOME", "value": "/tmp"} in container["env"]
            resources = container["resources"]
            cpu = "4" if engine == "kubernetes" else "8"
            assert resources["requests"] == {"cpu": cpu, "memory": "16G"}
            assert resources["limits"].items() >= resources["requests"].items()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("run.name=2024-run", "run.name = '2024-run': Kubernetes takes a letter first"),
        ("run.name=run-", "run.name = 'run-'"),
        ("run.name=" + "a" * 47, "46 characters at most (these are 47)"),
        ('engine.image="registry.invalid/tokenmill:1"', "engine.image = .*has no digest"),
        ("engine.resources.Trianer.cpu=1", "no step Trianer; did you mean Trainer"),
        ('corpus.input=["/data/*.txt"]', r"corpus.input = '/data/\*.txt' lies outside"),
        ('corpus.input=["texts/"]', "corpus.input = 'texts/' lies outside"),
        ('tokenizer.path="/shared/running/t"', "tokenizer.path = .*outside.*mounted, /shared/run"),
        ("curate.deny_urls=@hosts.txt", "curate.deny_urls = 'hosts.txt' lies outside"),
        ('curate.benchmark_files=["b.txt"]', "curate.benchmark_files = 'b.txt' lies outside"),
    ],
)
def test_what_kubernetes_would_refuse_is_said_before_anything_is_written(tmp_path, override, words):
    result = write(tmp_path / "out", "kubernetes", (*KUBERNETES, override))
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert words in text or re.search(words, text), text
    assert not (tmp_path / "out").exists()


def test_the_longest_name_fits_with_all_its_suffixes(tmp_path):
    settings = (*KUBERNETES, "run.name=" + "a" * 46, 'corpus.input=["/shared/run/texts"]')
    result = write(tmp_path, "kubernetes", settings)
    assert result.exit_code == 0, result.output
    assert len("a" * 46 + "-worker-0-1-abcde") == 63
    assert "a" * 46 + "-worker-0-1" in (tmp_path / "training.yaml").read_text()


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
    (chief,) = jobs_of(found[2]).values()
    assert [e["name"] for e in chief["template"]["spec"]["containers"][0]["env"]] == ["HOME"]


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


def test_what_the_catalog_does_not_list_can_be_let_pass(tmp_path):
    settings = (*VERTEX, 'engine.region="us-east4"', "engine.allow_unlisted=true")
    assert write(tmp_path, "vertex", settings).exit_code == 0


def test_the_catalog_has_vertex_ais_own_names():
    from google.cloud.aiplatform_v1.types import AcceleratorType

    from data.catalog.vertex_accelerators import load_accelerators

    names = {kind.name for kind in AcceleratorType} - {"ACCELERATOR_TYPE_UNSPECIFIED"}
    assert set(load_accelerators()) == names
