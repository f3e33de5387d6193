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

import numpy as np

from pipeline.config import Config
from pipeline.report.console import RunConsole
from pipeline.report.lines import shown_path
from pipeline.report.page.value import VALUE_PAGE_NAME, render_value_page
from pipeline.report.value import value_screen
from pipeline.studies.corpus import StudyCorpus
from pipeline.studies.held_out import HeldOutEvaluator
from pipeline.studies.ladder_plan import target_of
from pipeline.studies.mixture_search import SEARCHED_RUNS, Found, group_sources, search_mixture
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
from tokenmill.model.shape import ModelShape
from tokenmill.number_format import active_params, count, duration
from tokenmill.visible import visible

# With --mixture: of the time that is left, for the search; the rest is for the paired check.
_SEARCH_SHARE = 0.65
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
        self.target = target_of(self.config, self.corpora[0].corpus)

    def runs_of(self, corpus: StudyCorpus) -> tuple[ProxyRuns, HeldOutEvaluator]:
        """Return what trains on a corpus and evaluates; variants with the same rows share it."""
        key = (corpus.rows_uri, corpus.tokenizer_path)
        if key not in self._runs:
            length = self.config.model.sequence_length
            evaluator = HeldOutEvaluator(self.held_out.sets, corpus.tokenizer_path, length)
            runs = ProxyRuns(self.study.proxy_directory, corpus, evaluator)
            self._runs[key] = runs, evaluator
        return self._runs[key]

    def plan(self, corpora: Sequence[VariantCorpus], further_runs: float = 0.0) -> Plan:
        """Choose the small model and how long it is trained.

        Args:
            corpora: What is compared, the reference first.
            further_runs: Trainings beside them, in lengths of the comparison.
        """
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
        if not self.seconds_left:
            raise TokenmillError(
                f"preparing the text took all of the budget: nothing is left to train "
                f"{count(len(corpora))} variants.",
                "Give more (--max-minutes, --max-usd); what was prepared is kept.",
            )
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
            further_runs,
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
        _show_seeds(self.study.screen, paired, arms)
        return paired

    @property
    def proxy_seconds(self) -> float:
        """Seconds of all small trainings, also of those that an earlier study left."""
        return sum(runs.seconds for runs, _ in self._runs.values())

    @property
    def proxy_usd(self) -> float:
        """Their price."""
        return sum(runs.usd for runs, _ in self._runs.values())


def measure_and_show(study: Study, options: ValueOptions, out: str | None = None) -> str:
    """Measure, show the result on the screen, and leave value.json and value.html.

    Args:
        study: Its directory, configuration and screen.
        options: What was asked for.
        out: Another file for the document; None for none.

    Returns:
        The JSON document.

    Raises:
        TokenmillError: A variant or the budget does not do.
    """
    value = measure_value(study, options)
    page = os.path.join(study.directory, VALUE_PAGE_NAME)
    write_text(page, render_value_page(value))
    if out is not None:
        write_value(out, value)
    study.screen.console.print(value_screen(value))
    document = os.path.join(study.directory, VALUE_NAME)
    study.screen.say(f"\nPage: {shown_path(page)}", markup=False)
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
            "nothing can be said of their noise.",
            f"Give --seeds {LEAST_SEEDS}, or leave it out.",
        )
    measurement = Measurement(study, options)
    found = None
    if options.mixture:
        plan, found = _search(measurement)
    else:
        if options.sources:
            _leave_sources_out(measurement)
        else:
            variants = read_variants(study.config, options.variants)
            if len(variants) == 1:
                raise TokenmillError(
                    f"{visible(variants[0].name)} is the only variant: expected another to compare "
                    "it with.",
                    "Such as: tokenmill value base curate.rules=none",
                )
            measurement.prepare(variants)
        plan = measurement.plan(measurement.corpora)
        announce(study.screen, plan, measurement)
    corpora = measurement.corpora
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
        seconds=measurement.proxy_seconds,
        usd=measurement.proxy_usd,
        sources=options.sources,
        mixture=found,
    )
    write_value(os.path.join(study.directory, VALUE_NAME), value)
    return value


