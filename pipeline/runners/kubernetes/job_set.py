"""Objects for Kubernetes.

A ConfigMap, a NetworkPolicy, and a JobSet or what Kubeflow Trainer takes (a runtime, a TrainJob).
"""

import json
import re
from typing import Any

from pipeline.config import Config, StepResources
from pipeline.loader import dump_config
from tokenmill.metadata.server_url import PASSWORD_VARIABLE
from tokenmill.preemption import EXIT_PREEMPTED

CONFIG_NAME = "config.toml"
_PORT = 2222
_CHIEF, _WORKER = "chief", "worker"
_CHIEF_COMMAND = ["tokenmill", "run", "--config", f"/config/{CONFIG_NAME}"]
_USER = 65532
_TRAINER_API = "trainer.kubeflow.org/v1alpha1"
_TRAINER_CONTAINER = "node"  # Trainer's own name for it
_JOB_SET_LABEL = "jobset.sigs.k8s.io/jobset-name"  # JobSet's, on each of its pods
# Of a pod whose step has no engine.resources: it is not to take all of a node, nor to be the first
# that goes when memory runs out.
_DEFAULT_CPU, _DEFAULT_MEMORY_GB = 4.0, 16.0
_LONGEST_LABEL = 63
_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


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


def network_policy(config: Config) -> dict[str, Any]:
    """Make a NetworkPolicy: only the job's own pods reach its pods.

    TensorFlow's port asks for no password and runs what it is sent.
    """
    own = {"podSelector": {"matchLabels": {_JOB_SET_LABEL: config.run.name}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": config.run.name},
        "spec": {**own, "policyTypes": ["Ingress"], "ingress": [{"from": [own]}]},
    }


def config_map(config: Config) -> dict[str, Any]:
    """Make the ConfigMap with the chief's configuration."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{config.run.name}-config"},
        "data": {CONFIG_NAME: dump_config(config)},
    }


def job_set(config: Config) -> dict[str, Any]:
    """Make a JobSet (jobset.x-k8s.io/v1alpha2): all start again together after a preemption.

    A pod that exits with 75, or that a disruption ends, fails its Job, and the JobSet makes all
    Jobs anew; any other failure fails the JobSet, since another try would end the same.
    """
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": config.run.name},
        "spec": _job_set_spec(config, _CHIEF),
    }


def training_runtime(config: Config) -> dict[str, Any]:
    """Make a TrainingRuntime (trainer.kubeflow.org/v1alpha1): the JobSet as Trainer's template.

    The chief is what Trainer calls the trainer's node: a TrainJob may give it another image,
    command or resources. Trainer names the JobSet after the TrainJob, as the addresses expect.
    """
    spec = _job_set_spec(config, _TRAINER_CONTAINER)
    spec["replicatedJobs"][0]["template"]["metadata"] = {
        "labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    }
    return {
        "apiVersion": _TRAINER_API,
        "kind": "TrainingRuntime",
        "metadata": {"name": config.run.name},
        "spec": {"mlPolicy": {"numNodes": 1}, "template": {"spec": spec}},
    }


def train_job(config: Config) -> dict[str, Any]:
    """Make a TrainJob (trainer.kubeflow.org/v1alpha1) of that runtime."""
    group = _TRAINER_API.partition("/")[0]
    return {
        "apiVersion": _TRAINER_API,
        "kind": "TrainJob",
        "metadata": {"name": config.run.name},
        "spec": {
            "runtimeRef": {
                "apiGroup": group,
                "kind": "TrainingRuntime",
                "name": config.run.name,
            },
            "trainer": {"image": config.engine.image, "command": _CHIEF_COMMAND, "numNodes": 1},
        },
    }


def _job_set_spec(config: Config, chief_container: str) -> dict[str, Any]:
    name, others = config.run.name, other_machines(config)
    # The names that JobSet gives to its pods: set, replicated job, job, pod.
    hosts = [f"{name}-{_WORKER}-0-{i}.{name}:{_PORT}" for i in range(others)]
    cluster = {_CHIEF: [f"{name}-{_CHIEF}-0-0.{name}:{_PORT}"], _WORKER: hosts}
    known = cluster if others else None
    jobs = [_replicated_job(config, _CHIEF, chief_container, 1, _CHIEF_COMMAND, known)]
    if others:
        command = worker_command(config)
        jobs.append(_replicated_job(config, _WORKER, _WORKER, others, command, known))
    return {
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
    }


def _replicated_job(
    config: Config,
    role: str,
    container: str,
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
                        "containerName": container,
                        "operator": "NotIn",
                        "values": [EXIT_PREEMPTED],
                    },
                },
            ]
        },
        "template": _pod(config, role, container, command, cluster),
    }
    return {"name": role, "replicas": 1, "template": {"spec": job}}


def _pod(
    config: Config,
    role: str,
    container_name: str,
    command: list[str],
    cluster: dict[str, list[str]] | None,
) -> dict[str, Any]:
    # The root is read-only; libraries keep caches at home.
    environment: list[dict[str, Any]] = [{"name": "HOME", "value": "/tmp"}]
    if cluster is not None:
        index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
        # Kubernetes puts the index in where $(TASK_INDEX) stands.
        task = f'{{"type": "{role}", "index": $(TASK_INDEX)}}'
        environment += [
            {"name": "TASK_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}},
            {"name": "TF_CONFIG", "value": f'{{"cluster": {json.dumps(cluster)}, "task": {task}}}'},
        ]
    if role == _CHIEF and config.run.metadata_url:
        secret = {"name": f"{config.run.name}-metadata", "key": "password", "optional": True}
        environment.append({"name": PASSWORD_VARIABLE, "valueFrom": {"secretKeyRef": secret}})
    mount, volume, annotations = _shared_storage(config)
    container: dict[str, Any] = {
        "name": container_name,
        "image": config.engine.image,
        "command": command,
        "env": environment,
        "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
        "resources": _kubernetes_resources(config),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "shared", "mountPath": mount},
            {"name": "config", "mountPath": "/config", "readOnly": True},
            {"name": "temporary", "mountPath": "/tmp"},
        ],
    }
    spec: dict[str, Any] = {
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
            {"name": "shared", **volume},
            {"name": "config", "configMap": {"name": f"{config.run.name}-config"}},
            {"name": "temporary", "emptyDir": {}},
        ],
    }
    if config.engine.service_account:
        spec["serviceAccountName"] = config.engine.service_account
    return (
        {"metadata": {"annotations": annotations}, "spec": spec} if annotations else {"spec": spec}
    )


def _shared_storage(config: Config) -> tuple[str, dict[str, Any], dict[str, str]]:
    """(where it is mounted, the volume, the pod's annotations)."""
    root = str(config.engine.pipeline_root)
    if not root.startswith("gs://"):
        claim = {"persistentVolumeClaim": {"claimName": config.engine.volume_claim}}
        return root, claim, {}
    # GKE's driver for Cloud Storage; its sidecar is asked for by the annotation.
    bucket = root.removeprefix("gs://").partition("/")[0]
    options = f"implicit-dirs,uid={_USER},gid={_USER}"
    attributes = {"bucketName": bucket, "mountOptions": options}
    volume = {"csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}}
    return f"/gcs/{bucket}", volume, {"gke-gcsfuse/volumes": "true"}


def _kubernetes_resources(config: Config) -> dict[str, Any]:
    wanted = config.engine.resources.get("Trainer", StepResources())
    amounts = {
        "cpu": f"{wanted.cpu or _DEFAULT_CPU:g}",
        "memory": f"{wanted.memory_gb or _DEFAULT_MEMORY_GB:g}G",
    }
    limits = dict(amounts)
    if wanted.accelerator:
        limits[wanted.accelerator] = str(wanted.accelerator_count)
    return {"requests": amounts, "limits": limits}
