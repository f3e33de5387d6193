"""The keys of Vertex AI's model registry: what is missing is said before anything runs."""

import pytest

from pipeline.loader import load_config
from pipeline.runners.engine_check import check_engine, registry_target
from tokenmill.errors import TokenmillError

IMAGE = "registry.invalid/tokenmill@sha256:" + "a" * 64
WHOLE = (
    'run.name="3-books"',
    'push.registry="vertex"',
    'push.registry_image="europe-docker.pkg.dev/p/r/serving:2.21.0"',
    'push.directory="gs://bucket/serving"',
    'engine.project="p"',
    'engine.region="europe-west4"',
)


def test_the_settings_of_the_step():
    settings = registry_target(load_config(overrides=WHOLE))
    assert settings.resource == "projects/p/locations/europe-west4/models/m-3-books"
    assert settings.image.endswith("serving:2.21.0")


def test_a_local_run_says_all_that_is_missing_at_once():
    config = load_config(overrides=['push.registry="vertex"'])
    with pytest.raises(TokenmillError) as caught:
        registry_target(config)
    for key in ("engine.project", "engine.region", "push.registry_image", "push.directory"):
        assert key in caught.value.message


@pytest.mark.parametrize(("engine", "times"), [("vertex", 1), ("kubeflow", 1)])
def test_compiling_says_it_too_and_once(engine, times):
    config = load_config(
        overrides=[
            'push.registry="vertex"',
            'corpus.input=["gs://bucket/corpus"]',
            'engine.pipeline_root="gs://bucket/root"',
            f'engine.image="{IMAGE}"',
        ]
    )
    with pytest.raises(TokenmillError) as caught:
        check_engine(config, engine)
    assert caught.value.message.count("engine.project is missing") == times
    assert "push.registry_image is missing" in caught.value.message
    # The pipeline root is a bucket, and versions go there unless another place is named.
    assert "push.directory" not in caught.value.message


def test_a_name_that_vertex_ai_refuses_is_said_when_compiling():
    settings = [
        'run.name="3-books"',
        'corpus.input=["gs://bucket/corpus"]',
        'engine.pipeline_root="gs://bucket/root"',
        f'engine.image="{IMAGE}"',
        'engine.project="p"',
        'engine.region="europe-west4"',
    ]
    with pytest.raises(TokenmillError, match=r"run.name = '3-books'.* begin with a letter"):
        check_engine(load_config(overrides=settings), "vertex")
    check_engine(load_config(overrides=settings), "kubeflow")
