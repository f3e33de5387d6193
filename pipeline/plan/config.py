"""The configuration of a plan: a preset or a file, or what --set says alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from components.tokenize.config import TokenizerConfig
from pipeline.config import Config
from pipeline.loader import adapts, build_config, check_adapted, read_values, take_base_model
from pipeline.plan.flags import PlanFlags
from pipeline.plan.units import FlagError, number
from tokenmill.cost.plan.planned_model import PlannedModel
from tokenmill.errors import TokenmillError
from tokenmill.model.config import EXPERTS_PER_TOKEN, HEADS, ModelConfig
from tokenmill.model.typical_shape import (
    TYPICAL_SEQUENCE_LENGTH,
    TYPICAL_VOCAB_SIZE,
    PlannedShape,
)
from tokenmill.number_format import approximate

DEFAULT_CHIP = "a100-sxm4-80gb"
# Numbers of these sections may be written as flags' are, such as 1.5K or 40%; more than these is a
# slip of the keyboard.
_SECTIONS = ("model", "tokenizer", "train", "execution", "cost")
_LENGTH = "model.sequence_length"
_RANK = "train.lora_rank"
_MOST_OF_A_MODEL = 1e7
_MOST = {
    "model.layers": 1e4,
    "model.encoder_layers": 1e4,
    _LENGTH: 1e8,
    "tokenizer.vocab_size": 1e7,
    "train.global_batch_size": 1e9,
    "execution.keep_checkpoints": 1e6,
    "cost.chips": 1e7,
    "cost.peak_flops_per_second_per_chip": 1e18,
    "cost.price_usd_per_chip_hour": 1e4,
    "cost.hidden_cost_multiplier_low": 1e3,
    "cost.hidden_cost_multiplier_high": 1e3,
    "cost.storage_usd_per_gb_month": 1e3,
    "cost.network_usd_per_gb": 1e3,
    "cost.checkpoint_bytes_per_second": 1e15,
    "cost.chip_mtbf_hours": 1e12,
}
# Keys of a run that a plan follows from; None for all of a section but _UNPLANNED_KEYS.
_PLANNED_KEYS: dict[str, set[str] | None] = {
    "model": None,
    "cost": None,
    "tokenizer": {"vocab_size"},
    "pack": {"mask_rate"},
    "execution": {"keep_checkpoints"},
    "budget": {"max_usd", "max_hours"},
    "train": {
        *("task", "precision", "dropout", "rematerialize", "global_batch_size"),
        *("accumulation_steps", "lora_rank", "lora_targets", "lora_dropout"),
    },
}
_UNPLANNED_KEYS = {"cost.price_date", "cost.storage_months"}
# What a style implies. auto goes by the MLP: GPT-2 and 3, BERT and Pythia have 4·d.
_STYLE_KEYS = ("mlp", "norm", "positions", "use_bias", "tie_embeddings")
_STYLES = {
    "gpt": ("gelu", "layer", "learned", True, True),
    "llama": ("swiglu", "rms", "rope", False, False),
}
_STYLE_WORDS = {
    "gpt": "GELU, layer norm, learned positions, biases, tied embeddings",
    "llama": "SwiGLU, RMS norm, RoPE, no biases, untied embeddings",
}
_GATED = ("swiglu", "geglu", "reglu")
# Keys of [model] that are no fields of a shape, or not by that name and value.
_OWN_KEYS = {"base_model", "style", "causal", "mlp", "positions"}
# Keys of [model] that mean something without a shape.
_SAY_NO_SHAPE = {"style", "sequence_length", "base_model"}


class PlanModel(ModelConfig):
    """[model] of a plan: the keys of a run, and what published models have beside them."""

    style: Literal["auto", "gpt", "llama"] | None = None
    """What is assumed for keys that are not set; auto, which holds without a preset or file, goes
    by d_ff / d_model. None assumes nothing: keys have the defaults of a run."""
    causal: bool | None = None
    """Whether a token attends to earlier tokens only; None goes by train.task."""
    sequence_length: Annotated[int, Field(ge=1)] = 256
    mlp: Literal["gelu", "gelu_exact", "relu", "squared-relu", "swiglu", "geglu", "reglu"] = "gelu"  # type: ignore[assignment]
    """gelu_exact, relu and squared-relu count as gelu, geglu and reglu as swiglu."""
    positions: Literal["rope", "learned", "alibi", "sinusoidal", "none", "relative"] = "rope"  # type: ignore[assignment]
    """learned is a table, relative (Transformer-XL) a matrix a layer, the others are free."""
    encoder_layers: Annotated[int, Field(ge=0)] = 0
    """Layers of an encoder beside the decoder (T5)."""
    encoder_token_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the tokens that this encoder reads."""


