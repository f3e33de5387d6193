"""The pipeline: which steps run, in the order in which the data flows.

Only this file wires components together; where they run is a matter of the runner
(pipeline/local.py), what they are told of the configuration (pipeline/config.py).
"""

import os

from tfx.components import Evaluator, ExampleValidator, SchemaGen
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_node import BaseNode

from components.curate.benchmarks import read_benchmarks
from components.curate.component import Curator
from components.curate.near_duplicates import NearDuplicateSettings
from components.curate.rules import thresholds_of
from components.curate.settings import CurateSettings
from components.errors import TokenmillError
from components.evaluate.eval_config import make_eval_config
from components.ingest.component import CorpusExampleGen
from components.ingest.readers import ReadSettings
from components.ledger.component import TokenLedger
from components.ledger.ledger import LedgerSettings
from components.pack.component import Packer
from components.pack.transforms import PackSettings
from components.push.component import AtomicPusher
from components.settle.component import CostReport
from components.tokenize.component import TokenizerTrainer, TokenizingTransform
from components.tokenize.training import TokenizerSettings
from components.train.component import Trainer
from components.train.run import TrainingJob
from components.validate.component import AnomalyGate, DocumentStatisticsGen, GateSettings
from components.validate.history import resolve_previous
from components.validate.schema import pin_schema
from data.catalogue import find_chip
from pipeline.config import Config


def create_components(config: Config, manifest_directory: str) -> list[BaseNode]:
    """The steps of a run.

    Args:
        config: The resolved configuration.
        manifest_directory: Holds the list of files to read (components/ingest/manifest.py).
    """
    # 1 ingest: files -> documents in a train and an eval split
    ingest = CorpusExampleGen(
        manifest_directory,
        read_settings(config),
        config.corpus.max_quarantine_fraction,
        config.corpus.shards,
    ).with_id("CorpusExampleGen")
    documents = ingest.outputs["examples"]

    # 2 validate: statistics, schema, anomalies, drift; the gate stops the run
    statistics_gen = DocumentStatisticsGen(documents, config.validation.language)
    statistics_gen = statistics_gen.with_id("StatisticsGen")
    statistics = statistics_gen.outputs["statistics"]
    if config.validation.schema_path is None:
        schema_gen: BaseNode = SchemaGen(statistics=statistics)
    else:
        inputs = os.path.abspath(os.path.join(config.output_dir, "inputs"))
        schema_gen = ImportSchemaGen(schema_file=pin_schema(config.validation.schema_path, inputs))
    schema = schema_gen.outputs["schema"]
    validator = ExampleValidator(statistics=statistics, schema=schema)
    gate = AnomalyGate(
        validator.outputs["anomalies"],
        statistics,
        schema,
        gate_settings(config, manifest_directory),
    )

    # 3 curate: normalise, filter, deduplicate
    curator = Curator(documents, curate_settings(config), config.corpus.shards)
    curator.add_upstream_node(gate)
    curated = curator.outputs["curated_examples"]

    # 4 tokenise: a vocabulary, then token ids, in the graph that will also serve
    tokenizer = TokenizerTrainer(curated, TokenizerSettings(**config.tokenizer.model_dump()))
    transform = TokenizingTransform(curated, schema, tokenizer.outputs["tokenizer"])
    transform = transform.with_id("Transform")

    # 5 pack: rows of sequence_length tokens
    packer = Packer(
        transform.outputs["transformed_examples"],
        PackSettings(config.model.sequence_length, config.tokenizer.vocab_size, config.pack.shards),
    )

    # 6 ledger: effective tokens, FLOPs, time, money; the budget gate
    ledger = TokenLedger(
        ingest.outputs["quarantine"],
        curator.outputs["rejected"],
        packer.outputs["packed_rows"],
        ledger_settings(config),
    )

    # 7 train. The ledger only has to let it pass: were it an input, a new price would train anew.
    trainer = Trainer(
        packer.outputs["packed_rows"],
        transform.outputs["transform_graph"],
        tokenizer.outputs["tokenizer"],
        training_job(config),
    )
    trainer.add_upstream_node(ledger)

    # 8 evaluate: the held-out documents, as raw text, through the model's own signature
    evaluator = Evaluator(
        examples=curated,
        model=trainer.outputs["model"],
        schema=schema,
        eval_config=make_eval_config(
            config.evaluate.max_bits_per_byte,
            config.evaluate.max_perplexity,
            config.evaluate.min_token_accuracy,
        ),
    )

    # 9 settle: estimate against actual
    settlement = CostReport(
        ledger.outputs["ledger"],
        packer.outputs["packed_rows"],
        trainer.outputs["model_run"],
        evaluator.outputs["evaluation"],
    )

    # 10 push: a blessed model becomes a version to serve
    pusher = AtomicPusher(
        trainer.outputs["model"],
        evaluator.outputs["blessing"],
        os.path.abspath(push_directory(config)),
    ).with_id("Pusher")

    return [
        ingest, statistics_gen, schema_gen, validator, gate, curator, tokenizer, transform, packer,
        ledger, trainer, evaluator, settlement, pusher,
    ]  # fmt: skip


