"""A training on several machines, as a Vertex AI custom job or as a JobSet on Kubernetes.

The chief runs the whole pipeline (`tokenmill run`); the other machines wait until it comes to the
Trainer, and train along (components/train/worker.py). Everything is on storage that all see, so
that a training that was preempted (exit code 75) goes on from its last checkpoint. Builds plain
dictionaries; imports no cloud library.
"""

import json
import os
from typing import Any, Literal

import yaml

from components.errors import TokenmillError
from pipeline.config import Config
from pipeline.config_loader import dump_config
from pipeline.engine_check import unlisted_accelerators

Engine = Literal["vertex", "kubernetes"]

EXIT_PREEMPTED = 75
CONFIG_NAME = "config.toml"
_PORT = 2222
_CHIEF, _WORKER = "chief", "worker"
_USER = 65532


def write_manifests(config: Config, engine: Engine, directory: str) -> list[str]:
    """Writes what the engine takes; returns the files' paths.

    Raises:
        TokenmillError: The configuration lacks what the engine needs.
    """
    _check(config, engine)
    os.makedirs(directory, exist_ok=True)
    placed = _placed(config, engine)
    if engine == "vertex":
        job = json.dumps(custom_job(placed), indent=2, sort_keys=True) + "\n"
        texts = {"custom_job.json": job, CONFIG_NAME: dump_config(placed)}
    else:
        documents = [config_map(placed), job_set(placed)]
        texts = {"training.yaml": yaml.safe_dump_all(documents, sort_keys=False)}
    paths = []
    for name, text in texts.items():
        path = os.path.join(directory, name)
        with open(f"{path}.writing", "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(f"{path}.writing", path)
        paths.append(path)
    return paths


def _check(config: Config, engine: Engine) -> None:
    settings, wrong = config.engine, []
    needed = ["image", "pipeline_root"]
    needed += ["machine_type", "region"] if engine == "vertex" else ["volume_claim"]
    wrong += [f"engine.{name} is missing" for name in needed if not getattr(settings, name)]
    root = settings.pipeline_root or ""
    if engine == "vertex" and not root.startswith("gs://"):
        wrong.append(f"engine.pipeline_root = {root!r}: Vertex AI needs gs://bucket/path")
    if engine == "kubernetes" and not os.path.isabs(root):
        wrong.append(
            f"engine.pipeline_root = {root!r}: expected the absolute path at which the volume is "
            "mounted"
        )
    if not config.corpus.input:
        wrong.append("corpus.input is empty: give files that the pods can read")
    if engine == "vertex":
        wrong += unlisted_accelerators(config)
    if config.train.strategy == "multi_worker" and settings.workers < 2:
        wrong.append("engine.workers = 1: multi_worker needs two or more")
    if wrong:
        raise TokenmillError(
            f"cannot write a training for {engine}:\n" + "\n".join(f"  {line}." for line in wrong)
        )


def _placed(config: Config, engine: Engine) -> Config:
    """The configuration as the chief reads it: everything on the shared storage."""
    root = str(config.engine.pipeline_root)
    if engine == "vertex":  # Cloud Storage is mounted in every container of a custom job
        root = root.replace("gs://", "/gcs/", 1)
    run = config.run.model_copy(update={"output_dir": root})
    return config.model_copy(update={"run": run})


def _replicas(config: Config) -> int:
    """Machines besides the chief."""
    return config.engine.workers - 1 if config.train.strategy == "multi_worker" else 0


def _worker_command(config: Config) -> list[str]:
    training = f"{config.output_dir}/training"
    return ["python", "-m", "components.train.worker", training]


def custom_job(config: Config) -> dict[str, Any]:
    """A Vertex AI CustomJob (v1); Vertex sets TF_CONFIG on each machine of a cluster."""
    settings = config.engine
    machine: dict[str, Any] = {"machineType": settings.machine_type}
    wanted = settings.resources.get("Trainer")
    if wanted is not None and wanted.accelerator:
        machine["acceleratorType"] = wanted.accelerator
        machine["acceleratorCount"] = wanted.accelerator_count
    chief = ["tokenmill", "run", "--config", f"{config.output_dir}/{CONFIG_NAME}"]
    pools = [_pool(config, machine, 1, chief)]
    if _replicas(config):
        pools.append(_pool(config, machine, _replicas(config), _worker_command(config)))
    spec: dict[str, Any] = {
        "workerPoolSpecs": pools,
        "scheduling": {"restartJobOnWorkerRestart": True},
    }
    if settings.service_account:
        spec["serviceAccount"] = settings.service_account
    return {"displayName": config.run.name, "jobSpec": spec}


def _pool(
    config: Config, machine: dict[str, Any], replicas: int, command: list[str]
) -> dict[str, Any]:
    return {
        "machineSpec": machine,
        "replicaCount": replicas,
        "containerSpec": {"imageUri": config.engine.image, "command": command},
    }


def config_map(config: Config) -> dict[str, Any]:
    """The configuration, for the chief."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{config.run.name}-config"},
        "data": {CONFIG_NAME: dump_config(config)},
    }


def job_set(config: Config) -> dict[str, Any]:
    """A JobSet (jobset.x-k8s.io/v1alpha2): all start again together after a preemption.

    A pod that exits with 75, or that a disruption ends, fails its Job, and the JobSet makes all
    Jobs anew; any other failure fails the JobSet, since another try would end the same.
    """
    name, others = config.run.name, _replicas(config)
    # The names that JobSet gives to its pods: set, replicated job, job, pod.
    hosts = [f"{name}-{_WORKER}-0-{i}.{name}:{_PORT}" for i in range(others)]
    cluster = {_CHIEF: [f"{name}-{_CHIEF}-0-0.{name}:{_PORT}"], _WORKER: hosts}
    chief = ["tokenmill", "run", "--config", f"/config/{CONFIG_NAME}"]
    jobs = [_replicated_job(config, _CHIEF, 1, chief, cluster if others else None)]
    if others:
        jobs.append(_replicated_job(config, _WORKER, others, _worker_command(config), cluster))
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name},
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": name},
            "successPolicy": {"operator": "All", "targetReplicatedJobs": [_CHIEF]},
            "failurePolicy": {
                "maxRestarts": config.engine.max_restarts,
                "rules": [
                    {
                        "name": "another-try-would-end-the-same",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": jobs,
        },
    }


def _replicated_job(
    config: Config,
    role: str,
    pods: int,
    command: list[str],
    cluster: dict[str, list[str]] | None,
) -> dict[str, Any]:
    job = {
        "completions": pods,
        "parallelism": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Count",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {
                    "action": "FailJob",
                    "onPodConditions": [],  # the API's schema has it as required
                    "onExitCodes": {
                        "containerName": role,
                        "operator": "NotIn",
                        "values": [EXIT_PREEMPTED],
                    },
                },
            ]
        },
        "template": {"spec": _pod(config, role, command, cluster)},
    }
    return {"name": role, "replicas": 1, "template": {"spec": job}}


def _pod(
    config: Config, role: str, command: list[str], cluster: dict[str, list[str]] | None
) -> dict[str, Any]:
    environment: list[dict[str, Any]] = []
    if cluster is not None:
        index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
        # Kubernetes puts the index in where $(TASK_INDEX) stands.
        task = f'{{"type": "{role}", "index": $(TASK_INDEX)}}'
        environment = [
            {"name": "TASK_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}},
            {"name": "TF_CONFIG", "value": f'{{"cluster": {json.dumps(cluster)}, "task": {task}}}'},
        ]
    container: dict[str, Any] = {
        "name": role,
        "image": config.engine.image,
        "command": command,
        "env": environment,
        "ports": [{"containerPort": _PORT}],
        "resources": _kubernetes_resources(config),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "shared", "mountPath": str(config.engine.pipeline_root)},
            {"name": "config", "mountPath": "/config", "readOnly": True},
        ],
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        # Longer than a checkpoint takes: it is saved on SIGTERM.
        "terminationGracePeriodSeconds": 300,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {
                "name": "shared",
                "persistentVolumeClaim": {"claimName": config.engine.volume_claim},
            },
            {"name": "config", "configMap": {"name": f"{config.run.name}-config"}},
        ],
    }


def _kubernetes_resources(config: Config) -> dict[str, Any]:
    wanted = config.engine.resources.get("Trainer")
    if wanted is None:
        return {}
    amounts: dict[str, str] = {}
    if wanted.cpu:
        amounts["cpu"] = f"{wanted.cpu:g}"
    if wanted.memory_gb:
        amounts["memory"] = f"{wanted.memory_gb:g}G"
    limits = dict(amounts)
    if wanted.accelerator:
        limits[wanted.accelerator] = str(wanted.accelerator_count)
    return {"requests": amounts, "limits": limits}
