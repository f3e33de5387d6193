"""The flags of `tokenmill plan` as they were given, and the keys that former flags have become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.plan.units import FlagError, number

if TYPE_CHECKING:
    from tokenmill.cost.flops import Recompute
    from tokenmill.cost.sharding import Strategy
    from tokenmill.cost.utilization import FlopsBasis


@dataclass(frozen=True, kw_only=True)
class PlanFlags:
    """Flags by name, None where one was not given; units as in `tokenmill plan --help`."""

    preset: str | None
    config_path: str | None
    overrides: tuple[str, ...]
    params: float | None
    active_params: float | None
    lora_rank: int | None
    tokens: float | None
    text_bytes: float | None
    bytes_per_token: float | None
    epochs: float | None
    hardware: str | None
    chips: int | None
    mfu: float | None
    hfu: float | None
    tflops_per_chip: float | None
    observed_tokens_per_second: float | None
    goodput: float | None
    recompute: Recompute | None
    strategy: Strategy | None
    flops_basis: FlopsBasis | None
    price_per_chip_hour: float | None
    price_date: str | None
    price_from: str | None
    budget_usd: float | None
    ladder: str | None
    compare: bool
    plot: str | None


# Former flags that have their key's name.
_KEPT_NAMES = {
    "model": "layers d-model heads kv-heads head-dim d-ff style mlp norm positions encoder-layers "
    "encoder-token-share experts experts-per-token",
    "cost": "goal storage-usd-per-gb-month network-usd-per-gb chip-mtbf-hours",
    "train": "precision",
}
# The key of each former flag, or the whole of what --set takes.
_KEYS = {
    **{
        f"--{name}": f"{section}.{name.replace('-', '_')}"
        for section, names in _KEPT_NAMES.items()
        for name in names.split()
    },
    "--vocab": "tokenizer.vocab_size",
    "--seq-len": "model.sequence_length",
    "--bias": "model.use_bias=true",
    "--no-bias": "model.use_bias=false",
    "--tied": "model.tie_embeddings=true",
    "--untied": "model.tie_embeddings=false",
    "--encoder": "model.causal=false",
    "--peak-tflops": "cost.peak_flops_per_second_per_chip",
    "--batch-size": "train.global_batch_size",
    "--hidden-cost-low": "cost.hidden_cost_multiplier_low",
    "--hidden-cost-high": "cost.hidden_cost_multiplier_high",
    "--checkpoint-write-gb-per-second": "cost.checkpoint_bytes_per_second",
    "--checkpoints-kept": "execution.keep_checkpoints",
}
_FACTORS = {"--peak-tflops": 1e12, "--checkpoint-write-gb-per-second": 1e9}
_GOALS = {
    "fine-tune": "fine_tune",
    "domain-adapt": "domain_adaptive",
    "from-scratch": "from_scratch",
}


def check_former_flags(arguments: Sequence[str]) -> None:
    """Refuse a flag that has become a key.

    Args:
        arguments: The command line.

    Raises:
        FlagError: There is one; the message says what to write instead.
    """
    for place, argument in enumerate(arguments):
        flag, sign, value = argument.partition("=")
        if flag not in _KEYS:
            continue
        if not sign and place + 1 < len(arguments):
            value = arguments[place + 1]
        raise FlagError(f"{flag}: now --set {override_of(flag, value)}")


def override_of(flag: str, value: str = "") -> str:
    """Return what --set takes in place of a former flag and its value."""
    key = _KEYS[flag]
    if "=" in key:
        return key
    factor = _FACTORS.get(flag)
    if factor is not None and (amount := number(value)) is not None:
        value = f"{amount * factor:.12g}"
    return f"{key}={_GOALS.get(value, value)}"
