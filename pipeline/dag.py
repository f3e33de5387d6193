"""The pipeline: which steps run, in the order in which the data flows.

Only this file wires components together; where they run is a matter of the runner
(pipeline/runners/local.py), their configuration is in pipeline/config.py.
"""

import json
import os

from tfx.components import ExampleValidator, SchemaGen
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.types import Channel, standard_artifacts

from components.cost_report.component import CostReport
from components.curate.component import Curator
from components.curate.list_entries import pin_lists
from components.curate.quality.classifier import find_classifier
from components.curate.quality.component import QualityTrainer
from components.evaluate.baseline import BaselineConfig
from components.evaluate.benchmarks import resolve_benchmarks
from components.evaluate.component import BaselineEvaluator
from components.evaluate.eval_config import SLICES_MODULE, make_eval_config
from components.ingest.component import CorpusExampleGen
from components.ledger.component import TokenLedger
from components.pack.component import Packer
from components.pack.job import PackJob
from components.push.component import AtomicPusher, VertexRegistrar
from components.push.infra import make_infra_validator
from components.tokenize.chat_format import resolve_chat_format
from components.tokenize.component import TokenizerTrainer, TokenizingTransform
from components.tokenize.import_model import resolve_model
from components.tokenize.subword_regularization import SubwordRegularization
from components.train.calibrator import Calibrator
from components.train.component import Trainer
from components.train.config import TrainingJob
from components.validate.component import AnomalyGate, DocumentStatisticsGen
from components.validate.history import resolve_previous
from components.validate.schema import pin_schema
from pipeline.config import Config
from pipeline.loader import dump_config
from pipeline.other_texts import pin_examples, pin_general_text, read_benchmarks
from pipeline.report.page.component import ReportPage
from pipeline.runners.engine_check import registry_target
from tokenmill.checkpoints.base_model import weights_fingerprint
from tokenmill.files import absolute_path


