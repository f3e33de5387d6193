"""Checks of what Kubeflow or Vertex AI would refuse, before anything is written; no TFX."""

import os
import re
from collections.abc import Sequence
from typing import Literal

from components.push.registry import RegistryTarget, model_id
from data.catalog.vertex_accelerators import complaint
from pipeline.config import Config
from tokenmill.benchmark_tasks import is_task_file
from tokenmill.errors import TokenmillError

Engine = Literal["kubeflow", "vertex"]

SET_KEYS = "Set these keys in the configuration's file, or with --set section.key=value."
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def check_engine(config: Config, engine: Engine) -> None:
    """Raise one error for everything that would fail on the engine, before anything is written.

    Raises:
        TokenmillError: Something is missing or wrong.
    """
    settings, wrong = config.engine, []
    if not config.corpus.input:
        wrong.append(
            "corpus.input is empty: the embedded corpus is on this machine only; give files that "
            "the containers can read"
        )
    root = settings.pipeline_root
    if not root:
        wrong.append("engine.pipeline_root is missing: gs://bucket/path, or a shared directory")
    elif engine == "vertex" and not root.startswith("gs://"):
        wrong.append(f"engine.pipeline_root = {root!r}: Vertex AI needs gs://bucket/path")
    wrong += image_problems(settings.image)
    if engine == "vertex":
        if not config.run.name[0].isalpha():
            wrong.append(f"run.name = {config.run.name!r}: Vertex AI's jobs begin with a letter")
        wrong += [
            f"engine.{name} is missing: Vertex AI needs it"
            for name in ("project", "region")
            if not getattr(settings, name)
        ]
        wrong += [
            f"{key} = {path!r} is on this machine: the containers of Vertex AI see gs:// only"
            for key, path in read_by_containers(config)
            if not path.startswith("gs://")
        ]
    wrong += unlisted_accelerators(config) if engine == "vertex" else []
    if config.push.registry == "vertex" and root:
        found = registry_problems(config, config.push.directory or root)
        wrong += [line for line in found if engine != "vertex" or not line.startswith("engine.")]
    if wrong:
        raise TokenmillError(
            f"cannot compile for {engine}:\n" + "\n".join(f"  {line}." for line in wrong),
            SET_KEYS,
        )


def schema_version(config: Config, engine: Engine) -> str:
    """Return the version of the specs' schema: engine.schema_version, or what the engine takes."""
    return config.engine.schema_version or ("2.1.0" if engine == "kubeflow" else "2.0.0")


def kubeflow_warnings(config: Config) -> list[str]:
    """List what Kubeflow Pipelines' own backend would refuse, and another that reads specs may not.

    Its API server says so of a spec, and its launcher of a root (releases 2.0 to 2.5).
    """
    found = []
    root = str(config.engine.pipeline_root)
    if "://" not in root:
        found.append(
            f"engine.pipeline_root = {root!r}: Kubeflow Pipelines' launcher takes gs://bucket/path "
            "only (s3:// and minio:// are not read by the steps)"
        )
    if config.engine.schema_version == "2.0.0":
        found.append(
            "engine.schema_version = '2.0.0': Kubeflow Pipelines' API server takes 2.1.0 only"
        )
    return found


def image_problems(image: str | None) -> list[str]:
    """List what is wrong with engine.image."""
    if not image:
        return ["engine.image is missing: the image that docs/engines.md builds"]
    if _DIGEST.search(image):
        return []
    return [
        f"engine.image = {image!r} has no digest: a tag can change under a run; "
        "expected name@sha256:<64 hex digits>"
    ]


def read_by_containers(config: Config) -> list[tuple[str, str]]:
    """List (key, path) of all that is read while the pipeline runs, not while it is compiled."""
    paths = [
        *(("corpus.input", path) for path in config.corpus.input),
        ("tokenizer.path", config.tokenizer.path),
        ("model.base_model", config.model.base_model),
        ("train.resume_from", config.train.resume_from),
        ("push.directory", config.push.directory),
        *(
            ("evaluate.benchmarks", task)
            for task in config.evaluate.benchmarks
            if is_task_file(task)
        ),
    ]  # fmt: skip
    return [(key, path) for key, path in paths if path]


def paths_outside(paths: Sequence[tuple[str, str | None]], directory: str) -> list[tuple[str, str]]:
    """Return those of the (key, path) that are neither URIs nor below the directory."""
    inside = os.path.join(os.path.normpath(directory), "")
    return [
        (key, path)
        for key, path in paths
        if path and "://" not in path and not f"{os.path.normpath(path)}/".startswith(inside)
    ]


def registry_problems(config: Config, push_directory: str) -> list[str]:
    """List what Vertex AI's model registry needs and the configuration lacks.

    Args:
        config: With push.registry = "vertex".
        push_directory: Where versions are pushed to.
    """
    needed = {
        "engine.project": config.engine.project,
        "engine.region": config.engine.region,
        "push.registry_image": config.push.registry_image,
    }
    wrong = [
        f"{key} is missing: the registry needs it" for key, value in needed.items() if not value
    ]
    if not push_directory.startswith("gs://"):
        wrong.append(f"push.directory = {push_directory!r}: Vertex AI takes models from gs:// only")
    return wrong


def registry_target(config: Config) -> RegistryTarget:
    """Return where a pushed model is registered.

    Raises:
        TokenmillError: The configuration lacks what Vertex AI's model registry needs.
    """
    wrong = registry_problems(config, config.push_directory)
    if wrong:
        raise TokenmillError(
            'push.registry = "vertex":\n' + "\n".join(f"  {line}." for line in wrong),
            SET_KEYS,
        )
    engine = config.engine
    return RegistryTarget(
        str(engine.project),
        str(engine.region),
        model_id(config.run.name),
        str(config.push.registry_image),
    )


def unlisted_accelerators(config: Config) -> list[str]:
    """List the steps' accelerators that Vertex AI does not have, as far as the catalog knows."""
    if config.engine.allow_unlisted:
        return []
    found = []
    for step, resources in config.engine.resources.items():
        said = resources.accelerator and complaint(resources.accelerator, config.engine.region)
        if said:
            found.append(
                f"engine.resources.{step}.accelerator: {said}; if Google has added it since, set "
                "engine.allow_unlisted=true"
            )
    return found
