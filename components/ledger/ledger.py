"""The ledger: funnel, FLOPs, memory, time and money before training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from components.ledger.config import LedgerJob
from components.ledger.estimate import RunEstimate, RunEstimator
from components.ledger.funnel import build_funnel
from components.ledger.languages import language_texts
from components.ledger.measured import measured_tokens
from components.ledger.memory import memory_per_device, run_memory
from components.ledger.savings import curation_savings
from tokenmill.contracts.calibration import Calibration
from tokenmill.contracts.curation import Curation
from tokenmill.contracts.ingest import IngestCounts
from tokenmill.contracts.ladder import LadderLoss
from tokenmill.contracts.ledger import (
    LEDGER_SCHEMA,
    BudgetLimits,
    CheckpointPlan,
    Cost,
    Flops,
    Forecast,
    Hardware,
    Ledger,
    LedgerPrice,
    Model,
    Packing,
    Training,
)
from tokenmill.contracts.packed_rows import PackedManifest
from tokenmill.contracts.training import Phase
from tokenmill.cost.checkpoint_interval import plan_checkpoints
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.cost.flops import (
    flops_per_token,
    model_flops_utilization,
    six_n,
    trained_flops_per_token,
)
from tokenmill.cost.guidance import guidance
from tokenmill.cost.ladder_fit import expected_by_ladder, why_no_ladder
from tokenmill.cost.memory import MemoryEstimate
from tokenmill.cost.pricing import CostEstimate
from tokenmill.model.lora import trained_params_by_part
from tokenmill.model.shape import ModelShape

_BYTES_PER_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Measurements of the machine that training will run on.

    Attributes:
        peak_flops_per_second_per_chip: From the settings, the catalog or a measurement.
        memory_bytes_per_device: None if unknown.
        calibration: calibration.json (components/train/calibrate.py); None without one.
    """

    peak_flops_per_second_per_chip: float
    memory_bytes_per_device: float | None = None
    calibration: Calibration | None = None


