"""`tokenmill import`: what a checkpoint of an open model is, and whether it can be started from."""

import click

from pipeline.cli.errors import user_errors_only
from pipeline.cli.options import json_option


@click.command("import")
@click.argument("directory", metavar="DIR")
@click.option(
    "--sequence-length", type=click.IntRange(1), metavar="N",
    help="Tokens of the rows (model.sequence_length).  [default: what the model was made for]",
)  # fmt: skip
@json_option
def import_command(directory: str, sequence_length: int | None, as_json: bool) -> None:
    """Show what a Hugging Face checkpoint is, and read all of its weights once.

    DIR holds config.json and *.safetensors. What cannot be expressed is refused by name. Nothing is
    written: training reads DIR itself.

    \b
    tokenmill import models/SmolLM2-135M
    """  # noqa: D301  (click wants the backspace)
    with user_errors_only():
        from pipeline.report.open_model import print_open_model

        print_open_model(directory, sequence_length, as_json)
