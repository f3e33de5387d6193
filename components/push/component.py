"""AtomicPusher: TFX's Pusher, but a version works, and appears whole or not at all.

VertexRegistrar: what was pushed, in Vertex AI's model registry.
"""

import json
import os
from dataclasses import asdict

from tfx.components.pusher import component as pusher_component
from tfx.components.pusher import executor as pusher_executor
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.proto import pusher_pb2
from tfx.types import (
    Channel,
    artifact_utils,
    component_spec,
    standard_artifacts,
    standard_component_specs,
)
from tfx.utils import proto_utils

from components.artifacts import CostReport, Ledger, RegisteredModel
from components.push import registry
from components.push.check import probe_model
from components.push.config import PushConfig
from components.push.labels import run_labels
from components.push.publish import publish_as_newest, temporary_directory
from components.push.registry import RegistryTarget
from tokenmill.contracts.cost_report import read_cost_report
from tokenmill.contracts.ledger import read_ledger
from tokenmill.contracts.model_origin import RUN_ID_VARIABLE, ModelOrigin, write_origin
from tokenmill.timing import timed

_CONFIG_KEY = "push"
# Only these decide on the push: another registry pushes no new version.
_DECIDES = {"infra_validator", "max_check_seconds"}


class AtomicPusherExecutor(pusher_executor.Executor):
    """Executor that copies the model to a temporary path, tries the copy and publishes it.

    A server that polls the directory never loads half a model, or one that cannot be called;
    several pushes into one directory at the same time do not meet.
    """

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Push if the model is blessed and every signature answers.

        Raises:
            TokenmillError: The model cannot be loaded or called; nothing is pushed.
        """
        destination = pusher_pb2.PushDestination()
        key = standard_component_specs.PUSH_DESTINATION_KEY
        proto_utils.json_to_proto(exec_properties[key], destination)
        base = destination.filesystem.base_directory
        with temporary_directory(base) as temporary:
            destination.filesystem.base_directory = temporary
            super().Do(
                input_dict,
                output_dict,
                {**exec_properties, key: proto_utils.proto_to_json(destination)},
            )
            pushed = artifact_utils.get_single_instance(
                output_dict[standard_component_specs.PUSHED_MODEL_KEY]
            )
            if not pushed.get_int_custom_property("pushed"):
                return
            try:
                self._publish(pushed, temporary, base, exec_properties)
            except BaseException:
                pushed.set_int_custom_property("pushed", 0)
                raise

    def _publish(self, pushed, temporary: str, base: str, exec_properties) -> None:
        wanted = pushed.get_string_custom_property("pushed_version")
        copied = os.path.join(temporary, wanted)
        config = PushConfig.from_json(json.loads(exec_properties["custom_config"])[_CONFIG_KEY])
        if config.infra_validator != "off":
            found = probe_model(copied, config.max_check_seconds)
            pushed.set_string_custom_property("model_check", json.dumps(found, sort_keys=True))
        # An engine gives the step no id of its run.
        run_id = self._context.pipeline_run_id if self._context else None
        run_id = run_id or os.environ.get(RUN_ID_VARIABLE, "")

        def name_version(version: int) -> None:
            write_origin(copied, ModelOrigin(run_id=run_id, version=str(version)))

        version = publish_as_newest(copied, base, int(wanted), name_version)
        pushed.set_string_custom_property("pushed_version", str(version))
        pushed.set_string_custom_property("pushed_destination", os.path.join(base, str(version)))


class AtomicPusher(pusher_component.Pusher):
    """TFX's Pusher with an atomic executor.

    Outputs:
        pushed_model: `PushedModel`; its custom properties say whether and where it was pushed.

    Args:
        model: Channel of `Model`.
        model_blessing: Channel of `ModelBlessing`; an unblessed model is not pushed.
        directory: Base directory; each push adds a numbered version.
        config: How the model is tried in a fresh process.
        infra_blessing: Channel of InfraValidator's `InfraBlessing`, where it runs.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AtomicPusherExecutor)

    def __init__(
        self,
        model: Channel,
        model_blessing: Channel,
        directory: str,
        config: PushConfig,
        infra_blessing: Channel | None = None,
    ):
        super().__init__(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            custom_config={
                _CONFIG_KEY: config.to_json(include={"infra_validator", "max_check_seconds"})
            },
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=directory)
            ),
        )


class VertexRegistrarSpec(component_spec.ComponentSpec):
    """The pushed model, its ledger and cost report in; the registry's name for it out."""

    PARAMETERS = {
        "run_name": component_spec.ExecutionParameter(type=str),
        "settings": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
        "ledger": component_spec.ChannelParameter(type=Ledger),
        "cost_report": component_spec.ChannelParameter(type=CostReport),
    }
    OUTPUTS = {"registered_model": component_spec.ChannelParameter(type=RegisteredModel)}


class VertexRegistrarExecutor(base_executor.BaseExecutor):
    """Executor that uploads the pushed version with the run's numbers as labels."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Register the model if it was pushed.

        Raises:
            TokenmillError: There are no credentials, or Vertex AI refuses.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(input_dict["pushed_model"])
        registered = artifact_utils.get_single_instance(output_dict["registered_model"])
        registered.set_int_custom_property("registered", 0)
        if not pushed.get_int_custom_property("pushed"):
            return
        directory = pushed.get_string_custom_property("pushed_destination")
        labels = run_labels(
            exec_properties["run_name"],
            read_ledger(artifact_utils.get_single_uri(input_dict["ledger"])),
            read_cost_report(artifact_utils.get_single_uri(input_dict["cost_report"])),
        )
        name = registry.register(
            RegistryTarget(**json.loads(exec_properties["settings"])),
            os.path.basename(directory),
            registry.lay_out(directory),
            labels,
        )
        registered.set_int_custom_property("registered", 1)
        registered.set_string_custom_property("resource_name", name)
        registered.set_string_custom_property("labels", json.dumps(labels, sort_keys=True))


class VertexRegistrar(base_component.BaseComponent):
    """Component that makes a pushed model a version in Vertex AI's model registry.

    Outputs:
        registered_model: `RegisteredModel`; its custom properties are the resource's name and the
            labels.

    Args:
        pushed_model: Channel of `PushedModel`.
        ledger: Channel of `Ledger`.
        cost_report: Channel of `CostReport`.
        run_name: `run.name`, a label.
        settings: Where.
    """

    SPEC_CLASS = VertexRegistrarSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(VertexRegistrarExecutor)

    def __init__(
        self,
        pushed_model: Channel,
        ledger: Channel,
        cost_report: Channel,
        run_name: str,
        settings: RegistryTarget,
    ):
        spec = VertexRegistrarSpec(
            pushed_model=pushed_model,
            ledger=ledger,
            cost_report=cost_report,
            run_name=run_name,
            settings=json.dumps(asdict(settings), sort_keys=True),
            registered_model=Channel(type=RegisteredModel),
        )
        super().__init__(spec=spec)
