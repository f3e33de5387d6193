"""`tokenmill plan`: FLOPs, time, memory and money before there is any data."""

from __future__ import annotations

import sys
from typing import Any

import click

from tokenmill.errors import TokenmillError

_EXIT_USAGE = 2


def _options(*options: Any) -> Any:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_text = click.option


@click.command(context_settings={"max_content_width": 100})
@_options(
    # the model
    _text("--preset", help="A preset's model and prices: demo, gpt2-small, bert-base, bert-large."),
    _text("--config", "config_path", metavar="FILE", help="The same of a TOML configuration."),
    _text("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of it."),
    _text("--params", metavar="N", help="Parameters, such as 540e9 or 1.5B, without a shape."),
    _text("--active-params", metavar="N", help="Those that a token passes (mixture of experts)."),
    _text("--layers", metavar="N", help="Layers (of the decoder)."),
    _text("--d-model", metavar="N", help="Width of the residual stream."),
    _text("--heads", metavar="N", help="Query heads."),
    _text("--kv-heads", metavar="N", help="Key/value heads (grouped-query attention)."),
    _text("--head-dim", metavar="N", help="Width of a head; else d_model / heads."),
    _text("--d-ff", metavar="N", help="Inner width of the MLP (of one expert)."),
    _text("--vocab", metavar="N", help="Vocabulary size."),
    _text("--seq-len", metavar="N", help="Tokens in a sequence."),
    click.option(
        "--style",
        type=click.Choice(["auto", "gpt", "llama"]),
        help="Defaults of the next five; auto goes by d_ff / d_model.",
    ),
    click.option(
        "--mlp",
        type=click.Choice(["gelu", "relu", "squared-relu", "swiglu", "geglu", "reglu"]),
        help="Two matrices, or three in the gated kinds.",
    ),
    click.option("--norm", type=click.Choice(["layer", "rms"]), help="Normalization."),
    click.option(
        "--positions",
        type=click.Choice(["learned", "rope", "alibi", "sinusoidal", "none", "relative"]),
        help="learned is a table, relative (Transformer-XL) a matrix a layer, others are free.",
    ),
    click.option("--bias/--no-bias", default=None, help="Biases of the linear layers."),
    click.option("--tied/--untied", default=None, help="Output projection shares the embedding."),
    click.option("--encoder", is_flag=True, default=None, help="No causal mask (BERT)."),
    _text("--encoder-layers", metavar="N", help="An encoder beside the decoder (T5)."),
    _text("--encoder-token-share", metavar="F", help="Tokens that the encoder reads [0.5]."),
    _text("--experts", metavar="N", help="Experts in each layer."),
    _text("--experts-per-token", metavar="N", help="Experts that a token passes."),
    # the data
    _text("--tokens", metavar="N", help="Tokens of the corpus, such as 2.5e9 or 12.8B."),
    _text("--text-bytes", metavar="N", help="Its bytes instead, such as 50GB."),
    _text("--bytes-per-token", metavar="X", help="Bytes in a token [4]."),
    _text("--epochs", metavar="X", help="Passes over the corpus [1]."),
    click.option(
        "--goal",
        type=click.Choice(["fine-tune", "domain-adapt", "from-scratch"]),
        help="Judge the tokens by a goal.",
    ),
    # the machine
    _text(
        "--hardware", metavar="CHIP", help="A chip of data/catalog/hardware.csv, such as rtx-3090."
    ),
    _text("--chips", metavar="N", help="How many [1]."),
    _text("--peak-tflops", metavar="X", help="Peak TFLOP/s of one chip, over the catalog's."),
    _text("--mfu", metavar="F", help="Model FLOPs utilization, such as 0.4; else published runs'."),
    _text("--hfu", metavar="F", help="Hardware FLOPs utilization (with --recompute) instead."),
    _text("--tflops-per-chip", metavar="X", help="Achieved model TFLOP/s of one chip instead."),
    _text(
        "--observed-tokens-per-second", metavar="X", help="Of all chips together: gives MFU, HFU."
    ),
    _text("--goodput", metavar="F", help="Share of wall time that trains [1]."),
    click.option(
        "--recompute",
        type=click.Choice(["none", "selective", "full"]),
        help="Activations that the backward pass computes again [none].",
    ),
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16", "mixed_bfloat16", "mixed_float16"]),
        help="Of weights and computation [mixed, 16 bits].",
    ),
    click.option(
        "--strategy",
        type=click.Choice(["data", "zero1", "zero2", "zero3", "tensor", "tensor-zero3"]),
        help="How the model is spread over chips [data].",
    ),
    _text("--batch-size", metavar="N", help="Sequences a step, over all chips [1 a chip]."),
    click.option(
        "--flops-basis",
        type=click.Choice(["exact", "6n"]),
        help="What hours are made of [exact for a shape, 6n for --params].",
    ),
    # the money
    _text("--price-per-chip-hour", metavar="USD", help="Over the catalog's; 0 is your own chip."),
    _text("--price-date", metavar="DATE", help="When you were told that price."),
    _text(
        "--price-from",
        metavar="WORD",
        help="A provider of data/catalog/prices.csv, such as lambda.",
    ),
    _text("--hidden-cost-low", metavar="X", help="Everything over compute, at least [2]."),
    _text("--hidden-cost-high", metavar="X", help="At most [5]."),
    _text("--storage-usd-per-gb-month", metavar="USD", help="Corpus and kept checkpoints."),
    _text("--network-usd-per-gb", metavar="USD", help="Corpus in, checkpoints out."),
    _text("--checkpoint-write-gb-per-second", metavar="X", help="All hosts [1 for each 8 chips]."),
    _text("--chip-mtbf-hours", metavar="X", help="Hours between failures of a chip [50,000]."),
    _text("--checkpoints-kept", metavar="N", help="Checkpoints on disk [2]."),
    # the answer
    _text("--budget-usd", metavar="USD", help="What does this much compute money buy?"),
    click.option("--compare", is_flag=True, help="Rank all chips by cost and by time."),
    click.option("--json", "as_json", is_flag=True, help="One JSON document (docs/cost.md)."),
    _text("--plot", metavar="FILE", help="Cost over tokens and model size (.png, .svg, .pdf)."),
)
def plan(as_json: bool, **flags: Any) -> None:
    """What would it cost? FLOPs, hours, memory and money, without data.

    \b
    tokenmill plan --preset gpt2-small --tokens 2.5B
    tokenmill plan --params 70B --tokens 1.4T --hardware h100 --chips 512
    tokenmill plan --layers 32 --d-model 4096 --heads 32 --d-ff 11008 --vocab 32000 --tokens 1T
    tokenmill plan --budget-usd 1000 --hardware rtx-4090
    """  # noqa: D301  (click wants the backspace)
    from pipeline.plan.request import answer

    try:
        reply = answer(flags)
    except (TokenmillError, ValueError) as error:
        words = " ".join(str(error).split())
        click.echo(f"{click.style('error:', fg='red')} {words}", err=True)
        sys.exit(_EXIT_USAGE)
    if as_json:
        import json

        click.echo(json.dumps(reply.document(), indent=2, allow_nan=False))
        return
    from pipeline.report.plan import show

    show(reply)
