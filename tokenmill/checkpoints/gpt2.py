"""GPT-2 (Radford et al. 2019)."""

from collections.abc import Mapping
from typing import Any

from tokenmill.checkpoints.family import (
    GELU_NAMES,
    GELUS,
    Family,
    Source,
    Sources,
    layer_norm,
    table,
)
from tokenmill.checkpoints.settings import Settings
from tokenmill.model.shape import Head, ModelShape


def _read_shape(settings: Settings, head: Head | None) -> ModelShape:
    width = settings.size("n_embd")
    return ModelShape(
        layers=settings.size("n_layer"),
        d_model=width,
        heads=settings.size("n_head"),
        d_ff=settings.size("n_inner", 4 * width),
        vocab_size=settings.size("vocab_size"),
        sequence_length=settings.size("n_positions"),
        positions="learned",
        norm="layer",
        use_bias=True,
        mlp=settings.choice("activation_function", GELUS, "gelu_new"),
        tie_embeddings=settings.flag("tie_word_embeddings", True),
        norm_epsilon=settings.number("layer_norm_epsilon", 1e-5),
    )


def _write_settings(shape: ModelShape) -> dict[str, Any]:
    return {
        "n_embd": shape.d_model,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_inner": shape.d_ff,
        "vocab_size": shape.vocab_size,
        "n_positions": shape.sequence_length,
        "activation_function": GELU_NAMES.get(shape.mlp),
        "tie_word_embeddings": shape.tie_embeddings,
        "layer_norm_epsilon": shape.epsilon,
    }


def _conv(ours: str, theirs: str, inputs: int, outputs: int) -> Sources:
    """List a linear layer as GPT-2's Conv1D keeps it: [in, out]."""
    yield f"{ours}/kernel", Source({f"{theirs}.weight": (inputs, outputs)})
    yield f"{ours}/bias", Source({f"{theirs}.bias": (outputs,)})


def _sources(shape: ModelShape) -> Sources:
    d = shape.d_model
    yield from table("token_embedding", "wte", shape.vocab_size, d)
    yield from table("position_embedding", "wpe", shape.sequence_length, d, cut=True)
    for i in range(shape.layers):
        ours, theirs = f"layer{i}", f"h.{i}"
        yield from layer_norm(f"{ours}/attention_norm", f"{theirs}.ln_1", d)
        yield from _conv(f"{ours}/attention/qkv", f"{theirs}.attn.c_attn", d, 3 * d)
        yield from _conv(f"{ours}/attention/output_projection", f"{theirs}.attn.c_proj", d, d)
        yield from layer_norm(f"{ours}/mlp_norm", f"{theirs}.ln_2", d)
        yield from _conv(f"{ours}/mlp/up", f"{theirs}.mlp.c_fc", d, shape.d_ff)
        yield from _conv(f"{ours}/mlp/down", f"{theirs}.mlp.c_proj", shape.d_ff, d)
    yield from layer_norm("final_norm", "ln_f", d)
    if not shape.tie_embeddings:
        logits = {"lm_head.weight": (shape.vocab_size, d)}
        yield "output_layer/kernel", Source(logits, transposed=True, head="lm")


def _copies(shape: ModelShape) -> Mapping[str, str]:
    return {"lm_head.weight": "wte.weight"} if shape.tie_embeddings else {}


GPT2 = Family(
    name="gpt2",
    heads={"GPT2LMHeadModel": "lm", "GPT2Model": None},
    prefix="transformer.",
    read_shape=_read_shape,
    write_settings=_write_settings,
    sources=_sources,
    copies=_copies,
    only={
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        # In float32 anyway, and the product is the same.
        "reorder_and_upcast_attn": (False, True),
    },
    # Causal masks, as older versions saved them.
    harmless=(r"h\.\d+\.attn\.(bias|masked_bias)",),
)