def build_ledger(
    ingest: IngestCounts,
    curation: Curation,
    packed: Mapping[str, PackedManifest],
    settings: LedgerJob,
    machine: Machine,
) -> Ledger:
    """Estimate a run. FLOPs are those of all slots, padding included: padding is computed too.

    Args:
        ingest: Counts of ingest.
        curation: Counts of curation.
        packed: Manifest of the packed rows by split.
        settings: What is to be trained, on what, at what price.
        machine: What was measured.

    Raises:
        UnbalancedLedgerError: Documents, bytes or tokens are missing between two steps.
    """
    estimator = RunEstimator(packed, settings, machine.calibration)
    shape, mixture = estimator.shape, estimator.mixture
    hardware = hardware_of(settings, machine, shape)
    run = estimator.estimate(hardware)
    epochs_by_group: dict[str, float] = {}
    if mixture is not None and packed["train"].has_weights:
        epochs_by_group = mixture.repetitions(run.plan.rows_read)
    funnel = build_funnel(ingest, curation, packed, run.plan.epochs, epochs_by_group)
    memory = memory_per_device(shape, settings, settings.devices)
    # Twice the same where the MFU is one number.
    low, high = (
        estimator.estimate(hardware.model_copy(update={"mfu": mfu})).cost
        for mfu in (hardware.mfu_high, hardware.mfu_low)
    )
    params, trained = shape.params_by_part(), trained_params_by_part(shape, settings.lora)
    text_bytes = ingest.read.bytes
    row_bytes = sum(manifest.stored_bytes for manifest in packed.values())
    checkpoint_bytes = memory.checkpoint_bytes * settings.checkpoints_kept
    return Ledger(
        schema=LEDGER_SCHEMA,
        funnel=funnel,
        by_language=language_texts(packed, run.cost.compute_usd, epochs_by_group),
        packing={
            "train": _packing(packed["train"]),
            "eval": _packing(packed["eval"]),
        },
        model=Model(
            params_total=shape.params_total,
            params_active=shape.params_active,
            params_by_part=params,
            params_trained=sum(trained.values()),
            params_trained_by_part=dict(trained),
            embedding_share=params["token_embedding"] / shape.params_total,
        ),
        memory=run_memory(
            shape,
            settings,
            machine.memory_bytes_per_device,
            machine.calibration.peak_process_bytes
            if machine.calibration and settings.chip == CPU_CHIP
            else None,
        ),
        training=Training(
            steps=run.plan.steps,
            epochs=run.plan.epochs,
            slots=run.slots,
            # Of the tokens that can be hidden, an epoch asks for this share (masked-lm).
            loss_tokens=packed["train"].loss_tokens * run.plan.epochs * packed["train"].mask_rate,
            effective_tokens=run.effective_tokens,
        ),
        flops=_flops(shape, run, settings),
        hardware=hardware,
        price=LedgerPrice(
            **asdict(settings.price),
            dated=bool(settings.price.date),
            vcpu_usd_per_hour=settings.vcpu_price_usd_per_hour,
        ),
        forecast=Forecast(
            seconds_by_phase=run.seconds_by_phase,
            training_seconds=run.training_seconds,
            total_seconds=run.cost.wall_seconds,
            goodput=run.seconds_by_phase[Phase.STEPS] / run.cost.wall_seconds,
        ),
        cost=_cost(
            run.cost,
            low,
            high,
            text_bytes + row_bytes + checkpoint_bytes + memory.weights + memory.frozen_weights,
            settings,
        ),
        checkpoints=_checkpoints(memory, run.seconds_by_phase[Phase.STEPS], settings),
        curation_saved=curation_savings(
            curation,
            funnel.total.bytes_per_token,
            run,
            epochs=settings.epochs,
            max_steps=settings.max_steps,
            rows_available=None if mixture is None else mixture.rows_available,
            chips=settings.chips,
            price_usd_per_chip_hour=settings.price.usd_per_chip_hour,
        ),
        guidance=guidance(
            params_total=shape.params_total,
            params_active=shape.params_active,
            flops_6n=six_n(shape, settings.lora).total * run.slots,
            effective_tokens=run.effective_tokens,
            epochs=run.plan.epochs,
            goal=settings.goal,
            ladder=_by_ladder(shape, run.effective_tokens, settings),
        ),
        budget=BudgetLimits(
            max_usd=settings.budget.max_usd,
            max_hours=settings.budget.max_hours,
            min_effective_tokens=settings.budget.min_effective_tokens,
            max_epochs=settings.budget.max_epochs,
        ),
        measured=(
            None
            if settings.measured is None
            else measured_tokens(settings.measured, run.effective_tokens, run.cost.compute_usd)
        ),
    )


def _by_ladder(
    shape: ModelShape, effective_tokens: float, settings: LedgerJob
) -> LadderLoss | None:
    """Predict the run by its text's ladder; None without one."""
    if settings.law is None:
        return None
    return expected_by_ladder(
        settings.law,
        params=shape.params_in_products,
        params_active=shape.params_active,
        effective_tokens=effective_tokens,
        vocab_size=shape.vocab_size,
        sparse=shape.is_sparse,
        why_not=why_no_ladder(shape.head, settings.lora is not None),
    )


def _packing(manifest: PackedManifest) -> Packing:
    return Packing(**{name: getattr(manifest, name) for name in Packing.model_fields})


