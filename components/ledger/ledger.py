"""The ledger as one JSON document: funnel, FLOPs, memory, time and money before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.ledger.estimate import Hardware, RunEstimate, estimate_run
from components.ledger.footprint import memory_of, memory_section
from components.ledger.funnel import build_funnel
from components.ledger.savings import curation_savings
from components.ledger.settings import LedgerSettings
from tokenmill.contracts.packed_rows import PackedManifest
from tokenmill.cost.checkpoint_interval import plan_checkpoints
from tokenmill.cost.devices import MfuSource
from tokenmill.cost.flops import flops_per_token, six_n
from tokenmill.cost.guidance import guidance
from tokenmill.cost.memory import MemoryEstimate
from tokenmill.cost.pricing import CostEstimate
from tokenmill.model.shape import ModelShape
from tokenmill.rows.mixture import Mixture

SCHEMA = "tokenmill-ledger-3"
_BYTES_PER_GB = 1e9
_PACKING_KEYS = (
    "rows",
    "slots",
    "padding_slots",
    "context_slots",
    "segments",
    "stored_bytes",
    "tokens",
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured where training will run.

    Attributes:
        peak_flops_per_second_per_chip: From the settings, the catalog or a measurement.
        memory_bytes_per_device: None if unknown.
        calibration: calibration.json (components/train/calibrate.py); None without one.
    """

    peak_flops_per_second_per_chip: float
    memory_bytes_per_device: float | None = None
    calibration: Mapping[str, Any] | None = None


def build_ledger(
    ingest: Mapping[str, Any],
    curation: Mapping[str, Any],
    packed: Mapping[str, PackedManifest],
    settings: LedgerSettings,
    machine: Machine,
) -> dict[str, Any]:
    """The whole estimate. FLOPs are those of all slots, padding included: padding is computed too.

    Args:
        ingest: Counts of ingest.
        curation: Counts of curation.
        packed: Manifest of the packed rows by split.
        settings: What is to be trained, on what, at what price.
        machine: What was measured.

    Raises:
        UnbalancedLedgerError: Documents, bytes or tokens are missing between two steps.
    """
    shape = ModelShape(**settings.shape)
    hardware = hardware_of(settings, machine, shape)
    run = plan_run(shape, packed, settings, hardware, machine.calibration)
    epochs_by_source: dict[str, float] = {}
    mixture = mixture_of(packed["train"])
    if mixture is not None and packed["train"].source_weights:
        epochs_by_source = mixture.repetitions(run.plan.rows_read)
    funnel = build_funnel(ingest, curation, packed, run.plan.epochs, epochs_by_source)
    memory = memory_of(shape, settings, settings.devices)
    low, high = _cost_range(shape, packed, settings, hardware, machine.calibration)
    params = shape.params_by_part()
    price = settings.price.usd_per_chip_hour
    return {
        "schema": SCHEMA,
        "funnel": funnel,
        "packing": {
            split: {
                **{name: getattr(manifest, name) for name in _PACKING_KEYS},
                "loss_bearing_slots": manifest.loss_tokens,
            }
            for split, manifest in packed.items()
        },
        "model": {
            "params_total": shape.params_total,
            "params_by_part": params,
            "embedding_share": params["token_embedding"] / shape.params_total,
        },
        "memory": memory_section(shape, settings, machine.memory_bytes_per_device),
        "training": {
            "steps": run.plan.steps,
            "epochs": run.plan.epochs,
            "slots": run.slots,
            # Of the tokens that can be hidden, an epoch asks for this share (masked-lm).
            "loss_bearing_tokens": packed["train"].loss_tokens
            * run.plan.epochs
            * packed["train"].mask_rate,
            "effective_tokens": run.effective_tokens,
        },
        "flops": _flops(shape, run, settings),
        "hardware": {
            **asdict(hardware),
            **_utilization(shape, settings, machine, hardware),
            "calibration": machine.calibration and dict(machine.calibration),
        },
        "price": {
            **asdict(settings.price),
            "dated": bool(settings.price.date),
            "vcpu_usd_per_hour": settings.vcpu_price_usd_per_hour,
        },
        "forecast": {
            "seconds_by_phase": run.seconds_by_phase,
            "training_seconds": run.training_seconds,
            "total_seconds": run.cost.wall_seconds,
            "goodput": run.seconds_by_phase["steps"] / run.cost.wall_seconds,
        },
        "cost": {
            **asdict(run.cost),
            "wall_hours": run.cost.wall_hours,
            "wall_hours_low": low.wall_hours,
            "wall_hours_high": high.wall_hours,
            "chip_hours_low": low.chip_hours,
            "chip_hours_high": high.chip_hours,
            "compute_usd_low": low.compute_usd,
            "compute_usd_high": high.compute_usd,
            "hidden_usd_low": run.cost.hidden_usd_low,
            "hidden_usd_high": run.cost.hidden_usd_high,
            **_hosting(settings, memory.checkpoint_bytes, memory.weights, ingest, packed),
        },
        "checkpoints": _checkpoints(memory, run.seconds_by_phase["steps"], settings),
        "curation_saved": curation_savings(
            curation,
            funnel["total"]["bytes_per_token"],
            run,
            settings_epochs=settings.epochs,
            max_steps=settings.max_steps,
            rows_available=None if mixture is None else mixture.rows_available,
            chips=settings.chips,
            price_usd_per_chip_hour=price,
        ),
        "guidance": guidance(
            params_total=shape.params_total,
            params_active=shape.params_total,
            flops_6n=six_n(shape).total * run.slots,
            effective_tokens=run.effective_tokens,
            epochs=run.plan.epochs,
            goal=settings.goal,
        ),
        "budget": asdict(settings.budget),
    }


