"""A plan as tables for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from pipeline.report.ladder_loss import ladder_rows
from pipeline.report.tables import SafeConsole, echo, escape
from tokenmill.contracts.ladder import LadderLoss
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.cost.plan.document import PlanAnswer, PlanLimit, guidance_document
from tokenmill.cost.plan.planning import Plan
from tokenmill.cost.scaling import LEAST_FITTED_PARAMS, SPARSE_NOTE
from tokenmill.cost.sharding import STRATEGY_NAMES
from tokenmill.number_format import (
    byte_size,
    decimal,
    duration,
    flops_per_second,
    power_of_ten,
    usd,
    usd_price,
    with_letter,
)

_WIDTH = 100
_GIB = 2**30
_HOUR = 3600.0


def show(answer: PlanAnswer) -> None:
    """Print the answer."""
    console = SafeConsole(width=_WIDTH, highlight=False)
    with console.capture() as captured:
        _show(console, answer)
    # Tables are padded to their width; a log or a file wants no trailing blanks.
    echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _show(console: Console, answer: PlanAnswer) -> None:
    plan = answer.plan
    if answer.affordable:
        _budget(console, answer)
    console.print(_model(plan))
    console.print(_cost(plan))
    request = plan.request
    price = request.hardware.price_usd_per_chip_hour
    rate = (
        f"{usd_price(price)} a chip-hour ({request.hardware.price_label})"
        if price is not None
        else "no price"
    )
    counted = "6N" if request.basis == "6n" else "all matrix products"
    console.print(f"Price: {rate}.")
    of = f": {', '.join(plan.utilization.runs)}" if plan.utilization else ""
    console.print(f"MFU: {plan.mfu_source}{escape(of)}.")
    peak = flops_per_second(request.hardware.peak_flops_per_second, 4)
    console.print(f"Hours: by {counted}, at a peak of {peak}.")
    for limit in answer.limits:
        console.print(_limit(limit))
    console.print(_memory(plan))
    parts = plan.memory.by_part().items()
    sizes = (f"{name.replace('_', ' ')} {size / _GIB:,.2f}" for name, size in parts if size)
    console.print(f"GiB by part: {', '.join(sizes)}.")
    console.print(_host_memory(plan))
    console.print(
        "* for planning only: tokenmill run has the others by train.zero and train.expert_parallel."
    )
    console.print(_network(plan) + "\n")
    console.print(_guidance(plan))
    if answer.comparison:
        console.print(_comparison(answer))
    if answer.warnings:
        console.print()
    for note in answer.warnings:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")
    if answer.plot:
        console.print(f"\nWrote {escape(answer.plot)}")


def _usd(amount: float | None) -> str:
    return "no price" if amount is None else usd(amount)


def _titled(title: str, lines: box.Box | None) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=lines, padding=(0, 1))


def _table(title: str, *columns: str) -> Table:
    table = _titled(title, box.SIMPLE)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _pairs(title: str) -> Table:
    table = _titled(title, None)
    table.show_header = False
    table.add_column(no_wrap=True, min_width=26)
    table.add_column()
    return table


def _model(plan: Plan) -> Table:
    request = plan.request
    model, shape = request.model, request.model.shape
    table = _pairs("Model and tokens")
    active = ""
    if model.params_active != model.params_total:
        active = f", {with_letter(model.params_active)} active a token"
    table.add_row(
        "parameters", f"{with_letter(model.params_total)} ({model.params_total:,.0f}){active}"
    )
    if (lora := model.lora) is not None:
        trained = f"{with_letter(model.params_trained)} ({model.params_trained:,.0f})"
        table.add_row("trained", f"{trained}, by LoRA of rank {lora.rank:,}")
    like = "like " if model.shape_assumed else ""
    table.add_row(
        "shape",
        f"{like}{shape.layers} layers, d_model {shape.d_model:,}, {shape.heads} heads, "
        f"d_ff {shape.d_ff:,}, vocabulary {shape.vocab_size:,}, length {shape.sequence_length:,}",
    )
    if not model.shape_assumed:
        parts = shape.params_by_part()
        table.add_row("embedding share", f"{parts['token_embedding'] / shape.params_total:.1%}")
    epochs = f" x {request.epochs:g} epochs" if request.epochs != 1 else ""
    table.add_row("tokens", f"{with_letter(request.unique_tokens)}{epochs}")
    if request.epochs > 1:
        table.add_row("effective tokens", f"{with_letter(request.effective_tokens)}")
    table.add_row("FLOPs a token", f"{power_of_ten(model.flops_per_token_6n, 4)} (6N)")
    about = "about " if model.shape_assumed else ""
    table.add_row(
        "", f"{about}{power_of_ten(model.flops_per_token_exact, 4)} (all matrix products)"
    )
    table.add_row(
        "FLOPs in all", f"{power_of_ten(model.flops_per_token_6n * request.tokens, 4)} (6N)"
    )
    table.add_row(
        "", f"{about}{power_of_ten(model.flops_per_token_exact * request.tokens, 4)} (products)"
    )
    return table


def _cost(plan: Plan) -> Table:
    request = plan.request
    ranged = plan.utilization is not None
    title = f"\nTime and money on {request.hardware.chips:,} x {request.hardware.chip.name}"
    table = _table(title, "", *(("best", "likely", "worst") if ranged else ("estimate",)))

    def row(name: str, best: str, likely: str, worst: str) -> None:
        table.add_row(name, *((best, likely, worst) if ranged else (likely,)))

    mfus = (plan.mfu, plan.mfu, plan.mfu)
    if plan.utilization is not None:
        mfus = (plan.utilization.high, plan.mfu, plan.utilization.low)
    row("MFU x goodput" if ranged else "MFU", *(f"{mfu:.1%}" for mfu in mfus))
    if request.recompute != "none" or request.hardware.observed_tokens_per_second is not None:
        row("HFU", *(f"{mfu * plan.hfu / plan.mfu:.1%}" for mfu in mfus))
    if request.hardware.goodput != 1:
        row("goodput", *[f"{request.hardware.goodput:.1%}"] * 3)
    per_second = [plan.tokens_per_second * mfu / plan.mfu for mfu in mfus]
    row("tokens a second", *(f"{rate:,.0f}" for rate in per_second))
    costs = (plan.cost_low, plan.cost, plan.cost_high)
    row("chip-hours", *(decimal(cost.chip_hours, 4) for cost in costs))
    row("wall time", *(duration(cost.wall_hours * _HOUR) for cost in costs))
    if request.hardware.price_usd_per_chip_hour is not None:
        hidden = "with hidden costs x"
        row("compute", *(_usd(cost.compute_usd) for cost in costs))
        row(f"{hidden} {request.hidden_multiplier_low:g}", *(_usd(c.total_usd_low) for c in costs))
        row(
            f"{hidden} {request.hidden_multiplier_high:g}", *(_usd(c.total_usd_high) for c in costs)
        )
        per_million = (_usd(cost.usd_per_million_effective_tokens) for cost in costs)
        row("per million effective tokens", *per_million)
    if plan.storage_usd is not None:
        row("storage (part of hidden)", *[_usd(plan.storage_usd)] * 3)
    if plan.network_usd is not None:
        row("network (part of hidden)", *[_usd(plan.network_usd)] * 3)
    return table


def _limit(limit: PlanLimit) -> str:
    """Return the line of a limit of [budget]: whether the plan is within it."""

    def amount(value: float) -> str:
        return _usd(value) if limit.key == "budget.max_usd" else duration(value * _HOUR)

    words = f"{limit.key} = {amount(limit.limit)}: "
    if not limit.within:
        return words + f"{amount(limit.likely)}, which is likely, is [red]over it[/red]."
    if limit.worst > limit.limit:
        return (
            words
            + f"{amount(limit.likely)} is within it; the worst, {amount(limit.worst)}, is not."
        )
    return words + f"{amount(limit.worst)}, the worst, is within it."


def _memory(plan: Plan) -> Table:
    request = plan.request
    room = request.hardware.memory_bytes
    have = f"{room / _GIB:,.0f} GiB, a tenth reserved" if room else "memory unknown"
    table = _table(
        f"\nMemory a chip: {request.hardware.precision}, {request.sequences_per_copy:,} x "
        f"{request.model.shape.sequence_length:,} tokens, recompute {request.recompute} ({have})",
        "",
        f"GiB on {request.hardware.devices:,}",
        "fits",
        "smallest count",
    )
    for fit in plan.fits:
        chosen = " <" if fit.strategy == request.strategy else ""
        table.add_row(
            STRATEGY_NAMES[fit.strategy] + ("" if fit.runnable else " *") + chosen,
            f"{fit.bytes_per_chip / _GIB:,.2f}",
            "?" if fit.fits is None else ("yes" if fit.fits else "no"),
            "" if fit.smallest_chips is None else f"{fit.smallest_chips:,}",
        )
    return table


def _host_memory(plan: Plan) -> str:
    """Say what saving takes of the memory of the chief's machine."""
    copied = f"{plan.checkpoint_copy_bytes / _GIB:,.2f} GiB"
    if plan.request.hardware.chip.slug == CPU_CHIP:
        return f"While a checkpoint is written, a copy of weights and moments takes {copied} more."
    return f"Host memory: {copied} on the chief's machine, a copy while a checkpoint is written."


