"""The search of `tokenmill value --mixture`: weights of sources from small trainings.

Some dozens of short trainings over random mixtures, a regression of the loss on the weights
(tokenmill/cost/mixture_regression.py), and what it proposes. What the proposal is worth is not told
by the regression, which chose it for its low prediction, but by paired trainings of fresh seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.studies.held_out import HeldOutSet
from pipeline.studies.proxy_runs import ProxyJob, ProxyResult, ProxyRuns
from pipeline.studies.value_plan import Plan
from tokenmill.contracts.value import Difference, MixtureRun, MixtureSearch, Verdict
from tokenmill.cost.mixture_regression import (
    REGRESSION,
    MixtureLaw,
    best_mixture,
    fit_mixture_law,
    random_mixtures,
)
from tokenmill.errors import TokenmillError

MOST_SOURCES = 8
"""Sources that are weighed each; smaller ones keep their proportions and share one weight."""
# Passes that a source may be read in the configuration's training: repeated text is worth about as
# much as new text up to four (Muennighoff et al. 2023).
MOST_EPOCHS = 4.0
_MOST_RUNS, _RUNS_MORE_THAN_SOURCES = 32, 6
# Of the paired check's steps: what is searched is the order of mixtures, which short ones show.
_STEPS_SHARE = 0.5
SEARCHED_RUNS = _MOST_RUNS * _STEPS_SHARE
"""Trainings of a search, in lengths of the paired check's."""
# Of the error of predicting the mean: a regression that misses by more has learned too little.
_MOST_ERROR = 0.8
# The seed of the search is none of the check's.
_SEED_OFFSET = 1000


