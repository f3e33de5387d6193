"""The estimate against what happened; plain arithmetic."""

from collections.abc import Mapping

from components.cost_report.steps import StepTime, return_on_curation, step_costs
from tokenmill.contracts.cost_report import (
    COST_REPORT_SCHEMA,
    CostReport,
    EvaluationSummary,
    PhaseTime,
    PipelineCost,
    Quality,
    Reason,
    Sent,
    Side,
    StepCost,
)
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.training import STEADY_PHASES, Phase, Telemetry
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.cost.flops import model_flops_utilization
from tokenmill.cost.pricing import SECONDS_PER_HOUR, compute_usd, usd_per_million_tokens
from tokenmill.cost.sharding import sent_by_ring
from tokenmill.training_plan import spreading

# Phases of the trainer that are training proper; the rest is what goodput loses.
_TRAINING_PHASES = (*STEADY_PHASES, Phase.COMPILE)


def build_cost_report(
    ledger: Ledger,
    telemetry: Telemetry,
    evaluation: EvaluationSummary,
    baseline: Mapping[str, float],
    step_times: list[StepTime],
    lossy_fraction: float = 0.0,
) -> CostReport:
    """Compare the ledger's estimate with the trainer's telemetry.

    Actual FLOPs are the tokens that training computed, padding included, times the exact FLOPs a
    token; actual MFU is theirs over the peak of the chips and the seconds of the steps (compilation
    not counted, as in PaLM's definition); the bill is for all seconds of the trainer.

    Args:
        ledger: ledger.json.
        telemetry: telemetry.json of the trainer.
        evaluation: The Evaluator's summary.
        baseline: `unigram_baseline` on the evaluation split.
        step_times: What the pipeline's steps took.
        lossy_fraction: Of the tokenizer.
    """
    hardware, forecast = ledger.hardware, ledger.forecast
    seconds, slots = telemetry.seconds, telemetry.trained_slots
    training_seconds = sum(seconds.get(phase, 0.0) for phase in _TRAINING_PHASES)
    chip_hours = telemetry.total_seconds * hardware.chips / SECONDS_PER_HOUR
    bill = compute_usd(chip_hours, ledger.price.usd_per_chip_hour)
    rate, per_token = telemetry.tokens_per_second, ledger.flops.per_token_exact
    mfu = None
    if rate:
        mfu = model_flops_utilization(
            tokens_per_second=rate,
            flops_per_token=per_token,
            chips=hardware.chips,
            peak_flops_per_second=hardware.peak_flops_per_second,
        )
    effective = ledger.training.effective_tokens
    steady = _steady_seconds(telemetry)
    steps = step_costs(step_times, ledger, telemetry.total_seconds)
    slots_per_step = ledger.training.slots / ledger.training.steps
    return CostReport(
        schema=COST_REPORT_SCHEMA,
        estimated=estimated_side(ledger),
        actual=Side(
            slots=slots,
            training_seconds=training_seconds,
            total_seconds=telemetry.total_seconds,
            total_flops=per_token * slots,
            mfu=mfu,
            goodput=steady / telemetry.total_seconds,
            chip_hours=chip_hours,
            compute_usd=bill,
            usd_per_million_effective_tokens=usd_per_million_tokens(bill, effective),
        ),
        training_seconds_actual_over_estimated=training_seconds / forecast.training_seconds,
        phases=_phases(ledger, telemetry),
        reasons=_reasons(ledger, telemetry),
        steps=steps,
        pipeline=_totals(steps),
        return_on_curation=return_on_curation(steps, ledger, steady / (slots / slots_per_step)),
        quality=Quality(
            eval_before=telemetry.eval_before,
            eval_after=telemetry.eval_after,
            base_model=telemetry.base_model,
            pruning=telemetry.pruning,
            evaluation=evaluation,
            lossy_fraction=lossy_fraction,
            **baseline,
        ),
        sent=_sent(ledger, telemetry),
        effective_tokens=effective,
        trained_loss_tokens=telemetry.trained_loss_tokens,
    )


def estimated_side(ledger: Ledger) -> Side:
    """Return the ledger's half of the comparison."""
    hardware, estimate, forecast = ledger.hardware, ledger.cost, ledger.forecast
    return Side(
        slots=ledger.training.slots,
        training_seconds=forecast.training_seconds,
        total_seconds=forecast.total_seconds,
        total_flops=estimate.total_flops,
        mfu=hardware.mfu,
        goodput=forecast.goodput,
        chip_hours=estimate.chip_hours,
        compute_usd=estimate.compute_usd,
        usd_per_million_effective_tokens=estimate.usd_per_million_effective_tokens,
    )


def forecast_sent(ledger: Ledger) -> tuple[int, int | None]:
    """Return the bytes that a device sends in a step, and of them those between machines.

    By the ledger's formula; None where it is not known which go between machines.
    """
    strategy = spreading(ledger.memory.zero, ledger.memory.expert_parallel)
    for fit in ledger.memory.by_strategy:
        if fit.strategy == strategy:
            return fit.sent_bytes_per_step, fit.between_machines_bytes_per_step
    return 0, None


def _sent(ledger: Ledger, telemetry: Telemetry) -> Sent | None:
    replicas, devices = telemetry.replicas, ledger.memory.devices
    if replicas == devices == 1:
        return None
    # Not counted: of a training that was resumed at its last step, and where experts are spread,
    # whose rows are known only when a step runs.
    counted = telemetry.collective_bytes_per_step and not ledger.memory.expert_parallel
    if replicas > 1 and not counted:
        return None
    return Sent(
        estimated_bytes=forecast_sent(ledger)[0],
        actual_bytes=sent_by_ring(telemetry.collective_bytes_per_step, replicas),
        estimated_devices=devices,
        replicas=replicas,
    )


