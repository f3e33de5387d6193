"""The section [evaluate]: thresholds that bless a model."""

from typing import Annotated

from pydantic import Field

from tokenmill.config_model import Fraction, Section


class EvaluateConfig(Section):
    """Thresholds that bless a model, on the held-out documents; one left out sets no limit.

    Bits per byte are of causal-lm only: max_bits_per_byte, which presets set, means nothing to
    other tasks. The other thresholds hold for the hidden tokens of masked-lm. The last three, and
    max_calibration_error, are those of classification.
    """

    beat_baseline: bool = True
    """Bless only what is better, by its 95 % interval, than the frequencies of tokens (unigram) or
    the most frequent class."""
    require_improvement: bool = True
    """Bless only what is better on held-out text, by its 95 % interval, than before training."""
    max_bits_per_byte: Annotated[float, Field(gt=0)] = 8.0
    """Bless only a causal-lm with at most so many bits per byte of held-out text; by default 8,
    what guessing every byte alike takes."""
    max_source_bits_per_byte: Annotated[float, Field(gt=0)] | None = None
    """In each source by itself."""
    max_perplexity: Annotated[float, Field(gt=1)] | None = None
    """Bless only a model with at most this perplexity of a token; no default, since it depends on
    the vocabulary."""
    min_token_accuracy: Fraction | None = None
    """Bless only a model whose first guess is right for at least this share of the tokens."""
    max_calibration_error: Fraction | None = None
    """Mean distance between the probability of the first guess and the share of hits."""
    forgetting_input: str | None = None
    """A file, directory or glob of general text, read as corpus.input is, on which the base model
    and the trained one are compared; of causal-lm and masked-lm with model.base_model."""
    max_forgetting: Annotated[float, Field(ge=0)] | None = None
    """By what share bits per byte (masked-lm: perplexity) of that text may grow: 0.05 is 5 %."""
    benchmarks: tuple[str, ...] = ()
    """Benchmark tasks to score a causal-lm model by: bits_per_byte, cloze, continuation, or a YAML
    file of lm-evaluation-harness with local texts (docs/benchmarks.md)."""
    benchmark_thresholds: dict[str, float] = {}
    """The worst value that is blessed, by task and metric: [evaluate.benchmark_thresholds] with
    "cloze/acc" = 0.2. What is better, greater or smaller, is the metric's."""
    max_bits_per_byte_increase: Annotated[float, Field(ge=0)] | None = None
    """How much worse than the last blessed model of this pipeline; both are evaluated then."""
    min_accuracy: Fraction | None = None
    """Share of documents whose likeliest class is their label."""
    min_macro_f1: Fraction | None = None
    """Mean F1 of the classes."""
    max_accuracy_decrease: Fraction | None = None
    """How much worse than the last blessed model of this pipeline; both are evaluated then."""

    @property
    def compares(self) -> bool:
        """Whether the last blessed model is evaluated too."""
        changes = (self.max_bits_per_byte_increase, self.max_accuracy_decrease)
        return any(change is not None for change in changes)