def _network(plan: Plan) -> str:
    """Say what a chip sends in a step, and how long that takes beside the computation."""
    network = plan.network
    if not network.sent_bytes:
        return "Network: nothing is sent between copies of the model."
    words = f"Network: a chip sends {network.sent_bytes / _GIB:,.2f} GiB a step"
    seconds, of_machine = network.seconds, network.chips_per_machine
    if seconds is None or of_machine is None:
        return words + f"; the catalog does not say {network.missing}."
    hops = (
        (network.link, f"chips of a machine (or pod) of {of_machine:,}"),
        (network.between, "machines"),
    )
    ways = [
        f"{hop.sent_bytes / _GIB:,.2f} GiB between {between} in {decimal(hop.seconds)} s at "
        f"{decimal(hop.bytes_per_second / 1e9)} GB/s"
        for hop, between in hops
        if hop.seconds and hop.bytes_per_second
    ]
    words += f": {', '.join(ways)}, beside {decimal(network.step_seconds)} s of computation"
    if network.is_the_limit:
        return words + ": [red]the network is the limit[/red], not the chip."
    return words + "."


def _guidance(plan: Plan) -> Table:
    facts = guidance_document(plan)
    chinchilla, loss = facts["chinchilla"], facts["expected_loss"]
    table = _pairs("Checkpoints and guidance")
    checkpoints = plan.checkpoints
    if checkpoints is None:
        table.add_row("checkpoints", "failures would come before a checkpoint can be written")
    else:
        table.add_row(
            "save every",
            f"{duration(checkpoints.interval_seconds)} (Daly 2006), "
            f"{byte_size(checkpoints.checkpoint_bytes)} in {duration(checkpoints.write_seconds)}",
        )
        table.add_row(
            "expect",
            f"{decimal(checkpoints.expected_failures, 2)} failures, "
            f"{duration(checkpoints.lost_seconds)} lost, goodput "
            f"{checkpoints.goodput:.1%}, disk {byte_size(checkpoints.disk_bytes)}",
        )
    each, sparse = decimal(chinchilla["tokens_per_param"]), plan.request.model.is_sparse
    from_scratch = plan.request.goal in (None, "from_scratch")
    if from_scratch:
        optimal = with_letter(chinchilla["optimal_tokens_for_this_model"])
        each += f"; compute-optimal about 20, that is {optimal} tokens (Hoffmann et al. 2022)"
    if from_scratch and plan.request.model.params_active < LEAST_FITTED_PARAMS:
        # Below, the fits give losses that guessing beats.
        expected = (
            f"unknown: the published fits begin at {with_letter(LEAST_FITTED_PARAMS)} "
            f"{'active ' * sparse}parameters; "
            "tokenmill ladder measures your text's own"
        )
    elif from_scratch:
        expected = (
            f"{loss['nats_per_token']:.3f} nats a token (Besiroglu et al. 2024), "
            f"{loss['nats_per_token_hoffmann']:.3f} (Hoffmann et al. 2022)"
        )
        if sparse:
            expected += f". {SPARSE_NOTE}"
    else:
        expected = "unknown: the published fits are of training from scratch"
    table.add_row(f"effective tokens {'an active' if sparse else 'a'} parameter", each)
    table.add_row("expected loss", expected)
    if "ladder" in facts:
        for label, words in ladder_rows(LadderLoss.model_validate(facts["ladder"])):
            table.add_row(label, words)
    if "goal" in facts:
        table.add_row("goal", facts["goal"]["message"])
    return table


