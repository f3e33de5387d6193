"""value.json from the trainings of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.config import Config
from pipeline.studies.held_out import ALL
from pipeline.studies.ladder_plan import Target
from pipeline.studies.mixture_search import Found, mixture_document
from pipeline.studies.paired_runs import Arm, PairedRuns
from pipeline.studies.value_corpora import HeldOutTexts, VariantCorpus
from pipeline.studies.value_plan import Plan
from tokenmill.contracts.value import (
    VALUE_SCHEMA,
    Curve,
    CurvePoint,
    Difference,
    HeldOutText,
    MixtureSearch,
    Multiplier,
    Preparation,
    PriceOfGain,
    Proxy,
    ProxyRun,
    SourceValue,
    Value,
    VariantValue,
    Verdict,
)
from tokenmill.cost.devices import CPU_CHIP
from tokenmill.cost.flops import flops_per_token
from tokenmill.cost.paired_comparison import CONFIDENCE, PairedDifference
from tokenmill.cost.pricing import SECONDS_PER_HOUR, TOKENS_PER_MILLION
from tokenmill.cost.token_multiplier import (
    NoCurveError,
    ReferenceCurve,
    fit_reference,
    token_multiplier,
)

# Where variants share a tokenizer, training it is part of none of them.
_SHARED_STEP = "TokenizerTrainer"
_OF_SOURCE: dict[Verdict, Literal["helps", "hurts", "no difference", "undecided"]] = {
    "worse": "helps",
    "better": "hurts",
    "equal": "no difference",
    "undecided": "undecided",
}


@dataclass
class ValueWriter:
    """Turns what was trained into the document.

    Attributes:
        config: The base.
        corpora: The variants' rows, the reference first.
        held_out: The held-out texts.
        plan: The small trainings.
        target: What they stand for.
        paired: The trainings.
        equal: What is the same in all of them.
        usd_per_hour: Of this machine.
    """

    config: Config
    corpora: list[VariantCorpus]
    held_out: HeldOutTexts
    plan: Plan
    target: Target
    paired: PairedRuns
    equal: Literal["tokens", "usd"]
    usd_per_hour: float

    def document(
        self,
        seconds: float,
        usd: float,
        sources: bool = False,
        mixture: Found | None = None,
    ) -> Value:
        """Return the document.

        Args:
            seconds: Of all small trainings.
            usd: Their price.
            sources: Whether the variants leave out a source each.
            mixture: What a mixture search found.
        """
        curve, note = self._curve()
        arms = [self.paired.reference, *self.paired.others]
        variants = [
            self._variant(corpus, arm, curve, note)
            for corpus, arm in zip(self.corpora, arms, strict=True)
        ]
        shape = self.plan.shape
        return Value(
            schema=VALUE_SCHEMA,
            reference=self.paired.reference.name,
            equal=self.equal,
            proxy=Proxy(
                params_total=shape.params_total,
                params_active=shape.params_active,
                layers=shape.layers,
                d_model=shape.d_model,
                sequence_length=shape.sequence_length,
                target_params_total=self.target.shape.params_total,
                target_params_active=self.target.shape.params_active,
            ),
            held_out=self._held_out(),
            seeds=self.paired.seeds,
            looks=list(self.paired.looks),
            confidence=CONFIDENCE,
            margin=self.paired.margin,
            stopped=self.paired.stopped,
            curve_points=self._points(),
            curve=None
            if curve is None
            else Curve(e=curve.curve.e, b=curve.curve.b, beta=curve.curve.beta),
            variants=variants,
            sources=self._sources(variants) if sources else {},
            mixture=None if mixture is None else self._mixture(mixture, variants),
            seconds=seconds,
            usd=usd,
        )

    def _mixture(self, found: Found, variants: list[VariantValue]) -> MixtureSearch:
        """Return the search with what the paired trainings say of its proposal."""
        proposed = variants[1] if len(variants) > 1 else None
        check = proposed.differences.get(ALL) if proposed else None
        return mixture_document(found, check, proposed.verdict if proposed else None)

    def _held_out(self) -> dict[str, HeldOutText]:
        texts = {
            each.name: HeldOutText(
                documents=len(each.texts),
                bytes=each.bytes,
                origin=self.held_out.origins[each.name],
            )
            for each in self.held_out.sets
        }
        deciding = self.held_out.deciding
        texts[ALL] = HeldOutText(
            documents=sum(len(each.texts) for each in deciding),
            bytes=sum(each.bytes for each in deciding),
            origin="the deciding ones together: eval split and --held-out",
        )
        return texts

    def _curve(self) -> tuple[ReferenceCurve | None, str]:
        """Fit the reference's curve to the seeds that were trained beyond the comparison."""
        whole = [outcome.results for outcome in self.paired.reference.outcomes]
        longest = max(map(len, whole))
        whole = [results for results in whole if len(results) == longest]
        tokens = [float(np.mean([r.loss_tokens for r in column])) for column in zip(*whole)]  # noqa: B905
        decisive = [[self.paired.decisive(result) for result in results] for results in whole]
        losses = np.array([[each.nll for each in results] for results in decisive])
        try:
            return fit_reference(tokens, losses, decisive[0][0].bytes), ""
        except NoCurveError as error:
            return None, str(error)

    def _points(self) -> list[CurvePoint]:
        by_steps: dict[int, list[tuple[int, float]]] = {}
        for outcome in self.paired.reference.outcomes:
            for result in outcome.results:
                found = (result.loss_tokens, self.paired.loss(result))
                by_steps.setdefault(result.steps, []).append(found)
        points = []
        for _, pairs in sorted(by_steps.items()):
            tokens, losses = np.array(pairs).T
            error = float(losses.std(ddof=1) / np.sqrt(len(losses))) if len(losses) > 1 else None
            points.append(
                CurvePoint(
                    loss_tokens=float(tokens.mean()),
                    bits_per_byte=float(losses.mean()),
                    standard_error=error,
                )
            )
        return points

    def _variant(
        self, corpus: VariantCorpus, arm: Arm, curve: ReferenceCurve | None, note: str
    ) -> VariantValue:
        comparison = self.paired.comparisons.get(arm.name)
        differences = comparison.differences if comparison else {}
        multiplier, why = None, ""
        if comparison is not None:
            multiplier, why = self._multiplier(arm, differences[ALL], curve, note)
        preparation = self._preparation(corpus)
        return VariantValue(
            name=arm.name,
            changes=_changes(corpus),
            data_fingerprint=_fingerprint(corpus),
            preparation=preparation,
            epochs=arm.steps * arm.train.global_batch_size / corpus.rows,
            steps=arm.steps,
            runs=[
                ProxyRun(
                    seed=seed,
                    loss_tokens=result.loss_tokens,
                    seconds=outcome.seconds,
                    usd=outcome.seconds / SECONDS_PER_HOUR * self.usd_per_hour,
                    bits_per_byte={
                        name: self.paired.loss(result) if name == ALL else loss.bits_per_byte
                        for name, loss in result.losses.items()
                    },
                )
                for seed, result, outcome in zip(
                    self.paired.seeds, arm.compared, arm.outcomes, strict=False
                )
            ],
            differences={name: _difference(found) for name, found in differences.items()},
            verdict=differences[ALL].verdict(self.paired.margin) if comparison else None,
            multiplier=multiplier,
            multiplier_note=why,
            price=self._price(preparation, multiplier) if comparison else None,
        )

    def _multiplier(
        self, arm: Arm, difference: PairedDifference, curve: ReferenceCurve | None, note: str
    ) -> tuple[Multiplier | None, str]:
        if curve is None:
            return None, note
        tokens = [
            float(np.mean([r.loss_tokens for r in of.compared[: difference.seeds]]))
            for of in (self.paired.reference, arm)
        ]
        found = token_multiplier(curve, difference, *tokens)
        ends = []
        if found.value is None or found.low is None:
            ends.append(f"below x{found.least:.2f}")
        if found.value is None or found.high is None:
            ends.append(f"above x{found.most:.2f}")
        why = f"the reference's curve tells nothing {' and '.join(ends)}" if ends else ""
        return Multiplier(**vars(found)), why

    def _preparation(self, corpus: VariantCorpus) -> Preparation:
        counts = corpus.counts.values()
        seconds = _core_seconds(corpus) * corpus.preparation_share
        return Preparation(
            documents=sum(each.documents for each in counts),
            bytes=sum(each.bytes for each in counts),
            unique_tokens=sum(each.loss_tokens for each in counts),
            cpu_seconds=seconds,
            usd=seconds / SECONDS_PER_HOUR * corpus.corpus.usd_per_core_hour,
        )

    def _price(self, preparation: Preparation, ratio: Multiplier | None) -> PriceOfGain:
        reference = self._preparation(self.corpora[0])
        own, others = (
            each.usd / max(1, each.unique_tokens) * TOKENS_PER_MILLION
            for each in (preparation, reference)
        )
        training = self.training_usd_per_million

        def saved(value: float | None) -> float | None:
            return None if value is None else (value - 1) * training

        gain = saved(ratio.value) if ratio else None
        return PriceOfGain(
            preparation_usd=own,
            more_preparation_usd=own - others,
            training_usd=training,
            saved_usd=gain,
            saved_usd_low=saved(ratio.low) if ratio else None,
            saved_usd_high=saved(ratio.high) if ratio else None,
            net_usd=None if gain is None else gain - (own - others),
        )

    @property
    def training_usd_per_million(self) -> float:
        """Compute the price of training the target on a million positions.

        On this machine's cores at the speed of the small trainings, which larger products exceed;
        on other chips at the configured or published utilization.
        """
        flops = flops_per_token(self.target.shape).training * TOKENS_PER_MILLION
        job = self.config.ledger_job()
        peak = job.peak_flops_per_second_per_chip
        if job.chip == CPU_CHIP or peak is None:
            return flops / self._flops_per_second() / SECONDS_PER_HOUR * self.usd_per_hour
        mfu, _ = job.expected_mfu(None)
        return flops / (peak * mfu) / SECONDS_PER_HOUR * job.price.usd_per_chip_hour

    def _flops_per_second(self) -> float:
        arm = self.paired.reference
        slots = arm.train.global_batch_size * arm.shape.sequence_length
        seconds = [o.step_seconds for o in arm.outcomes if o.step_seconds is not None]
        return flops_per_token(arm.shape).training * slots / float(np.mean(seconds))

    def _sources(self, variants: list[VariantValue]) -> dict[str, SourceValue]:
        """Return what each source is worth: those that were left out, and the others' counts."""
        base = self.corpora[0]
        whole = self._preparation(base)
        left_out: Mapping[str | None, VariantValue] = {
            corpus.variant.without: value
            for corpus, value in zip(self.corpora[1:], variants[1:], strict=True)
        }
        found = {}
        for source, counts in base.counts.items():
            share = counts.loss_tokens / whole.unique_tokens
            value = left_out.get(source)
            of_bytes = counts.bytes / whole.bytes if whole.bytes else 0.0
            million = counts.loss_tokens / TOKENS_PER_MILLION
            found[source] = SourceValue(
                documents=counts.documents,
                bytes=counts.bytes,
                unique_tokens=counts.loss_tokens,
                share=share,
                preparation_usd=whole.usd * of_bytes,
                training_usd=million * self.training_usd_per_million,
                without=value.differences.get(ALL) if value else None,
                verdict=_OF_SOURCE[value.verdict] if value and value.verdict else None,
                worth=_worth(share, value.multiplier) if value and value.multiplier else None,
            )
        return found


