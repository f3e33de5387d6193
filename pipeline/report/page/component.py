"""ReportPage: the page of the run as an artifact, which Kubeflow Pipelines and Vertex AI show.

The step reads what all others left and lies above them, beside the page that it renders. It has no
ML Metadata, so that lineage and input files are only on the page beside a local run's log.
"""

import os
from typing import ClassVar

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec, standard_artifacts

from components.artifacts import HTML, CostReport, DroppedDocuments, Ledger, Tokenizer
from pipeline.report.page.render import PAGE_NAME, render_page
from pipeline.report.page.run_documents import RunDocuments, read_outputs
from pipeline.report.pushed_card import write_pushed_card
from tokenmill.files import write_text
from tokenmill.metadata.step_records import StepRecord

STEP_OF_INPUT = {
    "statistics": "StatisticsGen",
    "dropped": "Curator",
    "tokenizer": "TokenizerTrainer",
    "ledger": "TokenLedger",
    "model_run": "Trainer",
    "cost_report": "CostReport",
    "pushed_model": "Pusher",
}


class ReportPageSpec(component_spec.ComponentSpec):
    """An output of each step that has a part on the page, and the configuration; the page out."""

    PARAMETERS: ClassVar[dict] = {"config_toml": component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        "statistics": component_spec.ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "dropped": component_spec.ChannelParameter(type=DroppedDocuments),
        "tokenizer": component_spec.ChannelParameter(type=Tokenizer),
        "ledger": component_spec.ChannelParameter(type=Ledger),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
        "cost_report": component_spec.ChannelParameter(type=CostReport),
        "pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
    }
    OUTPUTS = {"page": component_spec.ChannelParameter(type=HTML)}


class ReportPageExecutor(base_executor.BaseExecutor):
    """Renders the page of the run."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Write report.html, and a pushed version's model card."""
        self._log_startup(input_dict, output_dict, exec_properties)
        made = {key: artifact_utils.get_single_instance(input_dict[key]) for key in STEP_OF_INPUT}
        found = RunDocuments(
            run_id=(self._context.pipeline_run_id if self._context else None) or "",
            config_toml=exec_properties["config_toml"],
            records={step: StepRecord(False, {key: [made[key].mlmd_artifact]})
                     for key, step in STEP_OF_INPUT.items()},
        )  # fmt: skip
        read_outputs(found)
        if made["pushed_model"].get_int_custom_property("pushed"):
            name = "pushed_destination"
            found.pushed_to = made["pushed_model"].get_string_custom_property(name)
        uri = artifact_utils.get_single_uri(output_dict["page"])
        # TFX's local runner has made a directory there; engines take the URI for the file.
        path = os.path.join(uri, PAGE_NAME) if os.path.isdir(uri) else uri
        write_text(path, render_page(found))
        write_pushed_card(found)


class ReportPage(base_component.BaseComponent):
    """Renders the page of the run: tokens, cost and quality in one HTML file.

    A pushed version gets its model card here, of the same documents: as an input of the Pusher they
    would push the same model again at each new price.

    Outputs:
        page: `HTML`.

    Args:
        config_toml: The whole configuration.
        inputs: A channel for each key of `STEP_OF_INPUT`.
    """

    SPEC_CLASS = ReportPageSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ReportPageExecutor)

    def __init__(self, config_toml: str, **inputs: Channel):
        super().__init__(
            spec=ReportPageSpec(config_toml=config_toml, page=Channel(type=HTML), **inputs)
        )
