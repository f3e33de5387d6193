"""Whether a model is better than none: than bare frequencies, and than before its training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from components.evaluate.config import EvaluateConfig
from components.evaluate.metrics import HIGH, LOW
from tokenmill.config_model import Section
from tokenmill.contracts.cost_report import Metrics
from tokenmill.contracts.training import Losses


class BaselineConfig(Section):
    """What the Evaluator is told beside TFMA's configuration."""

    beat_baseline: bool
    require_improvement: bool
    continues: bool
    """Whether training began from weights that had learnt the same task before."""
    general_text: str = ""
    """File of the general text (TFRecord); empty for none."""
    base_model: str | None = None
    """Directory of the base model, for the general text."""
    max_forgetting: float | None = None
    benchmarks: tuple[str, ...] = ()
    """Benchmark tasks: names of shipped ones, paths of others."""
    benchmark_fingerprints: tuple[str, ...] = ()
    """Hashes of their files, by which TFX's cache sees that one has changed."""
    benchmark_thresholds: dict[str, float] = {}

    @classmethod
    def of(
        cls,
        config: EvaluateConfig,
        continues: bool,
        general_text: str = "",
        base_model: str | None = None,
        benchmark_fingerprints: Sequence[str] = (),
    ) -> BaselineConfig:
        """Return it from the section [evaluate].

        Args:
            config: The section.
            continues: Whether training begins from weights that have learnt the task.
            general_text: File of the documents of evaluate.forgetting_input; empty for none.
            base_model: model.base_model.
            benchmark_fingerprints: Of the files of evaluate.benchmarks.
        """
        return cls(
            beat_baseline=config.beat_baseline,
            require_improvement=config.require_improvement,
            continues=continues,
            general_text=general_text,
            base_model=base_model if general_text else None,
            max_forgetting=config.max_forgetting,
            benchmarks=config.benchmarks,
            benchmark_fingerprints=tuple(benchmark_fingerprints),
            benchmark_thresholds=config.benchmark_thresholds,
        )


def shortcomings(
    total: Metrics,
    task: str,
    baseline: Mapping[str, float],
    before: Losses,
    config: BaselineConfig,
) -> list[str]:
    """Return a sentence for each comparison that the model does not win.

    The whole 95 % interval of the model has to be on the better side; where there is none, as of a
    single document, the value has to be. A model that went on from a trained one may gain less than
    its interval is wide, since both are measured on the same documents: there the value decides.

    Args:
        total: The Evaluator's metrics of all documents; what is absent is not compared.
        task: "causal-lm", "masked-lm" or "classification".
        baseline: `unigram_baseline` of the packed rows; empty if there is none.
        before: The trainer's losses before the first step.
        config: Which comparisons count.
    """
    found = []
    if config.beat_baseline:
        name, key, words = {
            "causal-lm": ("bits_per_byte", "unigram_bits_per_byte", "the frequencies of tokens"),
            "masked-lm": ("masked_perplexity", "unigram_perplexity", "the frequencies of tokens"),
            "classification": ("accuracy", "majority_accuracy", "the most frequent class"),
        }[task]
        if not _is_better(total, name, baseline.get(key), certain=True):
            found.append(
                f"{_shown(total, name)}: {_shortfall(total, name, baseline[key])} {words} alone "
                f"({baseline[key]:.4g}). Train longer (train.epochs) or on more text; to bless "
                "such a model all the same: --set evaluate.beat_baseline=false"
            )
    if config.require_improvement:
        name, value = {
            "causal-lm": ("bits_per_byte", before.bits_per_byte),
            "masked-lm": ("masked_perplexity", before.perplexity),
            "classification": ("log_loss", before.loss),
        }[task]
        if not _is_better(total, name, value, certain=not config.continues):
            found.append(
                f"{_shown(total, name)}: {_shortfall(total, name, value)} before training "
                f"({value:.4g}). Look at "
                "train.learning_rate and train.precision, or train longer (train.epochs); to bless "
                "such a model all the same: --set evaluate.require_improvement=false"
            )
    return found


def _is_better(total: Metrics, name: str, reference: float | None, certain: bool) -> bool:
    """Say whether a metric is better than a number, or cannot be compared with it."""
    if reference is None or name not in total:
        return True
    higher = name == "accuracy"
    bound = total.get(name + (LOW if higher else HIGH), math.nan) if certain else math.nan
    value = total[name] if math.isnan(bound) else bound
    return value > reference if higher else value < reference


def _shortfall(total: Metrics, name: str, reference: float | None) -> str:
    """Return how a metric that is not better falls short: in itself, or by its interval alone."""
    if _is_better(total, name, reference, certain=False):
        return "not certainly better than"
    return "no better than"


def _shown(total: Metrics, name: str) -> str:
    low, high = total.get(name + LOW), total.get(name + HIGH)
    interval = "" if low is None or high is None else f" (95 %: {low:.4g} to {high:.4g})"
    return f"{name} is {total[name]:.4g}{interval}"
