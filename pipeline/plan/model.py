"""The flags of `tokenmill plan` that describe a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.plan.units import FlagError, quantity, whole
from tokenmill.cost.plan.planned_model import PlannedModel
from tokenmill.model.typical_shape import (
    TYPICAL_SEQUENCE_LENGTH,
    TYPICAL_VOCAB_SIZE,
    PlannedShape,
)

MOST_PARAMS = 1e16
_MOST_LAYERS = 10_000
_MOST_WIDTH = 1e7

# What a style implies. --style auto goes by the MLP: GPT-2 and 3, BERT and Pythia have 4·d.
_STYLES: dict[str, dict[str, Any]] = {
    "gpt": {
        "mlp": "gelu",
        "norm": "layer",
        "positions": "learned",
        "use_bias": True,
        "tie_embeddings": True,
    },
    "llama": {
        "mlp": "swiglu",
        "norm": "rms",
        "positions": "rope",
        "use_bias": False,
        "tie_embeddings": False,
    },
}
MLP_KINDS = {
    "gelu": "gelu",
    "relu": "gelu",
    "squared-relu": "gelu",
    "swiglu": "swiglu",
    "geglu": "swiglu",
    "reglu": "swiglu",
}
_ONLY_SHAPE = (
    "d_model",
    "heads",
    "kv_heads",
    "head_dim",
    "d_ff",
    "style",
    "mlp",
    "norm",
    "positions",
    "bias",
    "tied",
    "encoder",
    "encoder_layers",
    "encoder_token_share",
    "experts",
    "experts_per_token",
)
SHAPE_FLAGS = ("layers", *_ONLY_SHAPE, "vocab", "seq_len")


def flag(name: str) -> str:
    """A parameter's name as a flag."""
    return "--" + name.replace("_", "-")


def model_of_flags(given: Mapping[str, Any], notes: list[str]) -> PlannedModel:
    """The model that the flags describe, by --params or by --layers and so on.

    Args:
        given: Flags by name, None where not given.
        notes: What was assumed is added here.

    Raises:
        FlagError: A flag is wrong, missing or contradicts another.
    """
    by_shape = [name for name in ("layers", *_ONLY_SHAPE) if given.get(name) is not None]
    if given["params"] is not None:
        if by_shape:
            raise FlagError(
                f"{flag(by_shape[0])} contradicts --params: give the shape, from which the "
                "parameters follow, or their number alone."
            )
        return _by_params(given, notes)
    if given["active_params"] is not None:
        raise FlagError("--active-params needs --params; a shape's follow from --experts.")
    if given["layers"] is None or given["d_model"] is None:
        missing = "--layers" if given["layers"] is None else "--d-model"
        what = f"{missing} is missing" if by_shape else "no model is given"
        raise FlagError(f"{what}: give --preset, --config, --params, or --layers and --d-model.")
    return PlannedModel.of_shape(_by_shape(given, notes))


def _by_params(given: Mapping[str, Any], notes: list[str]) -> PlannedModel:
    params = quantity("--params", given["params"], "parameters", most=MOST_PARAMS)
    if params < 1000:
        raise FlagError(
            f"--params = {given['params']!r}: {params:g} parameters is absurd; write 1.5B or 1.5e9."
        )
    active = params
    if given["active_params"] is not None:
        active = quantity("--active-params", given["active_params"], "parameters", most=MOST_PARAMS)
        if active > params:
            raise FlagError(
                f"--active-params = {given['active_params']!r}: expected at most --params."
            )
    length = _sequence_length(given) if given["seq_len"] is not None else None
    if given["vocab"] is not None:
        notes.append("--vocab has no effect with --params: it is part of the number given")
    model = PlannedModel.of_params(params, active, length)
    shape = model.shape
    notes.append(
        f"only --params is known: hours by 6N; exact FLOPs and memory for a typical decoder of "
        f"{shape.n_layers} layers, d_model {shape.d_model:,}, sequence length "
        f"{shape.sequence_length:,}"
    )
    return model


def _sequence_length(given: Mapping[str, Any]) -> int:
    return whole("--seq-len", given["seq_len"], "tokens", most=1e8)