def hardware_of(settings: LedgerJob, machine: Machine, shape: ModelShape) -> Hardware:
    """Describe the chips, with the measured MFU if there is one and the range of published ones.

    Args:
        settings: Chips, price, and an MFU if one was given or published.
        machine: What was measured.
        shape: The model.
    """
    peak, measured, calibration = machine.peak_flops_per_second_per_chip, None, machine.calibration
    count = flops_per_token(shape, recompute=settings.recompute, lora=settings.lora)
    if calibration is not None:
        measured = model_flops_utilization(
            tokens_per_second=calibration.tokens_per_second,
            flops_per_token=count.training,
            chips=settings.chips,
            peak_flops_per_second=peak,
        )
    mfu, source = settings.expected_mfu(measured)
    published = settings.published_mfu if source == "published" else None
    return Hardware(
        chip=settings.chip,
        chips=settings.chips,
        peak_flops_per_second=peak,
        mfu=mfu,
        goodput=settings.goodput,
        price_usd_per_chip_hour=settings.price.usd_per_chip_hour,
        mfu_source=source,
        mfu_low=published.low if published else mfu,
        mfu_high=published.high if published else mfu,
        mfu_basis=published.words if published else "",
        mfu_runs=list(published.runs) if published else [],
        hfu=mfu * count.training_hardware / count.training,
        calibration=calibration,
    )


def _cost(
    cost: CostEstimate,
    low: CostEstimate,
    high: CostEstimate,
    stored_bytes: int,
    settings: LedgerJob,
) -> Cost:
    """Join the run's cost with its range, and with storing and moving what it leaves.

    Args:
        cost: At the MFU of the forecast.
        low: At the best MFU of the published runs.
        high: At the worst.
        stored_bytes: Corpus, rows, checkpoints and model.
        settings: Rates of storage and network.
    """
    gigabytes = stored_bytes / _BYTES_PER_GB
    return Cost(
        **asdict(cost),
        wall_hours=cost.wall_hours,
        wall_hours_low=low.wall_hours,
        wall_hours_high=high.wall_hours,
        chip_hours_low=low.chip_hours,
        chip_hours_high=high.chip_hours,
        compute_usd_low=low.compute_usd,
        compute_usd_high=high.compute_usd,
        hidden_usd_low=cost.hidden_usd_low,
        hidden_usd_high=cost.hidden_usd_high,
        stored_bytes=stored_bytes,
        storage_usd=gigabytes * settings.storage_usd_per_gb_month * settings.storage_months,
        network_usd=gigabytes * settings.network_usd_per_gb,
    )


def _checkpoints(
    memory: MemoryEstimate, work_seconds: float, settings: LedgerJob
) -> CheckpointPlan | None:
    """Plan when to save; None if failures come faster than checkpoints can be written."""
    try:
        return plan_checkpoints(
            checkpoint_bytes=memory.checkpoint_bytes,
            work_seconds=work_seconds,
            chips=settings.chips,
            write_bytes_per_second=settings.checkpoint_bytes_per_second,
            chip_mtbf_hours=settings.chip_mtbf_hours,
            restart_seconds=settings.restart_seconds,
            kept=settings.checkpoints_kept,
        )
    except ValueError:
        return None


def _flops(shape: ModelShape, run: RunEstimate, settings: LedgerJob) -> Flops:
    lora = settings.lora
    tokens = flops_per_token(shape, recompute=settings.recompute, lora=lora)
    rule = six_n(shape, lora)
    return Flops(
        per_token_6n=rule.total,
        per_token_6n_in_products=rule.in_products,
        per_token_exact=tokens.training,
        per_token_forward=tokens.forward,
        per_token_backward=tokens.backward,
        per_token_rematerialized=tokens.recomputed,
        per_token_hardware=tokens.training_hardware,
        forward_per_token_by_part=tokens.forward_by_part(),
        causal_half=tokens.causal_half,
        per_token_exact_causal_half=(
            flops_per_token(shape, causal_half=True, lora=lora).training if shape.causal else None
        ),
        per_token_trained=trained_flops_per_token(shape, settings.dropout > 0, lora),
        total_6n=rule.total * run.slots,
        total_exact=run.total_flops,
        note="exact: all matrix products, attention scores in full (PaLM appendix B)",
    )
