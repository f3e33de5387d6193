"""Cost over tokens and model size, drawn. matplotlib is imported here only, when asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokenmill.cost.plan.planned_model import PlannedModel
from tokenmill.cost.plan.planning import Plan, make_plan
from tokenmill.cost.scaling import CHINCHILLA_TOKENS_PER_PARAM
from tokenmill.files import AtomicFile
from tokenmill.number_format import with_letter

_SIZES = (0.1, 0.3, 1.0, 3.0, 10.0)
_SPAN = 30.0  # tokens are drawn from a thirtieth to thirty times the plan's
_POINTS = 25


def write_cost_plot(plan: Plan, path: Path) -> None:
    """Draw compute cost (or chip-hours, without a price) against tokens, a line a model size.

    Utilization is the plan's for all lines, so that only size and tokens vary; the band is the
    range of published runs.

    Args:
        plan: The plan, which is marked.
        path: .png, .svg or .pdf; written atomically.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    request, hardware = plan.request, plan.request.hardware
    priced = hardware.price_usd_per_chip_hour is not None

    def amount(of: Plan, which: str = "cost") -> float:
        cost = getattr(of, which)
        return cost.compute_usd if priced else cost.chip_hours

    grid = [request.unique_tokens * _SPAN ** (2 * i / (_POINTS - 1) - 1) for i in range(_POINTS)]
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    same = replace(hardware, mfu=plan.mfu, hfu=None, observed_tokens_per_second=None)
    fixed = replace(request, hardware=same, flops_basis=request.basis)
    for factor in _SIZES:
        params = request.model.params_active * factor
        model = PlannedModel.of_params(params, None, request.model.shape.sequence_length)
        costs = [
            amount(make_plan(replace(fixed, model=model, unique_tokens=tokens))) for tokens in grid
        ]
        tokens = [value * request.epochs for value in grid]
        (line,) = axes.loglog(tokens, costs, label=f"{with_letter(params, 2)} parameters")
        best = CHINCHILLA_TOKENS_PER_PARAM * params
        if tokens[0] <= best <= tokens[-1]:
            at = amount(make_plan(replace(fixed, model=model, unique_tokens=best / request.epochs)))
            axes.plot(best, at, "o", color=line.get_color(), fillstyle="none")
    here = amount(plan)
    if here > 0:
        low, high = amount(plan, "cost_low"), amount(plan, "cost_high")
        axes.errorbar(
            request.tokens,
            here,
            yerr=[[here - low], [high - here]],
            fmt="k*",
            markersize=12,
            capsize=4,
            label="this plan",
        )
    axes.plot([], [], "o", color="grey", fillstyle="none", label="20 tokens a parameter")
    axes.set_xlim(grid[0] * request.epochs, grid[-1] * request.epochs)
    axes.set_xlabel("tokens processed")
    axes.set_ylabel("compute, USD" if priced else "chip-hours")
    axes.set_title(
        f"{hardware.chip.name}, MFU {plan.mfu:.0%}, goodput {hardware.goodput:.0%}", fontsize=10
    )
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    try:
        with AtomicFile(str(path)) as file:
            figure.savefig(file, dpi=100, format=path.suffix.lstrip(".").lower())
    finally:
        pyplot.close(figure)
