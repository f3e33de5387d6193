"""The one configuration: meaning, type and default of every key.

A preset (pipeline/presets/*.toml) or a user's TOML file, with `--set section.key=value` on top,
becomes one frozen `Config`. A step's section is in its folder (components/*/config.py); loading and
error messages are in pipeline/loader.py.
"""

import difflib
import hashlib
import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from components.curate.config import CurateConfig
from components.curate.quality.config import QualityConfig
from components.evaluate.config import EvaluateConfig
from components.ingest.config import CorpusConfig
from components.ledger.config import BudgetConfig, CostConfig, LedgerJob, make_ledger_job
from components.ledger.measured import find_measured
from components.pack.config import PackConfig
from components.push.config import PushConfig
from components.tokenize.config import TokenizerConfig
from components.train.config import ExecutionConfig, TrainConfig, TrainingJob
from components.train.distributed.cluster import cluster_size
from components.validate.config import ValidateConfig
from tokenmill.config_model import PositiveInt, Section
from tokenmill.contracts.ladder import read_ladder
from tokenmill.contracts.training_limits import LIMITS_NAME
from tokenmill.errors import TokenmillError
from tokenmill.files import absolute_path
from tokenmill.metadata.server_url import parse_server_url
from tokenmill.model.config import ModelConfig
from tokenmill.model.shape import ModelShape


def _check_run_name(name: str) -> str:
    if not re.fullmatch("[a-z0-9][a-z0-9-]{0,62}", name):
        nearest = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:63]
        example = f", such as {nearest}" if nearest else ""
        raise ValueError(
            f"a name has lower-case letters, digits and hyphens only, at most 63{example}"
        )
    return name


class RunConfig(Section):
    """The run as a whole."""

    name: Annotated[str, AfterValidator(_check_run_name)] = "demo"
    """Pipeline name in ML Metadata: lower-case letters, digits and hyphens."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 20240607
    """Seed of everything random: weights, data order, sampling."""
    output_dir: str = "runs/{name}"
    """Where artifacts, metadata, logs and pushed models go."""
    metadata_url: str | None = None
    """ML Metadata on a server: mysql://user@host:port/database or postgresql://...; None is a
    SQLite file in output_dir. The password is in TOKENMILL_METADATA_PASSWORD, never here."""

    @field_validator("metadata_url")
    @classmethod
    def _check_metadata_url(cls, url: str | None) -> str | None:
        """Refuse a password before anything is written: the configuration is, with each run."""
        if url is not None:
            try:
                parse_server_url(url)
            except TokenmillError as error:
                raise ValueError(str(error).removeprefix("run.metadata_url").strip(" :")) from None
        return url


# Node ids of pipeline/dag.py, those that only some configurations have included.
STEPS = (
    "CorpusExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ImportSchemaGen",
    "ExampleValidator",
    "AnomalyGate",
    "QualityTrainer",
    "Curator",
    "TokenizerTrainer",
    "Transform",
    "Packer",
    "Calibrator",
    "TokenLedger",
    "Trainer",
    "Evaluator",
    "CostReport",
    "LastBlessedModel",
    "InfraValidator",
    "Pusher",
    "VertexRegistrar",
    "ReportPage",
)


class StepResources(Section):
    """The machine of a step on Kubeflow or Vertex AI; what is left out is the engine's default."""

    cpu: Annotated[float, Field(gt=0)] | None = None
    """Virtual CPUs."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Main memory, in GB of 1e9 bytes."""
    accelerator: str | None = None
    """The engine's name for it, such as NVIDIA_L4 on Vertex AI or nvidia.com/gpu on Kubeflow."""
    accelerator_count: PositiveInt = 1
    """Accelerators of the machine; counts only with accelerator."""


