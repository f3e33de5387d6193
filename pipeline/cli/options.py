"""Options that several commands have, each described once."""

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Written out, since listing the presets imports pydantic: a test compares it with the files.
_PRESETS = "demo, gpt2-small, bert-base, bert-large, adapt-bert or adapt-llama."

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
run_option = click.option(
    "--run", "run_directory", metavar="DIR", help="Output directory of the runs."
)
metadata_url_option = click.option(
    "--metadata-url", metavar="URL", help="Server of ML Metadata, as run.metadata_url."
)


def combine(*options: Decorator) -> Decorator:
    """Make one decorator of several options, shown in their order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


config_file_options = combine(
    click.option("--config", "config_path", metavar="FILE", help="A TOML configuration."),
    click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a key."
    ),
)
config_options = combine(
    click.option("--preset", default="demo", show_default=True, help=_PRESETS),
    config_file_options,
)
run_config_options = combine(
    click.option(
        "--preset",
        help=f"{_PRESETS} Without it the demo, or of an --input what fits its size.",
    ),
    config_file_options,
)