def _worth(share: float, without: Multiplier) -> Multiplier:
    """Return what a token of a source is worth in the mixture, from what the rest is worth.

    The mixture's tokens are worth 1 on average: share x w + (1 - share) x m = 1. The more the rest
    is worth, the less the source, so that the ends of the interval change places.
    """

    def worth(ratio: Any) -> Any:
        return None if ratio is None else (1 - (1 - share) * ratio) / share

    return Multiplier(
        value=worth(without.value),
        low=worth(without.high),
        high=worth(without.low),
        least=worth(without.most),
        most=worth(without.least),
    )


def _core_seconds(corpus: VariantCorpus) -> float:
    by_step = corpus.corpus.core_seconds
    own = corpus.variant.has_own_tokenizer
    return sum(seconds for step, seconds in by_step.items() if own or step != _SHARED_STEP)


def _fingerprint(corpus: VariantCorpus) -> str:
    """Return the hash of a variant's configuration; empty where it is no configuration."""
    variant = corpus.variant
    of_source = variant.without is not None or variant.only is not None
    return "" if of_source else variant.config.data_fingerprint


def _changes(corpus: VariantCorpus) -> list[str]:
    variant = corpus.variant
    changes = list(variant.changes)
    if variant.without is not None:
        changes.append(f"without the source {variant.without}")
    if variant.only is not None:
        changes.append(f"only the source {variant.only}")
    return changes


def _difference(found: PairedDifference) -> Difference:
    return Difference(
        mean=found.mean,
        low=found.low,
        high=found.high,
        seeds=found.seeds,
        documents=found.documents,
    )