def hardware_of(settings: LedgerSettings, machine: Machine, shape: ModelShape) -> Hardware:
    """What computes, with the measured MFU where there is one.

    MFU is measured tokens/s x FLOPs a token over the peak of all chips (PaLM, appendix B).
    """
    peak = machine.peak_flops_per_second_per_chip
    mfu, _ = _mfu(settings, machine, shape)
    return Hardware(
        chip=settings.chip,
        chips=settings.chips,
        peak_flops_per_second=peak,
        mfu=mfu,
        goodput=settings.goodput,
        price_usd_per_chip_hour=settings.price.usd_per_chip_hour,
    )


def plan_run(
    shape: ModelShape,
    packed: Mapping[str, PackedManifest],
    settings: LedgerSettings,
    hardware: Hardware,
    calibration: Mapping[str, Any] | None,
) -> RunEstimate:
    """The estimate of the run that the settings describe."""
    mixture = mixture_of(packed["train"])
    return estimate_run(
        shape=shape,
        rows=packed["train"].rows,
        targets=packed["train"].loss_tokens,
        global_batch_size=settings.global_batch_size,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        hardware=hardware,
        overhead_seconds=overhead_seconds(
            calibration, packed["eval"].rows, settings.global_batch_size
        ),
        hidden_multipliers=(
            settings.hidden_cost_multiplier_low,
            settings.hidden_cost_multiplier_high,
        ),
        mixture=mixture,
        targets_by_source=targets_by_source(packed["train"]),
        slots_per_row=slots_per_row(packed["train"]),
    )


def slots_per_row(manifest: PackedManifest) -> float | None:
    """Mean width of a classifier's rows, slots; None of other tasks: the sequence length."""
    if manifest.task != "classification":
        return None
    return manifest.slots / manifest.rows


def mixture_of(manifest: PackedManifest) -> Mixture | None:
    """The sources' mixture of a packed split; None without weights and limits."""
    if not manifest.source_weights and manifest.max_repetitions is None:
        return None
    return Mixture.of(manifest)


def targets_by_source(manifest: PackedManifest) -> dict[str, int]:
    """Loss-bearing tokens of one pass over a packed split, by source."""
    return {source: counts.loss_tokens for source, counts in manifest.by_source.items()}


