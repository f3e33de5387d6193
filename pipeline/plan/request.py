"""From the flags of `tokenmill plan` to its answer."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.plan.config import PlanInput, load_plan_input, planned_model
from pipeline.plan.flags import PlanFlags
from pipeline.plan.hardware import choose_hardware
from pipeline.plan.units import FlagError
from tokenmill.contracts.ladder import LadderLaw, read_ladder
from tokenmill.cost.guidance import MAX_EPOCHS
from tokenmill.cost.plan.budget_to_model import Affordable, best_for_budget, tokens_for_budget
from tokenmill.cost.plan.chip_ranking import compare_chips
from tokenmill.cost.plan.document import PlanAnswer
from tokenmill.cost.plan.hardware import Hardware
from tokenmill.cost.plan.planned_model import PlannedModel
from tokenmill.cost.plan.planning import Plan, PlanRequest, make_plan
from tokenmill.cost.plan.plot import write_cost_plot
from tokenmill.number_format import power_of_ten

_BYTES_PER_TOKEN = 4.0
_LEAST_PARAMS = 1000.0


def answer(flags: PlanFlags) -> PlanAnswer:
    """Work out what the flags ask for.

    Raises:
        TokenmillError: A flag or the configuration is wrong.
        ValueError: A number is out of a formula's range.
    """
    notes: list[str] = []
    plot = _plot_path(flags.plot)
    source = load_plan_input(flags, notes)
    hardware = choose_hardware(flags, source, notes)
    epochs = 1.0 if flags.epochs is None else flags.epochs
    configured = source.config.train.epochs
    if flags.epochs is None and configured != 1:
        notes.append(f"one epoch assumed; the configuration trains {configured:g}: --epochs")
    bytes_per_token, unique = _tokens(flags, notes)
    model = planned_model(flags, source, notes)
    budget = flags.budget_usd
    affordable: list[Affordable] = []
    if budget is not None:
        total = None if unique is None else unique * epochs
        affordable = _affordable(flags, budget, hardware, model, total)
        if model is None:
            model = PlannedModel.of_params(affordable[0].params)
            notes.append("the plan below is of the best model for the budget, a typical decoder")
        if unique is None:
            unique = affordable[0].tokens / epochs
    assert model is not None
    if unique is None:
        raise FlagError("--tokens is missing: give it, --text-bytes, or --budget-usd.")
    request = _request(flags, source, hardware, model, unique, epochs, bytes_per_token, notes)
    plan = make_plan(request)
    if epochs > MAX_EPOCHS:
        notes.append(
            f"{epochs:g} epochs: beyond about 4, repeated tokens are worth ever less "
            "(Muennighoff et al. 2023)"
        )
    _note_memory(plan, notes)
    if plot is not None:
        write_cost_plot(plan, plot)
    return PlanAnswer(
        plan=plan,
        warnings=notes,
        affordable=affordable,
        budget_usd=budget,
        max_usd=_max_usd(source, hardware),
        max_hours=source.config.budget.max_hours,
        comparison=compare_chips(request) if flags.compare else [],
        plot=None if plot is None else str(plot),
    )


def _tokens(flags: PlanFlags, notes: list[str]) -> tuple[float, float | None]:
    """Return bytes per token, and tokens of the corpus if they are given."""
    per_token = _BYTES_PER_TOKEN if flags.bytes_per_token is None else flags.bytes_per_token
    if flags.text_bytes is None:
        return per_token, flags.tokens
    if flags.tokens is not None:
        raise FlagError("--tokens contradicts --text-bytes: give one.")
    if flags.bytes_per_token is None:
        notes.append(
            f"--bytes-per-token {per_token:g} assumed (English, vocabularies of 30,000-60,000)"
        )
    return per_token, flags.text_bytes / per_token


def _request(
    flags: PlanFlags,
    source: PlanInput,
    hardware: Hardware,
    model: PlannedModel,
    unique: float,
    epochs: float,
    bytes_per_token: float,
    notes: list[str],
) -> PlanRequest:
    cost, train = source.config.cost, source.config.train
    fixed = train.global_batch_size if source.states("train.global_batch_size") else None
    batch = hardware.chips if fixed is None else fixed
    length = model.shape.sequence_length
    if unique * epochs < batch * length:
        raise FlagError(
            f"--tokens: {unique * epochs:,.0f} tokens are fewer than one batch of {batch:,} "
            f"sequences of {length:,} ({batch * length:,} tokens); give more, or --set "
            "train.global_batch_size."
        )
    # A run has rates by default; a plan leaves these lines open unless it is asked.
    storage, network = cost.storage_usd_per_gb_month, cost.network_usd_per_gb
    request = PlanRequest(
        model=model,
        unique_tokens=unique,
        epochs=epochs,
        loss_share=source.config.pack.mask_rate if train.task == "masked-lm" else 1.0,
        hardware=hardware,
        flops_basis=flags.flops_basis,
        recompute=flags.recompute or ("full" if train.rematerialize else "none"),
        dropout=train.dropout > 0,
        strategy=flags.strategy or train.spreading,
        global_batch_size=fixed,
        accumulation_steps=train.accumulation_steps,
        bytes_per_token=bytes_per_token,
        hidden_multiplier_low=cost.hidden_cost_multiplier_low,
        hidden_multiplier_high=cost.hidden_cost_multiplier_high,
        storage_usd_per_gb_month=(
            storage if "cost.storage_usd_per_gb_month" in source.given else None
        ),
        network_usd_per_gb=network if "cost.network_usd_per_gb" in source.given else None,
        write_bytes_per_second=cost.checkpoint_bytes_per_second,
        chip_mtbf_hours=cost.chip_mtbf_hours,
        restart_seconds=cost.restart_seconds,
        checkpoints_kept=source.config.execution.keep_checkpoints,
        goal=cost.goal if source.states("cost.goal") else None,
        law=_law(flags, cost.ladder),
    )
    if request.loss_share < 1:
        notes.append(
            f"masked-lm: effective tokens are the {request.loss_share:.0%} that an epoch hides "
            "(pack.mask_rate)"
        )
    if batch < hardware.devices:
        notes.append(
            f"{batch:,} sequences a step leave some of {hardware.chips:,} chips idle: --set "
            f"train.global_batch_size={hardware.chips} or more gives each one"
        )
    return request


def _law(flags: PlanFlags, configured: str | None) -> LadderLaw | None:
    """Return the law of the ladder that a flag names, else the configuration."""
    if flags.ladder is not None:
        return read_ladder(flags.ladder, "--ladder").law(flags.ladder)
    return None if configured is None else read_ladder(configured).law(configured)


def _affordable(
    flags: PlanFlags,
    budget: float,
    hardware: Hardware,
    model: PlannedModel | None,
    tokens: float | None,
) -> list[Affordable]:
    """Return what the budget buys: what fits the given model or tokens first, then the optimum."""
    if not hardware.price_usd_per_chip_hour:
        raise FlagError("--budget-usd needs a price: --price-per-chip-hour.")
    if hardware.observed_tokens_per_second is not None or hardware.hfu is not None:
        raise FlagError(
            "--budget-usd contradicts a throughput or an HFU, which are of one model.",
            "Give --mfu or --tflops-per-chip instead.",
        )
    lines = []
    if model is not None:
        lines.append(tokens_for_budget(budget, hardware, model, flags.flops_basis))
    if tokens is not None:
        lines.append(best_for_budget(budget, hardware, tokens))
    lines.append(best_for_budget(budget, hardware))
    if lines[0].params < _LEAST_PARAMS or lines[0].tokens < 1:
        raise FlagError(
            f"--budget-usd = {budget:g}: buys {power_of_ten(lines[0].flops)} FLOPs, too few for "
            "any model.",
            "Raise it, or choose a cheaper chip (--hardware).",
        )
    return lines


def _max_usd(source: PlanInput, hardware: Hardware) -> float | None:
    """Return budget.max_usd, after a look at whether there is a price to hold it against."""
    limit = source.config.budget.max_usd
    if limit is not None and hardware.price_usd_per_chip_hour is None:
        raise FlagError(f"budget.max_usd = {limit:g} needs a price: --price-per-chip-hour.")
    return limit


def _note_memory(plan: Plan, notes: list[str]) -> None:
    """Note what to do where the plan does not fit into memory."""
    request = plan.request
    here = next(fit for fit in plan.fits if fit.strategy == request.strategy)
    room = request.hardware.memory_bytes
    if here.fits is not False or room is None:
        return
    fitting = [fit for fit in plan.fits if fit.smallest_chips is not None]
    best = min(fitting, key=lambda fit: (not fit.runnable, fit.smallest_chips or 0), default=None)
    advice = "no strategy here fits; recompute activations (--recompute full)"
    if best is not None:
        advice = f"--strategy {best.strategy} fits from {best.smallest_chips:,} chips on"
        if not best.runnable:
            advice += (
                ", which a run cannot do: there nothing fits but a smaller model, "
                "shorter rows or recomputed activations (--recompute full)"
            )
    notes.append(
        f"{plan.needed_bytes / 2**30:,.0f} GiB a chip do not fit {request.hardware.chip.slug}'s "
        f"{room / 2**30:,.0f} GiB: {advice}"
    )


def _plot_path(text: str | None) -> Path | None:
    if text is None:
        return None
    path = Path(text)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise FlagError(f"--plot = {text!r}: expected a name that ends in .png, .svg or .pdf.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise FlagError(
            f"--plot = {text!r}: {path.parent} is no directory that can be written.",
            "Make it, or name a file elsewhere.",
        )
    return path
