"""`tokenmill compile`: the pipeline as a spec for Kubeflow Pipelines or Vertex AI."""

from collections.abc import Sequence

import click

from pipeline.cli_errors import user_errors


@click.command("compile")
@click.option(
    "--runner",
    "engine",
    type=click.Choice(["kubeflow", "vertex"]),
    required=True,
    help="The engine that the spec is for.",
)
@click.option("--preset", default="demo", show_default=True, help="As for run.")
@click.option("--config", "config_path", metavar="FILE", help="A TOML configuration.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="As for run.")
@click.option("--output", required=True, metavar="FILE", help="Where to write the spec (JSON).")
def compile_command(
    engine: str, preset: str, config_path: str | None, overrides: Sequence[str], output: str
) -> None:
    """Write the pipeline as a Kubeflow Pipelines v2 spec; nothing is submitted."""
    with user_errors():
        from pipeline.config_loader import load_config
        from pipeline.engine_check import check_engine

        config = load_config(preset, config_path, overrides)
        check_engine(config, engine)  # type: ignore[arg-type]  # before the slow import
        from pipeline.kubeflow import compile_pipeline

        steps = compile_pipeline(config, engine, output)  # type: ignore[arg-type]
    click.echo(f"{output}: {steps} steps for {engine}")