def create_components(
    config: Config, manifest_directory: str, until: str | None = None
) -> list[BaseNode]:
    """Create the steps of a run.

    Args:
        config: The resolved configuration.
        manifest_directory: Holds the list of files to read (components/ingest/manifest.py).
        until: Id of the last step that is wanted, one before the Trainer; None for all.
    """
    run_directory = absolute_path(config.output_dir)
    inputs = os.path.join(run_directory, "inputs")

    benchmark_tasks = resolve_benchmarks(
        config.evaluate.benchmarks, config.evaluate.benchmark_thresholds
    )
    general = config.evaluate.forgetting_input
    general_text = ""
    if general is not None and until is None:
        general_text = pin_general_text(general, config.corpus.of_texts, inputs)

    # 1 ingest: files -> documents in a train and an eval split
    ingest = CorpusExampleGen(manifest_directory, config.corpus).with_id("CorpusExampleGen")
    documents = ingest.outputs["examples"]

    # 2 validate: statistics, schema, anomalies, drift; the gate stops the run
    statistics_gen = DocumentStatisticsGen(documents, config.validation.language)
    statistics_gen = statistics_gen.with_id("StatisticsGen")
    statistics = statistics_gen.outputs["statistics"]
    pinned = config.validation.schema_path
    if pinned is None:
        schema_gen: BaseNode = SchemaGen(statistics=statistics)
    else:
        schema_gen = ImportSchemaGen(schema_file=pin_schema(pinned, inputs))
    schema = schema_gen.outputs["schema"]
    validator = ExampleValidator(statistics=statistics, schema=schema)
    gate = AnomalyGate(
        validator.outputs["anomalies"],
        statistics,
        schema,
        run_directory,
        absolute_path(pinned) if pinned else "",
        resolve_previous(config.validation.previous_statistics, run_directory, manifest_directory),
    )

    # 3 curate: learn what is worth more; normalize, filter, deduplicate
    benchmarks = read_benchmarks(
        config.curate.benchmark_files, config.corpus.of_texts, config.curate.benchmark_tasks
    )
    lists = pin_lists(config.curate.lists, inputs)
    resolved = resolve_model(
        config.tokenizer, config.train.task, config.model.base_model is not None
    )
    chat_format = ""
    if config.corpus.holds_conversations:
        found = resolve_chat_format(resolved.config, resolved.content)
        chat_format = json.dumps(found.to_json(), sort_keys=True)
    scoring: list[BaseNode] = []
    if config.curate.quality.is_used:
        example_files = pin_examples(config.curate.quality, config.corpus.of_texts, inputs)
        imported = ""
        if config.curate.quality.classifier is not None:
            imported = find_classifier(config.curate.quality).fingerprint
        scoring.append(
            QualityTrainer(documents, config.curate, example_files, benchmarks, imported)
        )
        scoring[0].add_upstream_node(gate)
    quality_model = scoring[0].outputs["quality_model"] if scoring else None
    curator = Curator(
        documents,
        config.curate,
        benchmarks,
        lists,
        config.corpus.shards,
        chat_format,
        quality_model,
    )
    curator.add_upstream_node(gate)
    curated = curator.outputs["curated_examples"]

    # 4 tokenize: a vocabulary, then token ids, in the graph that will also serve
    tokenizer = TokenizerTrainer(curated, resolved.config, resolved.sha256, chat_format)
    alpha = config.tokenizer.regularization_alpha
    transform = TokenizingTransform(
        curated,
        schema,
        tokenizer.outputs["tokenizer"],
        None if alpha is None else SubwordRegularization(alpha, config.run.seed),
    )
    transform = transform.with_id("Transform")

    # 5 pack: rows of sequence_length tokens
    packer = Packer(
        transform.outputs["transformed_examples"],
        tokenizer.outputs["tokenizer"],
        PackJob(
            **config.pack.model_dump(),
            sequence_length=config.model.sequence_length,
            vocab_size=config.tokenizer.vocab_size,
            task=config.train.task,
            classes=config.model.classes,
            conversations=config.corpus.holds_conversations,
        ),
    )

    # 6 ledger: the machine's speed, effective tokens, FLOPs, time, money; the budget gate
    settings, training = config.ledger_job(), with_base_weights(config.training_job())
    measuring: list[BaseNode] = []
    if settings.needs_calibration:
        measuring.append(
            Calibrator(
                packer.outputs["packed_rows"],
                training,
                settings.chip,
                settings.chips,
                config.execution.samples,
            )
        )
    ledger = TokenLedger(
        ingest.outputs["quarantine"],
        curated,
        curator.outputs["dropped"],
        packer.outputs["packed_rows"],
        settings,
        config.limits_path,
        measuring[0].outputs["calibration"] if measuring else None,
    )

    before_training = [
        ingest, statistics_gen, schema_gen, validator, gate, *scoring, curator, tokenizer,
        transform, packer, *measuring, ledger,
    ]  # fmt: skip
    if until is not None:
        return before_training[: [step.id for step in before_training].index(until) + 1]

    # 7 train. The ledger only has to let it pass: were it an input, a new price would train anew.
    # What a run's price and budget are is read from limits_path when training starts.
    trainer = Trainer(
        packer.outputs["packed_rows"],
        transform.outputs["transform_graph"],
        tokenizer.outputs["tokenizer"],
        training,
        config.training_directory,
        config.limits_path,
    )
    trainer.add_upstream_node(ledger)

    # 8 evaluate: the held-out documents, as raw text, through the model's own signature
    baseline = last_blessed_model() if config.evaluate.compares else None
    evaluator = BaselineEvaluator(
        examples=curated,
        model=trainer.outputs["model"],
        baseline_model=baseline and baseline.outputs["model"],
        schema=schema,
        packed_rows=packer.outputs["packed_rows"],
        model_run=trainer.outputs["model_run"],
        eval_config=make_eval_config(config.evaluate, config.train.task),
        module_path=SLICES_MODULE,
        config=BaselineConfig.of(
            config.evaluate,
            config.continues_training,
            general_text,
            config.model.base_model,
            [task.fingerprint() for task in benchmark_tasks],
        ),
    ).with_id("Evaluator")

    # 9 settle: estimate against actual, and what each step cost
    cost_report = CostReport(
        ledger=ledger.outputs["ledger"],
        packed_rows=packer.outputs["packed_rows"],
        model_run=trainer.outputs["model_run"],
        evaluation=evaluator.outputs["evaluation"],
        quarantine=ingest.outputs["quarantine"],
        statistics=statistics,
        decision=gate.outputs["decision"],
        quality_model=quality_model,
        dropped=curator.outputs["dropped"],
        tokenizer=tokenizer.outputs["tokenizer"],
        transform_graph=transform.outputs["transform_graph"],
        calibration=measuring[0].outputs["calibration"] if measuring else None,
    )

    # 10 push: a blessed model becomes a version to serve, if it can be loaded and called
    infra_validator = (
        make_infra_validator(trainer.outputs["model"])
        if config.push.infra_validator == "docker"
        else None
    )
    pusher = AtomicPusher(
        trainer.outputs["model"],
        evaluator.outputs["blessing"],
        absolute_path(config.push_directory),
        config.push,
        infra_validator.outputs["blessing"] if infra_validator is not None else None,
    ).with_id("Pusher")
    registering: list[BaseNode] = []
    if config.push.registry == "vertex":
        registering.append(
            VertexRegistrar(
                pusher.outputs["pushed_model"],
                ledger.outputs["ledger"],
                cost_report.outputs["cost_report"],
                config.run.name,
                registry_target(config),
            )
        )

    # 11 report: what all of them left, on one page, as an artifact that an engine's UI shows
    page = ReportPage(
        dump_config(config),
        statistics=statistics,
        dropped=curator.outputs["dropped"],
        tokenizer=tokenizer.outputs["tokenizer"],
        ledger=ledger.outputs["ledger"],
        model_run=trainer.outputs["model_run"],
        cost_report=cost_report.outputs["cost_report"],
        pushed_model=pusher.outputs["pushed_model"],
    )

    return [
        *before_training, trainer, *([baseline] if baseline else []), evaluator, cost_report,
        *([infra_validator] if infra_validator is not None else []), pusher, *registering, page,
    ]  # fmt: skip


def with_base_weights(job: TrainingJob) -> TrainingJob:
    """Return a job that says which weights its base model has: TFX's cache knows its path alone."""
    directory = job.base_model
    # In a bucket they are not looked at: all of them would be read.
    if directory is None or "://" in directory or not os.path.isdir(directory):
        return job
    return job.model_copy(update={"base_weights": weights_fingerprint(directory)})


def last_blessed_model() -> Resolver:
    """Find the newest model of this pipeline that an Evaluator blessed; the first has none."""
    return Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
    ).with_id("LastBlessedModel")