def _budget(console: Console, answer: PlanAnswer) -> None:
    price = answer.plan.request.hardware.price_usd_per_chip_hour
    assert answer.budget_usd is not None
    assert price is not None
    table = _table(
        f"{_usd(answer.budget_usd)} of compute on {answer.plan.request.hardware.chip.name} "
        f"at {usd_price(price)} a chip-hour",
        *("", "parameters", "tokens", "a parameter", "FLOPs", "MFU", "loss"),
    )
    for line in answer.affordable:
        table.add_row(
            line.basis,
            with_letter(line.params),
            with_letter(line.tokens),
            decimal(line.tokens_per_param),
            power_of_ten(line.flops),
            f"{line.mfu:.1%}",
            f"{line.loss_besiroglu:.3f}",
        )
    request = answer.plan.request
    console.print(table)
    low, high = request.hidden_multiplier_low, request.hidden_multiplier_high
    console.print(
        f"If the budget must hold all costs, {_usd(answer.budget_usd / high)} to "
        f"{_usd(answer.budget_usd / low)} of it is compute.\n"
    )
    if over := answer.usd_over_budget:
        console.print(f"The plan below is {_usd(over)} [red]over the budget[/red].\n")
    elif (worst := answer.plan.cost_high.compute_usd) > answer.budget_usd > 0:
        console.print(
            "The plan below is within the budget as likely, and at the worst "
            f"{_usd(worst - answer.budget_usd)} over it.\n"
        )
    else:
        worst_too = ", at the worst too" if answer.plan.utilization else ""
        console.print(f"The plan below is within the budget{worst_too}.\n")


def _comparison(answer: PlanAnswer) -> Table:
    chips = answer.plan.request.hardware.chips
    table = _table(
        f"\nThe same run on {chips:,} of each chip, cheapest first",
        *("chip", "compute", "rank", "wall time", "rank", "chip-hours", "MFU"),
        *("fits from", "price"),
    )
    for line in answer.comparison:
        price = line.price_usd_per_chip_hour
        table.add_row(
            line.chip,
            _usd(line.compute_usd),
            str(line.rank_by_cost or "-"),
            duration(line.wall_hours * _HOUR),
            str(line.rank_by_time),
            decimal(line.chip_hours, 4),
            f"{line.mfu:.0%}",
            "" if line.smallest_chips is None else f"{line.smallest_chips:,}",
            "-" if price is None else usd_price(price),
        )
    return table
