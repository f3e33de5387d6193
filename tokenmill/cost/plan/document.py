"""A plan as one JSON document; docs/cost.md describes the keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tokenmill.contracts.ladder import LadderLoss
from tokenmill.cost.flops import flops_per_token, six_n
from tokenmill.cost.guidance import guidance
from tokenmill.cost.plan.budget_to_model import Affordable
from tokenmill.cost.plan.chip_ranking import ChipLine
from tokenmill.cost.plan.planning import Plan, PlanRequest
from tokenmill.cost.pricing import SECONDS_PER_HOUR, usd_per_million_tokens

SCHEMA = "tokenmill-plan-1"
GIB = 2**30
# A key of the document as it has always been spelled: scripts read it.
_PART_KEYS = {"optimizer": "optimiser"}

# A plan that spends the whole budget comes out this much above it, as a share, at most.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class PlanLimit:
    """A limit of [budget] beside what is planned, both in the key's unit: USD or hours.

    Attributes:
        key: Name of the limit.
        limit: The most.
        likely: What the plan comes to.
        worst: What it comes to at the worst published utilization.
    """

    key: str
    limit: float
    likely: float
    worst: float

    @property
    def within(self) -> bool:
        """Whether what is likely is at most the limit."""
        return self.likely <= self.limit * (1 + _ROUNDING)


@dataclass(frozen=True, kw_only=True)
class PlanAnswer:
    """A plan and what else was asked.

    Attributes:
        plan: The plan.
        warnings: What was assumed, and what is odd about the input.
        affordable: What the budget buys.
        budget_usd: The budget, USD of compute; None without one.
        max_usd: budget.max_usd, the limit of a run of this configuration; None without one.
        max_hours: budget.max_hours, likewise, of wall time.
        comparison: The same run on other chips.
        plot: The file of the drawing; None without one.
    """

    plan: Plan
    warnings: list[str] = field(default_factory=list)
    affordable: list[Affordable] = field(default_factory=list)
    budget_usd: float | None = None
    max_usd: float | None = None
    max_hours: float | None = None
    comparison: list[ChipLine] = field(default_factory=list)
    plot: str | None = None

    @property
    def usd_over_budget(self) -> float:
        """USD of compute beyond the budget, rounding apart; 0 within it, or without one."""
        over = self.plan.cost.compute_usd - (self.budget_usd or 0.0)
        return over if self.budget_usd and over > _ROUNDING * self.budget_usd else 0.0

    @property
    def limits(self) -> list[PlanLimit]:
        """Limits of the configuration's [budget], each with what is planned."""
        bills = (self.plan.cost, self.plan.cost_high)
        asked = (
            ("budget.max_usd", self.max_usd, [bill.compute_usd for bill in bills]),
            ("budget.max_hours", self.max_hours, [bill.wall_hours for bill in bills]),
        )
        return [
            PlanLimit(key=key, limit=limit, likely=values[0], worst=values[1])
            for key, limit, values in asked
            if limit is not None
        ]

    @property
    def is_over_a_limit(self) -> bool:
        """Whether what is likely is over a limit: a run's estimate would stop there."""
        return any(not limit.within for limit in self.limits)


def _gib(size: float) -> float:
    return size / GIB


