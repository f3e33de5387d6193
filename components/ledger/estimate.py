"""A run's estimate from its plan: tokens, FLOPs, seconds, money; plain arithmetic.

The ledger makes one, the budget gate another for every way to fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from components.ledger.config import LedgerJob
from tokenmill.contracts.calibration import Calibration
from tokenmill.contracts.ledger import Chips
from tokenmill.contracts.packed_rows import PackedManifest
from tokenmill.contracts.training import Phase
from tokenmill.cost.flops import flops_per_token
from tokenmill.cost.pricing import CostEstimate, estimate_cost, wall_seconds
from tokenmill.cost.scaling import expected_loss, repetition_discounted_tokens
from tokenmill.model.shape import ModelShape
from tokenmill.rows.mixture import Mixture, StepPlan, plan_steps


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """Steps, tokens, FLOPs, seconds and money of a run.

    Attributes:
        plan: Steps and rows.
        slots: Positions computed in all steps, padding included.
        effective_tokens: Loss tokens, discounted for repetition.
        total_flops: Exact model FLOPs of all slots.
        seconds_by_phase: Seconds of the trainer's phases: `steps` by FLOPs / (chips x peak x MFU),
            the phases that calibration timed, and `lost` = what goodput takes.
        cost: Time and money of all phases together.
        expected_loss: Nats per token (Besiroglu et al. 2024's fit), for comparison only.
    """

    plan: StepPlan
    slots: int
    effective_tokens: float
    total_flops: float
    seconds_by_phase: dict[Phase, float]
    cost: CostEstimate
    expected_loss: float

    @property
    def training_seconds(self) -> float:
        """Seconds of the steps and of the compilation of the first."""
        return self.seconds_by_phase[Phase.STEPS] + self.seconds_by_phase.get(Phase.COMPILE, 0.0)


class RunEstimator:
    """Estimates the run that the settings describe, and variants of it.

    Attributes:
        shape: The model.
        mixture: How often each source is read; None where all are read alike and without a limit.

    Args:
        packed: Manifest of the packed rows by split.
        settings: What is to be trained, on what, at what price.
        calibration: calibration.json; None without a measurement.
    """

    def __init__(
        self,
        packed: Mapping[str, PackedManifest],
        settings: LedgerJob,
        calibration: Calibration | None,
    ):
        self._settings, self._rows = settings, packed["train"]
        self.shape = settings.shape
        self._overhead_seconds = _overhead_seconds(
            calibration, packed["eval"].rows, settings.global_batch_size
        )
        self.mixture: Mixture | None = None
        if self._rows.has_weights or self._rows.max_repetitions is not None:
            self.mixture = Mixture.of(self._rows)

    @property
    def slots_per_row(self) -> float | None:
        """Mean width of a classifier's rows, which are as wide as their documents; else None."""
        if self._rows.task != "classification":
            return None
        return self._rows.slots / self._rows.rows

    def estimate(
        self, chips: Chips, *, shape: ModelShape | None = None, epochs: float | None = None
    ) -> RunEstimate:
        """Estimate the run on some chips.

        Args:
            chips: What computes.
            shape: Another model; its sequence length may differ.
            epochs: Passes, whatever the settings say of epochs and steps.
        """
        settings, shape = self._settings, shape or self.shape
        # Rows of another length: as many as hold the same slots.
        rows = -(-self._rows.rows * self.shape.sequence_length // shape.sequence_length)
        mixture = self._mixture_of(rows)
        plan = plan_steps(
            rows,
            settings.global_batch_size,
            settings.epochs if epochs is None else epochs,
            settings.max_steps if epochs is None else None,
            None if mixture is None else mixture.rows_available,
        )
        slots = round(plan.rows_read * (self.slots_per_row or shape.sequence_length))
        total_flops = flops_per_token(shape, lora=settings.lora).training * slots
        effective = self._effective_tokens(plan, mixture)
        steps = wall_seconds(
            total_flops=total_flops,
            chips=chips.chips,
            peak_flops_per_second=chips.peak_flops_per_second,
            mfu=chips.mfu,
        )
        # Timed on the settings' chip; another one's are unknown.
        overhead = self._overhead_seconds if chips.chip == settings.chip else {}
        busy = steps + sum(overhead.values())
        cost = estimate_cost(
            total_flops=total_flops,
            effective_tokens=effective,
            chips=chips.chips,
            peak_flops_per_second=chips.peak_flops_per_second,
            mfu=chips.mfu,
            price_usd_per_chip_hour=chips.price_usd_per_chip_hour,
            goodput=chips.goodput * steps / busy,
            hidden_multiplier_low=settings.hidden_cost_multiplier_low,
            hidden_multiplier_high=settings.hidden_cost_multiplier_high,
        )
        lost = busy * (1 / chips.goodput - 1)
        return RunEstimate(
            plan=plan,
            slots=slots,
            effective_tokens=effective,
            total_flops=total_flops,
            seconds_by_phase={**overhead, Phase.STEPS: steps, Phase.LOST: lost},
            cost=cost,
            expected_loss=expected_loss(shape.params_active, max(effective, 1.0)),
        )

    def _effective_tokens(self, plan: StepPlan, mixture: Mixture | None) -> float:
        share = self._rows.mask_rate  # masked-lm: only what is hidden bears a loss
        if mixture is None or not self._rows.by_source or mixture.sources == [""]:
            return repetition_discounted_tokens(self._rows.loss_tokens * share, plan.epochs)
        repetitions = mixture.repetitions(plan.rows_read)
        return sum(
            repetition_discounted_tokens(counts.loss_tokens * share, repetitions.get(group, 0.0))
            for source in self._rows.by_source
            for group, counts in self._rows.groups_of_source(source).items()
        )

    def _mixture_of(self, rows: int) -> Mixture | None:
        """Return the sources' mixture where the same text is cut into another number of rows."""
        if self.mixture is None or rows == self._rows.rows:
            return self.mixture
        factor = rows / self._rows.rows
        counts = zip(self.mixture.sources, self.mixture.rows.tolist(), strict=True)
        return Mixture(
            {source: round(count * factor) for source, count in counts},
            self.mixture.weights,
            self._rows.max_repetitions,
        )


def _overhead_seconds(
    calibration: Calibration | None, eval_rows: int, global_batch_size: int
) -> dict[Phase, float]:
    """Forecast the trainer's phases besides the steps; nothing without a calibration."""
    if calibration is None:
        return {}
    batches = -(-eval_rows // global_batch_size)
    once = batches * calibration.evaluate_batch_seconds
    samples = calibration.first_samples_seconds + 2 * calibration.samples_seconds
    return {
        Phase.START: calibration.start_seconds,
        Phase.BUILD: calibration.build_seconds,
        # The step that compiles also trains, and the steps have it already.
        Phase.COMPILE: max(0.0, calibration.compile_seconds - calibration.step_seconds),
        Phase.EVALUATE_BEFORE: calibration.evaluate_compile_seconds + once,
        Phase.EVALUATE_AFTER: once,
        **({Phase.SAMPLES: samples} if samples else {}),  # before, half way, after
    }
