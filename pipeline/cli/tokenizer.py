"""`tokenmill tokenizer`: which vocabulary suits a text."""

import json
from collections.abc import Sequence
from typing import Literal

import click

from pipeline.cli.errors import user_errors_only
from pipeline.cli.options import config_file_options
from tokenmill.errors import TokenmillError

_TYPES: tuple[Literal["bpe", "unigram"], ...] = ("bpe", "unigram")


@click.group()
def tokenizer() -> None:
    """The vocabulary: choose its type and size."""


@tokenizer.command()
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option(
    "--sizes", metavar="N,N,...", help="Vocabulary sizes.  [default: 4096 to 65536, doubling]"
)
@click.option(
    "--sample-bytes", type=click.IntRange(1), default=4_000_000, show_default=True, metavar="N",
    help="Train each on about N bytes; all the text is counted.",
)  # fmt: skip
@click.option("--model-types", default="bpe,unigram", show_default=True, metavar="TYPE,...")
@click.option("--plot", "plot_path", metavar="FILE", help="Draw the result (.png, .svg, .pdf).")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON.")
@click.option("--preset", default="demo", show_default=True, help="The model's preset.")
@config_file_options
def sweep(
    paths: Sequence[str],
    sizes: str | None,
    sample_bytes: int,
    model_types: str,
    plot_path: str | None,
    json_path: str | None,
    preset: str,
    config_path: str | None,
    overrides: Sequence[str],
) -> None:
    """Train vocabularies of several sizes, and say what each costs the model.

    On PATH, else corpus.input of the configuration, else the embedded corpus.
    """
    with user_errors_only():
        wanted = _whole_numbers(sizes) if sizes else None
        types = [t for t in _TYPES if t in model_types.split(",")]
        if not set(model_types.split(",")) <= set(_TYPES):
            raise TokenmillError(f"--model-types {model_types}: expected bpe, unigram or both.")
        from pipeline.report.tokenizer_sweep import sweep_files

        result = sweep_files(paths, wanted, types, sample_bytes, preset, config_path, overrides)
        if json_path:
            _write(json_path, json.dumps(result.as_json(), indent=2, ensure_ascii=False) + "\n")
        if plot_path:
            from pipeline.report.tokenizer_plot import plot_sweep

            plot_sweep(result, plot_path)


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.replace("_", "").split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 300:
        raise TokenmillError(f"--sizes {text}: expected numbers of at least 300, as 4096,8192.")
    return numbers


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise TokenmillError(
            f"--json {path}: {error.strerror}.", "Name a file in a directory that can be written."
        ) from None