class PlanTokenizer(TokenizerConfig):
    """[tokenizer] of a plan, whose vocabulary need not be one that can be trained here."""

    vocab_size: Annotated[int, Field(ge=1)] = 8192


class PlanConfig(Config):
    """The configuration of a run, with what else can be planned."""

    model: PlanModel = PlanModel()
    tokenizer: PlanTokenizer = PlanTokenizer()

    def _check_lora(self) -> None:
        """Check nothing: a plan starts from no weights, and its shape may be none of the keys."""

    def shape(self, notes: list[str] | None = None) -> PlannedShape:
        """Return the shape of the model.

        Args:
            notes: What was assumed is added here.

        Raises:
            ValueError: It is impossible; the message names the key.
        """
        notes = [] if notes is None else notes
        model, vocab_size = self.model, self.tokenizer.vocab_size
        causal = self.train.task == "causal-lm" if model.causal is None else model.causal
        if model.style is not None:
            given = model.model_fields_set
            missing = [key for key in ("layers", "d_model") if key not in given]
            if missing and given - _SAY_NO_SHAPE:
                raise ValueError(f"model.{missing[0]} is missing: --set it, too")
            model = _filled(model, causal, notes)
            if "vocab_size" not in self.tokenizer.model_fields_set:
                vocab_size = TYPICAL_VOCAB_SIZE
                notes.append(f"tokenizer.vocab_size {vocab_size:,} assumed")
            if "sequence_length" not in self.model.model_fields_set:
                notes.append(f"model.sequence_length {model.sequence_length:,} assumed")
        given = model.model_fields_set
        if model.experts > 1 and "experts_per_token" not in given:
            notes.append(f"model.experts_per_token {EXPERTS_PER_TOKEN} assumed")
        if "encoder_token_share" in given and not model.encoder_layers:
            raise ValueError("model.encoder_token_share needs model.encoder_layers")
        if model.causal is False and model.encoder_layers:
            raise ValueError(
                "model.causal = false contradicts model.encoder_layers, an encoder beside a decoder"
            )
        return PlannedShape(
            vocab_size=vocab_size,
            positions="learned" if model.positions == "learned" else "rope",
            relative_positions=model.positions == "relative",
            mlp="swiglu" if model.mlp in _GATED else "gelu",
            causal=causal,
            head=HEADS[self.train.task],
            **model.shape_keys(_OWN_KEYS),
        )


