"""What the model made of held-out texts while it was trained, and its attention in one of them."""

from collections.abc import Iterator

from pipeline.report.page.content import DataTable, Figure, Section, shorten
from pipeline.report.page.heat_maps import heat_maps
from pipeline.report.page.run_documents import RunDocuments
from tokenmill.contracts.samples import LayerAttention, Samples, TextAttention

_PROMPT_CHARACTERS, _TEXT_CHARACTERS = 200, 600
_LAYERS_DRAWN, _HEADS_DRAWN = 4, 8


def samples_section(run: RunDocuments) -> Section:
    """Show what the model made of held-out texts at each time."""
    tables = [] if run.held_out is None else list(_tables(run.held_out))
    sentences = []
    if tables:
        sentences.append(
            "What the model puts after (or in place of what is hidden in) texts that it was not "
            "trained on, the likeliest token each time; below it what stands there in the text."
        )
    return Section("samples", "Samples of held-out texts", sentences, tables=tables)


def attention_section(run: RunDocuments) -> Section:
    """Draw the trained model's attention in one held-out text."""
    attention = None if run.held_out is None else run.held_out.attention
    figures = [] if attention is None else list(_attention(attention))
    return Section("attention", "Attention in a held-out text", figures=figures)


def _tables(samples: Samples) -> Iterator[tuple[str, DataTable]]:
    """Yield a table for each prompt: the model's texts by step, and the text's own."""
    by_prompt: dict[str, list[tuple[str, str]]] = {}
    expected: dict[str, str] = {}
    for point in samples.points:
        when = f"after {point.step:,} steps" if point.step else "before training"
        for sample in point.samples:
            by_prompt.setdefault(sample.prompt, []).append((when, sample.output))
            expected[sample.prompt] = sample.expected
    for prompt, outputs in by_prompt.items():
        rows = [*outputs, ("the text itself", expected[prompt])]
        yield (
            shorten(prompt, _PROMPT_CHARACTERS),
            DataTable(("", "goes on"), [(when, _shown(text)) for when, text in rows]),
        )


def _shown(text: str) -> str:
    """Return a text in one line, its line ends marked."""
    marked = shorten(text, _TEXT_CHARACTERS).replace("\n", " ↵ ")
    return marked if marked.strip() else "(blanks)" if text else "(nothing)"


def _attention(attention: TextAttention) -> Iterator[Figure]:
    """Yield a figure for each of some layers: the first, the last and evenly spaced between."""
    last, count = len(attention.layers) - 1, min(_LAYERS_DRAWN, len(attention.layers))
    for i in range(count):
        yield _layer(attention.layers[round(i * last / max(1, count - 1))], attention)


def _layer(layer: LayerAttention, attention: TextAttention) -> Figure:
    words, heads = attention.tokens, layer.heads
    count = len(words)
    mean = [[sum(head[i][j] for head in heads) / len(heads) for j in range(count)]
            for i in range(count)]  # fmt: skip
    first = sum(row[0] for row in mean) / count
    itself = sum(mean[i][i] for i in range(count)) / count
    small = [] if attention.is_mean or len(heads) == 1 else [
        (f"head {i}", head) for i, head in enumerate(heads[:_HEADS_DRAWN])]  # fmt: skip
    shown = [shorten(word, 20) for word in words]
    return Figure(
        f"Attention of layer {layer.layer}, mean over its heads" + (", and by head" * bool(small)),
        heat_maps(mean, small, words),
        f"Heat maps of {count} tokens by {count}: a row is a token that looks, a column one that "
        f"is looked at. On average {first:.0%} of a token's attention goes to the first token, "
        f"{itself:.0%} to itself.",
        DataTable(("token", *shown), [(shown[i], *(f"{x:.3f}" for x in mean[i]))
                                      for i in range(count)]),
    )  # fmt: skip