def model_document(plan: Plan) -> dict[str, Any]:
    """Return parameters and FLOPs per token, by part where the shape is known."""
    model = plan.request.model
    shape = model.shape
    document: dict[str, Any] = {
        "params_total": model.params_total,
        "params_active": model.params_active,
        "params_trained": model.params_trained,
        "flops_per_token_6n": model.flops_per_token_6n,
        "flops_per_token_exact": model.flops_per_token_exact,
        "exact_is_approximate": model.shape_assumed,
        "shape": {
            "layers": shape.layers,
            "d_model": shape.d_model,
            "heads": shape.heads,
            "kv_heads": shape.key_value_heads,
            "head_dim": shape.head_width,
            "d_ff": shape.d_ff,
            "vocab": shape.vocab_size,
            "seq_len": shape.sequence_length,
            "mlp": shape.mlp,
            "norm": shape.norm,
            "positions": shape.positions,
            "use_bias": shape.use_bias,
            "tied": shape.tie_embeddings,
            "causal": shape.causal,
            "assumed": model.shape_assumed,
        },
    }
    if not model.shape_assumed:
        parts = shape.params_by_part()
        count = flops_per_token(shape, recompute=plan.request.recompute, lora=model.lora)
        document["params_by_part"] = parts
        document["embedding_share"] = parts["token_embedding"] / shape.params_total
        document["flops_per_token_6n_in_products"] = six_n(shape, model.lora).in_products
        document["flops_per_token_forward_by_part"] = count.forward_by_part()
        document["flops_per_token_hardware"] = count.training_hardware
    return document


def guidance_document(plan: Plan) -> dict[str, Any]:
    """Return optimum, expected loss, repetition and the goal's tokens, each with its source."""
    request = plan.request
    return guidance(
        params_total=request.model.params_total,
        params_active=request.model.params_active,
        flops_6n=request.model.flops_per_token_6n * request.tokens,
        effective_tokens=request.effective_tokens,
        epochs=request.epochs,
        goal=request.goal,
        ladder=_by_ladder(request),
    ).to_json()


def _by_ladder(request: PlanRequest) -> LadderLoss | None:
    """Predict the plan by its text's ladder; None without one."""
    if request.law is None:
        return None
    # NumPy and SciPy, which no other plan needs.
    from tokenmill.cost.ladder_fit import expected_by_ladder, why_no_ladder

    model = request.model
    return expected_by_ladder(
        request.law,
        params=model.shape.params_in_products,
        params_active=model.params_active,
        effective_tokens=request.effective_tokens,
        vocab_size=model.shape.vocab_size,
        sparse=model.is_sparse,
        why_not=why_no_ladder(model.shape.head, model.lora is not None),
    )


