"""The ladder: small trainings on a text for a budget, their fit, and what follows from it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.config import Config
from pipeline.report.console import RunConsole
from pipeline.studies.corpus import StudyCorpus, prepare_corpus
from pipeline.studies.held_out import (
    HELD_OUT_BYTES,
    HeldOutEvaluator,
    HeldOutSet,
    held_out_of_split,
)
from pipeline.studies.ladder_document import Measured, TrunkOutcome, ladder_document
from pipeline.studies.ladder_plan import (
    Speed,
    Target,
    Timing,
    Trunk,
    plan_ladder,
    rule_of_compute,
    small_shapes,
    target_of,
)
from pipeline.studies.proxy_runs import ProxyJob, ProxyOutcome, ProxyRuns, StudyBudget
from pipeline.studies.session import Study
from tokenmill.contracts.ladder import LADDER_NAME, Ladder, LadderSpending, write_ladder
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.cost.flops import TRAINING_FLOPS_PER_PARAM, flops_per_token
from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.cost.scaling_purchases import Compute
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import ModelShape
from tokenmill.number_format import with_letter
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.unigram import unigram_baseline

_TIMED_STEPS = 12
_TIMED_ROWS = 4
# Of the target, how large the larger of the two models is that are timed before the plan.
_TIMED_SHARE = 0.25
# Where time runs short, a size is trained as long as so large a share of its steps is left, a check
# as long as so large a share of all.
_LEAST_SHARE, _LEAST_CHECK_SHARE = 0.2, 0.7
_PURPOSES: Mapping[str, str] = {
    "other seed": "seed",
    "larger batch": "batch",
    "half the learning rate": "rate / 2",
    "twice the learning rate": "rate x 2",
}


def study_ladder(study: Study, budget: StudyBudget) -> Ladder:
    """Prepare the text, train the ladder, and leave ladder.json in the study's directory.

    Raises:
        TokenmillError: A step failed, the budget buys no ladder, or a training diverged.
    """
    corpus = prepare_corpus(study.config, study.screen, by_source=False)
    ladder = LadderStudy(study.config, corpus, study.proxy_directory, study.screen).run(budget)
    write_ladder(os.path.join(study.directory, LADDER_NAME), ladder)
    return ladder


class LadderStudy:
    """Trains a ladder on a corpus.

    Args:
        config: The resolved configuration: the training that is to be predicted.
        corpus: Its text.
        proxy_directory: Where results of small trainings are kept.
        screen: Where they are shown.
    """

    def __init__(
        self, config: Config, corpus: StudyCorpus, proxy_directory: str, screen: RunConsole
    ):
        self.config, self.corpus, self.screen = config, corpus, screen
        self.target = target_of(config, corpus)
        self.sets: list[HeldOutSet] = held_out_of_split(corpus.curated_uri, HELD_OUT_BYTES)
        self.evaluator = HeldOutEvaluator(
            self.sets, corpus.tokenizer_path, self.target.shape.sequence_length
        )
        self.runs = ProxyRuns(proxy_directory, corpus, self.evaluator)

    def run(self, budget: StudyBudget) -> Ladder:
        """Train what the budget pays for, and fit it.

        Raises:
            TokenmillError: The budget buys no ladder, or a training diverged.
        """
        seconds = budget.seconds(self.runs.usd_per_hour)
        if not math.isfinite(seconds):
            raise TokenmillError(
                f"--max-usd {budget.max_usd} sets no limit: an hour of this machine costs $0.",
                "Give --max-minutes, or a price: --set cost.price_usd_per_chip_hour=0.05",
            )
        speed = self._time()
        trunks = plan_ladder(self.target, seconds - self.runs.seconds, speed)
        return self.fit(trunks, budget, speed)

    def fit(self, trunks: Sequence[Trunk], budget: StudyBudget, speed: Speed) -> Ladder:
        """Train trunks and fit them.

        Args:
            trunks: What is to be trained, in this order.
            budget: Trunks that would go over it are shortened or left out.
            speed: By which that is judged.

        Raises:
            TokenmillError: A training diverged.
        """
        outcomes = self._train(trunks, budget.seconds(self.runs.usd_per_hour), speed)
        return ladder_document(self._measured(outcomes, budget, speed))

    def _time(self) -> Speed:
        """Time some steps of two sizes on this machine; times of an earlier call hold on."""
        shapes = small_shapes(self.target.shape)
        wanted = self.target.shape.params_in_products * _TIMED_SHARE
        larger = min(shapes[1:] or shapes, key=lambda s: abs(s.params_in_products - wanted))
        self.screen.step_started("timing")
        timings = [self._timing(shape) for shape in dict.fromkeys((shapes[0], larger))]
        self.screen.step_finished(
            "timing",
            [f"{with_letter(t.params, 3)} parameters: {t.flops_per_second / 1e9:.0f} GFLOP/s"
             for t in timings],
            cached=False,
        )  # fmt: skip
        return Speed(timings=tuple(sorted(timings, key=lambda timing: timing.params)))

    def _timing(self, shape: ModelShape) -> Timing:
        train = rule_of_compute(self.target.train, self.target.compute, self.target)
        train = train.model_copy(update={"global_batch_size": _TIMED_ROWS})
        outcome = self.runs.run(ProxyJob(shape, train, (_TIMED_STEPS,), self.config.run.seed))
        assert outcome.step_seconds is not None
        slots = _TIMED_ROWS * shape.sequence_length
        count = flops_per_token(shape)
        rate = count.training * slots / outcome.step_seconds
        evaluating = self.evaluator.loss_tokens * count.forward / rate
        starting = outcome.seconds - _TIMED_STEPS * outcome.step_seconds - evaluating
        return Timing(
            params=shape.params_in_products,
            flops_per_second=rate,
            start_seconds=max(1.0, starting),
            evaluate_seconds=evaluating,
        )

    def _train(self, trunks: Sequence[Trunk], seconds: float, speed: Speed) -> list[TrunkOutcome]:
        """Train the trunks; where they take longer than forecast, all that are left are shortened.

        So no size is lost because other programs took the machine; checks are left out before.
        """
        done: list[TrunkOutcome] = []
        forecast, started = 0.0, self.runs.seconds
        for i, planned in enumerate(trunks):
            pace = (self.runs.seconds - started) / forecast if forecast else 1.0
            ahead = sum(map(speed.seconds, trunks[i:])) * pace
            trunk = shortened(planned, (seconds - self.runs.seconds) / ahead)
            if trunk is None:
                self.screen.note(f"No time is left for {_shown_name(planned)}: left out.")
                continue
            name = _shown_name(trunk)
            self.screen.step_started(name)
            self.screen.step_progress(i, len(trunks), "")
            try:
                outcome = self.runs.run(self._job(trunk))
            except TokenmillError:
                if trunk.purpose == "ladder":
                    raise
                self.screen.step_failed(name, "diverged")  # which answers what was asked
                done.append(TrunkOutcome(trunk, None))
                continue
            forecast += speed.seconds(trunk)
            done.append(TrunkOutcome(trunk, outcome))
            self.screen.step_finished(name, _summary(trunk, outcome), cached=not outcome.is_new)
        return done

    def _job(self, trunk: Trunk) -> ProxyJob:
        return ProxyJob(trunk.shape, trunk.train, trunk.steps, self.config.run.seed + trunk.seed)

    def _measured(
        self, outcomes: Sequence[TrunkOutcome], budget: StudyBudget, speed: Speed
    ) -> Measured:
        manifest = self.corpus.train
        splits = [PackedSplit(self.corpus.rows_uri, split) for split in ("train", "eval")]
        unigram = unigram_baseline(
            splits[0].target_counts(),
            splits[1].target_counts(),
            splits[1].manifest.loss_bytes,
            "causal-lm",
        )
        return Measured(
            target=self.target,
            seed=self.config.run.seed,
            outcomes=outcomes,
            spending=LadderSpending(
                max_usd=budget.max_usd,
                max_seconds=budget.max_seconds,
                usd=self.runs.usd,
                seconds=self.runs.seconds,
                new_seconds=self.runs.new_seconds,
                usd_per_hour=self.runs.usd_per_hour,
            ),
            compute=self._compute(outcomes, speed),
            unigram_bits_per_byte=unigram["unigram_bits_per_byte"],
            held_out_documents=sum(len(each.texts) for each in self.sets),
            held_out_bytes=sum(each.bytes for each in self.sets),
            train_bytes=manifest.loss_bytes,
            prepare_seconds=self.corpus.seconds,
            prepare_usd=self.corpus.usd,
            seconds_per_flop=self._seconds_per_flop(outcomes, speed),
        )

    def _seconds_per_flop(self, outcomes: Sequence[TrunkOutcome], speed: Speed) -> float:
        """Return what the configured training will take: measured here, or at the chips' MFU."""
        job = self.config.ledger_job()
        peak = job.peak_flops_per_second_per_chip
        if job.chip != CPU_CHIP and peak is not None:
            return 1 / (peak * job.chips * job.expected_mfu(None)[0])
        rates = [
            (each.trunk.shape.params_in_products, flops * slots / each.outcome.step_seconds)
            for each in outcomes
            if each.outcome is not None and each.outcome.step_seconds
            for flops in [flops_per_token(each.trunk.shape).training]
            for slots in [each.trunk.train.global_batch_size * each.trunk.shape.sequence_length]
        ]
        fallback = speed.flops_per_second(self.target.shape.params_in_products)
        # Timed on this machine, of as many as train.
        return 1 / (max(rates, default=(0, fallback))[1] * job.machines)

    def _compute(self, outcomes: Sequence[TrunkOutcome], speed: Speed) -> Compute:
        job = self.config.ledger_job()
        per_second = job.price.usd_per_chip_hour * job.chips / SECONDS_PER_HOUR
        return Compute(
            usd_per_flop=self._seconds_per_flop(outcomes, speed) * per_second,
            overhead=overhead_of(self.target),
        )