def _show_seeds(screen: RunConsole, paired: PairedRuns, arms: Sequence[Arm]) -> None:
    """Train, with a line on the screen for the seeds up to each look."""
    ends = [0, *paired.looks]

    def shown(number: int, arm: Arm) -> None:
        if number - 1 in ends and arm is arms[0]:
            end = next(end for end in ends if end >= number)
            screen.step_started(f"seeds {number}-{end}")
        screen.step_progress(number, max(ends) + 1, f"seed {number}: {visible(arm.name)}")

    def seed_done(number: int) -> None:
        if number not in ends and paired.others:
            return
        mine = [arm for arm in arms if len(arm.outcomes) == number]
        losses = [np.mean([paired.loss(result) for result in arm.compared]) for arm in mine]
        parts = [f"{visible(arm.name)} {loss:.3f}" for arm, loss in zip(mine, losses, strict=True)]
        cached = not any(outcome.is_new for arm in mine for outcome in arm.outcomes)
        first = max(end for end in ends if end < number) + 1
        screen.step_finished(f"seeds {first}-{number}", [*parts, "bits per byte"], cached)

    paired.run(shown, seed_done)
    screen.stop()


def announce(screen: RunConsole, plan: Plan, measurement: Measurement) -> None:
    """Say what is trained, before it is."""
    variants = len(measurement.corpora)
    rows = describe_rows(measurement.corpora[0])
    left = measurement.seconds_left
    limit = "without a limit" if math.isinf(left) else f"with {duration(left)} left"
    screen.paragraph(
        f"{count(variants)} variants, models of {_params(plan.shape)} "
        f"({plan.shape.layers} layers of {plan.shape.d_model}), compared after "
        f"{count(plan.steps)} steps of {plan.train.global_batch_size} rows; the base has {rows}; "
        f"{limit}."
    )


def _params(shape: ModelShape) -> str:
    """Write the parameters of a small model."""
    active = active_params(shape.params_total, shape.params_active)
    return f"{count(shape.params_total)} parameters{active}"


def _search(measurement: Measurement) -> tuple[Plan, Found]:
    """Search weights of the sources; leave natural proportions and the proposal to be compared."""
    config = measurement.config
    measurement.prepare([Variant("natural", _without_weights(config))])
    natural = measurement.corpora[0]
    groups = group_sources(natural.corpus.rows_by_source)
    plan = measurement.plan([natural, natural], further_runs=SEARCHED_RUNS)
    measurement.study.screen.paragraph(
        f"Mixtures of {count(len(groups.names))} sources, models of "
        f"{_params(plan.shape)}; what is proposed is then compared with "
        f"natural proportions after {count(plan.steps)} steps of {plan.train.global_batch_size} "
        "rows."
    )
    screen = measurement.study.screen
    screen.step_started("mixtures")
    runs, _ = measurement.runs_of(natural.corpus)
    found = search_mixture(
        runs,
        plan,
        groups,
        measurement.held_out.deciding,
        measurement.target.tokens / measurement.target.unique_tokens,
        config.run.seed,
        time.monotonic() + measurement.seconds_left * _SEARCH_SHARE,
        lambda done, most: screen.step_progress(done, most, f"{done} of {most}"),
    )
    screen.step_finished("mixtures", [
        f"{count(len(found.losses))} mixtures",
        f"{found.losses.min():.3f} to {found.losses.max():.3f} bits per byte",
        f"predicted to {found.law.cross_validated_error:.3f}",
        f"(their mean: {found.law.mean_error:.3f})",
    ], cached=False)  # fmt: skip
    if found.proposed is not None:
        pack = config.pack.model_copy(update={"source_weights": found.proposed_weights()})
        proposed = Variant(
            "proposed",
            config.model_copy(update={"pack": pack}),
            (f"pack.source_weights={json.dumps(found.proposed_weights())}",),
        )
        weights = proposed.source_weights(natural.corpus.rows_by_source)
        measurement.corpora = [natural, VariantCorpus(proposed, natural.corpus, weights)]
    return plan, found


def _without_weights(config: Config) -> Config:
    """Return a configuration that reads sources in their natural proportions."""
    pack = config.pack.model_copy(update={"source_weights": {}, "max_repetitions": None})
    return config.model_copy(update={"pack": pack})


def _leave_sources_out(measurement: Measurement) -> None:
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