def _by_shape(given: Mapping[str, Any], notes: list[str]) -> PlannedShape:
    def size(name: str, unit: str, default: int | None, most: float = _MOST_WIDTH) -> int | None:
        text = given[name]
        return default if text is None else whole(flag(name), text, unit, most=most)

    layers = whole("--layers", given["layers"], "layers", most=_MOST_LAYERS)
    width = whole("--d-model", given["d_model"], "features", most=_MOST_WIDTH)
    head_dim = size("head_dim", "features", None)
    d_ff = size("d_ff", "features", None)
    style = given["style"] or "auto"
    if style == "auto":
        # Gated MLPs of the Llama kind are narrower than 4·d, to have as many parameters.
        narrow = d_ff is not None and d_ff != 4 * width
        style = "llama" if narrow and not given["encoder"] else "gpt"
        if given["mlp"] is None:
            notes.append(
                f"--style {style} assumed ({_style_words(style)}), since "
                f"d_ff {'is not' if style == 'llama' else 'is'} 4 x d_model"
            )
    fields = dict(_STYLES[style])
    if given["mlp"] is not None:
        fields["mlp"] = MLP_KINDS[given["mlp"]]
    for name, key in (("norm", "norm"), ("bias", "use_bias"), ("tied", "tie_embeddings")):
        if given[name] is not None:
            fields[key] = given[name]
    positions = given["positions"]
    if positions is not None:
        fields["positions"] = "learned" if positions == "learned" else "rope"
    if d_ff is None:
        d_ff = 4 * width
        if fields["mlp"] == "swiglu":  # two thirds of 4·d, in multiples of 256 (LLaMA 1)
            d_ff = -(-8 * width // (3 * 256)) * 256
        notes.append(f"--d-ff {d_ff:,} assumed")
    heads = size("heads", "heads", None)
    if heads is None:
        heads = max(1, width // (head_dim or (128 if width >= 2048 else 64)))
        notes.append(f"--heads {heads} assumed")
    vocab, length = size("vocab", "entries", None), None
    if vocab is None:
        vocab = TYPICAL_VOCAB_SIZE
        notes.append(f"--vocab {vocab:,} assumed")
    if given["seq_len"] is not None:
        length = _sequence_length(given)
    else:
        length = TYPICAL_SEQUENCE_LENGTH
        notes.append(f"--seq-len {length:,} assumed")
    share = given["encoder_token_share"]
    if share is not None and given["encoder_layers"] is None:
        raise FlagError("--encoder-token-share needs --encoder-layers.")
    encoder_layers = 0
    if given["encoder_layers"] is not None:
        encoder_layers = whole(
            "--encoder-layers", given["encoder_layers"], "layers", most=_MOST_LAYERS
        )
        if given["encoder"]:
            raise FlagError("--encoder contradicts --encoder-layers, an encoder beside a decoder.")
    experts, active = size("experts", "experts", 1), size("experts_per_token", "experts", None)
    assert experts is not None
    if experts > 1 and active is None:
        raise FlagError("--experts needs --experts-per-token: how many experts a token passes.")
    if active is not None and active > experts:
        raise FlagError(f"--experts-per-token = {active}: expected at most --experts = {experts}.")
    try:
        return PlannedShape(
            n_layers=layers,
            d_model=width,
            n_heads=heads,
            n_kv_heads=size("kv_heads", "heads", None),
            d_ff=d_ff,
            vocab_size=vocab,
            sequence_length=length,
            head_width=head_dim,
            n_experts=experts,
            n_active_experts=active or 1,
            n_encoder_layers=encoder_layers,
            encoder_token_share=share if share is not None else 0.5,
            relative_positions=positions == "relative",
            causal=not given["encoder"],
            **fields,
        )
    except ValueError as error:
        raise FlagError(_in_flags(str(error))) from None


def _style_words(style: str) -> str:
    return {
        "gpt": "GELU, layer norm, learned positions, biases, tied embeddings",
        "llama": "SwiGLU, RMS norm, RoPE, no biases, untied embeddings",
    }[style]


_FLAG_OF_FIELD = {
    "ModelShape.n_kv_heads": "--kv-heads",
    "ModelShape.n_heads": "--heads",
    "PlannedShape.": "--",
    "n_heads": "--heads",
    "d_model": "--d-model",
}


def _in_flags(message: str) -> str:
    """A shape's complaint in the words of the command line."""
    for field, name in _FLAG_OF_FIELD.items():
        message = message.replace(field, name)
    return message
