"""Trainer: packed rows become a SavedModel."""

import contextlib
import os

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec, standard_artifacts
from tfx.utils import path_utils

from components.artifacts import PackedRows, Tokenizer
from components.train.config import TrainingJob
from components.train.distributed.cluster import late_hint
from components.train.distributed.rendezvous import Rendezvous, call_workers
from components.train.subprocess_entry import OUT_OF_MEMORY_HINT, train_in_subprocess
from tokenmill.contracts.tokenizer import TOKENIZER_MODEL_NAME
from tokenmill.contracts.training import Telemetry
from tokenmill.run_in_subprocess import run_in_subprocess
from tokenmill.run_parameters import TRAINER_PARAMETERS, given_parameters
from tokenmill.timing import timed


class TrainerSpec(component_spec.ComponentSpec):
    """Rows, tokenizer and transform graph in; model and telemetry out."""

    PARAMETERS = {
        "job": component_spec.ExecutionParameter(type=str),
        "training_directory": component_spec.ExecutionParameter(type=str),
        "limits_path": component_spec.ExecutionParameter(type=str),
        **{
            name: component_spec.ExecutionParameter(type=kind, optional=True)
            for name, kind in TRAINER_PARAMETERS.items()
        },
    }
    INPUTS = {
        "packed_rows": component_spec.ChannelParameter(type=PackedRows),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        "tokenizer": component_spec.ChannelParameter(type=Tokenizer),
    }
    OUTPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
    }


class TrainerExecutor(base_executor.BaseExecutor):
    """Runs `train_and_export` in a process of its own."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Trains; raises TokenmillError if training stops or diverges."""
        self._log_startup(input_dict, output_dict, exec_properties)
        rows = artifact_utils.get_single_instance(input_dict["packed_rows"])
        graph = artifact_utils.get_single_instance(input_dict["transform_graph"])
        tokenizer = artifact_utils.get_single_instance(input_dict["tokenizer"])
        model = artifact_utils.get_single_instance(output_dict["model"])
        run = artifact_utils.get_single_instance(output_dict["model_run"])
        given = given_parameters(exec_properties, TRAINER_PARAMETERS)
        job = TrainingJob.from_json(exec_properties["job"]).with_parameters(given)
        directory = exec_properties["training_directory"]
        tokenizer_path = os.path.join(tokenizer.uri, TOKENIZER_MODEL_NAME)
        calling: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        of_several: dict[str, str] = {}
        if job.train.strategy == "multi_worker":
            call = Rendezvous(job=job, rows_uri=rows.uri, tokenizer_path=tokenizer_path)
            calling = call_workers(directory, call)
            of_several["late_hint"] = late_hint()
        with calling:
            result = run_in_subprocess(
                train_in_subprocess,
                "the training process",
                OUT_OF_MEMORY_HINT,
                **of_several,
                job=job.model_dump(mode="json"),
                rows_uri=rows.uri,
                transform_graph_uri=graph.uri,
                tokenizer_path=tokenizer_path,
                model_directory=path_utils.serving_model_dir(model.uri),
                run_directory=run.uri,
                training_directory=directory,
                limits_path=exec_properties["limits_path"],
            )
        telemetry = Telemetry.model_validate(result)
        for name in ("params_total", "steps", "trained_loss_tokens", "trained_slots"):
            run.set_int_custom_property(name, getattr(telemetry, name))
        for name in ("accuracy", "bits_per_byte", "perplexity"):
            if (value := getattr(telemetry.eval_after, name)) is not None:
                run.set_float_custom_property(name, value)


class Trainer(base_component.BaseComponent):
    """Trains a Transformer.

    Outputs:
        model: `Model`, a SavedModel that takes raw text.
        model_run: `ModelRun` with telemetry.json: losses, tokens, seconds by phase;
            metrics.jsonl and TensorBoard's files.

    Args:
        packed_rows: Channel of `PackedRows`.
        transform_graph: Channel of `TransformGraph`.
        tokenizer: Channel of `Tokenizer`.
        job: Model shape and training settings.
        training_directory: Where checkpoints and execution.json are: the same from run to run, so
            that a killed one is continued.
        limits_path: Where price and budget are read from (tokenmill/contracts/training_limits.py).
    """

    SPEC_CLASS = TrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(TrainerExecutor)

    def __init__(
        self,
        packed_rows: Channel,
        transform_graph: Channel,
        tokenizer: Channel,
        job: TrainingJob,
        training_directory: str,
        limits_path: str,
    ):
        spec = TrainerSpec(
            packed_rows=packed_rows,
            transform_graph=transform_graph,
            tokenizer=tokenizer,
            job=job.to_json(),
            training_directory=training_directory,
            limits_path=limits_path,
            model=Channel(type=standard_artifacts.Model),
            model_run=Channel(type=standard_artifacts.ModelRun),
        )
        super().__init__(spec=spec)
