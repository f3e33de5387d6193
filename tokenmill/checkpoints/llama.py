"""Llama (Touvron et al. 2023) and what is built like it: Mistral, Qwen 2, Qwen 3.

SmolLM, TinyLlama and many others say `model_type: llama`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tokenmill.checkpoints.family import (
    Family,
    Sources,
    linear,
    read_sizes,
    rms_norm,
    table,
    write_sizes,
)
from tokenmill.checkpoints.settings import Settings
from tokenmill.model.shape import Head, ModelShape

_ROPE_TYPES = {"default": "none", "linear": "linear", "llama3": "llama3"}
QWEN3_HEAD_DIM = 128
"""Width of a head of Qwen 3 where config.json leaves it out."""
_MISTRAL_WINDOW = 4096  # likewise


def _read_rope(settings: Settings) -> dict[str, Any]:
    """Read base and scaling of RoPE, from `rope_parameters` or, before transformers 5, apart."""
    scaling, parameters = settings.table("rope_scaling"), settings.table("rope_parameters")
    if scaling is not None and parameters is not None:
        raise settings.refusal("rope_scaling", "none beside rope_parameters", "Remove one of them.")
    found = scaling or parameters
    base = settings.number("rope_theta", 10_000.0)
    if found is None:
        return {"rope_base": base}
    if "rope_theta" in found:
        inner = found.number("rope_theta")
        if "rope_theta" in settings and inner != base:
            raise settings.refusal("rope_theta", f"{inner}, as in {found.inside}")
        base = inner
    # Both names where a file of one version was written again by another.
    kind = found.choice("rope_type" if "rope_type" in found else "type", _ROPE_TYPES, "default")
    if "rope_type" in found and "type" in found:
        found.choice("type", _ROPE_TYPES, "default")
    rope: dict[str, Any] = {"rope_base": base, "rope_scaling": kind}
    if kind != "none":
        rope["rope_factor"] = found.number("factor")
    if kind == "llama3":
        rope |= {
            "rope_low_frequency_factor": found.number("low_freq_factor"),
            "rope_high_frequency_factor": found.number("high_freq_factor"),
            "rope_original_length": found.size("original_max_position_embeddings"),
        }
    found.refuse_others()
    return rope


def read_decoder(settings: Settings) -> dict[str, Any]:
    """Read what all these families have."""
    sizes = read_sizes(settings)
    return {
        **sizes,
        "kv_heads": settings.size("num_key_value_heads", sizes["heads"]),
        "positions": "rope",
        "norm": "rms",
        "mlp": settings.choice("hidden_act", {"silu": "swiglu", "swish": "swiglu"}, "silu"),
        "tie_embeddings": settings.flag("tie_word_embeddings", False),
        "norm_epsilon": settings.number("rms_norm_eps", 1e-6),
        **_read_rope(settings),
    }


def write_decoder(shape: ModelShape) -> dict[str, Any]:
    """Return the settings that all these families have."""
    rope: dict[str, Any] = {"rope_theta": shape.rope_base, "rope_type": "default"}
    if shape.rope_scaling != "none":
        rope |= {"rope_type": shape.rope_scaling, "factor": shape.rope_factor}
    if shape.rope_scaling == "llama3":
        rope |= {
            "low_freq_factor": shape.rope_low_frequency_factor,
            "high_freq_factor": shape.rope_high_frequency_factor,
            "original_max_position_embeddings": shape.rope_original_length,
        }
    return {
        **write_sizes(shape),
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_width,
        "hidden_act": "silu" if shape.mlp == "swiglu" else None,
        "tie_word_embeddings": shape.tie_embeddings,
        "rms_norm_eps": shape.epsilon,
        "rope_parameters": rope,
    }


def _write_llama(shape: ModelShape) -> dict[str, Any]:
    biases = {"attention_bias": shape.use_bias, "mlp_bias": shape.use_bias}
    return {**write_decoder(shape), **biases}


def _write_mistral(shape: ModelShape) -> dict[str, Any]:
    return {**write_decoder(shape), "sliding_window": None}


def _write_qwen(shape: ModelShape) -> dict[str, Any]:
    return {**write_decoder(shape), "use_sliding_window": False}


def head_dim(settings: Settings, default: int | None = None) -> int | None:
    """Read the width of a head; None where it is d_model / heads and nothing else is said."""
    return settings.size("head_dim", default) if default or "head_dim" in settings else None


def _read_llama(settings: Settings, head: Head | None) -> ModelShape:
    biases = settings.flag("attention_bias", False)
    if settings.flag("mlp_bias", False) != biases:
        raise settings.refusal(
            "attention_bias",
            f"{str(not biases).lower()} as mlp_bias is, since o and the MLP have biases together "
            "here",
        )
    return ModelShape(**read_decoder(settings), head_dim=head_dim(settings), use_bias=biases)


def _read_mistral(settings: Settings, head: Head | None) -> ModelShape:
    return ModelShape(**read_decoder(settings), head_dim=head_dim(settings), use_bias=False)


def _read_qwen2(settings: Settings, head: Head | None) -> ModelShape:
    return ModelShape(
        **read_decoder(settings), head_dim=head_dim(settings), use_bias=False, qkv_bias=True
    )


def _read_qwen3(settings: Settings, head: Head | None) -> ModelShape:
    return ModelShape(
        **read_decoder(settings),
        head_dim=head_dim(settings, QWEN3_HEAD_DIM),
        use_bias=False,
        qk_norm=True,
    )


def mistral_window(settings: Settings) -> int | None:
    """Read the sliding window, which all layers have unless it is null."""
    if settings.is_null("sliding_window"):
        return None
    return settings.size("sliding_window", _MISTRAL_WINDOW)


def qwen_window(settings: Settings) -> int | None:
    """Read the sliding window, which only the layers have that are said to; 0 is none."""
    kinds = settings.list_of_names("layer_types")
    if not set(kinds) <= {"full_attention", "sliding_attention"}:
        raise settings.refusal("layer_types", "full_attention or sliding_attention")
    slides = settings.flag("use_sliding_window", False) or "sliding_attention" in kinds
    window = settings.count("sliding_window") or None
    return window if slides else None


def swiglu(ours: str, theirs: str, d_model: int, width: int, bias: bool) -> Sources:
    """List the three matrices of an MLP."""
    for x, inputs, outputs in (
        ("gate", d_model, width),
        ("up", d_model, width),
        ("down", width, d_model),
    ):
        yield from linear(f"{ours}/{x}", {f"{theirs}.{x}_proj": outputs}, inputs, bias)


def decoder_sources(
    shape: ModelShape, moe: Callable[[str, str], Sources] = lambda ours, theirs: iter(())
) -> Sources:
    """List the tensors of a decoder.

    Args:
        shape: The model.
        moe: Lists those in the place of the MLP of a layer of experts, by its paths here and there.
    """
    d, heads, kv = shape.d_model, shape.attention_width, shape.kv_dim
    yield from table("token_embedding", "embed_tokens", shape.vocab_size, d)
    for i in range(shape.layers):
        ours, theirs = f"layer{i}", f"layers.{i}"
        attention, mlp = f"{theirs}.self_attn", f"{theirs}.mlp"
        yield from rms_norm(f"{ours}/attention_norm", f"{theirs}.input_layernorm", d)
        qkv = {f"{attention}.{x}_proj": heads if x == "q" else kv for x in "qkv"}
        yield from linear(f"{ours}/attention/qkv", qkv, d, shape.has_qkv_bias)
        if shape.qk_norm:
            for x in "qk":
                norm = f"{attention}.{x}_norm"
                yield from rms_norm(f"{ours}/attention/{x}_norm", norm, shape.head_width)
        output = {f"{attention}.o_proj": d}
        yield from linear(f"{ours}/attention/output_projection", output, heads, shape.use_bias)
        yield from rms_norm(f"{ours}/mlp_norm", f"{theirs}.post_attention_layernorm", d)
        if i in shape.moe_layers:
            yield from moe(f"{ours}/mlp", theirs)
        else:
            yield from swiglu(f"{ours}/mlp", mlp, d, shape.d_ff, shape.use_bias)
    yield from rms_norm("final_norm", "norm", d)
    if not shape.tie_embeddings:
        logits = {"lm_head": shape.vocab_size}
        yield from linear("output_layer", logits, d, bias=False, head="lm")


def _copies(shape: ModelShape) -> Mapping[str, str]:
    return {"lm_head.weight": "embed_tokens.weight"} if shape.tie_embeddings else {}


def decoder_family(
    name: str,
    classes: str,
    read_shape: Any,
    write_settings: Any,
    sources: Callable[[ModelShape], Sources] = decoder_sources,
    **options: Any,
) -> Family:
    """Make a family of decoders whose classes in transformers begin with a name."""
    return Family(
        name=name,
        heads={f"{classes}ForCausalLM": "lm", f"{classes}Model": None},
        prefix="model.",
        read_shape=read_shape,
        write_settings=write_settings,
        sources=sources,
        copies=_copies,
        # Constants that older versions saved.
        harmless=(r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
        **options,
    )


LLAMA = decoder_family("llama", "Llama", _read_llama, _write_llama)
MISTRAL = decoder_family("mistral", "Mistral", _read_mistral, _write_mistral, window=mistral_window)
QWEN2 = decoder_family("qwen2", "Qwen2", _read_qwen2, _write_qwen, window=qwen_window)
QWEN3 = decoder_family(
    "qwen3",
    "Qwen3",
    _read_qwen3,
    _write_qwen,
    window=qwen_window,
    only={"attention_bias": (False,)},
)