@dataclass(frozen=True)
class Groups:
    """The sources that are weighed, and those that share the last weight.

    Attributes:
        names: Of the weighed ones; the last may stand for several.
        members: Sources of each, with their share in it.
        natural: Share of each in the rows.
    """

    names: tuple[str, ...]
    members: tuple[dict[str, float], ...]
    natural: np.ndarray

    def source_weights(self, shares: np.ndarray) -> dict[str, float]:
        """Return the weight of each source for shares of the groups."""
        return {
            source: float(share) * part
            for share, members in zip(shares, self.members, strict=True)
            for source, part in members.items()
        }


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        groups: What was weighed.
        weights: Shares of each run, float [runs, groups].
        losses: Bits per byte of each run on the deciding texts.
        seed: Of all runs.
        law: The regression.
        proposed: Shares that it proposes; None where it predicts no better than the mean.
    """

    groups: Groups
    weights: np.ndarray
    losses: np.ndarray
    seed: int
    law: MixtureLaw
    proposed: np.ndarray | None

    def proposed_weights(self) -> dict[str, float]:
        """Return the proposal as pack.source_weights; the natural ones where there is none."""
        shares = self.groups.natural if self.proposed is None else self.proposed
        weights = self.groups.source_weights(np.round(shares, 4))
        return {source: round(weight, 6) for source, weight in weights.items()}


def group_sources(rows_by_source: dict[str, int]) -> Groups:
    """Choose the sources that are weighed: the largest, and all others together.

    Raises:
        TokenmillError: There is a single source.
    """
    if len(rows_by_source) < 2:
        raise TokenmillError(
            "--mixture: the text has a single source, so there is nothing to weigh.",
            "Give a text of several sources: directories below the input, or corpus.source_field.",
        )
    ordered = sorted(rows_by_source, key=lambda source: (-rows_by_source[source], source))
    own = ordered if len(ordered) <= MOST_SOURCES + 1 else ordered[:MOST_SOURCES]
    rest = ordered[len(own) :]
    total = sum(rows_by_source.values())
    names, members, natural = list(own), [{source: 1.0} for source in own], []
    if rest:
        of_rest = sum(rows_by_source[source] for source in rest)
        names.append("other sources")
        members.append({source: rows_by_source[source] / of_rest for source in rest})
    for group in members:
        natural.append(sum(rows_by_source[source] for source in group) / total)
    return Groups(tuple(names), tuple(members), np.array(natural))


def search_mixture(
    runs: ProxyRuns,
    plan: Plan,
    groups: Groups,
    deciding: Sequence[HeldOutSet],
    epochs: float,
    seed: int,
    deadline: float,
    progress: Callable[[int, int], None],
) -> Found:
    """Train over random mixtures and propose one.

    Args:
        runs: Trains on rows that were packed by source.
        plan: Of the paired check.
        groups: What is weighed.
        deciding: The held-out sets that the loss is of.
        epochs: Passes of the configuration's own training: they limit a source's share.
        seed: The run's.
        deadline: When the search has to end, by time.monotonic().
        progress: Called after each training with how many were trained, of how many.

    Raises:
        TokenmillError: Time does not suffice for a regression.
    """
    least = len(groups.names) + _RUNS_MORE_THAN_SOURCES
    most = max(least, _MOST_RUNS)
    weights = random_mixtures(groups.natural, most, seed)
    steps = max(8, round(plan.steps * _STEPS_SHARE))
    results: list[ProxyResult] = []
    longest = 0.0
    for number, shares in enumerate(weights):
        job = ProxyJob(
            plan.shape, plan.train, (steps,), seed + _SEED_OFFSET, groups.source_weights(shares)
        )
        started = time.monotonic()
        if not runs.has(job) and started + longest > deadline:
            break
        results += runs.run(job).results
        if number:  # the first compiles
            longest = max(longest, time.monotonic() - started)
        progress(number + 1, most)
    if len(results) < least:
        raise TokenmillError(
            f"the budget was spent after {len(results)} of at least {least} mixtures of "
            f"{len(groups.names)} sources; what was trained is kept.",
            "Run the same command again, which goes on from there, or give it more: "
            "--max-minutes, --max-usd; or fewer steps: --steps.",
        )
    seen = weights[: len(results)]
    by_set = np.array([[r.bits_per_byte(each.name) for each in deciding] for r in results])
    law = fit_mixture_law(seen, by_set, np.array([each.bytes for each in deciding], np.float64))
    proposed = None
    if law.cross_validated_error < _MOST_ERROR * law.mean_error:
        enough_text = groups.natural * max(1.0, MOST_EPOCHS / epochs)
        proposed = best_mixture(law, groups.natural, enough_text, seed)
    losses = by_set @ law.set_share
    return Found(groups, seen, losses, seed + _SEED_OFFSET, law, proposed)


def mixture_document(
    found: Found, check: Difference | None, verdict: Verdict | None
) -> MixtureSearch:
    """Return what a search found, and what the paired check says of it.

    Args:
        found: The search.
        check: Proposed less natural, by paired trainings; None where nothing was proposed.
        verdict: Of the check.
    """
    groups, law, natural = found.groups, found.law, found.groups.natural
    proposed = natural if found.proposed is None else found.proposed
    notes: dict[Verdict | None, str] = {
        None: "the regression predicts mixtures that it has not seen hardly better than their mean "
        "does, so nothing is proposed: natural proportions stay",
        "better": "the proposal is better than natural proportions",
        "worse": "the proposal is worse than natural proportions: leave them as they are",
        "equal": "the proposal is as good as natural proportions: leave them as they are",
        "undecided": "whether the proposal is better than natural proportions is undecided",
    }
    return MixtureSearch(
        natural=_rounded(groups, natural),
        proposed=found.proposed_weights(),
        runs=[
            MixtureRun(weights=_rounded(groups, shares), seed=found.seed, bits_per_byte=float(loss))
            for shares, loss in zip(found.weights, found.losses, strict=True)
        ],
        regression=REGRESSION,
        cross_validated_error=law.cross_validated_error,
        mean_error=law.mean_error,
        predicted=float(law.loss(proposed) - law.loss(natural)),
        check=check,
        verdict=verdict,
        note=notes[verdict],
    )


def _rounded(groups: Groups, shares: np.ndarray) -> dict[str, float]:
    return {name: float(share) for name, share in zip(groups.names, shares, strict=True)}
