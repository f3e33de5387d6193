"""The ledger as one JSON document: funnel, FLOPs, memory, time and money before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.ledger.checkpoint_section import checkpoint_plan
from components.ledger.estimate import Hardware, RunEstimate, estimate_run
from components.ledger.flops import flops_per_token, six_n
from components.ledger.footprint import memory_of, memory_section
from components.ledger.funnel import build_funnel
from components.ledger.guidance import guidance
from components.ledger.memory import Precision
from components.ledger.savings import curation_savings
from components.ledger.settings import DEFAULT_MFU, LedgerSettings
from components.model_shape import ModelShape
from components.train.plan import Mixture

SCHEMA = "tokenmill-ledger-2"
_BYTES_PER_GB = 1e9
_PACKING_KEYS = ("rows", "slots", "padding_slots", "segments", "stored_bytes", "tokens")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured where training will run.

    Attributes:
        peak_flops_per_second_per_chip: From the settings, the catalogue or a measurement.
        memory_bytes_per_device: None if unknown.
        calibration: calibration.json (components/ledger/calibrate.py); None without one.
    """

    peak_flops_per_second_per_chip: float
    memory_bytes_per_device: float | None = None
    calibration: Mapping[str, Any] | None = None


def build_ledger(
    ingest: Mapping[str, Any],
    curation: Mapping[str, Any],
    packed: Mapping[str, Mapping[str, Any]],
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
    if packed["train"].get("source_weights") and (mixture := mixture_of(packed["train"])):
        epochs_by_source = mixture.repetitions(run.plan.rows_read)
    funnel = build_funnel(ingest, curation, packed, run.plan.epochs, epochs_by_source)
    if epochs_by_source:  # each source is repeated as often as its weight says
        effective = funnel["total"]["train"]["effective_tokens"]
        run = dataclasses.replace(run, effective_tokens=effective)
    precision: Precision = "mixed_bfloat16" if settings.precision == "mixed_bfloat16" else "float32"
    memory = memory_of(shape, settings.global_batch_size, settings.devices, precision)
    params = shape.params_by_part()
    price = settings.price.usd_per_chip_hour
    return {
        "schema": SCHEMA,
        "funnel": funnel,
        "packing": {
            split: {
                **{name: manifest[name] for name in _PACKING_KEYS},
                "context_slots": manifest.get("context_slots", 0),
                "loss_bearing_slots": manifest["targets"],
            }
            for split, manifest in packed.items()
        },
        "model": {
            "params_total": shape.params_total,
            "params_by_part": params,
            "embedding_share": params["token_embedding"] / shape.params_total,
        },
        "memory": memory_section(
            shape,
            global_batch_size=settings.global_batch_size,
            devices=settings.devices,
            precision=precision,
            strategy=settings.strategy,
            capacity_bytes=machine.memory_bytes_per_device,
        ),
        "training": {
            "steps": run.plan.steps,
            "epochs": run.plan.epochs,
            "slots": run.slots,
            "loss_bearing_tokens": packed["train"]["targets"] * run.plan.epochs,
            "effective_tokens": run.effective_tokens,
        },
        "flops": _flops(shape, run),
        "hardware": {
            **asdict(hardware),
            "mfu_source": _mfu_source(settings, machine),
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
            "hidden_usd_low": run.cost.hidden_usd_low,
            "hidden_usd_high": run.cost.hidden_usd_high,
            **_hosting(settings, memory.checkpoint_bytes, memory.weights, ingest, packed),
        },
        "checkpoints": checkpoint_plan(
            memory, run.seconds_by_phase["steps"], settings.chips, settings.hosting
        ),
        "curation_saved": curation_savings(
            curation,
            funnel["total"]["bytes_per_token"],
            run,
            settings_epochs=settings.epochs,
            max_steps=settings.max_steps,
            chips=settings.chips,
            price_usd_per_chip_hour=price,
        ),
        "guidance": guidance(
            shape, run.effective_tokens, run.slots, run.plan.epochs, settings.goal
        ),
        "budget": asdict(settings.budget),
    }


def hardware_of(settings: LedgerSettings, machine: Machine, shape: ModelShape) -> Hardware:
    """What computes, with the measured MFU where there is one.

    MFU is measured tokens/s x FLOPs a token over the peak of all chips (PaLM, appendix B).
    """
    peak = machine.peak_flops_per_second_per_chip
    mfu = settings.mfu
    if mfu is None and machine.calibration is not None:
        rate = machine.calibration["tokens_per_second"] * flops_per_token(shape).training
        mfu = rate / (peak * settings.chips)
    return Hardware(
        chip=settings.chip,
        chips=settings.chips,
        peak_flops_per_second=peak,
        mfu=DEFAULT_MFU if mfu is None else min(mfu, 1.0),
        goodput=settings.goodput,
        price_usd_per_chip_hour=settings.price.usd_per_chip_hour,
    )


def plan_run(
    shape: ModelShape,
    packed: Mapping[str, Mapping[str, Any]],
    settings: LedgerSettings,
    hardware: Hardware,
    calibration: Mapping[str, Any] | None,
) -> RunEstimate:
    """The estimate of the run that the settings describe."""
    mixture = mixture_of(packed["train"])
    return estimate_run(
        shape=shape,
        rows=packed["train"]["rows"],
        targets=packed["train"]["targets"],
        global_batch_size=settings.global_batch_size,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        hardware=hardware,
        overhead_seconds=overhead_seconds(
            calibration, packed["eval"]["rows"], settings.global_batch_size
        ),
        hidden_multipliers=(
            settings.hidden_cost_multiplier_low,
            settings.hidden_cost_multiplier_high,
        ),
        rows_available=None if mixture is None else mixture.rows_available,
    )


def mixture_of(manifest: Mapping[str, Any]) -> Mixture | None:
    """The sources' mixture of a packed split; None without weights and limits."""
    if not manifest.get("source_weights") and manifest.get("max_repetitions") is None:
        return None
    return Mixture.of(manifest)


def overhead_seconds(
    calibration: Mapping[str, Any] | None, held_out_rows: int, global_batch_size: int
) -> dict[str, float]:
    """The trainer's phases besides the steps, from the calibration; nothing without one."""
    if calibration is None:
        return {}
    batches = -(-held_out_rows // global_batch_size)
    once = batches * calibration["evaluate_batch_seconds"]
    return {
        "build": calibration["build_seconds"],
        # The step that compiles also trains, and the steps have it already.
        "compile": max(0.0, calibration["compile_seconds"] - calibration["step_seconds"]),
        "evaluate_before": calibration["evaluate_compile_seconds"] + once,
        "evaluate_after": once,
    }


def _mfu_source(settings: LedgerSettings, machine: Machine) -> str:
    if settings.mfu is not None:
        return "configured"
    return "measured" if machine.calibration is not None else "default"


def _flops(shape: ModelShape, run: RunEstimate) -> dict[str, Any]:
    tokens = flops_per_token(shape)
    rule = six_n(shape)
    return {
        "per_token_6n": rule.total,
        "per_token_6n_in_products": rule.in_products,
        "per_token_exact": tokens.training,
        "per_token_forward": tokens.forward,
        "per_token_backward": tokens.backward,
        "per_token_rematerialised": tokens.recomputed,
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
    packed: Mapping[str, Mapping[str, Any]],
) -> dict[str, float]:
    """Storage of what the run leaves (corpus, rows, checkpoints, model); network of moving it."""
    hosting = settings.hosting
    text = ingest["read"]["bytes"]
    rows = sum(manifest["stored_bytes"] for manifest in packed.values())
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
