"""The one configuration: what every key means, its type and its default.

A preset (pipeline/presets/*.toml) or a user's TOML file, with `--set section.key=value` on top,
becomes one frozen `Config`. A step's section is in its folder (components/*/config.py); loading and
error messages are in pipeline/loader.py.
"""

import os
from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.curate.config import CurateConfig
from components.evaluate.config import EvaluateConfig
from components.ingest.config import CorpusConfig
from components.ledger.config import BudgetConfig, CostConfig
from components.pack.config import PackConfig
from components.push.config import PushConfig
from components.tokenize.config import TokenizerConfig
from components.validate.config import ValidateConfig
from tokenmill.config_model import Fraction, PositiveInt, Section
from tokenmill.model.shape import Head, ModelShape
from tokenmill.training_plan import TrainingPlan

HEADS: dict[str, Head] = {
    "causal-lm": "lm",
    "masked-lm": "mlm",
    "classification": "classifier",
}


class RunSection(Section):
    """The run as a whole."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = "demo"
    """Pipeline name in ML Metadata: lower-case letters, digits and hyphens."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 20240607
    """Seed of everything random: weights, data order, sampling."""
    output_dir: str = "runs/{name}"
    """Where artifacts, metadata, logs and pushed models go."""
    metadata_url: str | None = None
    """ML Metadata on a server: mysql://user@host:port/database or postgresql://...; None is a
    SQLite file in output_dir. The password is in TOKENMILL_METADATA_PASSWORD, never here."""


class ModelSection(Section):
    """The Transformer's shape."""

    layers: PositiveInt = 4
    d_model: PositiveInt = 256
    heads: PositiveInt = 4
    kv_heads: PositiveInt | None = None
    """Key/value heads (grouped-query attention); None means as many as heads."""
    d_ff: PositiveInt = 1024
    sequence_length: Annotated[int, Field(ge=8, le=65_535)] = 256
    """Tokens a row, in packing, training and serving."""
    positions: Literal["rope", "learned"] = "rope"
    norm: Literal["layer", "rms"] = "layer"
    mlp: Literal["gelu", "swiglu"] = "gelu"
    use_bias: bool = True
    tie_embeddings: bool = True
    norm_position: Literal["pre", "post"] = "pre"
    """Norms before attention and MLP (GPT-2), or behind them and the embeddings (BERT)."""
    type_vocab_size: Annotated[int, Field(ge=0)] = 0
    """Rows of a token type embedding; BERT has 2, of which packed documents use the first."""
    classes: Annotated[int, Field(ge=0)] = 0
    """How many classes the task classification has: labels of the training split."""
    base_model: str | None = None
    """Directory of a pushed model whose weights training starts from; None means random ones."""


class TrainSection(TrainingPlan):
    """Training."""

    task: Literal["causal-lm", "masked-lm", "classification"] = "causal-lm"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """The peak, after warm-up."""
    warmup_fraction: Fraction = 0.05
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    """After the warm-up: a cosine or a line down, or stable and then a line down (wsd)."""
    decay_fraction: Fraction = 0.1
    """Share of the steps in which wsd decays."""
    final_learning_rate_fraction: Fraction = 0.1
    """Share of the peak at the last step."""
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
    resume_from: str | None = None
    """Checkpoints of another training to go on from (a directory that holds step-<n>)."""
    on_spike: Literal["off", "warn", "rewind"] = "off"
    """At a loss spike: nothing; say so; or go back to a checkpoint and leave out the rows since."""
    spike_deviations: Annotated[float, Field(gt=0)] = 8.0
    """How many standard deviations above the last 64 steps' losses is a spike."""
    rewind_steps: PositiveInt = 100
    """With on_spike = "rewind", every so many steps there is a checkpoint to go back to."""

    # From here on: how it is carried out. A change of these does not train anew.
    checkpoint_steps: PositiveInt | None = None
    """Save every so many steps; None goes by the clock."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] | None = None
    """Save every so many seconds; None takes the optimal interval for mtbf_hours (Daly 2006)."""
    mtbf_hours: Annotated[float, Field(gt=0)] = 6.0
    """Mean time between failures of the whole run: preemptions, crashes, maintenance."""
    keep_checkpoints: PositiveInt = 2
    """The newest so many stay."""
    keep_checkpoint_every_steps: PositiveInt | None = None
    """Those of every so many steps stay, too."""
    keep_best_checkpoint: bool = True
    """The one of the lowest held-out loss stays, too (with evaluate_steps)."""
    evaluate_steps: PositiveInt | None = None
    """Held-out loss every so many steps; None for before and after only."""
    log_steps: PositiveInt = 10
    """Scalars for TensorBoard and metrics.jsonl every so many steps."""
    detail_steps: PositiveInt | None = 500
    """Distributions and attention maps every so many steps."""
    profile_steps: tuple[PositiveInt, PositiveInt] | None = None
    """First and last step to profile for TensorBoard."""


class StepResources(Section):
    """The machine of a step on Kubeflow or Vertex AI; what is left out is the engine's default."""

    cpu: Annotated[float, Field(gt=0)] | None = None
    """Virtual CPUs."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    accelerator: str | None = None
    """The engine's name for it, such as NVIDIA_L4 on Vertex AI or nvidia.com/gpu on Kubeflow."""
    accelerator_count: PositiveInt = 1


