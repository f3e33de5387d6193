"""The tables of tokens, time and money at the end of a run."""

from collections.abc import Callable, Iterator

from rich.table import Table

from components.cost_report.report import estimated_side, forecast_sent
from data.catalog.chips import find_chip
from pipeline.report.ladder_loss import span
from pipeline.report.measured import effective_rows, measured_notes
from pipeline.report.tables import escape
from tokenmill.contracts.cost_report import CostReport, Side
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.training import Phase
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.cost.network import Network
from tokenmill.cost.sharding import Traffic
from tokenmill.metadata.step_records import StepRecord
from tokenmill.number_format import (
    active_params,
    approximate,
    byte_size,
    count,
    decimal,
    duration,
    power_of_ten,
    usd,
    usd_price,
)

# Reasons below this share of the forecast are not worth a line.
_SMALL = 0.01
_REASONS_SHOWN = 5


def _table(*columns: str) -> Table:
    table = Table(box=None)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    return table


def describe_hardware(ledger: Ledger) -> str:
    """Name the chips, their price and where it comes from."""
    hardware, price = ledger.hardware, ledger.price
    when = price.date or "no date given"
    place = f"{price.provider} {price.region}".strip()
    return (
        f"{hardware.chips} x {hardware.chip} at {usd_price(price.usd_per_chip_hour)} per "
        f"chip-hour ({place}, {when})"
    )


def stages_table(ledger: Ledger) -> Table:
    """Show the funnel of all sources, stage by stage."""
    table = _table("stage", "documents", "bytes", "tokens", "")
    table.columns[4].justify = "left"
    for stage in ledger.funnel.total.stages:
        lost = ", ".join(
            f"-{count(number)} {reason.replace('_', ' ')}"
            for reason, number in sorted(stage.documents_lost.items(), key=lambda item: -item[1])
        )
        about = "~ " if stage.tokens_are == "estimated" else ""
        table.add_row(
            stage.stage.replace("_", " "),
            count(stage.documents),
            byte_size(stage.bytes),
            about + count(stage.tokens),
            lost if stage.stage != "curated" else "",
        )
    return table


class _Sides:
    """A table of the estimate, and once it was trained of what happened beside it."""

    def __init__(self, ledger: Ledger, cost: CostReport | None):
        self._ledger, self._cost = ledger, cost
        self.estimated: Side = estimated_side(ledger) if cost is None else cost.estimated
        self.actual = None if cost is None else cost.actual
        self.table = _table("", "estimated", *(("actual", "actual / estimated") if cost else ()))

    def row(self, label: str, name: str, show: Callable[[float], str]) -> None:
        """Add a value of both sides."""
        forecast, found = getattr(self.estimated, name), getattr(self.actual, name, None)
        cells = [show(forecast)]
        if self.actual is not None:
            cells.append("unknown" if found is None else show(found))
            cells.append(f"{found / forecast:.2f}" if found is not None and forecast else "")
        self.table.add_row(label, *cells)

    def loss_tokens(self) -> None:
        """Add the loss tokens that were planned and those that were counted."""
        ledger, cost = self._ledger, self._cost
        planned, name = ledger.training.loss_tokens, ledger.funnel.total.train.loss_name
        if cost is None:
            self.table.add_row(name, count(planned))
        elif cost.trained_loss_tokens and cost.quality.eval_after.accuracy is None:
            trained = cost.trained_loss_tokens  # a classifier's are documents
            self.table.add_row(name, count(planned), count(trained), f"{trained / planned:.2f}")

    def sent(self) -> None:
        """Add what a device sends in a step, where there are several."""
        forecast, _ = forecast_sent(self._ledger)
        found = None if self._cost is None else self._cost.sent
        if not forecast and found is None:
            return
        label, cells = "sent by a device in a step", [byte_size(forecast)]
        if found is not None:
            cells.append(byte_size(found.actual_bytes))
            cells.append("" if found.ratio is None else f"{found.ratio:.2f}")
            if found.estimated_devices != found.replicas:
                label += f" ({found.estimated_devices:,} estimated, {found.replicas:,} trained)"
        self.table.add_row(label, *cells)

    def bits_per_byte(self) -> None:
        """Add the loss that the text's own ladder expects, if there is one."""
        ladder = self._ledger.guidance.ladder
        if ladder is None or ladder.bits_per_byte is None:
            return
        expected = ladder.bits_per_byte
        cells = [f"{expected.value:.3f} {span(expected, 3)}"]
        if self._cost is not None:
            found = self._cost.quality.evaluation.total.get("bits_per_byte")
            if found is not None:
                cells += [f"{found:.3f}", f"{found / expected.value:.2f}"]
        self.table.add_row("bits per byte, by the ladder", *cells)

    def hidden_costs(self) -> None:
        """Add the range of the bill with all that compute is not."""
        low, high = self._ledger.cost.total_usd_low, self._ledger.cost.total_usd_high
        self.table.add_row("with hidden costs", f"{usd(low)} - {usd(high)}")