def plan_document(answer: PlanAnswer) -> dict[str, Any]:
    """Return the whole answer as JSON has it; money is null where there is no price."""
    plan = answer.plan
    request, hardware, cost = plan.request, plan.request.hardware, plan.cost
    priced = hardware.price_usd_per_chip_hour is not None

    def money(usd: float) -> float | None:
        return usd if priced else None

    model = request.model
    room = hardware.memory_bytes
    checkpoints = plan.checkpoints
    document: dict[str, Any] = {
        "schema": SCHEMA,
        **model_document(plan),
        "tokens": request.tokens,
        "unique_tokens": request.unique_tokens,
        "epochs": request.epochs,
        "effective_tokens": request.effective_tokens,
        "total_flops_6n": model.flops_per_token_6n * request.tokens,
        "total_flops_exact": model.flops_per_token_exact * request.tokens,
        "flops_basis": request.basis,
        "hardware": hardware.chip.slug,
        "chips": hardware.chips,
        "peak_flops_per_second_per_chip": hardware.peak_flops_per_second,
        "mfu": plan.mfu,
        "hfu": plan.hfu,
        "mfu_source": plan.mfu_source,
        "mfu_low": plan.utilization.low if plan.utilization else plan.mfu,
        "mfu_high": plan.utilization.high if plan.utilization else plan.mfu,
        "mfu_runs": list(plan.utilization.runs) if plan.utilization else [],
        "goodput": hardware.goodput,
        "tokens_per_second": plan.tokens_per_second,
        "chip_hours": cost.chip_hours,
        "chip_hours_low": plan.cost_low.chip_hours,
        "chip_hours_high": plan.cost_high.chip_hours,
        "wall_hours": cost.wall_hours,
        "wall_hours_low": plan.cost_low.wall_hours,
        "wall_hours_high": plan.cost_high.wall_hours,
        "price_usd_per_chip_hour": hardware.price_usd_per_chip_hour,
        "price_source": hardware.price_label,
        "compute_usd": money(cost.compute_usd),
        "compute_usd_low": money(plan.cost_low.compute_usd),
        "compute_usd_high": money(plan.cost_high.compute_usd),
        "hidden_cost_multiplier_low": request.hidden_multiplier_low,
        "hidden_cost_multiplier_high": request.hidden_multiplier_high,
        "total_usd_low": money(cost.total_usd_low),
        "total_usd_high": money(cost.total_usd_high),
        "usd_per_million_effective_tokens": money(
            usd_per_million_tokens(cost.compute_usd, request.effective_tokens)
        ),
        "storage_usd": plan.storage_usd,
        "network_usd": plan.network_usd,
        "precision": hardware.precision,
        "recompute": request.recompute,
        "strategy": request.strategy,
        "sequences_per_copy": request.sequences_per_copy,
        "memory_gib_per_chip": _gib(plan.memory.total),
        "memory_gib_by_part": {
            _PART_KEYS.get(part, part): _gib(size) for part, size in plan.memory.by_part().items()
        },
        "checkpoint_copy_gib": _gib(plan.checkpoint_copy_bytes),
        "chip_memory_gib": _gib(room) if room else None,
        "sent_gib_per_step": _gib(plan.network.sent_bytes),
        "chips_per_machine": plan.network.chips_per_machine,
        "between_machines_gib_per_step": _gib(plan.network.between.sent_bytes)
        if plan.network.chips_per_machine
        else None,
        "network_seconds_per_step": plan.network.seconds,
        "compute_seconds_per_step": plan.network.step_seconds,
        "memory_by_strategy": [
            {
                "strategy": fit.strategy,
                "gib_per_chip": _gib(fit.bytes_per_chip),
                "fits": fit.fits,
                "smallest_chips": fit.smallest_chips,
                "runnable": fit.runnable,
                "sent_gib_per_step": _gib(fit.sent_bytes_per_step),
                "between_machines_gib_per_step": None
                if fit.between_machines_bytes_per_step is None
                else _gib(fit.between_machines_bytes_per_step),
            }
            for fit in plan.fits
        ],
        "checkpoints": None
        if checkpoints is None
        else {
            "bytes": checkpoints.checkpoint_bytes,
            "write_seconds": checkpoints.write_seconds,
            "mtbf_hours": checkpoints.mtbf_seconds / SECONDS_PER_HOUR,
            "interval_seconds_young": checkpoints.young_seconds,
            "interval_seconds": checkpoints.interval_seconds,
            "expected_failures": checkpoints.expected_failures,
            "lost_hours": checkpoints.lost_seconds / SECONDS_PER_HOUR,
            "goodput": checkpoints.goodput,
            "disk_bytes": checkpoints.disk_bytes,
            "reference": "Daly 2006, eq. 37; mean time between failures as in Llama 3 (2024), "
            "sec. 3.3.4, unless given",
        },
        "guidance": guidance_document(plan),
        "warnings": answer.warnings,
    }
    if answer.budget_usd is not None:
        document["budget_usd"] = answer.budget_usd
        document["within_budget"] = answer.usd_over_budget == 0 if priced else None
        document["affordable"] = [affordable_document(line) for line in answer.affordable]
    if limits := answer.limits:
        document["limits"] = [{**asdict(limit), "within": limit.within} for limit in limits]
    if answer.comparison:
        document["comparison"] = [asdict(line) for line in answer.comparison]
    if answer.plot:
        document["plot"] = answer.plot
    return document


def affordable_document(line: Affordable) -> dict[str, Any]:
    """Return what a budget buys, with a typical shape of that size."""
    shape = line.shape
    return {
        **asdict(line),
        "tokens_per_param": line.tokens_per_param,
        "typical_shape": {
            "layers": shape.layers,
            "d_model": shape.d_model,
            "heads": shape.heads,
        },
    }
