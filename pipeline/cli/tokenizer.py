"""`tokenmill tokenizer`: which vocabulary suits a text."""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import click

from pipeline.cli.errors import user_errors_only
from tokenmill.errors import TokenmillError

_WIDTH = 120
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
@click.option("--config", "config_path", metavar="FILE", help="A TOML configuration.")
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a key."
)
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
        from components.tokenize import sweep as sweeps
        from pipeline.loader import load_config
        from tokenmill.timing import vcpus

        config = load_config(preset, config_path, overrides)
        documents = list(_documents(paths or config.corpus.input, config))
        wanted = wanted or sweeps.DEFAULT_SIZES
        with _progress(len(wanted) * len(types)) as progress:
            result = sweeps.sweep(
                documents,
                wanted,
                types,
                config.tokenizer.model_copy(update={"sample_bytes": sample_bytes}),
                config.shape(),
                config.train.precision,
                config.train.global_batch_size,
                progress,
                workers=vcpus(),
            )
        _print(result, config.shape())
        if json_path:
            _write(json_path, json.dumps(result.as_json(), indent=2, ensure_ascii=False) + "\n")
        if plot_path:
            plot(result, plot_path)


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.replace("_", "").split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 300:
        raise TokenmillError(f"--sizes {text}: expected numbers of at least 300, as 4096,8192.")
    return numbers


def _documents(inputs: Sequence[str], config: Any) -> Iterator[tuple[bytes, bytes, bytes]]:
    from components.ingest.manifest import list_inputs
    from components.ingest.readers import read_file
    from pipeline.embedded_corpus import build_embedded_corpus
    from tokenmill.contracts.ingest import BadRecord

    files = list_inputs(inputs or [str(build_embedded_corpus().path)], "PATH")
    bad = 0
    for file in files:
        for item in read_file(file, config.corpus):
            if isinstance(item, BadRecord):
                bad += 1
            else:
                yield item.doc_id, item.source, item.text
    if bad:
        click.echo(f"{bad:,} records cannot be read; a run would quarantine them.", err=True)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stdout)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True,
        disable=not sys.stdout.isatty(),
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=total)
        yield lambda name, done: bar.update(task, description=f"{name:16}", completed=done)


def _print(result: Any, shape: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in (
        "", "type", "tokens", "bytes/\ntoken", "unigram\nbits/byte", "unused\ntokens",
        "byte\ntokens", "embedding\nparams", "of the\nmodel", "of\nmemory", "softmax\nof FLOPs",
        "training\nFLOPs",
    ):  # fmt: skip
        table.add_column(name, justify="left" if name in ("", "type") else "right")
    for i, c in enumerate(result.candidates):
        table.add_row(
            "→" if i == result.recommended else "", c.model_type, f"{c.vocab_size:,}",
            f"{c.bytes_per_token:.2f}", f"{c.unigram_bits_per_byte:.3f}",
            f"{c.unused_fraction:.1%}", f"{c.byte_token_fraction:.2%}", f"{c.embedding_params:,}",
            f"{c.embedding_param_fraction:.0%}", f"{c.vocabulary_memory_fraction:.0%}",
            f"{c.softmax_flop_fraction:.0%}", f"{c.training_flops:.3g}",
            style="bold" if i == result.recommended else None,
        )  # fmt: skip
    console.print(
        f"{result.corpus_bytes:,} bytes of text, {result.held_out_bytes:,} held out to measure on; "
        f"{shape.layers} layers, d_model {shape.d_model}, {shape.sequence_length} tokens a row."
    )
    console.print(table)
    for model_type, size, reason in result.impossible:
        console.print(f"{model_type} {size:,} left out: {reason}", style="dim")
    _print_sources(console, result)
    best = result.candidates[result.recommended]
    console.print(f"\n[bold]{best.model_type}, {best.vocab_size:,}[/]: {result.reason}.")
    if result.cheapest != result.recommended:
        cheapest = result.candidates[result.cheapest]
        console.print(
            f"The least training FLOPs for the same bytes, whatever the loss: "
            f"{cheapest.model_type}, {cheapest.vocab_size:,}.",
            style="dim",
        )
    console.print(
        f"  tokenmill run --set tokenizer.model_type={best.model_type} "
        f"--set tokenizer.vocab_size={best.vocab_size}"
    )


def _print_sources(console: Any, result: Any, limit: int = 8) -> None:
    from rich.table import Table

    first = result.candidates[0].tokens_per_word_by_source
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, title="Tokens a word, by source",
                  title_justify="left")  # fmt: skip
    table.add_column("")
    for c in result.candidates:
        table.add_column(f"{c.model_type}\n{c.vocab_size:,}", justify="right")
    for source in list(first)[:limit]:
        cells = [f"{c.tokens_per_word_by_source[source]:.2f}" for c in result.candidates]
        table.add_row(source, *cells)
    console.print()
    console.print(table)
    if len(first) > limit:
        console.print(f"and {len(first) - limit} more sources; --json has all.", style="dim")


def plot(result: Any, path: str) -> None:
    """Draw bytes per token, unigram loss, training FLOPs and unused tokens over the size.

    Args:
        result: A `Sweep`.
        path: Where to; the ending says the format.

    Raises:
        TokenmillError: The format is unknown, or the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
    fields = (
        ("bytes_per_token", "bytes per token"),
        ("unigram_bits_per_byte", "unigram bits per byte"),
        ("training_flops", "training FLOPs for the same bytes"),
        ("unused_fraction", "unused share of learned tokens"),
    )
    best = result.candidates[result.recommended]
    for panel, (field, title) in zip(panels, fields, strict=True):
        for model_type in dict.fromkeys(c.model_type for c in result.candidates):
            line = [c for c in result.candidates if c.model_type == model_type]
            panel.plot([c.vocab_size for c in line], [getattr(c, field) for c in line], "o-",
                       label=model_type)  # fmt: skip
        panel.plot([best.vocab_size], [getattr(best, field)], "o", markersize=14, fillstyle="none",
                   color="black", label="recommended")  # fmt: skip
        panel.set_xscale("log", base=2)
        panel.set(title=title, xlabel="tokens in the vocabulary")
        panel.grid(alpha=0.3)
    panels[0].legend()
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise TokenmillError(
            f"--plot {path}: {error}", "Give a path that ends in .png, .svg or .pdf."
        ) from None
    finally:
        pyplot.close(figure)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise TokenmillError(f"--json {path}: {error.strerror}.") from None