def read_settings(config: Config) -> ReadSettings:
    """The ingest step's share of the configuration."""
    corpus = config.corpus
    return ReadSettings(
        corpus.text_field,
        corpus.id_field,
        corpus.source_field,
        corpus.max_document_bytes,
        corpus.eval_fraction,
        format=corpus.format,
        text_unit=corpus.text_unit,
        csv_delimiter=corpus.csv_delimiter,
        repair_encoding=corpus.repair_encoding,
    )


def gate_settings(config: Config, manifest_directory: str) -> GateSettings:
    """The anomaly gate's share; the earlier statistics are looked up here, before the run.

    Raises:
        TokenmillError: validate.previous_statistics names no statistics.
    """
    validation, run_directory = config.validation, os.path.abspath(config.output_dir)
    return GateSettings(
        run_directory,
        os.path.abspath(validation.schema_path) if validation.schema_path else "",
        resolve_previous(validation.previous_statistics, run_directory, manifest_directory),
    )


def curate_settings(config: Config) -> CurateSettings:
    """The curate step's share, with the benchmark files read.

    Raises:
        TokenmillError: A benchmark file cannot be read.
    """
    curate = config.curate
    near = NearDuplicateSettings(
        min_jaccard=curate.near_duplicate_min_jaccard,
        ngram_words=curate.near_duplicate_ngram_words,
        bands=curate.near_duplicate_bands,
        rows=curate.near_duplicate_rows,
    )
    return CurateSettings(
        thresholds=thresholds_of(curate.rules, curate.model_dump()),
        languages=curate.languages,
        min_language_score=curate.min_language_score,
        mask=curate.mask,
        exact_duplicates=curate.exact_duplicates,
        near_duplicates=near if curate.near_duplicates == "drop" else None,
        decontaminate=curate.decontaminate,
        decontaminate_ngram_words=curate.decontaminate_ngram_words,
        benchmarks=read_benchmarks(curate.benchmark_files, read_settings(config)),
        partitions=config.corpus.shards,
        boilerplate_documents=(
            None if curate.max_line_documents == "off" else curate.max_line_documents
        ),
    )


def training_job(config: Config) -> TrainingJob:
    """The train step's share."""
    train = config.train
    return TrainingJob(
        shape=config.shape().__dict__,
        settings={
            "learning_rate": train.learning_rate,
            "warmup_fraction": train.warmup_fraction,
            "weight_decay": train.weight_decay,
            "clip_norm": train.clip_norm,
            "jit_compile": train.jit_compile,
            "seed": config.run.seed,
        },
        strategy=train.strategy,
        precision=train.precision,
        global_batch_size=train.global_batch_size,
        epochs=train.epochs,
        max_steps=train.max_steps,
    )


def ledger_settings(config: Config) -> LedgerSettings:
    """The ledger's share, with the catalogue's facts of the chip.

    Raises:
        TokenmillError: The chip is unknown, or has no price or number and none was given.
    """
    cost, train = config.cost, config.train
    try:
        chip = find_chip(cost.chip)
    except ValueError as error:
        raise TokenmillError(f"cost.chip: {error}") from None
    chips = cost.chips
    is_this_cpu = chip.slug == "cpu-vcpu"
    if chips == "auto":
        if not is_this_cpu:
            raise TokenmillError(
                f'cost.chips = "auto" counts this machine\'s cores; {chip.slug} needs a number.',
                "Set cost.chips.",
            )
        chips = len(os.sched_getaffinity(0))
    peak = cost.peak_flops_per_second_per_chip or chip.peak_flops_per_second
    if peak is None and not is_this_cpu:
        raise TokenmillError(
            f"the catalogue has no peak for {chip.slug}.",
            "Set cost.peak_flops_per_second_per_chip.",
        )
    price, price_source = cost.price_usd_per_chip_hour, "the configuration"
    if price is None:
        price = chip.price_usd_per_chip_hour
        price_source = f"{chip.price_provider}, {chip.price_date}"
    if price is None:
        raise TokenmillError(
            f"the catalogue has no price for {chip.slug}.", "Set cost.price_usd_per_chip_hour."
        )
    return LedgerSettings(
        shape=config.shape().__dict__,
        precision=train.precision,
        global_batch_size=train.global_batch_size,
        epochs=train.epochs,
        max_steps=train.max_steps,
        chip=chip.slug,
        chips=chips,
        peak_flops_per_second_per_chip=peak,
        mfu=cost.mfu,
        goodput=cost.goodput,
        price_usd_per_chip_hour=price,
        price_source=price_source,
        hidden_cost_multiplier_low=cost.hidden_cost_multiplier_low,
        hidden_cost_multiplier_high=cost.hidden_cost_multiplier_high,
        budget_usd=cost.budget_usd,
    )


def push_directory(config: Config) -> str:
    """Where versions are pushed to."""
    return config.push.directory or os.path.join(config.output_dir, "serving_model")
