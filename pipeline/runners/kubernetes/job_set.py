"""A training on Kubernetes: a ConfigMap, a NetworkPolicy, and a JobSet or a TrainJob.

What stands in the objects is in templates/; here are the values that a configuration gives them.
"""

import json
import re
from dataclasses import dataclass, field

from pipeline.config import Config, StepResources
from pipeline.loader import dump_config
from pipeline.runners.kubernetes.templates import render
from tokenmill.metadata.server_url import PASSWORD_VARIABLE
from tokenmill.preemption import EXIT_PREEMPTED

CONFIG_NAME = "config.toml"
_PORT = 2222
_CHIEF, _WORKER = "chief", "worker"
_CHIEF_COMMAND = ["tokenmill", "run", "--config", f"/config/{CONFIG_NAME}"]
_USER = 65532
_TRAINER_CONTAINER = "node"  # Trainer's own name for it
_TRAINER_LABELS = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
# Of a pod whose step has no engine.resources: it is not to take all of a node, nor to be the first
# that goes when memory runs out.
_DEFAULT_CPU, _DEFAULT_MEMORY_GB = 4.0, 16.0
_LONGEST_LABEL = 63
_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True)
class _Job:
    """One Job of the JobSet, as its template asks for it.

    Attributes:
        role: Its name, and the type of its tasks in TF_CONFIG.
        container: Name of the container.
        pods: Number of its pods.
        command: What they run.
        tf_config: TF_CONFIG of each; empty, if there is one machine.
        labels: Of the Job.
        password_secret: The Secret with the metadata server's password; empty, if it needs none.
    """

    role: str
    container: str
    pods: int
    command: list[str]
    tf_config: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    password_secret: str = ""


@dataclass(frozen=True)
class _Storage:
    """What all pods have mounted: a bucket, or else a claim of a volume, and where."""

    mount: str
    bucket: str = ""
    claim: str = ""


def other_machines(config: Config) -> int:
    """Return the number of machines besides the chief."""
    return config.engine.workers - 1 if config.train.strategy == "multi_worker" else 0


def worker_command(config: Config) -> list[str]:
    """Return the command of the other machines."""
    training = f"{config.output_dir}/training"
    return ["python", "-m", "components.train.distributed.worker", training]


def name_problems(config: Config) -> list[str]:
    """List why Kubernetes would not take the names that are made of run.name."""
    name, last = config.run.name, max(0, other_machines(config) - 1)
    # A pod: set, replicated job, job, pod and five random characters; its host name is a label.
    longest = max((f"{name}-{_CHIEF}-0-0-xxxxx", f"{name}-{_WORKER}-0-{last}-xxxxx"), key=len)
    most = _LONGEST_LABEL - (len(longest) - len(name))
    if _LABEL.fullmatch(name) and len(name) <= most:
        return []
    return [
        f"run.name = {name!r}: Kubernetes takes a letter first, a letter or digit last, and here "
        f"{most} characters at most (these are {len(name)}); --set run.name=<another>"
    ]


def job_set_manifest(config: Config) -> str:
    """Return YAML of a ConfigMap, a NetworkPolicy and a JobSet (jobset.x-k8s.io/v1alpha2)."""
    return _manifest(config, _CHIEF, {}, "job_set.yaml.j2")


def train_job_manifest(config: Config) -> str:
    """Return YAML of a ConfigMap, a NetworkPolicy, a TrainingRuntime and a TrainJob of it.

    The latter two are Kubeflow Trainer's (trainer.kubeflow.org/v1alpha1).
    """
    templates = ("training_runtime.yaml.j2", "train_job.yaml.j2")
    return _manifest(config, _TRAINER_CONTAINER, _TRAINER_LABELS, *templates)


def _manifest(
    config: Config, chief_container: str, chief_labels: dict[str, str], *templates: str
) -> str:
    cluster = _cluster(config)
    secret = f"{config.run.name}-metadata" if config.run.metadata_url else ""
    chief = _Job(
        role=_CHIEF,
        container=chief_container,
        pods=1,
        command=_CHIEF_COMMAND,
        tf_config=_tf_config(cluster, _CHIEF),
        labels=chief_labels,
        password_secret=secret,
    )
    jobs = [chief]
    if others := other_machines(config):
        tf_config = _tf_config(cluster, _WORKER)
        jobs.append(_Job(_WORKER, _WORKER, others, worker_command(config), tf_config))
    requests, limits = _kubernetes_resources(config)
    values = {
        "name": config.run.name,
        "config_map": f"{config.run.name}-config",
        "config_name": CONFIG_NAME,
        "config_toml": dump_config(config),
        "image": config.engine.image,
        "service_account": config.engine.service_account,
        "max_restarts": config.engine.max_restarts,
        "exit_preempted": EXIT_PREEMPTED,
        "password_variable": PASSWORD_VARIABLE,
        "port": _PORT,
        "user": _USER,
        "requests": requests,
        "limits": limits,
        "storage": _shared_storage(config),
        "chief": chief,
        "jobs": jobs,
    }
    names = ("config_map.yaml.j2", "network_policy.yaml.j2", *templates)
    return "---\n".join(render(name, **values) for name in names)


def _cluster(config: Config) -> dict[str, list[str]]:
    """Return TF_CONFIG's cluster, by the names that JobSet gives to its pods; empty without one."""
    name, others = config.run.name, other_machines(config)
    if not others:
        return {}
    # Set, replicated job, job, pod.
    workers = [f"{name}-{_WORKER}-0-{i}.{name}:{_PORT}" for i in range(others)]
    return {_CHIEF: [f"{name}-{_CHIEF}-0-0.{name}:{_PORT}"], _WORKER: workers}


def _tf_config(cluster: dict[str, list[str]], role: str) -> str:
    if not cluster:
        return ""
    # Kubernetes puts the index in where $(TASK_INDEX) stands.
    task = f'{{"type": "{role}", "index": $(TASK_INDEX)}}'
    return f'{{"cluster": {json.dumps(cluster)}, "task": {task}}}'


def _shared_storage(config: Config) -> _Storage:
    root = str(config.engine.pipeline_root)
    if not root.startswith("gs://"):
        return _Storage(root, claim=str(config.engine.volume_claim))
    bucket = root.removeprefix("gs://").partition("/")[0]
    return _Storage(f"/gcs/{bucket}", bucket=bucket)


def _kubernetes_resources(config: Config) -> tuple[dict[str, str], dict[str, str]]:
    """Return (requests, limits) of each pod."""
    wanted = config.engine.resources.get("Trainer", StepResources())
    requests = {
        "cpu": f"{wanted.cpu or _DEFAULT_CPU:g}",
        "memory": f"{wanted.memory_gb or _DEFAULT_MEMORY_GB:g}G",
    }
    limits = dict(requests)
    if wanted.accelerator:
        limits[wanted.accelerator] = str(wanted.accelerator_count)
    return requests, limits
