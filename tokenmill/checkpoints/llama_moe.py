"""Decoders like Llama with a mixture of experts: Mixtral (Jiang et al. 2024), Qwen 2 and 3 MoE."""

from typing import Any

from tokenmill.checkpoints.family import Source, Sources, linear
from tokenmill.checkpoints.llama import (
    QWEN3_HEAD_DIM,
    decoder_family,
    decoder_sources,
    head_dim,
    mistral_window,
    qwen_window,
    read_decoder,
    swiglu,
    write_decoder,
)
from tokenmill.checkpoints.settings import Settings
from tokenmill.model.shape import Head, ModelShape, moe_pattern

_MIXTRAL_NAMES = {"gate": "w1", "up": "w3", "down": "w2"}
_QWEN_NAMES = {name: f"{name}_proj" for name in ("gate", "up", "down")}


def _experts(ours: str, theirs: str, names: dict[str, str], shape: ModelShape) -> Sources:
    """List the router and the experts of a layer; `names` are those of an expert's matrices."""
    d, width = shape.d_model, shape.expert_width
    router = {f"{theirs}.gate.weight": (shape.experts, d)}
    yield f"{ours}/router_kernel", Source(router, transposed=True)
    for name, other in names.items():
        sizes = (d, width) if name == "down" else (width, d)
        each = {f"{theirs}.experts.{i}.{other}.weight": sizes for i in range(shape.experts)}
        yield f"{ours}/{name}_kernel", Source(each, transposed=True, stacked=True)


def _mixtral_sources(shape: ModelShape) -> Sources:
    def moe(ours: str, theirs: str) -> Sources:
        return _experts(ours, f"{theirs}.block_sparse_moe", _MIXTRAL_NAMES, shape)

    return decoder_sources(shape, moe)


def _qwen_sources(shape: ModelShape) -> Sources:
    def moe(ours: str, theirs: str) -> Sources:
        mlp = f"{theirs}.mlp"
        yield from _experts(ours, mlp, _QWEN_NAMES, shape)
        width = shape.shared_experts * shape.expert_width
        if width:
            yield from swiglu(f"{ours}/shared", f"{mlp}.shared_expert", shape.d_model, width, False)
        if shape.shared_expert_gate:
            gate = {f"{mlp}.shared_expert_gate": 1}
            yield from linear(f"{ours}/shared_gate", gate, shape.d_model, bias=False)

    return decoder_sources(shape, moe)


def _read_mixtral(settings: Settings, head: Head | None) -> ModelShape:
    return ModelShape(
        **read_decoder(settings),
        head_dim=head_dim(settings),
        use_bias=False,
        experts=settings.size("num_local_experts", 8),
        experts_per_token=settings.size("num_experts_per_tok", 2),
    )


def _write_mixtral(shape: ModelShape) -> dict[str, Any]:
    return {
        **write_decoder(shape),
        "intermediate_size": shape.expert_width,
        "num_local_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
        "sliding_window": None,
    }


def _read_qwen_experts(settings: Settings, layers: int, normalized: bool) -> dict[str, Any]:
    """Read what the experts of both families have."""
    # One file may have the count under both names.
    experts = settings.size("num_experts" if "num_experts" in settings else "num_local_experts")
    if "num_local_experts" in settings and settings.size("num_local_experts") != experts:
        raise settings.refusal("num_local_experts", f"{experts}, as num_experts")
    every, dense = (
        settings.size("decoder_sparse_step", 1),
        settings.list_of_counts("mlp_only_layers"),
    )
    sparse = [i for i in range(layers) if (i + 1) % every == 0 and i not in dense]
    pattern = moe_pattern(layers, sparse)
    if pattern is None:
        raise settings.refusal(
            "mlp_only_layers",
            "layers at the bottom, since in the others every n-th has experts here",
        )
    return {
        "experts": experts,
        "experts_per_token": settings.size("num_experts_per_tok"),
        "expert_d_ff": settings.size("moe_intermediate_size"),
        "moe_every": pattern[0],
        "first_dense_layers": pattern[1],
        "normalize_gates": settings.flag("norm_topk_prob", normalized),
    }


def _read_qwen2_moe(settings: Settings, head: Head | None) -> ModelShape:
    sizes = read_decoder(settings)
    experts = _read_qwen_experts(settings, sizes["layers"], normalized=False)
    shared = settings.size("shared_expert_intermediate_size")
    if shared % experts["expert_d_ff"]:
        raise settings.refusal(
            "shared_expert_intermediate_size",
            f"a multiple of moe_intermediate_size = {experts['expert_d_ff']}",
        )
    return ModelShape(
        **sizes,
        **experts,
        head_dim=head_dim(settings),
        use_bias=False,
        qkv_bias=settings.flag("qkv_bias", True),
        shared_experts=shared // experts["expert_d_ff"],
        shared_expert_gate=True,
    )


def _read_qwen3_moe(settings: Settings, head: Head | None) -> ModelShape:
    sizes = read_decoder(settings)
    return ModelShape(
        **sizes,
        **_read_qwen_experts(settings, sizes["layers"], normalized=False),
        head_dim=head_dim(settings, QWEN3_HEAD_DIM),
        use_bias=False,
        qk_norm=True,
    )


def _write_qwen_experts(shape: ModelShape) -> dict[str, Any]:
    dense = [i for i in range(shape.layers) if i not in shape.moe_layers]
    return {
        **write_decoder(shape),
        "use_sliding_window": False,
        "num_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
        "moe_intermediate_size": shape.expert_width,
        "decoder_sparse_step": 1,
        "mlp_only_layers": dense,
        "norm_topk_prob": shape.normalize_gates,
    }


def _write_qwen2_moe(shape: ModelShape) -> dict[str, Any]:
    return {
        **_write_qwen_experts(shape),
        "qkv_bias": shape.has_qkv_bias,
        # Without shared experts this is no such model: null is refused when it is read again.
        "shared_expert_intermediate_size": shape.shared_experts * shape.expert_width or None,
    }


MIXTRAL = decoder_family(
    "mixtral",
    "Mixtral",
    _read_mixtral,
    _write_mixtral,
    _mixtral_sources,
    window=mistral_window,
)
QWEN2_MOE = decoder_family(
    "qwen2_moe",
    "Qwen2Moe",
    _read_qwen2_moe,
    _write_qwen2_moe,
    _qwen_sources,
    window=qwen_window,
)
QWEN3_MOE = decoder_family(
    "qwen3_moe",
    "Qwen3Moe",
    _read_qwen3_moe,
    _write_qwen_experts,
    _qwen_sources,
    window=qwen_window,
    only={"attention_bias": (False,)},
)
