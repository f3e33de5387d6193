"""`tokenmill ladder`: small trainings on a text say how good a large one will be."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pipeline.cli.errors import check_can_be_written, fail
from pipeline.cli.options import PositiveNumber, json_option, run_config_options
from tokenmill.errors import TokenmillError

if TYPE_CHECKING:
    from pipeline.studies.session import Study

_MINUTES = 12.0


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@run_config_options
@click.option(
    "--max-usd",
    type=PositiveNumber(),
    metavar="USD",
    help="Most that the small trainings may cost, at the price of this machine.",
)
@click.option(
    "--max-minutes",
    type=PositiveNumber(),
    metavar="N",
    help=f"Most that they may last.  [default: {_MINUTES:g}, without --max-usd]",
)
@click.option("--output-dir", help="Where artifacts and studies go (run.output_dir).")
@json_option
@click.option("--out", metavar="FILE", help="Write ladder.json here, too.")
@click.option("--debug", is_flag=True, help="Show the stack trace of an error.")
def ladder(
    paths: Sequence[str],
    preset: str | None,
    config_path: str | None,
    overrides: Sequence[str],
    max_usd: float | None,
    max_minutes: float | None,
    output_dir: str | None,
    as_json: bool,
    out: str | None,
    debug: bool,
) -> None:
    """Train a few small models on a text, and predict the large one.

    On PATH, else corpus.input of the configuration, else the embedded corpus. The fit says how good
    the configured training will be, the best model and tokens for its money, and what to buy next.

    \b
    tokenmill ladder my_texts/ --max-minutes 30
    tokenmill ladder --config mine.toml --max-usd 5 --out ladder.json
    tokenmill plan --config mine.toml --tokens 2B --ladder ladder.json
    """  # noqa: D301  (click wants the backspace)
    if max_usd is None and max_minutes is None:
        max_minutes = _MINUTES

    def work(study: Study) -> str:
        from pipeline.report.ladder import print_ladder
        from pipeline.report.page.ladder import write_ladder_page
        from pipeline.studies.ladder import study_ladder
        from pipeline.studies.proxy_runs import StudyBudget
        from tokenmill.contracts.ladder import LADDER_NAME, write_ladder

        found = study_ladder(study, StudyBudget.of_limits(max_usd, max_minutes))
        path = os.path.join(study.directory, LADDER_NAME)
        if out is not None:
            write_ladder(path := os.path.abspath(out), found)
        print_ladder(study.screen, found, path, write_ladder_page(found, study.directory))
        return found.to_text()

    try:
        with warnings.catch_warnings():  # of libraries, before there is a log for them
            warnings.simplefilter("ignore")
            from pipeline.loader import load_run_config, with_places
            from pipeline.studies.session import run_study
        config, _ = load_run_config(preset, config_path, overrides, paths)
        config = with_places(config, output_dir, paths)
        if out is not None:
            check_can_be_written(out, "ladder.json")
        sys.exit(run_study(config, "ladder", as_json, work, debug))
    except TokenmillError as error:
        fail(error)