def summary_table(ledger: Ledger, cost: CostReport | None) -> Table:
    """Compare estimate and actual in the lines that the default screen has room for."""
    sides = _Sides(ledger, cost)
    for label, tokens in effective_rows(ledger):
        sides.table.add_row(escape(label), tokens)
    sides.loss_tokens()
    sides.row("FLOPs", "total_flops", power_of_ten)
    sides.row("MFU of the steps", "mfu", lambda share: f"{share:.1%}")
    sides.row("time of the trainer", "total_seconds", duration)
    sides.row("chip-hours", "chip_hours", decimal)
    sides.row("compute", "compute_usd", usd)
    sides.hidden_costs()
    sides.bits_per_byte()
    return sides.table


def cost_table(ledger: Ledger, cost: CostReport | None) -> Table:
    """Compare estimate and actual, and say why they differ; before training show the estimate."""
    sides = _Sides(ledger, cost)
    table, row, estimated, actual = sides.table, sides.row, sides.estimated, sides.actual
    source = ledger.hardware.mfu_source
    for label, tokens in effective_rows(ledger):
        table.add_row(escape(label), tokens)
    row("tokens computed (slots)", "slots", count)
    sides.loss_tokens()
    row("FLOPs", "total_flops", lambda number: power_of_ten(number, 4))
    row(f"MFU of the steps ({source})", "mfu", lambda share: f"{share:.1%}")
    flops = ledger.flops
    computed = (flops.per_token_trained or flops.per_token_exact) / flops.per_token_exact
    if computed < 1:
        shares = [side.mfu for side in (estimated, actual) if side is not None]
        cells = [f"{mfu * computed:.1%}" if mfu else "" for mfu in shares]
        table.add_row("  without masked scores, not computed", *cells)
    row("training time", "training_seconds", duration)
    row("trainer's time in all", "total_seconds", duration)
    row("goodput", "goodput", lambda share: f"{share:.1%}")
    row("chip-hours", "chip_hours", decimal)
    sides.sent()
    row("compute", "compute_usd", usd)
    bill, hardware = ledger.cost, ledger.hardware
    if hardware.mfu_runs:
        mfu_range = f"{hardware.mfu_high:.1%} - {hardware.mfu_low:.1%}"
        of = f"  at MFU {mfu_range} ({len(hardware.mfu_runs)} bills)"
        money = f"{usd(bill.compute_usd_low)} - {usd(bill.compute_usd_high)}"
        table.add_row(of, money)
        hours = f"{decimal(bill.wall_hours_low)} - {decimal(bill.wall_hours_high)} h"
        table.add_row("", hours)
    sides.hidden_costs()
    row("per million effective tokens", "usd_per_million_effective_tokens", usd)
    sides.bits_per_byte()
    if cost is None or actual is None:
        return table
    difference = actual.total_seconds - estimated.total_seconds
    table.add_section()
    table.add_row("difference of time", "", _signed(difference), "")
    shown = 0
    for reason in cost.reasons:
        if abs(reason.seconds) < _SMALL * estimated.total_seconds or shown == _REASONS_SHOWN:
            continue
        shown += 1
        table.add_row(f"  {reason.meaning}", "", _signed(reason.seconds), "")
    return table


def _signed(seconds: float) -> str:
    return f"{'-' if seconds < 0 else '+'}{duration(abs(seconds))}"


def phases_table(cost: CostReport) -> Table:
    """Show every phase of the trainer, and its share of the time."""
    table = _table("phase", "forecast", "actual", "share")
    for phase in cost.phases:
        forecast = phase.forecast_seconds
        if not phase.actual_seconds and not forecast:
            continue
        table.add_row(
            phase.phase.replace("_", " "),
            "" if forecast is None else duration(forecast),
            duration(phase.actual_seconds),
            f"{phase.share:.1%}",
        )
    return table


