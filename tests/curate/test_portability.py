"""Nothing in curation leans on DirectRunner: the pipeline is a proto of importable functions."""

import os
import subprocess
import sys

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.portability import common_urns
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

from components.curate.transforms import Curate
from pipeline.loader import load_config
from pipeline.other_texts import read_benchmarks

DATAFLOW = [
    "--runner=DataflowRunner",
    "--project=some-project",
    "--region=europe-west1",
    "--temp_location=gs://some-bucket/tmp",
    "--staging_location=gs://some-bucket/staging",
    "--job_name=curate",
]


def curation_pipeline(options: PipelineOptions) -> beam.Pipeline:
    config = load_config(overrides=["curate.max_line_documents=10", 'curate.languages=["en"]'])
    pipeline = beam.Pipeline(options=options)
    bucket = "gs://some-bucket"
    uris = [f"{bucket}/{name}" for name in ("examples", "curated", "dropped", "staging")]
    benchmarks = read_benchmarks(config.curate.benchmark_files, config.corpus)
    pipeline | Curate(config.curate, benchmarks, *uris, shards=4)
    return pipeline


@pytest.fixture
def no_gcs(monkeypatch):
    """Building the graph looks the files and buckets up; there is no network here."""
    monkeypatch.setattr(
        "apache_beam.options.pipeline_options.GoogleCloudOptions"
        "._warn_if_soft_delete_policy_enabled",
        lambda self, name: None,
    )


def test_dataflow_options_are_valid(no_gcs):
    options = PipelineOptions(DATAFLOW)
    assert PipelineOptionsValidator(options, DataflowRunner()).validate() == []


def test_the_pipeline_is_a_portable_proto(no_gcs):
    pipeline = curation_pipeline(PipelineOptions(DATAFLOW[1:]))
    proto = pipeline.to_runner_api()
    urns = {t.spec.urn for t in proto.components.transforms.values()}
    assert common_urns.primitives.GROUP_BY_KEY.urn in urns
    payloads = [
        t.spec.payload
        for t in proto.components.transforms.values()
        if t.spec.urn == common_urns.primitives.PAR_DO.urn
    ]
    assert len(payloads) > 20
    # Functions are pickled by reference to their module: none lives in __main__ or a test.
    for payload in payloads:
        assert b"__main__" not in payload
        assert b"test_portability" not in payload


def test_workers_import_neither_tensorflow_nor_tfx():
    """Both take seconds and hundreds of megabytes of every worker process."""
    modules = [
        f"components.{name}"
        for name in ("curate.transforms", "curate.counts", "ingest.transforms", "ingest.counts")
    ]
    code = f"import sys, {', '.join(modules)}; print({{'tensorflow', 'tfx'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"
