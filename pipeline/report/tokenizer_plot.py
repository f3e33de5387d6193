"""A sweep over vocabularies as a picture."""

from matplotlib.figure import Figure

from components.tokenize.sweep import Sweep
from tokenmill.errors import TokenmillError


def plot_sweep(result: Sweep, path: str) -> None:
    """Draw bytes per token, unigram loss, training FLOPs and unused tokens over the size.

    Args:
        result: What is drawn.
        path: Where to; the ending says the format.

    Raises:
        TokenmillError: The format is unknown, or the file cannot be written.
    """
    figure = Figure(figsize=(15, 3.8), layout="constrained")
    panels = figure.subplots(1, 4)
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
