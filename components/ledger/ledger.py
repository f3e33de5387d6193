"""The ledger as one JSON document: funnel, FLOPs, memory, time and money before training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.errors import TokenmillError
from components.ledger.flops import flops_per_token, six_n
from components.ledger.funnel import build_funnel
from components.ledger.memory import estimate_memory
from components.ledger.money import estimate_cost
from components.ledger.scaling import chinchilla_optimal_tokens
from components.model_shape import ModelShape
from components.train.plan import plan_steps

SCHEMA = "tokenmill-ledger-1"


@dataclass(frozen=True)
class LedgerSettings:
    """Model, training plan and price; keys and units as in the configuration."""

    shape: dict[str, Any]
    precision: str
    global_batch_size: int
    epochs: float
    max_steps: int | None
    chip: str
    chips: int
    peak_flops_per_second_per_chip: float | None
    mfu: float
    goodput: float
    price_usd_per_chip_hour: float
    price_source: str
    hidden_cost_multiplier_low: float
    hidden_cost_multiplier_high: float
    budget_usd: float | None


def build_ledger(
    ingest: Mapping[str, Any],
    curation: Mapping[str, Any],
    packed: Mapping[str, Mapping[str, Any]],
    settings: LedgerSettings,
    peak_flops_per_second_per_chip: float,
) -> dict[str, Any]:
    """The whole estimate. FLOPs are those of all slots, padding included: padding is computed too.

    Args:
        ingest: Counts of ingest.
        curation: Counts of curation.
        packed: Manifest of the packed rows by split.
        settings: What is to be trained, on what, at what price.
        peak_flops_per_second_per_chip: From the settings, the catalogue or a measurement.
    """
    shape = ModelShape(**settings.shape)
    rows = packed["train"]["rows"]
    plan = plan_steps(rows, settings.global_batch_size, settings.epochs, settings.max_steps)
    funnel = build_funnel(ingest, curation, packed, plan.epochs)
    slots = plan.rows_read * shape.sequence_length
    token_flops = flops_per_token(shape)
    effective = funnel["total"]["train"]["effective_tokens"]
    cost = estimate_cost(
        total_flops=token_flops.training * slots,
        effective_tokens=effective,
        chips=settings.chips,
        peak_flops_per_second=peak_flops_per_second_per_chip,
        mfu=settings.mfu,
        price_usd_per_chip_hour=settings.price_usd_per_chip_hour,
        goodput=settings.goodput,
        hidden_multiplier_low=settings.hidden_cost_multiplier_low,
        hidden_multiplier_high=settings.hidden_cost_multiplier_high,
    )
    memory = estimate_memory(
        shape,
        batch_per_device=max(1, settings.global_batch_size // settings.chips),
        precision="mixed_bfloat16" if settings.precision == "mixed_bfloat16" else "float32",
        dropout=False,
    )
    params = shape.params_by_part()
    return {
        "schema": SCHEMA,
        "funnel": funnel,
        "packing": {
            split: {
                name: manifest[name]
                for name in ("rows", "slots", "padding_slots", "segments", "stored_bytes", "tokens")
            }
            for split, manifest in packed.items()
        },
        "model": {
            "params_total": shape.params_total,
            "params_by_part": params,
            "embedding_share": params["token_embedding"] / shape.params_total,
            "memory_bytes_by_part": memory.by_part(),
            "memory_bytes_per_chip": memory.total,
        },
        "training": {
            "steps": plan.steps,
            "epochs": plan.epochs,
            "slots": slots,
            "effective_tokens": effective,
            "chinchilla_optimal_tokens": chinchilla_optimal_tokens(shape.params_total),
        },
        "flops": {
            "per_token_6n": six_n(shape).total,
            "per_token_exact": token_flops.training,
            "total_6n": six_n(shape).total * slots,
            "total_exact": cost.total_flops,
            "note": "exact: all matrix products, attention scores in full (PaLM appendix B)",
        },
        "hardware": {
            "chip": settings.chip,
            "chips": settings.chips,
            "peak_flops_per_second_per_chip": peak_flops_per_second_per_chip,
            "mfu": settings.mfu,
            "goodput": settings.goodput,
        },
        "cost": {
            **asdict(cost),
            "price_usd_per_chip_hour": settings.price_usd_per_chip_hour,
            "price_source": settings.price_source,
            "budget_usd": settings.budget_usd,
        },
    }


def check_budget(ledger: Mapping[str, Any]) -> None:
    """The budget gate.

    Raises:
        TokenmillError: The estimated compute costs more than the budget.
    """
    cost = ledger["cost"]
    budget = cost["budget_usd"]
    if budget is not None and cost["compute_usd"] > budget:
        raise TokenmillError(
            f"the run would cost {usd(cost['compute_usd'])} of compute "
            f"({cost['chip_hours']:,.2f} chip-hours at {usd(cost['price_usd_per_chip_hour'])} an "
            f"hour for {ledger['training']['effective_tokens']:,.0f} effective tokens), more than "
            f"budget.max_usd = {usd(budget)}; nothing was trained.",
            "Raise the budget, or lower train.epochs, the model's size or the corpus.",
        )


def usd(amount: float) -> str:
    """An amount with as many digits as it needs: $1,234, $1.23, $0.00123."""
    if amount >= 1000:
        return f"${amount:,.0f}"
    if amount >= 0.1 or amount == 0:
        return f"${amount:,.2f}"
    return f"${amount:.3g}"
