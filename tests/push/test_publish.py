"""Publication where a rename is not atomic, on TensorFlow's in-memory file system."""

import concurrent.futures
import threading

import pytest
import tensorflow as tf
from tfx.dsl.io import fileio

from components.push.publish import publish, publish_as_newest, temporary_directory

FILES = {
    "assets/tokenizer.model": "vocabulary",
    "fingerprint.pb": "fingerprint",
    "saved_model.pb": "graph",
    "variables/variables.data-00000-of-00001": "weights",
    "variables/variables.index": "index",
}


@pytest.fixture(params=["ram://", ""])
def base(request, tmp_path):
    return f"{request.param}{tmp_path}"


@pytest.fixture
def source(base):
    for name, text in FILES.items():
        path = f"{base}/.pushing/7/{name}"
        tf.io.gfile.makedirs(path.rpartition("/")[0])
        with tf.io.gfile.GFile(path, "w") as out:
            out.write(text)
    return f"{base}/.pushing/7"


def test_all_files_arrive_and_none_is_left(base, source):
    publish(source, f"{base}/7")
    for name, text in FILES.items():
        with tf.io.gfile.GFile(f"{base}/7/{name}") as copied:
            assert copied.read() == text
        assert not tf.io.gfile.exists(f"{source}/{name}")


def test_on_an_object_store_the_graph_is_last(base, source, monkeypatch):
    if "://" not in base:
        pytest.skip("a rename is atomic")
    seen, copy = [], fileio.copy

    def watched(origin, target, overwrite=False):
        copy(origin, target, overwrite)
        seen.append(target.removeprefix(f"{base}/7/"))

    monkeypatch.setattr(fileio, "copy", watched)
    publish(source, f"{base}/7")
    assert sorted(seen) == sorted(FILES)
    assert seen[-1] == "saved_model.pb"


def test_a_push_killed_on_the_way_leaves_no_graph(base, source, monkeypatch):
    if "://" not in base:
        pytest.skip("a rename is atomic")
    copy = fileio.copy

    def killed(origin, target, overwrite=False):
        if origin.endswith("variables.index"):
            raise KeyboardInterrupt
        copy(origin, target, overwrite)

    monkeypatch.setattr(fileio, "copy", killed)
    with pytest.raises(KeyboardInterrupt):
        publish(source, f"{base}/7")
    assert not tf.io.gfile.exists(f"{base}/7/saved_model.pb")


def test_of_two_pushes_at_once_each_takes_a_number_of_its_own(base):
    def push(i):
        with temporary_directory(base) as own:
            for name in FILES:
                tf.io.gfile.makedirs(f"{own}/model/{name}".rpartition("/")[0])
                with tf.io.gfile.GFile(f"{own}/model/{name}", "w") as out:
                    out.write(str(i))
            barrier.wait()
            return publish_as_newest(f"{own}/model", base, 1_700_000_000, lambda version: None)

    barrier = threading.Barrier(4)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(push, range(4)))
    assert len(set(versions)) == 4
    for i, version in enumerate(versions):
        for name in FILES:
            with tf.io.gfile.GFile(f"{base}/{version}/{name}") as file:
                assert file.read() == str(i)
    names = {name.rstrip("/") for name in tf.io.gfile.listdir(base)}
    assert names - {".pushing"} == set(map(str, versions))
    if "://" in base:
        assert tf.io.gfile.listdir(f"{base}/.pushing") == []