def overhead_of(target: Target) -> float:
    """Return the exact FLOPs of the target's positions over 6 N D: scores, padding."""
    shape = target.shape
    slots_per_token = target.rows * shape.sequence_length / target.unique_tokens
    exact = flops_per_token(shape).training * slots_per_token
    return exact / (TRAINING_FLOPS_PER_PARAM * shape.params_in_products)


def shortened(trunk: Trunk, share: float) -> Trunk | None:
    """Return a trunk of a share of the steps.

    Args:
        trunk: As it was planned.
        share: Time that is left over what all trunks that are left would take.

    Returns:
        It whole where there is time enough, as a check always is, so that it can be compared; None
        where too little of it would be left.
    """
    if share >= 1:
        return trunk
    if trunk.purpose != "ladder":
        return trunk if share >= _LEAST_CHECK_SHARE else None
    if share < _LEAST_SHARE:
        return None
    return replace(trunk, steps=tuple(max(2, int(count * share)) for count in trunk.steps))


def _shown_name(trunk: Trunk) -> str:
    size = with_letter(trunk.shape.params_in_products, 3)
    return f"{size} {_PURPOSES.get(trunk.purpose, '')}".strip()


def _summary(trunk: Trunk, outcome: ProxyOutcome) -> list[str]:
    last = outcome.results[-1]
    losses = ", ".join(f"{result.bits_per_byte():.3f}" for result in outcome.results)
    return [
        f"{losses} bits per byte",
        f"up to {with_letter(last.loss_tokens, 3)} tokens",
        f"{trunk.shape.layers} x {trunk.shape.d_model}",
        f"rate {trunk.train.learning_rate:g}",
    ]
