"""From the flags of `tokenmill plan` to its answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.plan.hardware import Hardware, hardware_of_flags
from pipeline.plan.model import SHAPE_FLAGS, flag, model_of_flags
from pipeline.plan.units import FlagError, fraction, quantity, whole
from tokenmill.cost.device_benchmark import memory_bytes
from tokenmill.cost.guidance import MAX_EPOCHS
from tokenmill.cost.plan.budget_to_model import Affordable, best_for_budget, tokens_for_budget
from tokenmill.cost.plan.chip_ranking import ChipLine, compare_chips
from tokenmill.cost.plan.document import plan_document
from tokenmill.cost.plan.planned_model import PlannedModel
from tokenmill.cost.plan.planning import Plan, PlanRequest, make_plan
from tokenmill.cost.scaling import Goal
from tokenmill.cost.utilization import FlopsBasis
from tokenmill.errors import TokenmillError

if TYPE_CHECKING:
    from pipeline.config import Config

_MOST_TOKENS = 1e17
_BYTES_PER_TOKEN = 4.0
_GOALS: dict[str, Goal] = {
    "fine-tune": "fine_tune",
    "domain-adapt": "domain_adaptive",
    "from-scratch": "from_scratch",
}
_LEAST_PARAMS = 1000.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The plan, and what else was asked."""

    plan: Plan
    price_label: str
    warnings: list[str] = field(default_factory=list)
    affordable: list[Affordable] = field(default_factory=list)
    budget_usd: float | None = None
    comparison: list[ChipLine] = field(default_factory=list)
    plot: str | None = None

    def document(self) -> dict[str, Any]:
        """The answer as JSON."""
        document = plan_document(
            self.plan,
            price_label=self.price_label,
            warnings=self.warnings,
            affordable=self.affordable,
            budget_usd=self.budget_usd,
            comparison=self.comparison,
        )
        return {**document, "plot": self.plot} if self.plot else document


def answer(flags: Mapping[str, Any]) -> Reply:
    """Work out what the flags ask.

    Args:
        flags: By name, None (or an empty tuple, or False) where not given.

    Raises:
        TokenmillError: A flag or the configuration is wrong.
        ValueError: A number is out of a formula's range.
    """
    given = {**flags}
    if given["encoder_token_share"] is not None:
        given["encoder_token_share"] = fraction(
            "--encoder-token-share", given["encoder_token_share"]
        )
    notes: list[str] = []
    plot = _plot_path(given["plot"])
    config = _config(given)
    hardware = hardware_of_flags(given, config, notes)
    epochs = 1.0
    if given["epochs"] is not None:
        epochs = quantity("--epochs", given["epochs"], "epochs", most=10_000)
    elif config is not None and config.train.epochs != 1:
        notes.append(
            f"one epoch assumed; the configuration trains {config.train.epochs:g}: --epochs"
        )
    bytes_per_token, unique = _tokens(given, notes)
    model = _model(given, config, notes)
    budget = given["budget_usd"]
    if budget is not None:
        budget = quantity("--budget-usd", budget, "USD", most=1e13)
        if not hardware.price_usd_per_chip_hour:
            raise FlagError("--budget-usd needs a price: --price-per-chip-hour.")
    elif model is None:
        model_of_flags(given, notes)  # says what is missing
    elif unique is None:
        raise FlagError("--tokens is missing: give it, --text-bytes, or --budget-usd.")
    affordable: list[Affordable] = []
    if budget is not None:
        affordable = _affordable(given, budget, hardware, model, unique, epochs)
        if model is None:
            model = PlannedModel.of_params(affordable[0].params)
            notes.append("the plan below is of the best model for the budget, a typical decoder")
        if unique is None:
            unique = affordable[0].tokens / epochs
    assert model is not None
    assert unique is not None
    request = _request(given, config, hardware, model, unique, epochs, bytes_per_token, notes)
    plan = make_plan(request)
    if epochs > MAX_EPOCHS:
        notes.append(
            f"{epochs:g} epochs: beyond about 4, repeated tokens are worth ever less "
            "(Muennighoff et al. 2023)"
        )
    _memory_note(plan, notes)
    if plot is not None:
        from tokenmill.cost.plan.plot import write_cost_plot

        write_cost_plot(plan, plot)
    return Reply(
        plan=plan,
        price_label=hardware.price_label,
        warnings=notes,
        affordable=affordable,
        budget_usd=budget,
        comparison=compare_chips(request) if given["compare"] else [],
        plot=None if plot is None else str(plot),
    )


