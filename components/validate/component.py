"""AnomalyGate: stops the run if the data is not as the schema says.

TFX's ExampleValidator only writes its anomalies down; whatever comes after it runs all the same.
"""

import os
from typing import ClassVar

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from components.artifacts import ValidationVerdict
from components.documents import write_json
from components.errors import TokenmillError
from components.validate.anomalies import describe_anomalies


class AnomalyGateSpec(component_spec.ComponentSpec):
    """Anomalies in, a verdict out."""

    PARAMETERS: ClassVar[dict] = {}
    INPUTS = {
        "anomalies": component_spec.ChannelParameter(type=standard_artifacts.ExampleAnomalies)
    }
    OUTPUTS = {"verdict": component_spec.ChannelParameter(type=ValidationVerdict)}


class AnomalyGateExecutor(base_executor.BaseExecutor):
    """Reads the anomalies of every split."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Writes the verdict; raises TokenmillError with the list if there is any anomaly."""
        self._log_startup(input_dict, output_dict, exec_properties)
        anomalies = artifact_utils.get_single_instance(input_dict["anomalies"])
        verdict = artifact_utils.get_single_instance(output_dict["verdict"])
        found = []
        for split in artifact_utils.decode_split_names(anomalies.split_names):
            # The format of ExampleValidator's output: a binary proto in each split's directory.
            path = os.path.join(anomalies.uri, f"Split-{split}", "SchemaDiff.pb")
            from tensorflow_metadata.proto.v0 import anomalies_pb2

            proto = anomalies_pb2.Anomalies()
            proto.ParseFromString(io_utils.read_bytes_file(path))
            found += [f"{split}: {line}" for line in describe_anomalies(proto)]
        write_json(os.path.join(verdict.uri, "verdict.json"), {"anomalies": found})
        verdict.set_int_custom_property("anomalies", len(found))
        if found:
            raise TokenmillError(
                f"data validation found {len(found)} anomalies:\n  " + "\n  ".join(found),
                "\nIf the data is right, change the schema that validate.schema_path names.",
            )


class AnomalyGate(base_component.BaseComponent):
    """Fails if ExampleValidator found anomalies, so that nothing downstream runs.

    Outputs:
        verdict: `ValidationVerdict`, an empty list of anomalies.
    """

    SPEC_CLASS = AnomalyGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AnomalyGateExecutor)

    def __init__(self, anomalies: Channel):
        super().__init__(
            spec=AnomalyGateSpec(anomalies=anomalies, verdict=Channel(type=ValidationVerdict))
        )
