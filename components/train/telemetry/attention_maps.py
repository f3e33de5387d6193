"""Attention maps and entropies of fixed eval texts, for a person to look at."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from components.train.telemetry.samples import held_out_texts
from tokenmill.contracts.samples import LayerAttention, TextAttention
from tokenmill.model.backbone import Backbone
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.text.tokenizers.base import Tokenizer
from tokenmill.text.tokenizers.load import read_tokenizer

PROBE_ROWS = 2
# More tokens than this cannot be read beside an image.
_SHOWN_TOKENS = 24
_SHOWN_HEADS, _SHOWN_LAYERS = 8, 6
# Of samples.json: weights of all heads if they are no more, else means over the heads.
_MOST_WEIGHTS = 20_000
_LAYERS_OF_MEANS = 12
_DIGITS = 4


def attention_entropies(probabilities: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return the mean entropy of each head's attention, in nats.

    Args:
        probabilities: float [B, H, T, T]; the last axis sums to 1.
        real: bool [B, T], queries that count.

    Returns:
        float64 [H].
    """
    p = np.asarray(probabilities, np.float64)
    entropy_BHT = -np.sum(p * np.log(np.maximum(p, 1e-30)), axis=-1)
    return (entropy_BHT * real[:, None]).sum(axis=(0, 2)) / max(1, real.sum())


def attention_image(
    maps: list[np.ndarray], tokens: list[str], layer_numbers: list[int]
) -> np.ndarray:
    """Draw attention maps: a row of heads for each layer, queries downwards, keys to the right.

    Args:
        maps: For each shown layer float [H, n, n].
        tokens: n words beside the axes.
        layer_numbers: What to call the layers.

    Returns:
        uint8 [height, width, 3].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heads = min(_SHOWN_HEADS, len(maps[0]))
    figure = Figure(figsize=(3.0 * heads + 0.8, 3.0 * len(maps) + 0.8), dpi=80)
    canvas = FigureCanvasAgg(figure)
    ticks = np.arange(len(tokens))
    for row, (number, heads_map) in enumerate(zip(layer_numbers, maps, strict=True)):
        for head in range(heads):
            axes = figure.add_subplot(len(maps), heads, row * heads + head + 1)
            # Square root: small weights are seen beside the large one on the first token.
            axes.imshow(np.sqrt(heads_map[head]), vmin=0.0, vmax=1.0, cmap="Blues")
            axes.set_title(f"layer {number} head {head}", fontsize=8)
            axes.set_yticks(ticks, tokens if head == 0 else [""] * len(tokens), fontsize=6)
            last = row == len(maps) - 1
            axes.set_xticks(ticks, tokens if last else [""] * len(tokens), fontsize=6, rotation=90)
            axes.tick_params(length=1.5)
    figure.tight_layout(pad=0.4)
    buffer = io.BytesIO()
    canvas.print_raw(buffer)
    width, height = canvas.get_width_height()
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)[..., :3].copy()


def attention_drawer(
    model: Backbone, eval_rows: PackedSplit, tokenizer_path: str
) -> Callable[[], tuple[dict[str, float], np.ndarray]]:
    """Return a function that draws the model's attention on the first eval rows when it is called.

    Args:
        model: Being trained.
        eval_rows: Where the probe texts come from.
        tokenizer_path: Turns ids into words.

    Returns:
        A function: entropies in nats by `layer<i>/head<j>`, and an image, uint8 [h, w, 3].
    """
    batch = eval_rows.read(np.arange(min(PROBE_ROWS, eval_rows.rows)))
    real = batch.segment_ids > 0
    shown = int(min(_SHOWN_TOKENS, (batch.segment_ids[0] == 1).sum()))
    tokens: list[str] = []

    def draw() -> tuple[dict[str, float], np.ndarray]:
        if not tokens:
            tokens.extend(_words(batch.inputs[0, :shown], read_tokenizer(tokenizer_path)))
        inputs: Any = (batch.inputs, batch.segment_ids, batch.positions)
        layers = [np.asarray(x) for x in model.attention_probabilities(*map(tf.constant, inputs))]
        entropies = {
            f"layer{i}/head{j}": float(entropy)
            for i, probabilities in enumerate(layers)
            for j, entropy in enumerate(attention_entropies(probabilities, real))
        }
        count = min(_SHOWN_LAYERS, len(layers))
        numbers = np.linspace(0, len(layers) - 1, count).round().astype(int).tolist()
        maps = [layers[i][0, :, :shown, :shown] for i in numbers]
        return entropies, attention_image(maps, tokens, numbers)

    return draw


def text_attention(
    model: Backbone, eval_rows: PackedSplit, tokenizer: Tokenizer
) -> TextAttention | None:
    """Return the model's attention to the first tokens of the first held-out text, read alone.

    Args:
        model: With trained weights.
        eval_rows: Where the text is from.
        tokenizer: Turns ids into words.

    Returns:
        The weights of all heads, or of a large model their means in some layers; None where the
        first rows hold no beginning of a text.
    """
    text = next((t for t in held_out_texts(eval_rows) if len(t.inputs) > 1), None)
    if text is None:
        return None
    ids = text.inputs[:_SHOWN_TOKENS]
    inputs = tf.constant(ids[None]), tf.ones([1, len(ids)], tf.int32), tf.range(len(ids))[None]
    layers = [np.asarray(x, np.float64)[0] for x in model.attention_probabilities(*inputs)]
    is_mean = sum(heads.size for heads in layers) > _MOST_WEIGHTS
    numbers = range(len(layers))
    if is_mean:
        count = min(_LAYERS_OF_MEANS, len(layers))
        numbers = np.linspace(0, len(layers) - 1, count).round().astype(int).tolist()
    return TextAttention(
        tokens=_words(ids, tokenizer),
        is_mean=is_mean,
        layers=[
            LayerAttention(
                layer=i,
                heads=(layers[i].mean(0, keepdims=True) if is_mean else layers[i])
                .round(_DIGITS)
                .tolist(),
            )
            for i in numbers
        ],
    )


def _words(ids: np.ndarray, tokenizer: Tokenizer) -> list[str]:
    """Return tokens as they are shown: line ends and blanks made visible."""
    names = {i: f"<{name}>" for name, i in tokenizer.control_ids.by_name().items()}
    values = [tokenizer.token_bytes[i] for i in ids.tolist()]
    texts = [
        names.get(i, "<>") if value is None else value.decode("utf-8", "replace")
        for i, value in zip(ids.tolist(), values, strict=True)
    ]
    return [p.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·") for p in texts]