def _filled(model: PlanModel, causal: bool, notes: list[str]) -> PlanModel:
    """Return a model in which what is not set is as usual in its style."""
    given, width = model.model_fields_set, model.d_model
    style = model.style
    if style == "auto":
        # Gated MLPs of the Llama kind are narrower than 4·d, to have as many parameters.
        narrow = "d_ff" in given and model.d_ff != 4 * width
        style = "llama" if narrow and causal else "gpt"
        if "mlp" not in given:
            notes.append(
                f"model.style {style} assumed ({_STYLE_WORDS[style]}), since "
                f"d_ff {'is not' if style == 'llama' else 'is'} 4 x d_model"
            )
    assert style is not None
    usual: dict[str, Any] = dict(zip(_STYLE_KEYS, _STYLES[style], strict=True))
    usual["sequence_length"] = TYPICAL_SEQUENCE_LENGTH
    if "d_ff" not in given:
        usual["d_ff"] = 4 * width
        if (model.mlp if "mlp" in given else usual["mlp"]) in _GATED:
            usual["d_ff"] = -(-8 * width // (3 * 256)) * 256  # two thirds of 4·d (LLaMA 1)
        notes.append(f"model.d_ff {usual['d_ff']:,} assumed")
    if "heads" not in given:
        usual["heads"] = max(1, width // (model.head_dim or (128 if width >= 2048 else 64)))
        notes.append(f"model.heads {usual['heads']} assumed")
    return model.model_copy(update={key: usual[key] for key in usual.keys() - given})


@dataclass(frozen=True, kw_only=True)
class PlanInput:
    """The configuration of a plan and where it is from.

    Attributes:
        config: The configuration.
        named: Whether a preset or a file gives it; otherwise --set does alone.
        given: The keys that --set gives.
        of_base: Whether the shape is that of model.base_model.
    """

    config: PlanConfig
    named: bool
    given: frozenset[str]
    of_base: bool

    def states(self, key: str) -> bool:
        """Return whether a key is said at all, and not a default that a plan must not take."""
        return self.named or key in self.given


def load_plan_input(flags: PlanFlags, notes: list[str]) -> PlanInput:
    """Build the configuration from --preset, --config, --lora-rank and --set.

    Args:
        flags: The flags.
        notes: Keys that change nothing are added here.

    Raises:
        FlagError: A flag contradicts another, or the configuration is wrong.
    """
    overrides = [*_lora_rank(flags), *(_plain(override) for override in flags.overrides)]
    given = frozenset(override.partition("=")[0].strip() for override in overrides)
    named = flags.preset is not None or flags.config_path is not None
    where = "--preset" if flags.config_path is None else "--config"
    if flags.preset is not None and flags.config_path is not None:
        raise FlagError("--preset contradicts --config: give one.")
    for flag, value in (("--params", flags.params), ("--active-params", flags.active_params)):
        if named and value is not None:
            raise FlagError(
                f"{flag} contradicts {where}: change the model with --set, such as "
                "--set model.layers=24."
            )
    of_shape = sorted(key for key in given - {_LENGTH} if key.startswith("model."))
    if flags.params is not None and of_shape:
        raise FlagError(
            f"{of_shape[0]} contradicts --params: give the shape, from which the parameters "
            "follow, or their number alone."
        )
    try:
        if named:
            values, origin = read_values(flags.preset or "", flags.config_path)
            if flags.preset is not None:
                check_adapted(flags.preset, values, overrides)
        else:
            values = {"model": {}, "cost": {"chip": DEFAULT_CHIP, "chips": 1}}
            origin = "what a plan assumes"
        of_base = take_base_model(values, flags.config_path is not None, overrides)
        if not named and not of_base:
            values["model"]["style"] = "auto"
        config = build_config(PlanConfig, values, origin, overrides)
    except TokenmillError as error:
        blames_set = "(--set " in error.message
        message = f"{where}: {error.message}" if named and not blames_set else error.message
        raise FlagError(message, error.hint) from None
    if adapts(flags.preset) and not of_base:
        raise _unreadable(config)
    if of_base and flags.params is not None:
        raise FlagError("--params contradicts model.base_model, whose shape is known: give one.")
    if of_base and "sequence_length" not in values["model"]:
        notes.append(f"model.sequence_length {config.model.sequence_length:,} assumed")
    idle = sorted(key for key in given if not _has_effect(key, of_base))
    if idle:
        notes.append(f"no effect on a plan: {', '.join(idle)}")
    return PlanInput(config=config, named=named, given=given, of_base=of_base)


def _unreadable(config: PlanConfig) -> FlagError:
    return FlagError(
        f"model.base_model = {config.model.base_model}: there is no model that can be read.",
        "Give the directory of a pushed version, or of a Hugging Face checkpoint with its "
        "config.json: tokenmill import DIR says what is there.",
    )


def _lora_rank(flags: PlanFlags) -> list[str]:
    """Return the override that --lora-rank stands for; none without it.

    Raises:
        FlagError: --set gives the rank, too.
    """
    if flags.lora_rank is None:
        return []
    if any(override.partition("=")[0].strip() == _RANK for override in flags.overrides):
        raise FlagError(f"--lora-rank contradicts --set {_RANK}: give one.")
    return [f"{_RANK}={flags.lora_rank}"]


def _has_effect(key: str, of_base: bool) -> bool:
    if key == "model.base_model":
        return of_base
    section, _, name = key.partition(".")
    wanted = _PLANNED_KEYS.get(section, set())
    return key not in _UNPLANNED_KEYS and (wanted is None or name in wanted)


def _plain(override: str) -> str:
    """Return an override whose quantity, such as 1.5K or 40%, is a number as TOML has it.

    Raises:
        FlagError: It is no finite number, or absurd.
    """
    key, _, text = override.partition("=")
    section = key.strip().partition(".")[0]
    if section not in _SECTIONS:
        return override
    if text.strip().lower().lstrip("+-") in ("nan", "inf"):
        raise FlagError(f"--set {override}: expected a finite number.")
    value = number(text)
    if value is None:
        return override
    most = _MOST.get(key.strip(), _MOST_OF_A_MODEL if section == "model" else math.inf)
    if value > most or value == math.inf:
        raise FlagError(
            f"--set {override}: {approximate(value)} is absurd; at most "
            f"{approximate(most)} is allowed."
        )
    return f"{key}={int(value) if value == int(value) else repr(value)}"


def planned_model(flags: PlanFlags, source: PlanInput, notes: list[str]) -> PlannedModel | None:
    """Return the model that --params or the configuration describes.

    Args:
        flags: The flags.
        source: The configuration.
        notes: What was assumed is added here.

    Returns:
        The model; None if nothing is said of it and a budget is to find one.

    Raises:
        FlagError: A flag or key is missing or contradicts another.
    """
    if flags.params is not None:
        return _model_of_params(flags, flags.params, source, notes)
    if flags.active_params is not None:
        raise FlagError("--active-params needs --params; a shape's follow from model.experts.")
    lora = source.config.train.lora
    if source.states("model.layers") or source.of_base:
        return PlannedModel.of_shape(source.config.shape(notes), lora)
    if source.config.model.base_model is not None:
        raise _unreadable(source.config)
    if lora is not None:
        raise FlagError(
            f"train.lora_rank = {lora.rank}: adapters need a model: give --preset, --config, "
            "--params or --set model.base_model=DIR."
        )
    if flags.budget_usd is None:
        raise FlagError(
            "no model is given: give --preset, --config, --params, or --set model.layers=N and "
            "--set model.d_model=N."
        )
    return None


def _model_of_params(
    flags: PlanFlags, params: float, source: PlanInput, notes: list[str]
) -> PlannedModel:
    if params < 1000:
        raise FlagError(f"--params = {params:g}: this few is absurd; write 1.5B or 1.5e9.")
    if flags.active_params is not None and flags.active_params > params:
        raise FlagError(
            f"--active-params = {flags.active_params:g}: expected at most --params = {params:g}."
        )
    if "tokenizer.vocab_size" in source.given:
        notes.append(
            "tokenizer.vocab_size has no effect with --params: it is part of the number given"
        )
    length = source.config.model.sequence_length if _LENGTH in source.given else None
    model = PlannedModel.of_params(params, flags.active_params, length, source.config.train.lora)
    shape = model.shape
    notes.append(
        f"only --params is known: hours by 6N; exact FLOPs and memory for a typical decoder of "
        f"{shape.layers} layers, d_model {shape.d_model:,}, sequence length "
        f"{shape.sequence_length:,}"
    )
    return model
