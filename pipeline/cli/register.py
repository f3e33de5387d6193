"""`tokenmill register`: a pushed model into Vertex AI's model registry, labeled with its run."""

import json
import os

import click
import tomli

from pipeline.cli.errors import user_errors_without_warnings
from pipeline.cli.options import metadata_url_option, run_option
from tokenmill.errors import TokenmillError


@click.command()
@click.argument("model")
@click.option(
    "--artifact-uri", required=True, metavar="gs://DIR",
    help="The directory in which a copy of the version's directory lies.",
)  # fmt: skip
@click.option("--image", required=True, help="TensorFlow Serving's image, to serve it.")
@click.option("--project", required=True, help="Google Cloud project.")
@click.option("--region", required=True, help="Such as europe-west4.")
@run_option
@metadata_url_option
@click.option("--dry-run", is_flag=True, help="Show the request; send nothing.")
def register(
    model: str,
    artifact_uri: str,
    image: str,
    project: str,
    region: str,
    run_directory: str | None,
    metadata_url: str | None,
    dry_run: bool,
) -> None:
    """Register the pushed model MODEL; a run does so itself with push.registry = "vertex".

    \b
    gcloud storage cp -r runs/demo/serving_model/1795517681 gs://bucket/demo/
    tokenmill register runs/demo/serving_model --artifact-uri gs://bucket/demo --image .. --dry-run
    """  # noqa: D301  (click wants the backspace)
    with user_errors_without_warnings():
        if not artifact_uri.startswith("gs://"):
            raise TokenmillError(
                f"--artifact-uri {artifact_uri}: Vertex AI takes models from gs:// only.",
                f"Copy it first: gcloud storage cp -r {model} gs://BUCKET/",
            )
        from components.push import registry
        from components.push.labels import run_labels
        from tokenmill.metadata.lineage import trace_model

        traced = trace_model(model, run_directory, metadata_url)
        name = tomli.loads(traced.config_toml).get("run", {}).get("name", "demo")
        settings = registry.RegistryTarget(project, region, registry.model_id(name), image)
        labels = run_labels(name, traced.ledger, traced.cost_report)
        version = os.path.basename(traced.model)
        if dry_run:
            request = registry.upload_request(settings, version, artifact_uri, labels)
            shown = type(request).to_dict(request, including_default_value_fields=False)
            click.echo(json.dumps(shown, indent=2, sort_keys=True))
        else:
            click.echo(f"registered: {registry.register(settings, version, artifact_uri, labels)}")