def _config(given: Mapping[str, Any]) -> Config | None:
    preset, path = given["preset"], given["config_path"]
    if preset is None and path is None:
        if given["overrides"]:
            raise FlagError("--set needs --preset or --config, whose keys it overrides.")
        return None
    where = "--preset" if path is None else "--config"
    if preset is not None and path is not None:
        raise FlagError("--preset contradicts --config: give one.")
    for name in ("params", "active_params", *SHAPE_FLAGS):
        if given[name] is not None:
            raise FlagError(
                f"{flag(name)} contradicts {where}: change the model with --set, such as "
                "--set model.layers=24."
            )
    from pipeline.loader import load_config

    try:
        return load_config(preset or "", path, given["overrides"])
    except TokenmillError as error:
        raise FlagError(f"{where}: {error.message}", error.hint) from None


def _model(
    given: Mapping[str, Any], config: Config | None, notes: list[str]
) -> PlannedModel | None:
    if config is not None:
        return PlannedModel.of_shape(config.shape())
    if any(given[name] is not None for name in ("params", "active_params", *SHAPE_FLAGS)):
        return model_of_flags(given, notes)
    return None


def _tokens(given: Mapping[str, Any], notes: list[str]) -> tuple[float, float | None]:
    """Bytes per token, and tokens of the corpus if they are given."""
    per_token = _BYTES_PER_TOKEN
    if given["bytes_per_token"] is not None:
        per_token = quantity("--bytes-per-token", given["bytes_per_token"], "bytes", most=1000)
    if given["text_bytes"] is not None:
        if given["tokens"] is not None:
            raise FlagError("--tokens contradicts --text-bytes: give one.")
        size = quantity(
            "--text-bytes", given["text_bytes"], "bytes", most=_MOST_TOKENS, is_bytes=True
        )
        if given["bytes_per_token"] is None:
            notes.append(
                f"--bytes-per-token {per_token:g} assumed (English, vocabularies of 30,000-60,000)"
            )
        return per_token, size / per_token
    if given["tokens"] is None:
        return per_token, None
    return per_token, quantity("--tokens", given["tokens"], "tokens", most=_MOST_TOKENS)


def _request(
    given: Mapping[str, Any],
    config: Config | None,
    hardware: Hardware,
    model: PlannedModel,
    unique: float,
    epochs: float,
    bytes_per_token: float,
    notes: list[str],
) -> PlanRequest:
    def number(name: str, unit: str, most: float, zero_ok: bool = False) -> float | None:
        text = given[name]
        if text is None:
            return None
        return quantity(flag(name), text, unit, most=most, zero_ok=zero_ok)

    length = model.shape.sequence_length
    fixed: int | None = None if config is None else config.train.global_batch_size
    if given["batch_size"] is not None:
        fixed = whole("--batch-size", given["batch_size"], "sequences", most=1e9)
    batch = hardware.chips if fixed is None else fixed
    if unique * epochs < batch * length:
        raise FlagError(
            f"--tokens: {unique * epochs:,.0f} tokens are fewer than one batch of {batch:,} "
            f"sequences of {length:,} ({batch * length:,} tokens); give more, or set --batch-size."
        )
    low = number("hidden_cost_low", "times the compute", 1000)
    high = number("hidden_cost_high", "times the compute", 1000)
    if config is not None:
        low = config.cost.hidden_cost_multiplier_low if low is None else low
        high = config.cost.hidden_cost_multiplier_high if high is None else high
    low = 2.0 if low is None else low
    high = max(low, 5.0) if high is None else high
    if low < 1:
        raise FlagError(f"--hidden-cost-low = {low:g}: expected at least 1, the compute itself.")
    if high < low:
        raise FlagError(f"--hidden-cost-high = {high:g}: expected at least --hidden-cost-low.")
    write = number("checkpoint_write_gb_per_second", "GB per second", 1e6)
    mtbf = number("chip_mtbf_hours", "hours", 1e12)
    run: dict[str, Any] = {}
    if config is not None:  # what a run of this configuration would do; flags go before it
        cost, train = config.cost, config.train
        run = {
            "accumulation_steps": train.accumulation_steps,
            "dropout": train.dropout > 0,
            "recompute": "full" if train.rematerialize else "none",
            "chip_mtbf_hours": cost.chip_mtbf_hours,
            "write_bytes_per_second": cost.checkpoint_bytes_per_second,
            "restart_seconds": cost.restart_seconds,
            "checkpoints_kept": train.keep_checkpoints,
            "goal": cost.goal,
        }
    if write is not None:
        run["write_bytes_per_second"] = write * 1e9
    if mtbf is not None:
        run["chip_mtbf_hours"] = mtbf
    if given["checkpoints_kept"] is not None:
        run["checkpoints_kept"] = whole(
            "--checkpoints-kept", given["checkpoints_kept"], "checkpoints", most=1e6
        )
    if given["recompute"] is not None:
        run["recompute"] = given["recompute"]
    if given["goal"]:
        run["goal"] = _GOALS[given["goal"]]
    request = PlanRequest(
        model=model,
        unique_tokens=unique,
        epochs=epochs,
        chip=hardware.chip,
        chips=hardware.chips,
        peak_flops_per_second=hardware.peak_flops_per_second,
        price_usd_per_chip_hour=hardware.price_usd_per_chip_hour,
        mfu=hardware.mfu,
        mfu_source=hardware.mfu_source,
        hfu=hardware.hfu,
        observed_tokens_per_second=hardware.observed_tokens_per_second,
        goodput=hardware.goodput,
        flops_basis=given["flops_basis"],
        precision=hardware.precision,  # type: ignore[arg-type]
        strategy=given["strategy"] or "data",
        global_batch_size=fixed,
        machine_memory_bytes=memory_bytes(),
        bytes_per_token=bytes_per_token,
        hidden_multiplier_low=low,
        hidden_multiplier_high=high,
        storage_usd_per_gb_month=number("storage_usd_per_gb_month", "USD", 1000, True),
        network_usd_per_gb=number("network_usd_per_gb", "USD", 1000, True),
        **run,
    )
    if batch < request.devices:
        notes.append(f"{batch:,} sequences a step leave some of {hardware.chips:,} chips idle")
    return request


