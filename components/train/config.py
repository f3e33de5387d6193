"""The sections [train] and [execution], and what the Trainer is given of a run's configuration."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from tokenmill.config_model import Fraction, PositiveInt, Section
from tokenmill.contracts.served_model import Quantization
from tokenmill.model.shape import ModelShape
from tokenmill.training_plan import TrainingPlan

PrunePattern = Literal["unstructured", "2:4"]

# A warm-up that is not configured: see TrainConfig.warmup_steps.
_WARMUP_FRACTION, _WARMUP_MEMORIES, _MOST_WARMUP = 0.05, 2.0, 0.25


class TrainConfig(TrainingPlan):
    """The section [train]: what is trained. A change of it trains anew."""

    task: Literal["causal-lm", "masked-lm", "classification"] = "causal-lm"
    """What is learned: the next token (causal-lm), hidden tokens (masked-lm, BERT), or the class of
    a text (classification). It decides the loss, the pushed signatures and the measures."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """The peak, after warm-up."""
    warmup_fraction: Fraction | None = None
    """Share of the steps in which the learning rate rises to its peak, in a straight line. None is
    5 %, or the 2 / (1 - beta_2) steps that Adam's second moment takes if they are more, but at most
    a quarter of the steps."""
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    """After the warm-up: a cosine or a line down, or stable and then a line down (wsd)."""
    decay_fraction: Fraction = 0.1
    """Share of the steps in which wsd decays."""
    final_learning_rate_fraction: Fraction = 0.1
    """Share of the peak that the last step has, in every schedule."""
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """AdamW's decay of the second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Of matrices, embeddings included; biases and norms are spared."""
    z_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared log-partition in the loss; PaLM's is 1e-4."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled to at most this global norm."""
    jit_compile: bool = True
    """Compile the forward and backward pass with XLA."""
    prune_sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of zeros that each matrix of attention and MLP ends with: magnitude pruning during the
    last third of the steps (Zhu and Gupta 2017); 0 prunes nothing."""
    prune_pattern: PrunePattern = "unstructured"
    """Which weights may go: any (unstructured), or two of four that meet neighboring inputs (2:4,
    with prune_sparsity = 0.5)."""
    resume_from: str | None = None
    """Checkpoints of another training to go on from (a directory that holds step-<n>)."""
    on_spike: Literal["off", "warn", "rewind"] = "off"
    """At a loss spike: nothing; say so; or go back to a checkpoint and leave out the rows since."""
    spike_deviations: Annotated[float, Field(gt=0)] = 8.0
    """How many standard deviations above the last 64 steps' losses is a spike."""
    rewind_steps: PositiveInt = 100
    """With on_spike = "rewind", every so many steps there is a checkpoint to go back to."""

    def warmup_steps(self, steps: int) -> int:
        """Return the steps of the warm-up of a training of so many steps."""
        if self.warmup_fraction is not None:
            return max(1, round(self.warmup_fraction * steps))
        return self.suited_warmup_steps(steps, steps)

    def suited_warmup_steps(self, steps: int, shortest: int) -> int:
        """Return the steps of a warm-up that suits short trainings, too.

        Adam's second moment is too small in its first 2 / (1 - beta_2) steps (Ma and Yarats 2019,
        arXiv 1910.04209): a shorter warm-up makes short trainings worse, and their losses vary
        threefold with the seed.

        Args:
            steps: Of the longest of several trainings that share it.
            shortest: Of the shortest, of which it is a quarter at most.
        """
        fraction = _WARMUP_FRACTION if self.warmup_fraction is None else self.warmup_fraction
        wanted = max(fraction * steps, _WARMUP_MEMORIES / (1 - self.beta_2))
        return max(1, round(min(wanted, _MOST_WARMUP * shortest)))


class ExecutionConfig(Section):
    """The section [execution]: how training is carried out. A change of it does not train anew."""

    checkpoint_steps: PositiveInt | None = None
    """Save every so many steps; None goes by the clock."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] | None = None
    """Save every so many seconds; None takes the optimal interval for mtbf_hours (Daly 2006)."""
    mtbf_hours: Annotated[float, Field(gt=0)] = 6.0
    """Mean time between failures of the whole run: preemptions, crashes, maintenance."""
    keep_checkpoints: PositiveInt = 2
    """How many of the newest stay."""
    keep_checkpoint_every_steps: PositiveInt | None = None
    """Checkpoints of every so many steps stay, too."""
    keep_best_checkpoint: bool = True
    """The checkpoint of the lowest eval loss stays, too (with evaluate_steps)."""
    evaluate_steps: PositiveInt | None = None
    """Eval loss every so many steps; None for before and after only."""
    log_steps: PositiveInt = 10
    """Scalars for TensorBoard and metrics.jsonl every so many steps."""
    detail_steps: PositiveInt | None = 500
    """Distributions and attention maps every so many steps."""
    samples: Annotated[int, Field(ge=0, le=16)] = 4
    """How many held-out texts the model continues before, half way and after training, and whether
    its attention to one is kept: samples.json, shown in report.html; 0 for neither."""
    profile_steps: tuple[PositiveInt, PositiveInt] | None = None
    """First and last step to profile for TensorBoard."""


class TrainingJob(Section):
    """All that decides what is trained; its JSON is an execution property of the Trainer."""

    shape: ModelShape
    train: TrainConfig
    seed: int
    """Seed of weights, data order and dropout."""
    quantization: Quantization = "float32"
    """How the SavedModel stores its weights."""
    base_model: str | None = None
    """Directory of a SavedModel to start from; None for random weights."""
    base_weights: str = ""
    """Hash of its weights when the pipeline was made: those at the same place may change. Empty
    without it, or if it is not at hand there."""

    def with_parameters(self, given: Mapping[str, Any]) -> "TrainingJob":
        """Return the job with a run's own parameters: the seed, or keys of [train]."""
        train = {name: value for name, value in given.items() if name != "seed"}
        return self.model_copy(
            update={
                "seed": given.get("seed", self.seed),
                "train": self.train.model_copy(update=train),
            }
        )