class EngineSection(Section):
    """Kubeflow Pipelines or Vertex AI: what `tokenmill compile` writes into the spec."""

    pipeline_root: str | None = None
    """Where artifacts go: gs://bucket/path, or a directory that every container sees."""
    image: str | None = None
    """The container image, with its digest: registry/name@sha256:..."""
    project: str | None = None
    """The Google Cloud project (Vertex AI)."""
    region: str | None = None
    """The region to run in (Vertex AI), such as europe-west4."""
    service_account: str | None = None
    """Who the run acts as. Vertex AI: None is the project's default, which may do too much.
    Kubernetes: the pods' service account, needed where pipeline_root is a bucket."""
    cache: bool = True
    """Reuse the outputs of steps that have not changed."""
    beam_args: tuple[str, ...] = ()
    """Beam's options of all Beam steps, such as --runner=DataflowRunner; empty runs them in the
    step's own container."""
    resources: dict[str, StepResources] = {}
    """By node id: [engine.resources.Trainer]."""
    allow_unlisted: bool = False
    """Let pass an accelerator or region that data/catalog/vertex_accelerators.csv does not list:
    Google may have added it since."""
    workers: PositiveInt = 2
    """Machines of a training with strategy multi_worker (tokenmill manifests training)."""
    machine_type: str | None = None
    """Vertex AI's name of the training's machines, such as g2-standard-12."""
    volume_claim: str | None = None
    """Kubernetes: the PersistentVolumeClaim, readable and writable by all pods, that is mounted at
    pipeline_root, unless that is a bucket."""
    max_restarts: Annotated[int, Field(ge=0)] = 20
    """Kubernetes: how often a training that was preempted (exit code 75) starts again."""


class Config(Section):
    """Everything that a run depends on, apart from the data itself."""

    run: RunSection = RunSection()
    corpus: CorpusConfig = CorpusConfig()
    validation: ValidateConfig = Field(default=ValidateConfig(), alias="validate")
    curate: CurateConfig = CurateConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    pack: PackConfig = PackConfig()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    cost: CostConfig = CostConfig()
    budget: BudgetConfig = BudgetConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    push: PushConfig = PushConfig()
    engine: EngineSection = EngineSection()

    @model_validator(mode="after")
    def _check_across_sections(self) -> "Config":
        self.shape()  # raises for impossible shapes, naming the field
        if self.pack.overlap_tokens > self.model.sequence_length // 2:
            raise ValueError(
                f"pack.overlap_tokens = {self.pack.overlap_tokens} is more than half of "
                f"model.sequence_length = {self.model.sequence_length}"
            )
        weights = self.pack.source_weights
        if weights and not any(weights.values()):
            raise ValueError("pack.source_weights: all weights are 0, so there is nothing to read")
        self._check_thresholds()
        if self.train.task == "classification" and self.pack.overlap_tokens:
            raise ValueError(
                f"pack.overlap_tokens = {self.pack.overlap_tokens}: a classifier reads the "
                "beginning of a document and no more, so nothing is repeated; leave it out"
            )
        cost = self.cost
        if cost.hidden_cost_multiplier_low > cost.hidden_cost_multiplier_high:
            raise ValueError(
                f"cost.hidden_cost_multiplier_low = {cost.hidden_cost_multiplier_low} is above "
                f"cost.hidden_cost_multiplier_high = {cost.hidden_cost_multiplier_high}"
            )
        return self

    def _check_thresholds(self) -> None:
        """Raises for a threshold on what the task does not measure."""
        task, evaluate = self.train.task, self.evaluate
        classifies = task == "classification"
        of_tokens = ("max_perplexity", "min_token_accuracy") if classifies else ()
        of_classes = ("min_accuracy", "min_macro_f1", "max_accuracy_decrease")
        for names, applies, what, instead in (
            (
                ("max_source_bits_per_byte", "max_bits_per_byte_increase"),
                task == "causal-lm",
                "bits per byte",
                "min_accuracy" if classifies else "max_perplexity or evaluate.min_token_accuracy",
            ),
            (of_tokens, not classifies, "tokens to guess", "min_accuracy"),
            (of_classes, classifies, "classes", "max_perplexity or evaluate.min_token_accuracy"),
        ):
            for name in names:
                if not applies and (value := getattr(evaluate, name)) is not None:
                    raise ValueError(
                        f"evaluate.{name} = {value}: a model of {task} has no {what}; "
                        f"use evaluate.{instead}"
                    )

    def shape(self) -> ModelShape:
        """The model's shape as the ledger and the trainer take it."""
        model = self.model
        return ModelShape(
            n_layers=model.layers,
            d_model=model.d_model,
            n_heads=model.heads,
            n_kv_heads=model.kv_heads,
            d_ff=model.d_ff,
            vocab_size=self.tokenizer.vocab_size,
            sequence_length=model.sequence_length,
            positions=model.positions,
            norm=model.norm,
            use_bias=model.use_bias,
            mlp=model.mlp,
            tie_embeddings=model.tie_embeddings,
            causal=self.train.task == "causal-lm",
            norm_position=model.norm_position,
            type_vocab_size=model.type_vocab_size,
            head=HEADS[self.train.task],
            classes=model.classes,
        )

    @property
    def training_directory(self) -> str:
        """Where checkpoints are, from run to run; absolute."""
        return absolute_path(os.path.join(self.output_dir, "training"))

    @property
    def push_directory(self) -> str:
        """Where versions are pushed to."""
        return self.push.directory or os.path.join(self.output_dir, "serving_model")

    @property
    def output_dir(self) -> str:
        """`run.output_dir` with the run's name filled in."""
        return self.run.output_dir.replace("{name}", self.run.name)


def absolute_path(path: str) -> str:
    """Return the path from the root; a URI is one already."""
    return path if "://" in path else os.path.abspath(path)
