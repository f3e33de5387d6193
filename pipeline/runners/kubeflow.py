"""The same pipeline as a Kubeflow Pipelines v2 spec, for Kubeflow or Vertex AI.

Compiling is here, submitting in pipeline/runners/vertex.py. Imports TFX.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from typing import Any

from kfp.dsl import HTML
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from components.ingest.manifest import describe_left_out, list_inputs, write_manifest
from components.train.execution import Execution
from pipeline.config import Config, StepResources
from pipeline.dag import create_components
from pipeline.report.page.component import ReportPage
from pipeline.runners import kubeflow_entrypoint
from pipeline.runners.beam_engine import engine_arguments
from pipeline.runners.engine_check import Engine, check_engine, schema_version
from pipeline.runners.run_parameters import add_run_parameters
from tokenmill.errors import TokenmillError
from tokenmill.files import check_is_no_pattern, write_json

_ResourceSpec = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec


def compile_pipeline(config: Config, engine: Engine, output: str) -> int:
    """Write the spec as JSON for one engine: a PipelineJob for Vertex AI, else its PipelineSpec.

    Kubeflow Pipelines takes the PipelineSpec alone, and of schema 2.1.0 alone; the parameters'
    defaults are in it, which in a PipelineJob stand beside it.

    The list of input files is made now and laid into the pipeline root, where the first step finds
    it: the spec names the data that it runs on. So is [execution].

    Returns:
        The number of its steps.

    Raises:
        TokenmillError: The configuration lacks what the engine needs, or names a step that
            there is not.
    """
    check_engine(config, engine)
    root = str(config.engine.pipeline_root)
    check_is_no_pattern(root, "engine.pipeline_root")
    left_out: Counter[str] = Counter()
    files = list_inputs(config.corpus.input, span=config.corpus.span, left_out=left_out)
    if sentence := describe_left_out(left_out):
        print(sentence, file=sys.stderr)
    placed, manifest = placed_on(config, root), write_manifest(files, f"{root}/inputs")
    steps = create_components(placed, manifest)
    plain = schema_version(config, engine) != "2.0.0"
    _give_resources(steps, config.engine.resources)
    values = add_run_parameters(steps, placed, manifest)
    Execution(**placed.execution.model_dump()).write(placed.training_directory)
    pipeline = tfx_pipeline.Pipeline(
        pipeline_name=config.run.name,
        pipeline_root=root,
        components=steps,
        enable_cache=config.engine.cache,
        beam_pipeline_args=engine_arguments(config.engine),
    )
    runner_config = kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
        display_name=config.run.name,
        default_image=config.engine.image,
        use_pipeline_spec_2_1=plain,
    )
    with tempfile.TemporaryDirectory() as directory:
        written = os.path.join(directory, "pipeline.json")
        runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(runner_config, output_filename=written)
        runner.run(pipeline, parameter_values=values)
        with open(written, encoding="utf-8") as source:
            job = json.load(source)
    spec = job["pipelineSpec"]
    # Never from the cache: it has to leave this run's price and budget for the Trainer.
    spec["root"]["dag"]["tasks"]["TokenLedger"]["cachingOptions"] = {}
    if plain:
        declared = spec["root"]["inputDefinitions"]["parameters"]
        for name, value in values.items():
            declared[name]["defaultValue"] = value
    _show_as_html(spec)
    _enter_by_ours(spec, config.run.name, root)
    if engine == "kubeflow" and plain:
        spec["defaultPipelineRoot"] = root
        write_json(output, spec)
    else:
        write_json(output, job)
    return len(steps)


def _show_as_html(spec: dict[str, Any]) -> None:
    """Declare the page as Kubeflow Pipelines' own compiler declares an HTML artifact.

    TFX would give its schema in words, and its entry point knows no type of that name.
    """
    outputs = spec["components"][ReportPage.__name__]["outputDefinitions"]["artifacts"]
    outputs["page"]["artifactType"] = {
        "schemaTitle": HTML.schema_title,
        "schemaVersion": HTML.schema_version,
    }


def _enter_by_ours(spec: dict[str, Any], pipeline: str, root: str) -> None:
    """Have every container start by pipeline/runners/kubeflow_entrypoint.py."""
    enter = ["python", "-m", kubeflow_entrypoint.__name__]
    for step, component in spec["components"].items():
        executor = spec["deploymentSpec"]["executors"][component["executorLabel"]]
        if container := executor.get("container"):
            of_step = [f"--step={step}", f"--pipeline={pipeline}", f"--root={root}"]
            container["command"] = [*enter, *of_step]
            if driver := container.get("lifecycle", {}).get("preCacheCheck"):
                driver["command"] = [*enter, "--driver"]


def placed_on(config: Config, root: str) -> Config:
    """Return the configuration with every path on storage that all containers see."""
    push = config.push.directory or f"{root}/serving_model"
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"output_dir": root}),
            "push": config.push.model_copy(update={"directory": push}),
        }
    )


def _give_resources(steps: list[BaseNode], resources: dict[str, StepResources]) -> None:
    by_id = {step.id: step for step in steps}
    for name, wanted in resources.items():
        if name not in by_id:
            raise TokenmillError(
                f"engine.resources.{name}: with this configuration there is no such step.",
                f"Its steps: {', '.join(by_id)}.",
            )
        spec = _ResourceSpec(cpu_limit=wanted.cpu or 0, memory_limit=wanted.memory_gb or 0)
        if wanted.accelerator:
            spec.accelerator.type = wanted.accelerator
            spec.accelerator.count = wanted.accelerator_count
        by_id[name].with_platform_config(spec)
