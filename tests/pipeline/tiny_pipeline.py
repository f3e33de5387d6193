"""A run of two quick steps with TFX's LocalDagRunner on a metadata server, as a process.

python tiny_pipeline.py NAME DIRECTORY METADATA_URL
"""

import logging
import pathlib
import sys

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local import local_dag_runner
from tfx.types.standard_artifacts import Model

from tokenmill.metadata.store import connection_config


@component
def Write(text: Parameter[str], model: OutputArtifact[Model]) -> None:
    pathlib.Path(model.uri, "text").write_text(text)


@component
def Copy(model: InputArtifact[Model], copy: OutputArtifact[Model]) -> None:
    pathlib.Path(copy.uri, "text").write_text(pathlib.Path(model.uri, "text").read_text())


def main(name: str, directory: str, url: str) -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    write = Write(text=name)
    local_dag_runner.LocalDagRunner().run(
        tfx_pipeline.Pipeline(
            pipeline_name=name,
            pipeline_root=directory,
            components=[write, Copy(model=write.outputs["model"])],
            metadata_connection_config=connection_config(url),
        )
    )


if __name__ == "__main__":
    import tiny_pipeline  # executors are imported by name

    tiny_pipeline.main(*sys.argv[1:])
