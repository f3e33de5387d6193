"""The one configuration: what every key means, its type and its default.

A preset (pipeline/presets/*.toml) or a user's TOML file, with `--set section.key=value` on top,
becomes one frozen `Config`. Loading and error messages are in pipeline/config_loader.py.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.model_shape import Head, ModelShape

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Threshold = Annotated[float, Field(ge=0.0)] | Literal["off"] | None


_HEADS: dict[str, Head] = {
    "causal-lm": "lm",
    "masked-lm": "mlm",
    "classification": "classifier",
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RunSection(_Section):
    """The run as a whole."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = "demo"
    """Pipeline name in ML Metadata: lower-case letters, digits and hyphens."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 20240607
    """Seed of everything random: weights, data order, sampling."""
    output_dir: str = "runs/{name}"
    """Where artifacts, metadata, logs and pushed models go."""


class CorpusSection(_Section):
    """Ingest: what is read and how it is split."""

    input: tuple[str, ...] = ()
    """Files, directories or globs; empty means the embedded corpus. {SPAN} stands for a number."""
    span: Annotated[int, Field(ge=0)] | None = None
    """Which span to read where the input holds {SPAN}; None means the newest, the greatest."""
    format: Literal["auto", "jsonl", "text", "csv", "parquet", "tfrecord"] = "auto"
    """The format of all files; "auto" goes by their names, whatever is unknown being text."""
    text_unit: Literal["file", "paragraph"] = "file"
    """What is a document in a text file: all of it, or what stands between blank lines."""
    text_field: str = "text"
    """The key (JSON), column (CSV, Parquet) or feature (tf.Example) that holds the text."""
    id_field: str = "id"
    """The one that holds a unique id; records without it are named file:offset."""
    source_field: str = "source"
    """The one that names where a record came from; without it, the file's directory or name."""
    csv_delimiter: Annotated[str, Field(pattern='^[^\\r\\n"]$')] = ","
    """What parts the columns of .csv files; .tsv files have tabs."""
    repair_encoding: bool = True
    """Repair UTF-16, Windows-1252 and mojibake where safe; false quarantines such bytes."""
    eval_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Share of documents held out for evaluation, chosen by a hash of the text."""
    max_document_bytes: PositiveInt = 10_000_000
    """A longer document is quarantined."""
    max_quarantine_fraction: Fraction = 0.05
    """The run stops if a larger share of the records cannot be read."""
    shards: PositiveInt = 4
    """Files per split; a worker sorts one shard in memory."""


class ValidateSection(_Section):
    """Data validation by TFDV."""

    schema_path: str | None = None
    """A pinned schema (schema.pbtxt); without it the schema is inferred from this run's data.

    `tokenmill schema freeze` makes one; docs/validation.md tells how."""
    previous_statistics: str = "off"
    """What to compare this run's data with, for drift: "off"; "latest", the newest run in this
    output directory that passed with other input files; another run's output directory; or a
    directory of statistics (a StatisticsGen artifact)."""
    language: bool = False
    """Identify each document's language for the statistics (some 70 microseconds each)."""


class CurateSection(_Section):
    """Curation.

    A threshold left out is what the rule set says; "off" switches the rule off; zero is a
    threshold like any other. `tokenmill curate rules` lists rules, thresholds and sources.
    """

    rules: Literal["web", "technical-prose", "code-docs", "none"] = "technical-prose"
    """The set of quality rules: what the papers say for web text, or milder ones."""
    languages: tuple[str, ...] = ()
    """ISO 639 codes of the languages to keep (reason wrong_language); empty keeps all."""
    min_language_score: Fraction = 0.65
    """Least probability of one of these languages (FineWeb's threshold)."""
    mask: tuple[Literal["url", "email", "ip"], ...] = ()
    """Personal data to replace by <URL>, <EMAIL>, <IP>."""
    max_line_documents: PositiveInt | Literal["off"] = "off"
    """Remove lines (of 40 characters or more) that stand in more documents than this."""
    exact_duplicates: Literal["drop", "keep"] = "drop"
    """Copies that differ in blanks and case at most (reason exact_duplicate)."""
    near_duplicates: Literal["drop", "keep"] = "drop"
    """Copies with nearly the same word n-grams (reason near_duplicate)."""
    near_duplicate_min_jaccard: Fraction = 0.8
    near_duplicate_ngram_words: PositiveInt = 5
    near_duplicate_bands: PositiveInt = 14
    near_duplicate_rows: PositiveInt = 8
    decontaminate: Literal["held-out", "train", "off"] = "held-out"
    """Which split loses a document if both share a run of words (reason contaminated)."""
    decontaminate_ngram_words: PositiveInt = 13
    benchmark_files: tuple[str, ...] = ()
    """Texts that must not occur in train: files as for corpus.input."""

    min_words: Threshold = None
    max_words: Threshold = None
    min_mean_word_length: Threshold = None
    max_mean_word_length: Threshold = None
    max_symbols_per_word: Threshold = None
    max_bullet_line_fraction: Threshold = None
    max_ellipsis_line_fraction: Threshold = None
    min_alphabetic_word_fraction: Threshold = None
    min_stop_words: Threshold = None
    min_letter_fraction: Threshold = None
    max_digit_fraction: Threshold = None
    min_sentences: Threshold = None
    max_curly_brackets: Threshold = None
    max_lorem_ipsum: Threshold = None
    min_punctuated_line_fraction: Threshold = None
    max_short_line_fraction: Threshold = None
    max_repeated_line_characters: Threshold = None
    max_line_feeds_per_word: Threshold = None
    max_duplicate_line_fraction: Threshold = None
    max_duplicate_paragraph_fraction: Threshold = None
    max_duplicate_line_character_fraction: Threshold = None
    max_duplicate_paragraph_character_fraction: Threshold = None
    max_top_2gram_character_fraction: Threshold = None
    max_top_3gram_character_fraction: Threshold = None
    max_top_4gram_character_fraction: Threshold = None
    max_duplicate_5gram_character_fraction: Threshold = None
    max_duplicate_6gram_character_fraction: Threshold = None
    max_duplicate_7gram_character_fraction: Threshold = None
    max_duplicate_8gram_character_fraction: Threshold = None
    max_duplicate_9gram_character_fraction: Threshold = None
    max_duplicate_10gram_character_fraction: Threshold = None


