"""The pipeline: which steps run, in the order in which the data flows.

Only this file wires components together; where they run is a matter of the runner
(pipeline/runners/local.py), what they are told of the configuration (pipeline/config.py).
"""

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
from components.evaluate.component import TimedEvaluator
from components.evaluate.eval_config import SLICES_MODULE, EvaluateSettings, make_eval_config
from components.ingest.component import CorpusExampleGen
from components.ledger.component import TokenLedger
from components.pack.component import Packer
from components.push.component import AtomicPusher, ProbeSettings, VertexRegistrar
from components.push.infra import make_infra_validator
from components.tokenize.component import TokenizerTrainer, TokenizingTransform
from components.train.calibrator import Calibrator
from components.train.component import Trainer
from components.validate.component import AnomalyGate, DocumentStatisticsGen
from components.validate.schema import pin_schema
from pipeline.config import Config
from pipeline.step_settings import (
    absolute,
    curate_settings,
    gate_settings,
    ledger_settings,
    pack_settings,
    push_directory,
    read_settings,
    registry_settings,
    sampling_settings,
    tokenizer_settings,
    training_directory,
    training_job,
)


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
        inputs = absolute(os.path.join(config.output_dir, "inputs"))
        schema_gen = ImportSchemaGen(schema_file=pin_schema(config.validation.schema_path, inputs))
    schema = schema_gen.outputs["schema"]
    validator = ExampleValidator(statistics=statistics, schema=schema)
    gate = AnomalyGate(
        validator.outputs["anomalies"],
        statistics,
        schema,
        gate_settings(config, manifest_directory),
    )

    # 3 curate: normalize, filter, deduplicate
    curator = Curator(documents, curate_settings(config), config.corpus.shards)
    curator.add_upstream_node(gate)
    curated = curator.outputs["curated_examples"]

    # 4 tokenize: a vocabulary, then token ids, in the graph that will also serve
    tokenizer = TokenizerTrainer(curated, tokenizer_settings(config))
    transform = TokenizingTransform(
        curated, schema, tokenizer.outputs["tokenizer"], sampling_settings(config)
    )
    transform = transform.with_id("Transform")

    # 5 pack: rows of sequence_length tokens
    packer = Packer(
        transform.outputs["transformed_examples"],
        tokenizer.outputs["tokenizer"],
        pack_settings(config),
    )

    # 6 ledger: the machine's speed, effective tokens, FLOPs, time, money; the budget gate
    settings = ledger_settings(config)
    measuring: list[BaseNode] = []
    if settings.mfu is None:
        measuring.append(
            Calibrator(
                packer.outputs["packed_rows"], training_job(config), settings.chip, settings.chips
            )
        )
    ledger = TokenLedger(
        ingest.outputs["quarantine"],
        curated,
        curator.outputs["dropped"],
        packer.outputs["packed_rows"],
        settings,
        measuring[0].outputs["calibration"] if measuring else None,
    )

    # 7 train. The ledger only has to let it pass: were it an input, a new price would train anew.
    trainer = Trainer(
        packer.outputs["packed_rows"],
        transform.outputs["transform_graph"],
        tokenizer.outputs["tokenizer"],
        training_job(config),
        training_directory(config),
    )
    trainer.add_upstream_node(ledger)

    # 8 evaluate: the held-out documents, as raw text, through the model's own signature
    evaluating = EvaluateSettings(**config.evaluate.model_dump(), task=config.train.task)
    baseline = last_blessed_model() if evaluating.compares else None
    evaluator = TimedEvaluator(
        examples=curated,
        model=trainer.outputs["model"],
        baseline_model=baseline and baseline.outputs["model"],
        schema=schema,
        eval_config=make_eval_config(evaluating),
        module_path=SLICES_MODULE,
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
        absolute(push_directory(config)),
        ProbeSettings(config.push.infra_validator != "off", config.push.max_probe_seconds),
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
                registry_settings(config),
            )
        )

    return [
        ingest, statistics_gen, schema_gen, validator, gate, curator, tokenizer, transform, packer,
        *measuring, ledger, trainer, *([baseline] if baseline else []), evaluator, cost_report,
        *([infra_validator] if infra_validator is not None else []), pusher, *registering,
    ]  # fmt: skip


def last_blessed_model() -> Resolver:
    """Finds the newest model of this pipeline that an Evaluator blessed; the first has none."""
    return Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
    ).with_id("LastBlessedModel")
