"""GPT-NeoX (Black et al. 2022), with attention and MLP one after the other.

The decoder that tokenmill trains by default is one: RoPE, layer norms, biases, GELU. Pythia adds
attention and MLP of the same input (use_parallel_residual), which cannot be expressed here.
"""

from collections.abc import Mapping
from typing import Any

from tokenmill.checkpoints.family import (
    GELU_NAMES,
    GELUS,
    Family,
    Source,
    Sources,
    layer_norm,
    linear,
    read_sizes,
    table,
    write_sizes,
)
from tokenmill.checkpoints.settings import Settings
from tokenmill.model.shape import Head, ModelShape


def _read_rope_base(settings: Settings) -> float:
    base, turned = settings.number("rotary_emb_base", 10_000.0), settings.number("rotary_pct", 0.25)
    parameters = settings.table("rope_parameters")
    if parameters is not None:
        parameters.choice("rope_type", {"default": True}, "default")
        base = parameters.number("rope_theta", base)
        turned = parameters.number("partial_rotary_factor", turned)
        parameters.refuse_others()
    if turned != 1.0:
        raise settings.refusal("rotary_pct", "1.0, since RoPE turns whole heads here")
    return base


def _read_shape(settings: Settings, head: Head | None) -> ModelShape:
    if settings.flag("use_parallel_residual", True):
        raise settings.refusal(
            "use_parallel_residual",
            "false, since attention and MLP come one after the other here",
        )
    if not settings.flag("attention_bias", True):
        raise settings.refusal(
            "attention_bias", "true, since attention and the MLP have biases together here"
        )
    return ModelShape(
        **read_sizes(settings),
        positions="rope",
        norm="layer",
        use_bias=True,
        mlp=settings.choice("hidden_act", GELUS, "gelu"),
        tie_embeddings=settings.flag("tie_word_embeddings", False),
        norm_epsilon=settings.number("layer_norm_eps", 1e-5),
        rope_base=_read_rope_base(settings),
    )


def _write_settings(shape: ModelShape) -> dict[str, Any]:
    return {
        **write_sizes(shape),
        "hidden_act": GELU_NAMES.get(shape.mlp),
        "tie_word_embeddings": shape.tie_embeddings,
        "layer_norm_eps": shape.epsilon,
        "use_parallel_residual": False,
        "attention_bias": True,
        # As transformers 5 reads it, and as all before.
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": shape.rope_base,
            "partial_rotary_factor": 1.0,
        },
        "rotary_emb_base": shape.rope_base,
        "rotary_pct": 1.0,
    }


def _sources(shape: ModelShape) -> Sources:
    d = shape.d_model
    yield from table("token_embedding", "embed_in", shape.vocab_size, d)
    for i in range(shape.layers):
        ours, theirs = f"layer{i}", f"layers.{i}"
        attention = f"{theirs}.attention.query_key_value"
        yield from layer_norm(f"{ours}/attention_norm", f"{theirs}.input_layernorm", d)
        yield (
            f"{ours}/attention/qkv/kernel",
            Source({f"{attention}.weight": (3 * d, d)}, transposed=True, heads=shape.heads),
        )
        yield (
            f"{ours}/attention/qkv/bias",
            Source({f"{attention}.bias": (3 * d,)}, heads=shape.heads),
        )
        output = {f"{theirs}.attention.dense": d}
        yield from linear(f"{ours}/attention/output_projection", output, d, bias=True)
        yield from layer_norm(f"{ours}/mlp_norm", f"{theirs}.post_attention_layernorm", d)
        up, down = {f"{theirs}.mlp.dense_h_to_4h": shape.d_ff}, {f"{theirs}.mlp.dense_4h_to_h": d}
        yield from linear(f"{ours}/mlp/up", up, d, bias=True)
        yield from linear(f"{ours}/mlp/down", down, shape.d_ff, bias=True)
    yield from layer_norm("final_norm", "final_layer_norm", d)
    if not shape.tie_embeddings:
        logits = {"embed_out.weight": (shape.vocab_size, d)}
        yield "output_layer/kernel", Source(logits, transposed=True, head="lm")


def _copies(shape: ModelShape) -> Mapping[str, str]:
    return {"embed_out.weight": "embed_in.weight"} if shape.tie_embeddings else {}


GPT_NEOX = Family(
    name="gpt_neox",
    heads={"GPTNeoXForCausalLM": "lm", "GPTNeoXModel": None},
    prefix="gpt_neox.",
    read_shape=_read_shape,
    write_settings=_write_settings,
    sources=_sources,
    copies=_copies,
    # Constants that older versions saved.
    harmless=(r"layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",),
)