class TokenizerSection(_Section):
    """The SentencePiece vocabulary."""

    model_type: Literal["bpe", "unigram"] = "bpe"
    vocab_size: Annotated[int, Field(ge=300, le=1_000_000)] = 8192
    """Pieces in all: 256 of them are bytes, 4 control tokens."""
    sample_bytes: PositiveInt = 20_000_000
    """Train on at most about this much text."""


class PackSection(_Section):
    """Packing into fixed-length rows."""

    shards: PositiveInt = 4
    """Files per split; a worker packs one shard in memory."""


class ModelSection(_Section):
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
    """Classes of the task classification."""
    base_model: str | None = None
    """Directory of a pushed model whose weights training starts from; None means random ones."""


class TrainSection(_Section):
    """Training."""

    task: Literal["causal-lm", "masked-lm", "classification"] = "causal-lm"
    strategy: Literal["default", "mirrored", "multi_worker", "tpu"] = "default"
    """The tf.distribute strategy."""
    precision: Literal["float32", "bfloat16", "mixed_bfloat16", "mixed_float16"] = "float32"
    """mixed_*: 16-bit products, float32 weights; bfloat16: weights and moments are 16-bit too."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Rate after the embeddings, on attention probabilities, and after attention and MLP."""
    rematerialize: bool = False
    """Keep only each layer's input for the backward pass and compute the rest again."""
    global_batch_size: PositiveInt = 16
    """Rows a step, over all replicas."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    max_steps: PositiveInt | None = None
    """Stop after this many steps even if `epochs` asks for more."""
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


class CostSection(_Section):
    """What the run is paid with: the ledger's inputs."""

    chip: str = "cpu-vcpu"
    """A chip of data/hardware.csv."""
    chips: PositiveInt | Literal["auto"] = "auto"
    """How many; "auto" is every core of this machine, for cpu-vcpu."""
    peak_flops_per_second_per_chip: Annotated[float, Field(gt=0)] | None = None
    """Overrides the catalogue; for cpu-vcpu without it, matrix products are timed here."""
    mfu: Annotated[float, Field(gt=0.0, le=1.0)] = 0.4
    """Share of the peak that the training step is expected to reach (model FLOPs utilisation)."""
    goodput: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the wall time that goes to steps that count."""
    price_usd_per_chip_hour: Annotated[float, Field(ge=0)] | None = None
    """Overrides the catalogue's price."""
    hidden_cost_multiplier_low: Annotated[float, Field(ge=1)] = 2.0
    hidden_cost_multiplier_high: Annotated[float, Field(ge=1)] = 5.0
    """Storage, network, failed runs and people come to 2-5 times the bare compute."""
    budget_usd: Annotated[float, Field(ge=0)] | None = None
    """The run stops before training if the estimated compute costs more."""


class EvaluateSection(_Section):
    """Thresholds that bless a model, on the held-out documents."""

    max_bits_per_byte: Annotated[float, Field(gt=0)] = 8.0
    max_perplexity: Annotated[float, Field(gt=1)] | None = None
    min_token_accuracy: Fraction | None = None


class PushSection(_Section):
    """Where a blessed model goes."""

    directory: str | None = None
    """Base directory of numbered SavedModels; None means <output_dir>/serving_model."""
    weights: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    """How the SavedModel stores weights: half precision halves it, int8 quarters it; the
    arithmetic stays as it was. The Evaluator scores the model with these weights."""
    infra_validator: Literal["process", "docker", "off"] = "process"
    """What a model must pass before it is pushed: "process" calls every signature in a fresh
    process with TensorFlow and tensorflow-text only; "docker" is TFX's InfraValidator with
    TensorFlow Serving's image, besides."""
    max_probe_seconds: Annotated[float, Field(gt=0)] = 300.0
    """The longest that loading the model and calling it may take before the push."""


class Config(_Section):
    """Everything that a run depends on, apart from the data itself."""

    run: RunSection = RunSection()
    corpus: CorpusSection = CorpusSection()
    validation: ValidateSection = Field(default=ValidateSection(), alias="validate")
    curate: CurateSection = CurateSection()
    tokenizer: TokenizerSection = TokenizerSection()
    pack: PackSection = PackSection()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    cost: CostSection = CostSection()
    evaluate: EvaluateSection = EvaluateSection()
    push: PushSection = PushSection()

    @model_validator(mode="after")
    def _check_across_sections(self) -> "Config":
        self.shape()  # raises for impossible shapes, naming the field
        cost = self.cost
        if cost.hidden_cost_multiplier_low > cost.hidden_cost_multiplier_high:
            raise ValueError(
                f"cost.hidden_cost_multiplier_low = {cost.hidden_cost_multiplier_low} is above "
                f"cost.hidden_cost_multiplier_high = {cost.hidden_cost_multiplier_high}"
            )
        return self

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
            head=_HEADS[self.train.task],
            classes=model.classes,
        )

    @property
    def output_dir(self) -> str:
        """`run.output_dir` with the run's name filled in."""
        return self.run.output_dir.replace("{name}", self.run.name)
