"""The validate step's own components: StatisticsGen over derived features, and the gate.

SchemaGen, ImportSchemaGen and ExampleValidator are TFX's.
"""

import os
from collections.abc import Mapping

import tensorflow_data_validation as tfdv
from google.protobuf import json_format
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components import StatisticsGen
from tfx.components.example_validator import executor as example_validator
from tfx.components.statistics_gen import executor as statistics_gen
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import (
    Channel,
    artifact_utils,
    component_spec,
    standard_artifacts,
    standard_component_specs,
)
from tfx.utils import io_utils

from components.artifacts import ValidationDecision
from components.validate.anomalies import Anomaly, is_comparison, list_anomalies
from components.validate.comparison import compare
from components.validate.derived_features import DocumentStatistics, statistics_options
from components.validate.schema import SCHEMA_NAME, read_schema
from components.validate.statistics import STATISTICS_NAME, read_statistics
from tokenmill.contracts.base import write_document
from tokenmill.contracts.validation import DECISION_NAME, GateDecision
from tokenmill.errors import TokenmillError
from tokenmill.records.splits import split_directory
from tokenmill.timing import timed


class DocumentStatisticsGenSpec(standard_component_specs.StatisticsGenSpec):
    """TFX's StatisticsGen, and whether to identify languages."""

    PARAMETERS = {
        **standard_component_specs.StatisticsGenSpec.PARAMETERS,
        "language": component_spec.ExecutionParameter(type=int),
    }


class DocumentStatisticsGenExecutor(statistics_gen.Executor):
    """Computes TFDV's statistics of features derived from each document, in one pass.

    TFX's own `Do` takes statistics of the features as they lie in the Examples. Deriving others
    on the way to the same `tfdv.GenerateStatistics` needs no second copy of the corpus (a step
    that wrote a view of it for StatisticsGen would) and no new features in the documents. The
    artifact is the standard one: SchemaGen, ExampleValidator and TFDV's viewer take it as it is.
    """

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Write FeatureStats.pb for each split."""
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        statistics = artifact_utils.get_single_instance(output_dict["statistics"])
        statistics.split_names = examples.split_names
        statistics.span = examples.span
        options = tfdv.StatsOptions.from_json(exec_properties["stats_options_json"])
        language = bool(exec_properties["language"])
        with self._make_beam_pipeline() as pipeline:
            for split in artifact_utils.decode_split_names(examples.split_names):
                path = os.path.join(split_directory(statistics.uri, split), STATISTICS_NAME)
                (
                    pipeline
                    | f"Statistics[{split}]"
                    >> DocumentStatistics(examples.uri, split, options, language)
                    | f"Write[{split}]" >> tfdv.WriteStatisticsToBinaryFile(path)
                )


class DocumentStatisticsGen(StatisticsGen):
    """StatisticsGen for documents: length in bytes, characters and words, source, language.

    Outputs:
        statistics: `ExampleStatistics`, by split.

    Args:
        examples: Channel of `Examples`.
        language: Whether to identify each document's language.
    """

    SPEC_CLASS = DocumentStatisticsGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(DocumentStatisticsGenExecutor)

    def __init__(self, examples: Channel, language: bool):
        spec = DocumentStatisticsGenSpec(
            examples=examples,
            stats_options_json=statistics_options().to_json(),
            language=int(language),
            exclude_splits="[]",
            statistics=Channel(type=standard_artifacts.ExampleStatistics),
        )
        super(StatisticsGen, self).__init__(spec=spec)


class AnomalyGateSpec(component_spec.ComponentSpec):
    """Anomalies, and what drift and skew need, in; a decision out."""

    PARAMETERS = {
        "run_directory": component_spec.ExecutionParameter(type=str),
        "schema_path": component_spec.ExecutionParameter(type=str),
        "previous_statistics": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "anomalies": component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "statistics": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS = {"decision": component_spec.ChannelParameter(type=ValidationDecision)}


class AnomalyGateExecutor(base_executor.BaseExecutor):
    """Reads ExampleValidator's anomalies, looks for drift and skew, and decides."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Write the decision; raise TokenmillError with the list if there is any anomaly."""
        self._log_startup(input_dict, output_dict, exec_properties)
        anomalies = artifact_utils.get_single_instance(input_dict["anomalies"])
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        schema_artifact = artifact_utils.get_single_instance(input_dict["schema"])
        decision = artifact_utils.get_single_instance(output_dict["decision"])
        schema, _ = read_schema(os.path.join(schema_artifact.uri, SCHEMA_NAME))
        found: list[Anomaly] = []
        for split in artifact_utils.decode_split_names(anomalies.split_names):
            path = split_directory(anomalies.uri, split)
            proto = anomalies_pb2.Anomalies()
            proto.ParseFromString(
                io_utils.read_bytes_file(os.path.join(path, example_validator.DEFAULT_FILE_NAME))
            )
            found += list_anomalies(proto, schema, split)
        previous = exec_properties["previous_statistics"]
        different, measured = compare(
            schema,
            read_statistics(statistics.uri, "train"),
            read_statistics(statistics.uri, "eval"),
            read_statistics(previous, "train") if previous else None,
        )
        found += different
        if found:  # TFX deletes what a failed step wrote: all there is to know is in the message
            raise TokenmillError(_message(found), _hint(found, exec_properties))
        write_document(
            os.path.join(decision.uri, DECISION_NAME),
            GateDecision(
                anomalies=[],
                previous_statistics=previous,
                comparisons=[json_format.MessageToDict(info) for info in measured],
            ),
        )
        decision.set_int_custom_property("anomalies", 0)