class EngineConfig(Section):
    """Where steps run: Kubeflow Pipelines, Vertex AI, and engines of Beam."""

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
    schema_version: Literal["2.0.0", "2.1.0"] | None = None
    """Version of the pipeline spec that is compiled. None: 2.1.0 for Kubeflow Pipelines, which
    takes no other, and 2.0.0 for Vertex AI, which takes both."""
    cache: bool = True
    """Reuse the outputs of steps that have not changed."""
    beam: Literal["in_process", "flink", "spark", "prism"] = "in_process"
    """What runs Beam's steps: the step's own process, in Python, or an engine with a job service of
    Beam's. The output is the same."""
    beam_job_endpoint: str | None = None
    """host:port of the engine's Beam job service."""
    beam_worker_pool: str | None = None
    """host:port of the pool of Python workers (apache_beam.runners.worker.worker_pool_main), as the
    engine's machines reach it: localhost where each has its own."""
    beam_args: tuple[str, ...] = ()
    """Beam's options of all Beam steps: --parallelism=8 for Flink, or another runner, such as
    --runner=DataflowRunner. Without a --runner they run in the step's own process
    (Beam's DirectRunner would download Prism)."""
    resources: dict[str, StepResources] = {}
    """By node id: [engine.resources.Trainer]."""

    @field_validator("beam_job_endpoint", "beam_worker_pool")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address is not None and not re.fullmatch(
            r"(\[[0-9a-fA-F:]+\]|[^\s:/]+):[0-9]{1,5}", address
        ):
            raise ValueError(f"{address!r} is not of the form host:port")
        return address

    @model_validator(mode="after")
    def _check_beam(self) -> "EngineConfig":
        """Check that an engine of Beam has what it needs, and that no other runner is named."""
        if self.beam == "in_process":
            return self
        for name in ("beam_job_endpoint", "beam_worker_pool"):
            if getattr(self, name) is None:
                raise ValueError(f'beam = "{self.beam}" needs engine.{name}, host:port')
        if named := [arg for arg in self.beam_args if arg.startswith("--runner")]:
            raise ValueError(
                f'beam = "{self.beam}" and beam_args with {named[0]}: give one of them'
            )
        return self

    @field_validator("resources")
    @classmethod
    def _check_steps(cls, resources: dict[str, StepResources]) -> dict[str, StepResources]:
        for name in resources:
            if name not in STEPS:
                near = difflib.get_close_matches(name, STEPS, n=1)
                meant = f"did you mean {near[0]}? " if near else ""
                raise ValueError(f"there is no step {name}; {meant}steps: {', '.join(STEPS)}")
        return resources

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

    run: RunConfig = RunConfig()
    corpus: CorpusConfig = CorpusConfig()
    validation: ValidateConfig = Field(default=ValidateConfig(), alias="validate")
    curate: CurateConfig = CurateConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    pack: PackConfig = PackConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    execution: ExecutionConfig = ExecutionConfig()
    cost: CostConfig = CostConfig()
    budget: BudgetConfig = BudgetConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    push: PushConfig = PushConfig()
    engine: EngineConfig = EngineConfig()

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
        if self.pack.quality_weighting and not self.curate.quality.is_used:
            raise ValueError(
                f"pack.quality_weighting = {self.pack.quality_weighting}: expected examples in "
                "curate.quality.positive, or a curate.quality.classifier, that give a score"
            )
        self._check_thresholds()
        if self.train.zero and self.train.strategy == "tpu":
            raise ValueError(
                'train.zero = 1 does not go with train.strategy = "tpu", whose replicas share one '
                "program; leave train.zero out"
            )
        self._check_expert_parallel()
        self._check_lora()
        self._check_pruning()
        self._check_forgetting()
        self._check_benchmarks()
        self._check_conversations()
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

    def _check_expert_parallel(self) -> None:
        train, model = self.train, self.model
        if not train.expert_parallel:
            return
        if model.experts == 1:
            raise ValueError(
                "train.expert_parallel = true spreads experts, and model.experts = 1 has none; set "
                "model.experts, or leave train.expert_parallel out"
            )
        if not train.zero:
            raise ValueError(
                "train.expert_parallel = true with train.zero = 0: expected 1, which splits the "
                "moments of all other weights; set it, too"
            )
        if train.strategy != "multi_worker":
            raise ValueError(
                f'train.expert_parallel = true with train.strategy = "{train.strategy}": expected '
                '"multi_worker", whose processes exchange tokens; set it, or leave '
                "train.expert_parallel out"
            )
        unsupported = {
            # A loop would exchange rows of several sizes under one key of TensorFlow's.
            "train.accumulation_steps": train.accumulation_steps > 1 and train.accumulation_steps,
            "train.lora_rank": train.lora_rank,
            "train.prune_sparsity": train.prune_sparsity,
            "train.rematerialize": train.rematerialize,
            "train.precision": train.precision == "mixed_float16" and train.precision,
            "model.base_model": model.base_model,
        }
        for name, value in unsupported.items():
            if value:
                raise ValueError(
                    f"train.expert_parallel = true does not go with {name} = {value}; leave one "
                    "of them out"
                )

    def _check_lora(self) -> None:
        """Raise for adapters of random weights, or of matrices that the shape does not have."""
        train = self.train
        if train.lora is not None:
            if self.model.base_model is None:
                raise ValueError(
                    f"train.lora_rank = {train.lora_rank}: adapters of random weights are of no "
                    "use; set model.base_model, too, or leave train.lora_rank out"
                )
            train.lora.adapted(self.shape())  # raises, naming the key
            return
        for name in ("lora_alpha", "lora_targets", "lora_dropout"):
            value = getattr(train, name)
            if value != type(train).model_fields[name].default:
                raise ValueError(
                    f"train.{name} = {value}: expected nothing without train.lora_rank; set that, "
                    "too, or leave it out"
                )

    def _check_pruning(self) -> None:
        """Raise for pruning of what is not trained, and for a pattern that does not fit."""
        train, shape = self.train, self.shape()
        sparsity, pattern = train.prune_sparsity, train.prune_pattern
        if sparsity and train.lora is not None:
            raise ValueError(
                f"train.prune_sparsity = {sparsity}: expected 0 with train.lora_rank = "
                f"{train.lora_rank}, as frozen weights are not pruned, and adapters would fill "
                "zeros; leave one of them out"
            )
        if pattern == "unstructured":
            return
        if sparsity != 0.5:
            raise ValueError(
                f"train.prune_sparsity = {sparsity}: expected 0.5 with train.prune_pattern = "
                f'"{pattern}", two zeros of four; set it, or leave train.prune_pattern out'
            )
        for what, inputs in (
            ("model.d_model", shape.d_model),
            ("model.heads x head_dim", shape.attention_width),
            ("model.d_ff", shape.d_ff),
            ("model.expert_d_ff", shape.expert_width),
        ):
            if inputs % 4:
                raise ValueError(
                    f"{what} = {inputs}: expected a multiple of 4 with train.prune_pattern = "
                    f'"{pattern}", which groups four inputs; change it, or leave '
                    "train.prune_pattern out"
                )

    def _check_forgetting(self) -> None:
        """Raise for a general text where no base model can be compared with the trained one."""
        path, limit = self.evaluate.forgetting_input, self.evaluate.max_forgetting
        if limit is not None and path is None:
            raise ValueError(
                f"evaluate.max_forgetting = {limit}: expected evaluate.forgetting_input beside it, "
                "the text that it is measured on"
            )
        if path is None:
            return
        if self.model.base_model is None:
            raise ValueError(
                f"evaluate.forgetting_input = {path}: a model that starts from random weights has "
                "nothing to forget; set model.base_model, too, or leave it out"
            )
        if self.train.task == "classification":
            raise ValueError(
                f"evaluate.forgetting_input = {path}: a classifier's head is new, so its base "
                "model has no number to compare with; leave it out"
            )

    def _check_benchmarks(self) -> None:
        """Raise for benchmark tasks of a model that gives no text a likelihood."""
        tasks, task = self.evaluate.benchmarks, self.train.task
        if tasks and task != "causal-lm":
            raise ValueError(
                f"evaluate.benchmarks = {list(tasks)}: a model of {task} gives no text a "
                "likelihood; leave it out"
            )

    def _check_conversations(self) -> None:
        """Raise for what conversations cannot be: another task, cut, or split at random."""
        corpus = self.corpus
        if not corpus.holds_conversations:
            if self.tokenizer.chat_template is not None:
                raise ValueError(
                    f"tokenizer.chat_template = {self.tokenizer.chat_template}: expected nothing "
                    "without corpus.messages_field or corpus.prompt_field; set one, or leave it out"
                )
            return
        name = "messages_field" if corpus.messages_field is not None else "prompt_field"
        where = f"corpus.{name} = {corpus.content_fields[0]}"
        if self.train.task != "causal-lm":
            raise ValueError(f"{where}: answers are learned with train.task = causal-lm alone")
        for section, key, default, why in (
            ("pack", "overlap_tokens", 0, "conversations are not cut, so nothing is repeated"),
            ("curate", "max_line_documents", "off", "no line of a conversation is removed"),
            ("curate", "quality", QualityConfig(), "the score is one of texts"),
            ("tokenizer", "sampling_alpha", None, "conversations are not split at random"),
            ("tokenizer", "bpe_dropout", 0.0, "conversations are not split at random"),
        ):
            if (value := getattr(getattr(self, section), key)) != default:
                raise ValueError(f"{section}.{key} = {value}: {why}; leave it out with {where}")

    def _check_thresholds(self) -> None:
        """Raise for a threshold on what the task does not measure."""
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
        """Return the model's shape as the ledger and the Trainer take it."""
        return self.model.shape(self.tokenizer.vocab_size, self.train.task)

    @property
    def training_directory(self) -> str:
        """Directory of the checkpoints, from run to run; absolute."""
        return absolute_path(os.path.join(self.output_dir, "training"))

    @property
    def limits_path(self) -> str:
        """File from which the Trainer reads price and budget; absolute."""
        return os.path.join(self.training_directory, LIMITS_NAME)

    def ledger_job(self) -> LedgerJob:
        """Return the ledger's configuration, with the catalog's facts of the chip.

        Raises:
            TokenmillError: The chip is unknown or has no price, cost.ladder is no ladder of it, or
                cost.value measured other text, or TF_CONFIG is wrong.
        """
        law = None
        if self.cost.ladder is not None:
            if self.model.base_model is not None:
                raise TokenmillError(
                    "cost.ladder is of training from random weights, and model.base_model is set.",
                    "Leave one of them out.",
                )
            law = read_ladder(self.cost.ladder).law(self.cost.ladder)
        measured = None
        if self.cost.value is not None:
            measured = find_measured(self.cost.value, self.data_fingerprint)
        return make_ledger_job(
            self.cost,
            self.budget,
            self.train,
            self.shape(),
            self.execution.keep_checkpoints,
            law,
            measured,
            *self._cluster_size(),
        )

    def _cluster_size(self) -> tuple[int, int]:
        """Return how many processes train together, and on how many machines.

        Of multi_worker by TF_CONFIG; where the manifests have yet to make that, one a machine.
        """
        if self.train.strategy != "multi_worker":
            return 1, 1
        return cluster_size() if os.environ.get("TF_CONFIG") else (self.engine.workers,) * 2

    @property
    def data_fingerprint(self) -> str:
        """Hash of the keys that decide what is trained on, apart from the files themselves.

        Without what only guards: benchmarks change a text as little as a new held-out set does.
        """
        guards = {"benchmark_files", "benchmark_tasks", "max_drop_fraction"}
        kept = {"source_weights", "quality_weighting", "max_repetitions"}
        parts = (
            self.corpus.to_json(exclude={"shards"}),
            self.curate.to_json(exclude=guards),
            self.tokenizer.to_json(),
            self.pack.to_json(include=kept),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def training_job(self) -> TrainingJob:
        """Return the configuration of the Trainer and the Calibrator."""
        resume_from = self.train.resume_from and absolute_path(self.train.resume_from)
        return TrainingJob(
            shape=self.shape(),
            train=self.train.model_copy(update={"resume_from": resume_from}),
            seed=self.run.seed,
            quantization=self.push.quantization,
            base_model=self.model.base_model,
        )

    @property
    def continues_training(self) -> bool:
        """Whether training starts from weights that have learnt the task; a class head is new."""
        starts = self.model.base_model is not None and self.train.task != "classification"
        return starts or self.train.resume_from is not None

    @property
    def push_directory(self) -> str:
        """Directory that versions are pushed to."""
        return self.push.directory or os.path.join(self.output_dir, "serving_model")

    @property
    def output_dir(self) -> str:
        """`run.output_dir` with the run's name filled in."""
        return self.run.output_dir.replace("{name}", self.run.name)
