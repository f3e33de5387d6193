"""Options that several commands have, each described once."""

import math
from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Written out, since listing the presets imports pydantic: a test compares it with the files.
_PRESETS = "demo, gpt2-small, bert-base, bert-large, adapt-bert or adapt-llama."


class PositiveNumber(click.FloatRange):
    """A finite number above zero, perhaps below another: nan passes click's own comparisons."""

    def __init__(self, below: float | None = None) -> None:
        super().__init__(0, below, min_open=True, max_open=below is not None)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number that was given."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


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
server_options = combine(
    click.option("--max-queued-rows", type=click.IntRange(1), default=32, show_default=True),
    click.option("--max-request-bytes", type=click.IntRange(1), default=1 << 20, show_default=True),
    click.option(
        "--deadline-seconds",
        type=click.FloatRange(0, min_open=True),
        default=30.0,
        show_default=True,
        help="Longest time of a request.",
    ),
    click.option("--poll-seconds", default=1.0, show_default=True),
    click.option(
        "--request-log", metavar="FILE", help="Log requests as JSON lines, without texts."
    ),
    click.option("--request-log-fraction", type=click.FloatRange(0, 1), default=1.0),
    click.option("--log-text", is_flag=True, help="Let the request log hold texts."),
    click.option(
        "--allow-host",
        "allowed_hosts",
        multiple=True,
        metavar="NAME",
        help="A name, beside addresses and localhost, by which the server is called, or a host "
        "whose web pages may call it; * allows all.",
    ),
)
gateway_options = combine(
    click.option(
        "--api-keys",
        metavar="FILE",
        help="Ask for API keys: one a line in FILE, which only its owner may read.",
    ),
    click.option(
        "--kv-cache-bytes",
        type=click.IntRange(1),
        default=1 << 30,
        show_default=True,
        help="Memory for keys and values of texts that are continued by OpenAI's API.",
    ),
    click.option(
        "--max-streams",
        type=click.IntRange(1),
        default=64,
        show_default=True,
        help="Texts continued at once by it.",
    ),
)
