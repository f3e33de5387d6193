"""`tokenmill plan`: FLOPs, time, memory and money before there is any data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import click

from pipeline.plan.flags import PlanFlags, check_former_flags
from pipeline.plan.units import FlagError, fraction, quantity, whole
from tokenmill.errors import TokenmillError

_EXIT_USAGE = 2
_EXIT_OVER_BUDGET = 1  # as of a run that its budget stops


class _Number(click.ParamType):
    """A number as people type it."""

    name = "number"

    def __init__(self, read: Callable[[str, str], float]):
        """Take the function from the flag and its text to the number."""
        self.read = read

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number of a text."""
        assert param is not None
        return self.read(param.opts[0], value)


class _GroupedCommand(click.Command):
    """A command whose --help shows its options in groups."""

    def __init__(
        self, groups: Mapping[str, Sequence[click.Option]], params: Sequence[Any], **attributes: Any
    ):
        """Take the options by the heading of their group; there are no others."""
        self.groups = groups
        options = [option for group in groups.values() for option in group]
        super().__init__(params=[*options, *params], **attributes)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        try:
            check_former_flags(args)
            return super().parse_args(ctx, args)
        except FlagError as error:
            _fail(error)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under the headings of their groups."""
        help_option = self.get_help_option(ctx)
        for heading, options in {**self.groups, "Help": [help_option]}.items():
            records = [option.get_help_record(ctx) for option in options if option]
            with formatter.section(heading):
                formatter.write_dl([record for record in records if record is not None])


def _option(name: str, help: str, metavar: str = "N", **attributes: Any) -> click.Option:
    return click.Option([name], help=help, metavar=metavar, **attributes)


def _quantity(name: str, unit: str, most: float, help: str, **how: Any) -> click.Option:
    kind = _Number(partial(quantity, unit=unit, most=most, **how))
    return _option(name, help, "USD" if unit.startswith("USD") else "N", type=kind)


def _fraction(name: str, help: str) -> click.Option:
    return _option(name, help, "F", type=_Number(fraction))


def _choice(name: str, help: str, choices: str) -> click.Option:
    return click.Option([name], help=help, type=click.Choice(choices.split()))


_GROUPS = {
    "Model": [
        _option(
            "--preset",
            "A preset: demo, gpt2-small, bert-base, bert-large, adapt-bert, adapt-llama.",
            "NAME",
        ),
        click.Option(["--config", "config_path"], metavar="FILE", help="A TOML configuration."),
        click.Option(
            ["--set", "overrides"],
            multiple=True,
            metavar="KEY=VALUE",
            help="Give or override any key of it, such as model.layers=12; repeatable.",
        ),
        _quantity("--params", "parameters", 1e16, "Their number, as 540e9 or 1.5B: no shape."),
        _quantity("--active-params", "parameters", 1e16, "Those a token passes (experts)."),
        _option(
            "--lora-rank",
            "Train adapters of this rank beside frozen weights (train.lora_rank).",
            type=_Number(partial(whole, unit="columns", most=1e5)),
        ),
    ],
    "Work": [
        _quantity("--tokens", "tokens", 1e17, "Tokens of the corpus, such as 2.5e9 or 12.8B."),
        _quantity("--text-bytes", "bytes", 1e17, "Its bytes instead: 50GB.", is_bytes=True),
        _quantity("--bytes-per-token", "bytes", 1000, "Bytes in a token [4]."),
        _quantity("--epochs", "epochs", 10_000, "Passes over the corpus [1]."),
    ],
    "Machine": [
        _option("--hardware", "A chip of data/catalog/hardware.csv, such as rtx-3090.", "CHIP"),
        _option("--chips", "How many [1].", type=_Number(partial(whole, unit="chips", most=1e7))),
        _fraction("--mfu", "Model FLOPs utilization, such as 0.4; else published runs'."),
        _fraction("--hfu", "Hardware FLOPs utilization (with --recompute) instead."),
        _quantity("--tflops-per-chip", "TFLOP/s", 1e6, "Achieved model TFLOP/s a chip instead."),
        _quantity(
            "--observed-tokens-per-second", "tokens per second", 1e12, "Of all chips, instead."
        ),
        _fraction("--goodput", "Share of wall time that trains [1]."),
        _choice(
            "--recompute", "What the backward pass computes again [none].", "none selective full"
        ),
        _choice(
            "--strategy",
            "How the model is spread over chips [data].",
            "data zero1 zero2 zero3 tensor tensor-zero3 expert",
        ),
        _choice("--flops-basis", "Of hours [exact for a shape, 6n for --params].", "exact 6n"),
    ],
    "Money": [
        _quantity(
            "--price-per-chip-hour",
            "USD per chip-hour",
            1e4,
            "Over the catalog's; 0 is your own chip.",
            zero_ok=True,
        ),
        _option("--price-date", "When you were told that price.", "DATE"),
        _option("--price-from", "A provider of data/catalog/prices.csv: lambda.", "WORD"),
        _quantity("--budget-usd", "USD", 1e13, "What does this much compute money buy?"),
    ],
    "Output": [
        _option("--ladder", "A ladder.json of this text: expected bits per byte.", "FILE"),
        click.Option(["--compare"], is_flag=True, help="Rank all chips by cost and by time."),
        click.Option(["--json", "as_json"], is_flag=True, help="One JSON document (docs/cost.md)."),
        _option("--plot", "Cost over tokens and model size (.png, .svg, .pdf).", "FILE"),
    ],
}


@click.command(cls=_GroupedCommand, groups=_GROUPS, context_settings={"max_content_width": 100})
def plan(as_json: bool, **flags: Any) -> None:
    """What would it cost? FLOPs, hours, memory and money, without data.

    \b
    tokenmill plan --preset gpt2-small --tokens 2.5B
    tokenmill plan --params 70B --tokens 1.4T --hardware h100 --chips 512
    tokenmill plan --set model.layers=12 --set model.d_model=768 --tokens 1e9 --hardware rtx-3090
    tokenmill plan --budget-usd 1000 --hardware rtx-4090
    tokenmill plan --set model.base_model=DIR --lora-rank 8 --tokens 2M --hardware rtx-4090

    Numbers may be written 540e9, 1.5B, 6,144 or 40%. Keys of --set: docs/cost.md. The exit
    code is 1 where budget.max_usd or budget.max_hours is exceeded.
    """  # noqa: D301  (click wants the backspace)
    from pipeline.plan.request import answer

    try:
        reply = answer(PlanFlags(**flags))
    except (TokenmillError, ValueError) as error:
        _fail(error)
    if as_json:
        from tokenmill.cost.plan.document import plan_document

        click.echo(json.dumps(plan_document(reply), indent=2, allow_nan=False))
    else:
        from pipeline.report.plan import show

        show(reply)
    if reply.is_over_a_limit:
        sys.exit(_EXIT_OVER_BUDGET)


def _fail(error: Exception) -> NoReturn:
    words = " ".join(str(error).split())
    click.echo(f"{click.style('error:', fg='red')} {words}", err=True)
    sys.exit(_EXIT_USAGE)