def _steady_seconds(telemetry: Telemetry) -> float:
    """Return the seconds of all steps at the steady rate, the compiling one too.

    Of a run of one step, that step's.
    """
    rate = telemetry.tokens_per_second
    if rate:
        return telemetry.trained_slots / rate
    seconds = telemetry.seconds
    return seconds.get(Phase.COMPILE, 0.0) + sum(seconds.get(p, 0.0) for p in STEADY_PHASES)


def _comparable(telemetry: Telemetry) -> dict[Phase, float]:
    """Divide the actual seconds into phases as the forecast does.

    One steady step moves from `compile` to `steps`, waiting for input is part of the steps, and
    `other` is what no phase has. They add up to the trainer's total.
    """
    seconds = dict(telemetry.seconds)
    steady = _steady_seconds(telemetry)
    seconds.pop(Phase.OTHER, None)  # what no phase has is counted anew, once
    in_steps = sum(seconds.pop(phase, 0.0) for phase in STEADY_PHASES)
    compiling = seconds.pop(Phase.COMPILE, 0.0)
    phases = {Phase.STEPS: steady, Phase.COMPILE: compiling + in_steps - steady, **seconds}
    phases[Phase.OTHER] = telemetry.total_seconds - sum(phases.values())
    return phases


def _phases(ledger: Ledger, telemetry: Telemetry) -> list[PhaseTime]:
    """List every phase of the trainer, longest first."""
    actual = _comparable(telemetry)
    forecast = ledger.forecast.seconds_by_phase
    names = sorted({*actual, *forecast}, key=lambda name: (-actual.get(name, 0.0), name))
    total = telemetry.total_seconds
    return [
        PhaseTime(
            phase=name,
            forecast_seconds=forecast.get(name),
            actual_seconds=actual.get(name, 0.0),
            cpu_seconds=telemetry.cpu_seconds.get(name),
            share=actual.get(name, 0.0) / total,
        )
        for name in names
    ]


def _reasons(ledger: Ledger, telemetry: Telemetry) -> list[Reason]:
    """Explain why the trainer took longer or shorter; the seconds add up to the difference.

    More tokens: at the forecast's seconds a token. Another MFU: the actual tokens at the actual
    less the forecast's seconds a token. Where CPU time was measured then and now, that is divided:
    what the steps took more of it is MFU, and the rest is a machine that gave fewer (or more) cores
    than at calibration. The rest phase by phase.
    """
    actual = _comparable(telemetry)
    forecast = ledger.forecast.seconds_by_phase
    planned, trained = ledger.training.slots, telemetry.trained_slots
    per_token = forecast[Phase.STEPS] / planned
    differences = {
        "tokens": (trained - planned) * per_token,
        "mfu": actual[Phase.STEPS] - trained * per_token,
    }
    cpu_ratio = _cpu_ratio(ledger, telemetry)
    if cpu_ratio is not None:
        slower = trained * per_token * (cpu_ratio - 1)
        differences["busy"] = differences["mfu"] - slower
        differences["mfu"] = slower
    for name in sorted({*actual, *forecast} - {Phase.STEPS}):
        differences[name] = actual.get(name, 0.0) - forecast.get(name, 0.0)
    price = ledger.price.usd_per_chip_hour * ledger.hardware.chips / SECONDS_PER_HOUR
    words = {
        "tokens": "more or fewer tokens than planned",
        "mfu": "steps slower or faster than forecast (MFU)",
        "busy": "the machine was busier or less busy than at calibration",
        Phase.OTHER: "time in no phase",
    }
    return [
        Reason(
            reason=name,
            meaning=words.get(name, f"phase {name}")
            + ("" if name in words or name in forecast else ", not forecast"),
            seconds=seconds,
            usd=seconds * price,
        )
        for name, seconds in sorted(differences.items(), key=lambda item: -abs(item[1]))
        if seconds
    ]


def _cpu_ratio(ledger: Ledger, telemetry: Telemetry) -> float | None:
    """Return the CPU seconds a token of the steady steps over the forecast's.

    None where the steps do not run on this machine's cores, or either was not measured.
    """
    calibration, rate = ledger.hardware.calibration, telemetry.tokens_per_second
    wall = sum(telemetry.seconds.get(phase, 0.0) for phase in STEADY_PHASES)
    cpu = sum(telemetry.cpu_seconds.get(phase, 0.0) for phase in STEADY_PHASES)
    if (
        ledger.hardware.chip != CPU_CHIP
        or ledger.hardware.mfu_source != "measured"
        or calibration is None
        or not calibration.step_cpu_seconds
        or not (rate and wall and cpu)
    ):
        return None
    then = calibration.step_cpu_seconds / calibration.step_seconds / calibration.tokens_per_second
    return (cpu / wall / rate) / then


def _totals(steps: list[StepCost]) -> PipelineCost:
    paid = [step.usd_in_this_run for step in steps]
    return PipelineCost(
        seconds=sum(step.seconds for step in steps),
        chip_hours=sum(step.chip_hours for step in steps),
        usd=sum(step.usd for step in steps),
        usd_in_this_run=None if None in paid else sum(usd for usd in paid if usd is not None),
    )