def overhead_seconds(
    calibration: Mapping[str, Any] | None, held_out_rows: int, global_batch_size: int
) -> dict[str, float]:
    """The trainer's phases besides the steps, from the calibration; nothing without one."""
    if calibration is None:
        return {}
    batches = -(-held_out_rows // global_batch_size)
    once = batches * calibration["evaluate_batch_seconds"]
    return {
        "start": calibration["start_seconds"],
        "build": calibration["build_seconds"],
        # The step that compiles also trains, and the steps have it already.
        "compile": max(0.0, calibration["compile_seconds"] - calibration["step_seconds"]),
        "evaluate_before": calibration["evaluate_compile_seconds"] + once,
        "evaluate_after": once,
    }


def _mfu(settings: LedgerSettings, machine: Machine, shape: ModelShape) -> tuple[float, MfuSource]:
    calibrated = None
    if machine.calibration is not None:
        rate = machine.calibration["tokens_per_second"] * flops_per_token(shape).training
        calibrated = rate / (machine.peak_flops_per_second_per_chip * settings.chips)
    return settings.expected_mfu(calibrated)


def _utilization(
    shape: ModelShape, settings: LedgerSettings, machine: Machine, hardware: Hardware
) -> dict[str, Any]:
    """Where the MFU comes from, its range where it is of published runs, and the HFU."""
    _, source = _mfu(settings, machine, shape)
    published = settings.published_mfu if source == "published" else None
    count = flops_per_token(shape, recompute=settings.recompute)
    return {
        "mfu_source": source,
        "mfu_low": published.low if published else hardware.mfu,
        "mfu_high": published.high if published else hardware.mfu,
        "mfu_basis": published.words if published else "",
        "mfu_runs": list(published.runs) if published else [],
        "hfu": hardware.mfu * count.training_hardware / count.training,
    }


def _cost_range(
    shape: ModelShape,
    packed: Mapping[str, PackedManifest],
    settings: LedgerSettings,
    hardware: Hardware,
    calibration: Mapping[str, Any] | None,
) -> tuple[CostEstimate, CostEstimate]:
    """Cost at the best and at the worst utilization; twice the same where it is one number."""

    def cost(mfu: float) -> CostEstimate:
        other = dataclasses.replace(hardware, mfu=mfu)
        return plan_run(shape, packed, settings, other, calibration).cost

    published = settings.published_mfu
    if published is None or settings.mfu is not None or calibration is not None:
        return cost(hardware.mfu), cost(hardware.mfu)
    return cost(published.high), cost(published.low)


def _checkpoints(
    memory: MemoryEstimate, work_seconds: float, settings: LedgerSettings
) -> dict[str, Any] | None:
    """When to save; None if failures come faster than checkpoints can be written."""
    hosting = settings.hosting
    try:
        plan = plan_checkpoints(
            checkpoint_bytes=memory.checkpoint_bytes,
            work_seconds=work_seconds,
            chips=settings.chips,
            write_bytes_per_second=hosting.checkpoint_bytes_per_second,
            chip_mtbf_hours=hosting.chip_mtbf_hours,
            restart_seconds=hosting.restart_seconds,
            kept=hosting.checkpoints_kept,
        )
    except ValueError:
        return None
    return {
        **asdict(plan),
        "source": "Young 1974; Daly 2006; failure rate of a chip: cost.chip_mtbf_hours",
    }


def _flops(shape: ModelShape, run: RunEstimate, settings: LedgerSettings) -> dict[str, Any]:
    tokens = flops_per_token(shape, recompute=settings.recompute)
    rule = six_n(shape)
    return {
        "per_token_6n": rule.total,
        "per_token_6n_in_products": rule.in_products,
        "per_token_exact": tokens.training,
        "per_token_forward": tokens.forward,
        "per_token_backward": tokens.backward,
        "per_token_rematerialized": tokens.recomputed,
        "per_token_hardware": tokens.training_hardware,
        "forward_per_token_by_part": tokens.forward_by_part(),
        "causal_half": tokens.causal_half,
        "per_token_exact_causal_half": (
            flops_per_token(shape, causal_half=True).training if shape.causal else None
        ),
        "total_6n": rule.total * run.slots,
        "total_exact": run.total_flops,
        "note": "exact: all matrix products, attention scores in full (PaLM appendix B)",
    }


def _hosting(
    settings: LedgerSettings,
    checkpoint_bytes: int,
    weight_bytes: int,
    ingest: Mapping[str, Any],
    packed: Mapping[str, PackedManifest],
) -> dict[str, float]:
    """Storage of what the run leaves (corpus, rows, checkpoints, model); network of moving it."""
    hosting = settings.hosting
    text = ingest["read"]["bytes"]
    rows = sum(manifest.stored_bytes for manifest in packed.values())
    stored = text + rows + checkpoint_bytes * hosting.checkpoints_kept + weight_bytes
    gb = stored / _BYTES_PER_GB
    return {
        "stored_bytes": stored,
        "storage_usd": gb * hosting.storage_usd_per_gb_month * hosting.storage_months,
        "network_usd": gb * hosting.network_usd_per_gb,
    }


def usd(amount: float) -> str:
    """An amount with as many digits as it needs: $1,234, $1.23, $0.00123."""
    if amount >= 1000:
        return f"${amount:,.0f}"
    if amount >= 0.1 or amount == 0:
        return f"${amount:,.2f}"
    return f"${amount:.3g}"