_NEW_VALUES = "ENUM_TYPE_UNEXPECTED_STRING_VALUES"


def _message(found: list[Anomaly]) -> str:
    count = f"{len(found)} anomal{'y' if len(found) == 1 else 'ies'}"
    return f"data validation found {count}:\n  " + "\n  ".join(map(str, found))


def _hint(found: list[Anomaly], properties: Mapping[str, str]) -> str:
    """Say how to accept the anomalies, as commands."""
    lines = ["Nothing after validation ran. If the data is wrong, repair the input."]
    if properties["schema_path"]:
        lines += [
            "If it is right, let the schema of validate.schema_path accept it, and run again:",
            f"  tokenmill schema accept {properties['run_directory']} {properties['schema_path']}",
        ]
        if any(a.feature == "source" and a.kind == _NEW_VALUES for a in found):
            lines += [
                "The schema lists the sources. One that lets new ones in is frozen by:",
                f"  tokenmill schema freeze {properties['run_directory']} "
                f"--output {properties['schema_path']} --open-sources --force",
            ]
    drifted = [a for a in found if is_comparison(a) and "earlier" in a.split]
    if drifted:
        lines += [
            f"The earlier run: {properties['previous_statistics']}",
            "To take this run as the new point of comparison, run once without the comparison:",
            "  tokenmill run ... --set validate.previous_statistics=off",
        ]
    missing = any(a.feature == "language" and a.kind == "SCHEMA_MISSING_COLUMN" for a in found)
    if missing:
        lines.append("Languages were not identified: --set validate.language=true does.")
    return "\n".join(lines)


class AnomalyGate(base_component.BaseComponent):
    """Fails if the data is not as the schema says, so that nothing downstream runs.

    TFX's ExampleValidator only writes its anomalies down, and compares with nothing: whatever
    comes after it runs all the same.

    Outputs:
        decision: `ValidationDecision`, with what was measured.

    Args:
        anomalies: ExampleValidator's.
        statistics: StatisticsGen's.
        schema: The schema by which ExampleValidator judged.
        run_directory: The output directory, for the commands in the message.
        schema_path: The pinned schema; empty if the schema was inferred.
        previous_statistics: Statistics of an earlier run (a directory); empty if none.
    """

    SPEC_CLASS = AnomalyGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AnomalyGateExecutor)

    def __init__(
        self,
        anomalies: Channel,
        statistics: Channel,
        schema: Channel,
        run_directory: str,
        schema_path: str = "",
        previous_statistics: str = "",
    ):
        spec = AnomalyGateSpec(
            anomalies=anomalies,
            statistics=statistics,
            schema=schema,
            run_directory=run_directory,
            schema_path=schema_path,
            previous_statistics=previous_statistics,
            decision=Channel(type=ValidationDecision),
        )
        super().__init__(spec=spec)
