"""Runs of the true pipeline's first two steps: TFX, ML Metadata and cache, without the training."""

import hashlib
import json
import pathlib

import pytest
from tfx.orchestration import metadata as tfx_metadata
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local import local_dag_runner

from components.ingest.manifest import list_inputs, write_manifest
from components.validate.history import gate_records
from pipeline.dag import create_components
from pipeline.loader import load_config
from tokenmill.beam_arguments import beam_arguments
from tokenmill.errors import TokenmillError
from tokenmill.metadata.store import open_store

WORDS = ("stone", "river", "light", "seven", "under", "cloud", "paper", "green", "house", "north")


def documents(
    count: int = 1200, sources=("wiki", "wiki", "books"), words: int = 30, tag: str = "d"
):
    """Records of known lengths: half to one and a half times `words` words."""
    return [
        {
            "id": f"{tag}{i}",
            "source": sources[i % len(sources)],
            "text": " ".join(WORDS[(i + k * k) % 10] for k in range(words // 2 + i * 7 % words))
            + f" {tag} {i}",
        }
        for i in range(count)
    ]


class Project:
    """An output directory, as `tokenmill run` uses it."""

    def __init__(self, home: pathlib.Path):
        self.home = home
        self.home.mkdir(parents=True, exist_ok=True)
        self.first_statistics = ""

    def validate(self, records: list[dict], *overrides: str) -> None:
        """Ingests and validates; raises the gate's TokenmillError."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        path = self.home / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
        if not path.exists():  # a new time of change would be a new input
            path.write_text(text)
        settings = (f"run.output_dir={self.home}", "corpus.shards=1", "corpus.eval_fraction=0.25")
        config = load_config(overrides=[*settings, *overrides])
        manifest = write_manifest(list_inputs([str(path)]), str(self.home / "inputs"))
        steps = create_components(config, manifest)[:5]
        assert [step.id for step in steps][-1] == "AnomalyGate"
        for step in steps:
            step._downstream_nodes &= set(steps)
        local_dag_runner.LocalDagRunner().run(
            tfx_pipeline.Pipeline(
                pipeline_name=config.run.name,
                pipeline_root=str(self.home / "artifacts"),
                components=steps,
                enable_cache=True,
                metadata_connection_config=tfx_metadata.sqlite_metadata_connection_config(
                    str(self.home / "metadata.sqlite")
                ),
                beam_pipeline_args=beam_arguments(),
            )
        )

    def stopped(self, records: list[dict], *overrides: str) -> TokenmillError:
        """The error with which the gate stopped the run."""
        with pytest.raises(TokenmillError) as caught:
            self.validate(records, *overrides)
        return caught.value

    def statistics_uri(self) -> str:
        return gate_records(str(self.home))[0].statistics_uri

    def executions(self) -> list:
        return open_store(str(self.home / "metadata.sqlite")).get_executions()


@pytest.fixture(scope="session")
def first_records() -> list[dict]:
    """Two thirds wiki, a third books."""
    return documents()


@pytest.fixture(scope="session")
def other_records() -> list[dict]:
    """The same kinds of text; hardly any wiki."""
    return documents(1000, ("wiki", *["books"] * 7), tag="e")


@pytest.fixture(scope="session")
def first_project(tmp_path_factory, first_records) -> Project:
    """One run without a schema, shared."""
    project = Project(tmp_path_factory.mktemp("validate") / "first")
    project.validate(first_records)
    project.first_statistics = project.statistics_uri()
    return project


@pytest.fixture
def project(first_project, request) -> Project:
    """An output directory of the test's own, beside the shared one."""
    return Project(first_project.home.parent / request.node.name.replace("[", "-").rstrip("]"))
