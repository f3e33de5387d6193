"""The study of `tokenmill value`: what variants of a text are worth, and what each source is."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.config import Config
from pipeline.report.console import RunConsole
from pipeline.report.lines import shown_path
from pipeline.report.page.value import VALUE_PAGE_NAME, render_value_page
from pipeline.report.value import value_screen
from pipeline.studies.corpus import StudyCorpus
from pipeline.studies.held_out import HeldOutEvaluator
from pipeline.studies.ladder_plan import Target
from pipeline.studies.paired_runs import Arm, PairedRuns
from pipeline.studies.proxy_runs import ProxyRuns, StudyBudget, study_usd_per_hour
from pipeline.studies.session import Study
from pipeline.studies.value_corpora import (
    VariantCorpus,
    describe_rows,
    prepare_variants,
)
from pipeline.studies.value_document import ValueWriter
from pipeline.studies.value_plan import (
    Plan,
    equal_compute_steps,
    most_tokens,
    plan_runs,
    plan_steps,
)
from pipeline.studies.variants import Variant, read_variants, without_each
from tokenmill.contracts.value import VALUE_NAME, Value, write_value
from tokenmill.cost.paired_comparison import LEAST_SEEDS
from tokenmill.errors import TokenmillError
from tokenmill.files import read_json, write_json, write_text
from tokenmill.number_format import count, duration
from tokenmill.rows.mixture import plan_steps as plan_training
from tokenmill.visible import visible

# With --sources: the sources that are left out one by one; the others are small.
_MOST_SOURCES = 8


@dataclass(frozen=True)
class ValueOptions:
    """What the command line asks for.

    Attributes:
        variants: As they were named; empty with `sources`.
        sources: Whether each source is left out once.
        mixture: Whether weights of the sources are searched.
        held_out: Files of further held-out texts.
        equal: What is the same in all trainings.
        budget: What the study may take.
        seeds: Seeds at most.
        margin: Share of the reference's bits per byte that counts as no difference.
        params: Parameters in matrix products of the small model, about.
        steps: Steps at which variants are compared; None by the budget.
    """

    variants: tuple[str, ...]
    sources: bool
    mixture: bool
    held_out: tuple[str, ...]
    equal: Literal["tokens", "usd"]
    budget: StudyBudget
    seeds: int
    margin: float
    params: int
    steps: int | None


class Measurement:
    """The trainings of a study and all that they are of.

    Args:
        study: Its directory, configuration and screen.
        options: What was asked for.
    """

    def __init__(self, study: Study, options: ValueOptions):
        self.study, self.options, self.config = study, options, study.config
        self.usd_per_hour = study_usd_per_hour(self.config)
        seconds = options.budget.seconds(self.usd_per_hour)
        self.deadline = time.monotonic() + seconds
        self._runs: dict[tuple[str, str], tuple[ProxyRuns, HeldOutEvaluator]] = {}

    @property
    def seconds_left(self) -> float:
        """Wall seconds until the budget is spent."""
        return max(0.0, self.deadline - time.monotonic())

    def prepare(self, variants: Sequence[Variant]) -> None:
        """Prepare the rows of all variants and the held-out texts."""
        self.corpora, self.held_out = prepare_variants(
            self.config, variants, self.options.held_out, self.study.screen
        )
        self.target = make_target(self.config, self.corpora[0].corpus)

    def runs_of(self, corpus: StudyCorpus) -> tuple[ProxyRuns, HeldOutEvaluator]:
        """Return what trains on a corpus and evaluates; variants with the same rows share it."""
        key = (corpus.rows_uri, corpus.tokenizer_path)
        if key not in self._runs:
            length = self.config.model.sequence_length
            evaluator = HeldOutEvaluator(self.held_out.sets, corpus.tokenizer_path, length)
            runs = ProxyRuns(self.study.proxy_directory, corpus, evaluator)
            self._runs[key] = runs, evaluator
        return self._runs[key]

    def plan(self, corpora: Sequence[VariantCorpus]) -> Plan:
        """Choose the small model and how long it is trained."""
        options, reference = self.options, corpora[0]
        if options.steps is not None:
            return plan_steps(self.target, options.params, options.steps)
        unique = [
            sum(counts.loss_tokens for counts in corpus.counts.values()) for corpus in corpora
        ]
        runs, evaluator = self.runs_of(reference.corpus)
        # The same command goes on where it was stopped, so it has to plan the same.
        asked = repr((options, [corpus.source_weights for corpus in corpora],
                      [corpus.corpus.rows_uri for corpus in corpora]))  # fmt: skip
        name = f"plan-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
        path = os.path.join(self.study.proxy_directory, name)
        if os.path.exists(path):
            return plan_steps(self.target, options.params, read_json(path)["steps"])
        plan = plan_runs(
            self.target,
            options.params,
            runs,
            evaluator.loss_tokens,
            len(corpora),
            self.seconds_left,
            most_tokens(unique),
            self.config.run.seed,
            reference.source_weights,
        )
        write_json(path, {"steps": plan.steps})
        return plan

    def compare(self, corpora: Sequence[VariantCorpus], plan: Plan) -> PairedRuns:
        """Train the variants in pairs until their verdicts are clear or the budget is spent."""
        arms = []
        for corpus in corpora:
            shape = replace(plan.shape, vocab_size=corpus.corpus.train.vocab_size)
            steps = plan.steps
            if self.options.equal == "usd":
                steps = equal_compute_steps(plan.steps, plan.shape, shape)
            arms.append(
                Arm(
                    corpus.variant.name,
                    self.runs_of(corpus.corpus)[0],
                    shape,
                    plan.train,
                    steps,
                    corpus.source_weights,
                )
            )
        deciding = [each.name for each in self.held_out.deciding]
        first = self.config.run.seed
        seeds = [first + i for i in range(self.options.seeds)]
        paired = PairedRuns(arms, deciding, seeds, self.options.margin, self.deadline)
        screen = self.study.screen
        trained = 0

        def shown(number: int, arm: Arm) -> None:
            nonlocal trained
            if trained == 0:
                screen.step_started(f"seed {number}")
            trained += 1
            screen.step_progress(trained, 1 + sum(each.is_open for each in arms), visible(arm.name))

        def seed_done(number: int) -> None:
            nonlocal trained
            trained = 0
            parts = [
                f"{visible(arm.name)} {paired.loss(arm.compared[-1]):.3f}"
                for arm in arms
                if len(arm.outcomes) == number
            ]
            cached = not any(arm.outcomes[-1].is_new for arm in arms if len(arm.outcomes) == number)
            screen.step_finished(f"seed {number}", [*parts, "bits per byte"], cached)

        paired.run(shown, seed_done)
        return paired

    @property
    def proxy_seconds(self) -> float:
        """Seconds of all small trainings, also of those that an earlier study left."""
        return sum(runs.seconds for runs, _ in self._runs.values())

    @property
    def proxy_usd(self) -> float:
        """Their price."""
        return sum(runs.usd for runs, _ in self._runs.values())


def measure_and_show(study: Study, options: ValueOptions, page: str | None = None) -> str:
    """Measure, show the result on the screen, and leave value.json and value.html.

    Args:
        study: Its directory, configuration and screen.
        options: What was asked for.
        page: Another file for the page; None for none.

    Returns:
        The JSON document.

    Raises:
        TokenmillError: A variant or the budget does not do, or the page cannot be written.
    """
    value = measure_value(study, options)
    text = render_value_page(value)
    written = os.path.join(study.directory, VALUE_PAGE_NAME)
    for path in (written, *([page] if page else [])):
        try:
            write_text(path, text)
        except OSError as error:
            raise TokenmillError(
                f"--out {path}: {error.strerror}.",
                "Name a file in a directory that can be written.",
            ) from None
    study.screen.console.print(value_screen(value))
    document = os.path.join(study.directory, VALUE_NAME)
    study.screen.say(f"\nPage: {shown_path(written)}", markup=False)
    study.screen.say(
        f"For the ledger of a run: --set cost.value={shown_path(document)}", markup=False
    )
    return json.dumps(value.to_json(), indent=2, ensure_ascii=False)


def measure_value(study: Study, options: ValueOptions) -> Value:
    """Measure what was asked for; leave value.json in the study's directory.

    Raises:
        TokenmillError: A variant or the budget does not do.
    """
    if options.seeds < LEAST_SEEDS:
        raise TokenmillError(
            f"--seeds {options.seeds}: expected at least {LEAST_SEEDS}: of fewer differences "
            "nothing can be said of their noise."
        )
    measurement = Measurement(study, options)
    if options.sources:
        variants = _leave_sources_out(measurement)
    else:
        variants = read_variants(study.config, options.variants)
        measurement.prepare(variants)
    corpora = measurement.corpora
    plan = measurement.plan(corpora)
    announce(study.screen, plan, measurement, len(corpora))
    paired = measurement.compare(corpora, plan)
    writer = ValueWriter(
        config=study.config,
        corpora=corpora,
        held_out=measurement.held_out,
        plan=plan,
        target=measurement.target,
        paired=paired,
        equal=options.equal,
        usd_per_hour=measurement.usd_per_hour,
    )
    value = writer.document(
        seconds=measurement.proxy_seconds, usd=measurement.proxy_usd, sources=options.sources
    )
    write_value(os.path.join(study.directory, VALUE_NAME), value)
    return value


def announce(screen: RunConsole, plan: Plan, measurement: Measurement, variants: int) -> None:
    """Say what is trained, before it is."""
    rows = describe_rows(measurement.corpora[0])
    left = measurement.seconds_left
    limit = "without a limit" if math.isinf(left) else f"with {duration(left)} left"
    screen.paragraph(
        f"{count(variants)} variants, models of {count(plan.shape.params_total)} parameters "
        f"({plan.shape.layers} layers of {plan.shape.d_model}), compared after "
        f"{count(plan.steps)} steps of {plan.train.global_batch_size} rows; the base has {rows}; "
        f"{limit}."
    )


def make_target(config: Config, corpus: StudyCorpus) -> Target:
    """Return the training that small ones stand for."""
    manifest = corpus.train
    steps = plan_training(
        manifest.rows, config.train.global_batch_size, config.train.epochs, config.train.max_steps
    )
    return Target(
        shape=replace(config.shape(), vocab_size=manifest.vocab_size),
        train=config.train,
        tokens=manifest.loss_tokens * steps.epochs,
        unique_tokens=manifest.loss_tokens,
        rows=manifest.rows,
    )


def _leave_sources_out(measurement: Measurement) -> list[Variant]:
    """Prepare the base, and a variant without each of its largest sources."""
    base = Variant("base", measurement.config)
    measurement.prepare([base])
    corpus = measurement.corpora[0]
    ordered = sorted(corpus.counts.items(), key=lambda item: (-item[1].loss_tokens, item[0]))
    if len(ordered) < 2:
        raise TokenmillError(
            "--sources: the text has a single source, so there is nothing to leave out.",
            "Compare variants of it instead, such as: tokenmill value curate.rules=none",
        )
    names = [name for name, _ in ordered]
    own = names if len(names) <= _MOST_SOURCES + 1 else names[:_MOST_SOURCES]
    variants = without_each(measurement.config, own)
    rows = corpus.corpus.rows_by_source
    measurement.corpora = [
        VariantCorpus(variant, corpus.corpus, variant.source_weights(rows)) for variant in variants
    ]
    return variants
