"""Evaluator: TFX's own, and beside TFMA's thresholds a comparison with no model at all."""

import os

from tensorflow_model_analysis.proto import config_pb2
from tfx.components.evaluator import constants
from tfx.components.evaluator import executor as evaluator_executor
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import (
    Channel,
    artifact_utils,
    component_spec,
    standard_artifacts,
    standard_component_specs,
)
from tfx.utils import io_utils, path_utils

from components.artifacts import PackedRows
from components.evaluate.baseline import BaselineConfig, shortcomings
from components.evaluate.benchmarks import below_thresholds, score_benchmarks
from components.evaluate.forgetting import forgot_too_much, measure_forgetting
from tokenmill.contracts.evaluation import WHOLE, BaselineCheck, read_metrics, write_baseline_check
from tokenmill.contracts.training import read_telemetry
from tokenmill.export.text_masking import masking_of
from tokenmill.records.splits import SPLITS
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.rows.unigram import unigram_baseline
from tokenmill.timing import timed


class BaselineEvaluatorSpec(standard_component_specs.EvaluatorSpec):
    """TFX's, with the rows that frequencies are counted of, and the training's telemetry."""

    PARAMETERS = {
        **standard_component_specs.EvaluatorSpec.PARAMETERS,
        "baseline_config": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        **standard_component_specs.EvaluatorSpec.INPUTS,
        "packed_rows": component_spec.ChannelParameter(type=PackedRows),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
    }


class BaselineEvaluatorExecutor(evaluator_executor.Executor):
    """TFX's executor; a model that is no better than none loses its blessing."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Evaluate with TFMA, compare with the baseline, write baseline_check.json."""
        super().Do(input_dict, output_dict, exec_properties)
        config = BaselineConfig.from_json(exec_properties["baseline_config"])
        rows = artifact_utils.get_single_uri(input_dict["packed_rows"])
        train, evaluation = (PackedSplit(rows, split) for split in SPLITS)
        baseline = unigram_baseline(
            train.target_counts(),
            evaluation.target_counts(),
            evaluation.manifest.loss_bytes,
            evaluation.task,
        )
        uri = artifact_utils.get_single_uri(output_dict["evaluation"])
        failures = shortcomings(
            read_metrics(uri)[WHOLE],
            evaluation.task,
            baseline,
            read_telemetry(artifact_utils.get_single_uri(input_dict["model_run"])).eval_before,
            config,
        )
        model = artifact_utils.get_single_instance(input_dict["model"])
        served = path_utils.serving_model_path(model.uri)
        forgetting = None
        if config.general_text:
            assert config.base_model is not None
            forgetting = measure_forgetting(
                served, config.base_model, config.general_text, masking_of(evaluation)
            )
            failures += forgot_too_much(forgetting, config.max_forgetting)
        benchmarks = {}
        if config.benchmarks:
            benchmarks = score_benchmarks(served, config.benchmarks, uri)
            failures += below_thresholds(benchmarks, config.benchmark_thresholds)
        check = BaselineCheck(
            baseline=baseline, failures=failures, forgetting=forgetting, benchmarks=benchmarks
        )
        write_baseline_check(uri, check)
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        blessed = os.path.join(blessing.uri, constants.BLESSED_FILE_NAME)
        if failures and fileio.exists(blessed):
            fileio.remove(blessed)
            io_utils.write_string_file(
                os.path.join(blessing.uri, constants.NOT_BLESSED_FILE_NAME), ""
            )
            blessing.set_int_custom_property(
                constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.NOT_BLESSED_VALUE
            )


class BaselineEvaluator(base_beam_component.BaseBeamComponent):
    """Evaluates the held-out documents and blesses the model, or does not.

    Outputs:
        evaluation: `ModelEvaluation`, TFMA's files and baseline_check.json.
        blessing: `ModelBlessing`.

    Args:
        examples: Channel of curated `Examples`.
        model: Channel of `Model`.
        baseline_model: Channel of the last blessed `Model`; None compares with none.
        schema: Channel of `Schema`.
        packed_rows: Channel of `PackedRows`, whose frequencies are the baseline.
        model_run: Channel of the trainer's `ModelRun`, with the losses before training.
        eval_config: TFMA's configuration.
        module_path: Module that adds what to slice by.
        config: Which comparisons count.
    """

    SPEC_CLASS = BaselineEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(BaselineEvaluatorExecutor)

    def __init__(
        self,
        examples: Channel,
        model: Channel,
        baseline_model: Channel | None,
        schema: Channel,
        packed_rows: Channel,
        model_run: Channel,
        eval_config: config_pb2.EvalConfig,
        module_path: str,
        config: BaselineConfig,
    ):
        spec = BaselineEvaluatorSpec(
            examples=examples,
            model=model,
            baseline_model=baseline_model,
            schema=schema,
            packed_rows=packed_rows,
            model_run=model_run,
            eval_config=eval_config,
            example_splits="null",
            fairness_indicator_thresholds="null",
            module_path=module_path,
            baseline_config=config.to_json(),
            evaluation=Channel(type=standard_artifacts.ModelEvaluation),
            blessing=Channel(type=standard_artifacts.ModelBlessing),
        )
        super().__init__(spec=spec)
