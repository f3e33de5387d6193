"""`tokenmill value`: what variants of a text are worth, measured by small trainings."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import click

from pipeline.cli.errors import check_can_be_written, fail
from pipeline.cli.options import PositiveNumber, json_option, run_config_options
from tokenmill.errors import TokenmillError

if TYPE_CHECKING:
    from pipeline.studies.session import Study

_MINUTES = 15.0


@click.command()
@click.argument("variants", nargs=-1, metavar="[VARIANT...]")
@run_config_options
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="PATH",
    help="The text, as corpus.input; repeatable.",
)
@click.option("--output-dir", help="Where studies go, below it in studies/ (run.output_dir).")
@click.option("--sources", is_flag=True, help="Leave out each source once: what each is worth.")
@click.option("--mixture", is_flag=True, help="Search weights of the sources, and check them.")
@click.option(
    "--held-out", multiple=True, metavar="PATH", help="Further text to compare on; repeatable."
)
@click.option(
    "--equal",
    type=click.Choice(["tokens", "usd"]),
    default="tokens",
    show_default=True,
    help="What all trainings have the same of: tokens read, or money for training.",
)
@click.option("--max-minutes", type=PositiveNumber(), metavar="N",
              help="Wall time in all.  [default: 15, without --max-usd]")  # fmt: skip
@click.option("--max-usd", type=PositiveNumber(), metavar="X",
              help="Most money, at the price of this machine's cores or chips.")  # fmt: skip
@click.option("--seeds", type=int, default=8, show_default=True, metavar="N",
              help="Seeds at most; fewer where the answer is clear.")  # fmt: skip
@click.option(
    "--margin",
    type=PositiveNumber(100),
    default=0.5,
    show_default=True,
    metavar="PERCENT",
    help="Share of the bits per byte that counts as no difference.",
)
@click.option("--params", type=click.IntRange(1000), metavar="N",
              help="Parameters (in products) of the small model.  [default: 150,000]")  # fmt: skip
@click.option("--steps", type=click.IntRange(8), metavar="N",
              help="Steps at which variants are compared.  [default: by the budget]")  # fmt: skip
@click.option("--out", metavar="FILE", help="Write value.json there, too.")
@json_option
@click.option("--debug", is_flag=True, help="Show the stack trace of an error.")
def value(
    variants: Sequence[str],
    preset: str | None,
    config_path: str | None,
    overrides: Sequence[str],
    inputs: Sequence[str],
    output_dir: str | None,
    sources: bool,
    mixture: bool,
    held_out: Sequence[str],
    equal: str,
    max_minutes: float | None,
    max_usd: float | None,
    seeds: int,
    margin: float,
    params: int | None,
    steps: int | None,
    out: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Compare variants of a text by paired small trainings: what is a token of each worth?

    A VARIANT is `base` (the configuration as it is), `section.key=value[,...]`, a TOML file of
    changes, a path of other text, `without:SOURCE` or `only:SOURCE`; `NAME:` before it names it.
    The first is what the others are compared with; a single one is compared with `base`.

    \b
    tokenmill value raw:curate.rules=none base
    tokenmill value --sources
    tokenmill value --mixture
    """  # noqa: D301  (click wants the backspace)
    if max_minutes is None and max_usd is None:
        max_minutes = _MINUTES

    def work(study: Study) -> str:
        from pipeline.studies.proxy_runs import StudyBudget
        from pipeline.studies.value import ValueOptions, measure_and_show
        from pipeline.studies.value_plan import PROXY_PARAMS

        options = ValueOptions(
            variants=tuple(variants),
            sources=sources,
            mixture=mixture,
            held_out=tuple(held_out),
            equal=cast(Literal["tokens", "usd"], equal),
            budget=StudyBudget.of_limits(max_usd, max_minutes),
            seeds=seeds,
            margin=margin / 100,
            params=params or PROXY_PARAMS,
            steps=steps,
        )
        return measure_and_show(study, options, out)

    try:
        _check_what_is_asked(variants, sources, mixture)
        if out is not None:
            check_can_be_written(out, "value.json")
        with warnings.catch_warnings():  # of libraries, before there is a log for them
            warnings.simplefilter("ignore")
            from pipeline.loader import load_run_config, with_places
            from pipeline.studies.session import run_study
        config, _ = load_run_config(preset, config_path, overrides, inputs)
        config = with_places(config, output_dir, inputs)
        sys.exit(run_study(config, "value", as_json, work, debug))
    except TokenmillError as error:
        fail(error)


def _check_what_is_asked(variants: Sequence[str], sources: bool, mixture: bool) -> None:
    asked = bool(variants) + sources + mixture
    if asked == 1:
        return
    if not asked:
        raise TokenmillError(
            "nothing to compare: expected VARIANTs, --sources or --mixture.",
            "Such as: tokenmill value raw:curate.rules=none base",
        )
    raise TokenmillError(
        "VARIANTs, --sources and --mixture are studies of their own: expected one of them.",
        "Call the command once for each; trainings that they share are made once.",
    )