def _affordable(
    given: Mapping[str, Any],
    budget: float,
    hardware: Hardware,
    model: PlannedModel | None,
    unique: float | None,
    epochs: float,
) -> list[Affordable]:
    """What the budget buys: first what fits the given model or tokens, then the optimum."""
    if hardware.observed_tokens_per_second is not None or hardware.hfu is not None:
        raise FlagError("--budget-usd takes --mfu or --tflops-per-chip, not a throughput or HFU.")
    assert hardware.price_usd_per_chip_hour is not None
    terms: dict[str, Any] = {
        "budget_usd": budget,
        "price_usd_per_chip_hour": hardware.price_usd_per_chip_hour,
        "peak_flops_per_second": hardware.peak_flops_per_second,
        "chip": hardware.chip,
        "mfu": hardware.mfu,
        "goodput": hardware.goodput,
    }
    lines = []
    if model is not None:
        basis: FlopsBasis = given["flops_basis"] or ("6n" if model.shape_assumed else "exact")
        per_token = model.flops_per_token_6n if basis == "6n" else model.flops_per_token_exact
        lines.append(
            tokens_for_budget(
                **terms, params=model.params_active, flops_per_token=per_token, flops_basis=basis
            )
        )
    if unique is not None:
        lines.append(best_for_budget(**terms, tokens=unique * epochs))
    lines.append(best_for_budget(**terms))
    if lines[0].params < _LEAST_PARAMS or lines[0].tokens < 1:
        raise FlagError(
            f"--budget-usd = {budget:g}: buys {lines[0].flops:.3g} FLOPs, too few for any model."
        )
    return lines


def _memory_note(plan: Plan, notes: list[str]) -> None:
    request = plan.request
    here = next(fit for fit in plan.fits if fit.strategy == request.strategy)
    room = request.memory_bytes
    if here.fits is not False or room is None:
        return
    fitting = [fit for fit in plan.fits if fit.smallest_chips is not None]
    best = min(fitting, key=lambda fit: fit.smallest_chips or 0, default=None)
    advice = "no strategy here fits; recompute activations (--recompute full)"
    if best is not None:
        advice = f"--strategy {best.strategy} fits from {best.smallest_chips:,} chips on"
    notes.append(
        f"{plan.memory.total / 2**30:,.0f} GiB a chip do not fit {request.chip.slug}'s "
        f"{room / 2**30:,.0f} GiB: {advice}"
    )


def _plot_path(text: str | None) -> Path | None:
    if text is None:
        return None
    path = Path(text)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise FlagError(f"--plot = {text!r}: expected a name that ends in .png, .svg or .pdf.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise FlagError(f"--plot = {text!r}: {path.parent} is no directory that can be written.")
    return path
