"""A training on several machines: a Vertex AI custom job, or a JobSet or TrainJob on Kubernetes.

The chief runs the whole pipeline (`tokenmill run`); the other machines wait until it comes to the
Trainer, and train along (components/train/distributed/worker.py). Everything is on storage that
all see, so that a training that was preempted (exit code 75) goes on from its last checkpoint.
Fills YAML templates; imports no cloud library. What Kubernetes takes is in
pipeline/runners/kubernetes/job_set.py.
"""

import json
import os
from typing import Any, Literal

import yaml

from components.curate.list_entries import list_paths
from components.curate.quality.config import file_entries
from pipeline.config import Config, StepResources
from pipeline.loader import dump_config
from pipeline.runners.engine_check import (
    SET_KEYS,
    image_problems,
    paths_outside,
    read_by_containers,
    unlisted_accelerators,
)
from pipeline.runners.kubernetes.job_set import (
    CONFIG_NAME,
    job_set_manifest,
    name_problems,
    other_machines,
    train_job_manifest,
    worker_command,
)
from pipeline.runners.kubernetes.templates import render
from tokenmill.benchmark_tasks import is_task_file
from tokenmill.errors import TokenmillError
from tokenmill.files import write_text

Engine = Literal["vertex", "kubernetes", "trainjob"]


def write_manifests(config: Config, engine: Engine, directory: str) -> list[str]:
    """Write what the engine takes; return the files' paths.

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
        make = job_set_manifest if engine == "kubernetes" else train_job_manifest
        texts = {"training.yaml": make(placed)}
    paths = []
    for name, text in texts.items():
        path = os.path.join(directory, name)
        write_text(path, text)
        paths.append(path)
    return paths


def _check(config: Config, engine: Engine) -> None:
    settings, wrong = config.engine, []
    needed = ["pipeline_root"]
    needed += ["machine_type", "region"] if engine == "vertex" else []
    wrong += [f"engine.{name} is missing" for name in needed if not getattr(settings, name)]
    wrong += image_problems(settings.image)
    root = settings.pipeline_root or ""
    if engine == "vertex" and not root.startswith("gs://"):
        wrong.append(f"engine.pipeline_root = {root!r}: Vertex AI needs gs://bucket/path")
    if engine != "vertex":
        wrong += _missing_storage(config, root) + name_problems(config)
    mounted = root.replace("gs://", "/gcs/", 1)
    if root.startswith("gs://"):  # all of the bucket is
        mounted = "/".join(mounted.split("/")[:3])
    # The chief does what compile does, too.
    read = [*read_by_containers(config), ("validate.schema_path", config.validation.schema_path)]
    read += [("curate.benchmark_files", path) for path in config.curate.benchmark_files]
    quality = config.curate.quality
    for name in ("positive", "negative"):
        files = () if quality.classifier else file_entries(getattr(quality, name))
        read += [(f"curate.quality.{name}", path) for path in files]
    tasks = filter(is_task_file, config.curate.benchmark_tasks)
    read += [("curate.benchmark_tasks", path) for path in tasks]
    read += [(f"curate.{key}", path) for key, path in list_paths(config.curate.lists)]
    wrong += [
        f"{key} = {path!r} lies outside of what the pods have mounted, {mounted}"
        for key, path in paths_outside(read, mounted)
    ]
    if not config.corpus.input:
        wrong.append("corpus.input is empty: give files that the pods can read")
    if engine == "vertex":
        wrong += unlisted_accelerators(config)
    if config.train.strategy == "multi_worker" and settings.workers < 2:
        wrong.append("engine.workers = 1: multi_worker needs two or more")
    if wrong:
        raise TokenmillError(
            f"cannot write a training for {engine}:\n" + "\n".join(f"  {line}." for line in wrong),
            SET_KEYS,
        )


def _missing_storage(config: Config, root: str) -> list[str]:
    """List what the pods lack to share a bucket, or a volume."""
    if root.startswith("gs://"):
        wrong = []
        if not config.engine.service_account:
            wrong.append(
                "engine.service_account is missing: the pods' account that may use the bucket"
            )
        if not config.run.metadata_url:
            wrong.append(
                "run.metadata_url is missing: SQLite is not safe on a mounted bucket; give a server"
            )
        return wrong
    wrong = [] if config.engine.volume_claim else ["engine.volume_claim is missing"]
    if not os.path.isabs(root):
        wrong.append(
            f"engine.pipeline_root = {root!r}: expected gs://bucket/path, or the absolute path at "
            "which the volume is mounted"
        )
    return wrong


def _placed(config: Config, engine: Engine) -> Config:
    """Return the configuration as the chief reads it: everything on the shared storage."""
    root, push = str(config.engine.pipeline_root), config.push.directory
    if root.startswith("gs://"):  # mounted in every container
        # Not by the mount, where a directory's rename is many: docs/engines.md, object stores.
        push = push or f"{root}/serving_model"
        root = root.replace("gs://", "/gcs/", 1)
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"output_dir": root}),
            "push": config.push.model_copy(update={"directory": push}),
        }
    )


def custom_job(config: Config) -> dict[str, Any]:
    """Make a Vertex AI CustomJob (v1); Vertex sets TF_CONFIG on each machine of a cluster."""
    wanted = config.engine.resources.get("Trainer", StepResources())
    chief = ["tokenmill", "run", "--config", f"{config.output_dir}/{CONFIG_NAME}"]
    jobs = [{"pods": 1, "command": chief}]
    if others := other_machines(config):
        jobs.append({"pods": others, "command": worker_command(config)})
    text = render(
        "custom_job.yaml.j2",
        name=config.run.name,
        image=config.engine.image,
        machine_type=config.engine.machine_type,
        accelerator=wanted.accelerator,
        accelerator_count=wanted.accelerator_count,
        service_account=config.engine.service_account,
        jobs=jobs,
    )
    job: dict[str, Any] = yaml.safe_load(text)
    return job
