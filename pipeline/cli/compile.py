"""`tokenmill compile`, `submit` and `manifests`: the pipeline on other engines."""

import json
from collections.abc import Sequence

import click

from pipeline.cli.errors import user_errors_without_warnings
from pipeline.cli.options import config_options
from pipeline.runners import vertex
from pipeline.runners.cloud_credentials import check_credentials


@click.command("compile")
@click.option(
    "--runner",
    "engine",
    type=click.Choice(["kubeflow", "vertex"]),
    required=True,
    help="The engine that the spec is for.",
)
@config_options
@click.option("--output", required=True, metavar="FILE", help="Where to write the spec (JSON).")
def compile_command(
    engine: str, preset: str, config_path: str | None, overrides: Sequence[str], output: str
) -> None:
    """Write the pipeline as a Kubeflow Pipelines v2 spec; nothing is submitted."""
    with user_errors_without_warnings():
        from pipeline.loader import load_config
        from pipeline.runners.engine_check import (
            check_engine,
            kubeflow_warnings,
            paths_outside,
            read_by_containers,
        )

        config = load_config(preset, config_path, overrides)
        check_engine(config, engine)  # type: ignore[arg-type]  # before the slow import
        root = str(config.engine.pipeline_root)
        paths = read_by_containers(config)
        # What compiling itself reads and writes.
        in_buckets = [p for p in (root, *config.corpus.input) if p.startswith("gs://")]
        if in_buckets:
            check_credentials(in_buckets[0])
        for line in kubeflow_warnings(config) if engine == "kubeflow" else ():
            click.echo(f"warning: {line}", err=True)
        for key, path in paths_outside(paths, root):
            click.echo(
                f"warning: {key} = {path!r} lies outside of engine.pipeline_root: every container "
                "has to have it at this very path",
                err=True,
            )
        from pipeline.runners.kubeflow import compile_pipeline

        steps = compile_pipeline(config, engine, output)  # type: ignore[arg-type]
    click.echo(f"{output}: {steps} steps for {engine}")


@click.command()
@click.argument("spec")
@click.option("--project", required=True, help="Google Cloud project.")
@click.option("--region", required=True, help="Such as europe-west4.")
@click.option("--service-account", help="Account that the run acts as.")
@click.option(
    "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A runtime parameter."
)
@click.option("--dry-run", is_flag=True, help="Show the request; send nothing.")
def submit(
    spec: str,
    project: str,
    region: str,
    service_account: str | None,
    parameters: Sequence[str],
    dry_run: bool,
) -> None:
    """Start the compiled SPEC on Vertex AI Pipelines."""
    assignments = {}
    for parameter in parameters:
        name, sign, value = parameter.partition("=")
        if not sign:
            raise click.UsageError(f"--parameter {parameter}: expected NAME=VALUE.")
        assignments[name] = value
    with user_errors_without_warnings():
        if not dry_run:
            check_credentials(f"project {project}")
        request = vertex.submit(spec, project, region, service_account, assignments, dry_run)
    if dry_run:
        click.echo(json.dumps(request, indent=2, sort_keys=True))
    else:
        click.echo(f"submitted: {request['pipelineJob'].get('name', '')}")


@click.group()
def manifests() -> None:
    """Write what a cluster takes; nothing is sent."""


@manifests.command()
@click.option("--engine", type=click.Choice(["vertex", "kubernetes", "trainjob"]), required=True)
@config_options
@click.option("--output", required=True, metavar="DIR", help="Where to write the files.")
def training(
    engine: str, preset: str, config_path: str | None, overrides: Sequence[str], output: str
) -> None:
    """A training on several machines: a Vertex AI custom job, a JobSet or a TrainJob."""
    with user_errors_without_warnings():
        from pipeline.loader import load_config
        from pipeline.runners.kubernetes.manifests import write_manifests

        config = load_config(preset, config_path, overrides)
        for path in write_manifests(config, engine, output):  # type: ignore[arg-type]
            click.echo(path)
