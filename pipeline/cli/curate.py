"""`tokenmill curate`: the rules, what they would do to a corpus, and what they did in a run."""

import json
from collections.abc import Sequence
from typing import Literal

import click

from pipeline.cli.errors import user_errors_only
from pipeline.cli.options import json_option, run_config_options
from tokenmill.visible import visible_lines


@click.group()
def curate() -> None:
    """The quality rules: list them, try them on files, look at what they dropped.

    \b
    tokenmill curate rules
    tokenmill curate preview my_texts/ --rules web --set curate.min_words=20
    tokenmill curate calibrate my_texts/ --rules web --out thresholds.toml
    tokenmill curate inspect runs/demo --reason near_duplicate
    """  # noqa: D301  (click wants the backspace)


@curate.command()
@click.option("--rules", "rule_set", metavar="SET", help="Only the rules of one set.")
@click.option(
    "--language", metavar="CODE", help="The thresholds that fineweb-2 has for a language."
)
def rules(rule_set: str | None, language: str | None) -> None:
    """List all rules: reason, setting, threshold by set, source."""
    with user_errors_only():
        from pipeline.report.curation import print_rules

        print_rules(rule_set, language)


@curate.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--rules", "rule_set", metavar="SET", help="The rule set (curate.rules).")
@run_config_options
@click.option(
    "--sample", "size", type=click.IntRange(1), default=5000, show_default=True, metavar="N",
    help="Judge N documents, chosen by a hash: the same every time.",
)  # fmt: skip
@click.option("--reason", metavar="REASON", help="Only this reason, with more of its documents.")
@json_option
def preview(
    paths: Sequence[str],
    rule_set: str | None,
    overrides: Sequence[str],
    config_path: str | None,
    preset: str | None,
    size: int,
    reason: str | None,
    as_json: bool,
) -> None:
    """Judge a sample of files by language and rules, and show where thresholds lie.

    Copies, overlaps and boilerplate lines need all documents; only a run finds them.
    """
    with user_errors_only():
        from pipeline.report.curation_preview import Sampling, preview_files, print_preview

        sampling = Sampling(paths, rule_set, overrides, config_path, preset, size)
        found = preview_files(sampling, reason)
        if as_json:
            click.echo(visible_lines(json.dumps(found, ensure_ascii=False, indent=2)))
        else:
            print_preview(found, reason)


@curate.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--rules", "rule_set", metavar="SET", help="The rule set (curate.rules).")
@click.option(
    "--method", type=click.Choice(["tail", "quantile", "mean-std"]), default="tail",
    show_default=True,
    help="A threshold drops --tail of the documents, or what it drops of --reference, or lies as "
    "many standard deviations from the mean as there.",
)  # fmt: skip
@click.option(
    "--tail", "share", type=click.FloatRange(0, 0.5), default=0.01, show_default=True,
    metavar="SHARE", help="What each rule drops of a language at most.",
)  # fmt: skip
@click.option(
    "--reference", default="en", show_default=True, metavar="LANGUAGE",
    help="The language whose thresholds are right.",
)  # fmt: skip
@click.option(
    "--min-documents", type=click.IntRange(1), default=100, show_default=True, metavar="N",
    help="Leave out languages with fewer documents in the sample.",
)  # fmt: skip
@run_config_options
@click.option(
    "--sample", "size", type=click.IntRange(1), default=20000, show_default=True, metavar="N",
    help="Take N documents, chosen by a hash: the same every time.",
)  # fmt: skip
@click.option("--out", metavar="FILE", help="Write the thresholds, as a TOML configuration.")
@json_option
def calibrate(
    paths: Sequence[str],
    rule_set: str | None,
    method: Literal["tail", "quantile", "mean-std"],
    share: float,
    reference: str,
    min_documents: int,
    overrides: Sequence[str],
    config_path: str | None,
    preset: str | None,
    size: int,
    out: str | None,
    as_json: bool,
) -> None:
    """Derive thresholds for each language from files, and show what they would drop.

    The rules that count words, their lengths and repetitions mean something else in each language;
    this finds their thresholds as FineWeb-2 did, from the language's own documents. Give it clean
    text: what is typical there is kept.
    """
    with user_errors_only():
        from pipeline.report.curation_calibration import calibrate_files, print_calibration
        from pipeline.report.curation_preview import Sampling

        sampling = Sampling(paths, rule_set, overrides, config_path, preset, size)
        found = calibrate_files(sampling, method, share, reference, min_documents, out)
        if as_json:
            click.echo(visible_lines(json.dumps(found, ensure_ascii=False, indent=2)))
        else:
            print_calibration(found)


@curate.command()
@click.argument("run_dir")
@click.option("--reason", metavar="REASON", help="Only documents dropped for this reason.")
@click.option("--source", metavar="SOURCE", help="Only documents of this source.")
@click.option(
    "--limit", type=click.IntRange(1), default=3, show_default=True, metavar="N",
    help="Show N documents of each reason, chosen by a hash.",
)  # fmt: skip
def inspect(run_dir: str, reason: str | None, source: str | None, limit: int) -> None:
    """Show documents that the newest run in RUN_DIR dropped, and why.

    RUN_DIR is a run's output directory, as runs/demo.
    """
    with user_errors_only():
        from pipeline.report.curation_dropped import print_dropped

        print_dropped(run_dir, reason, source, limit)
