"""A sweep over vocabularies: trained on files, printed as a table."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from components.tokenize.config import ModelType
from components.tokenize.sweep import DEFAULT_SIZES, Sweep, sweep
from pipeline.embedded_corpus import build_embedded_corpus
from pipeline.input_documents import InputDocuments
from pipeline.loader import load_config
from pipeline.report.tables import SafeConsole, echo, escape, largest, plain_table, stdout_console
from tokenmill.errors import TokenmillError
from tokenmill.machine import vcpus
from tokenmill.model.shape import ModelShape
from tokenmill.number_format import power_of_ten
from tokenmill.text.language import language_label

_ROWS_SHOWN = 8


def sweep_files(
    paths: Sequence[str],
    sizes: Sequence[int] | None,
    types: Sequence[ModelType],
    sample_bytes: int,
    preset: str,
    config_path: str | None,
    overrides: Sequence[str],
) -> Sweep:
    """Train and print the vocabularies on files, else on the configuration's input.

    Raises:
        TokenmillError: The configuration or a path is wrong, or the text supports no vocabulary.
    """
    sizes = sizes or DEFAULT_SIZES
    config = load_config(preset, config_path, overrides)
    inputs = paths or config.corpus.input or [str(build_embedded_corpus().path)]
    reading = InputDocuments(config.corpus)
    documents, declared = [], []
    for item in reading.read_documents(inputs):
        documents.append((item.doc_id, item.source, item.text))
        declared.append(item.language.decode())
    if not documents:
        raise TokenmillError(
            f"no document can be read from {', '.join(inputs)}.", reading.first_bad
        )
    if reading.bad:
        echo(f"{reading.bad:,} records cannot be read; a run would quarantine them.", err=True)
    with _progress(len(sizes) * len(types)) as progress:
        result = sweep(
            documents,
            sizes,
            types,
            config.tokenizer.model_copy(update={"sample_bytes": sample_bytes}),
            config.shape(),
            config.train.precision,
            config.train.global_batch_size,
            progress,
            workers=vcpus(),
            declared=declared,
        )
    _print_sweep(result, config.shape())
    return result


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    console = SafeConsole(file=sys.stdout)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True,
        disable=not sys.stdout.isatty(),
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=total)
        yield lambda name, done: bar.update(task, description=f"{name:16}", completed=done)


def _print_sweep(result: Sweep, shape: ModelShape) -> None:
    console = stdout_console(pipe_width=120)
    table = plain_table(
        "", "type", "tokens", "bytes/\ntoken", "unigram\nbits/byte", "unused\ntokens",
        "byte\ntokens", "embedding\nparams", "of the\nmodel", "of\nmemory", "softmax\nof FLOPs",
        "training\nFLOPs", left=2, overflow="ellipsis",
    )  # fmt: skip
    for i, c in enumerate(result.candidates):
        table.add_row(
            "→" if i == result.recommended else "", c.model_type, f"{c.vocab_size:,}",
            f"{c.bytes_per_token:.2f}", f"{c.unigram_bits_per_byte:.3f}",
            f"{c.unused_fraction:.1%}", f"{c.byte_token_fraction:.2%}", f"{c.embedding_params:,}",
            f"{c.embedding_param_fraction:.0%}", f"{c.vocabulary_memory_fraction:.0%}",
            f"{c.softmax_flop_fraction:.0%}", power_of_ten(c.training_flops),
            style="bold" if i == result.recommended else None,
        )  # fmt: skip
    console.print(
        f"{result.corpus_bytes:,} bytes of text, {result.held_out_bytes:,} held out to measure on; "
        f"{shape.layers} layers, d_model {shape.d_model}, {shape.sequence_length} tokens a row."
    )
    console.print(table)
    for model_type, size, reason in result.impossible:
        console.print(f"{model_type} {size:,} left out: {reason}", style="dim")
    _print_languages(console, result)
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


def _print_languages(console: Console, result: Sweep) -> None:
    """Print what a token holds of each language, those with most text first; of one, nothing."""
    sizes, measured = result.held_out_bytes_by_language, result.candidates[0]
    codes = sorted(measured.bytes_per_token_by_language, key=lambda code: (-sizes[code], code))
    if len(codes) < 2:
        return
    rows = {
        language_label(code): [c.bytes_per_token_by_language[code] for c in result.candidates]
        for code in codes
    }
    _print_ratios(console, result, "Bytes per token, by language", rows, "languages")


def _print_sources(console: Console, result: Sweep) -> None:
    rows = {
        source: [c.tokens_per_word_by_source[source] for c in result.candidates]
        for source in result.candidates[0].tokens_per_word_by_source
    }
    _print_ratios(console, result, "Tokens a word, by source", rows, "sources")


def _print_ratios(
    console: Console, result: Sweep, title: str, rows: dict[str, list[float]], kind: str
) -> None:
    """Print the first rows, a number for each candidate, and how many more there are."""
    columns = [f"{c.model_type}\n{c.vocab_size:,}" for c in result.candidates]
    table = plain_table("", *columns, overflow="ellipsis")
    shown, rest = largest(list(rows), _ROWS_SHOWN)
    for name in shown:
        table.add_row(escape(name), *(f"{ratio:.2f}" for ratio in rows[name]))
    console.print(f"\n{title}", style="italic")
    console.print(table)
    if rest:
        console.print(f"and {len(rest)} more {kind}; --json has all.", style="dim")