def steps_table(cost: CostReport, records: dict[str, StepRecord]) -> Table:
    """Show the bill by step, with what curation and packing saved; cached steps cost nothing."""
    table = _table("step", "time", "chip-hours", "cost", "saved chip-hours", "saved")
    saved = {line.step: line for line in cost.return_on_curation}
    paid = 0.0
    for step in cost.steps:
        record = records.get(step.step)
        cached = record.cached if record else step.ran_in_this_run is False
        paid += 0.0 if cached else step.usd
        gain = saved.get(step.step)
        table.add_row(
            step.step,
            duration(step.seconds),
            decimal(step.chip_hours),
            f"$0 (cached; {usd(step.usd)})" if cached else usd(step.usd),
            decimal(gain.saved_chip_hours) if gain else "",
            usd(gain.saved_usd) if gain else "",
        )
        if gain and gain.measured_saved_usd is not None and gain.measured_bits_per_byte is not None:
            better = f"{-gain.measured_bits_per_byte:+.3f} bits per byte"
            table.add_row(f"  measured: {better}, at equal loss", "", "", "", "",
                          usd(gain.measured_saved_usd), style="dim")  # fmt: skip
        for reason, part in (gain.by_reason if gain else {}).items():
            if not part.saved_chip_hours:
                continue
            table.add_row(
                f"  {reason.replace('_', ' ')}", "", "", "",
                decimal(part.saved_chip_hours), usd(part.saved_usd), style="dim",
            )  # fmt: skip
    total = cost.pipeline
    table.add_section()
    table.add_row("all", duration(total.seconds), decimal(total.chip_hours),
                  f"{usd(paid)} in this run", "", "", style="bold")  # fmt: skip
    billed = {step.step for step in cost.steps}
    rest = [name for name in records if name not in billed]
    if rest:
        table.caption = f"Not in the bill (TFX's own, seconds each): {', '.join(rest)}."
        table.caption_justify = "left"
    return table


def notes(ledger: Ledger) -> list[str]:
    """Say what published fits and the limits say of this plan, a sentence each."""
    return [text for text, _ in _notes(ledger)]


def warnings(ledger: Ledger) -> list[str]:
    """Say of the notes those after which something is to be done."""
    return [text for text, is_warning in _notes(ledger) if is_warning]


def a_parameter(ledger: Ledger) -> str:
    """Return what tokens are counted for: "an active parameter" of a mixture of experts."""
    total, active = ledger.model.params_total, ledger.model.params_active
    return "an active parameter" if active_params(total, active) else "a parameter"


def _notes(ledger: Ledger) -> Iterator[tuple[str, bool]]:
    """Yield sentences, and whether something is to be done."""
    guidance, memory, price = ledger.guidance, ledger.memory, ledger.price
    chinchilla, repetition = guidance.chinchilla, guidance.repetition
    if guidance.goal:
        yield guidance.goal.message, guidance.goal.verdict == "below_minimum"
    if guidance.goal is None or guidance.goal.goal == "from_scratch":
        optimal = chinchilla.optimal_tokens_for_this_model
        each = a_parameter(ledger)
        yield (
            f"Compute-optimal for this model: {approximate(optimal)} tokens (20 {each}, "
            f"Hoffmann et al. 2022); this run has {decimal(chinchilla.tokens_per_param)} effective "
            f"tokens {each}.",
            False,
        )
    if guidance.ladder is not None and guidance.ladder.words:
        yield f"No loss by {guidance.ladder.file}: {guidance.ladder.words}", True
    if repetition.over_limit:
        yield (
            f"{repetition.epochs:.1f} epochs: beyond about {repetition.limit_epochs:.0f}, "
            "repeated text is worth less and less (Muennighoff et al. 2023).",
            True,
        )
    hardware = ledger.hardware
    if hardware.mfu_runs and hardware.goodput < 1:
        yield (
            "cost.goodput comes on top of the published bills that the MFU is of, which hold their "
            "own downtime: leave it at 1, or set cost.mfu.",
            True,
        )
    if ledger.curation_saved.steps_fixed:
        yield (
            "train.max_steps ends the run, so curation saved no training time: the same steps read "
            "better text.",
            False,
        )
    if memory.fits is False:
        needed = memory.process_bytes or memory.bytes_per_device
        if ledger.hardware.chip == CPU_CHIP:
            needed += memory.checkpoint_copy_bytes or 0
        words = f"{memory.smallest_device_count} devices would do."
        if memory.process_bytes is not None:
            words = "lower train.global_batch_size or raise train.accumulation_steps."
        elif memory.smallest_device_count is None:
            words = "no number of copies would do."
        yield (
            f"Training needs {needed / 2**30:,.1f} GiB a device, more than "
            f"{ledger.hardware.chip} has; {words}",
            True,
        )
    if (network := _network(ledger)) is not None and network.is_the_limit:
        seconds, computing = duration(network.seconds or 0.0), duration(network.step_seconds)
        yield (
            f"The network is the limit: sending takes {seconds} of a step, computing {computing}; "
            "fewer devices or a larger train.global_batch_size send less for each token.",
            True,
        )
    if ledger.measured is not None:
        yield from ((sentence, False) for sentence in measured_notes(ledger.measured))
    if not price.dated:
        yield "The price has no date: set cost.price_date.", True


def _network(ledger: Ledger) -> Network | None:
    """Set what a device sends beside its steps; None where it is not known where the bytes go."""
    sent, between = forecast_sent(ledger)
    if between is None:
        return None
    steps = ledger.forecast.seconds_by_phase[Phase.STEPS] / ledger.training.steps
    return Network.of(Traffic(sent - between, between), find_chip(ledger.hardware.chip), steps)
