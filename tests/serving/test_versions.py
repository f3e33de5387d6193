"""Versions that come slowly, go, or are none, in the base directory of a running server."""

import os
import pathlib
import shutil
import time

import httpx
import pytest

from serving.app import ServerThread
from serving.client import Client, ServingError
from serving.saved_model import list_versions, version_names
from serving.server.config import ServerConfig

BODY = {"instances": ["Returns the sum."]}


@pytest.fixture
def running(versions, loaded_once):
    versions(1, 1)
    options = {"rest_port": 0, "grpc_port": 0, "poll_seconds": 0.05}
    with (
        ServerThread(ServerConfig(str(versions.base), **options)) as thread,
        Client(f"http://127.0.0.1:{thread.ports.rest}") as client,
    ):
        yield client


def states(client):
    return {v.version: v.state for v in client.status()}


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def metrics(client):
    return httpx.get(f"{client.address}/metrics").text


def test_a_version_that_is_copied_slowly_is_served_in_the_end(running, versions, exported):
    source, target = exported.base / "2", versions.base / "2"
    files = [p.relative_to(source) for p in source.rglob("*") if p.is_file()]
    target.mkdir()
    # The graph first, and each file half, as cp and rsync may: many more looks than tries.
    for file in sorted(files, key=lambda p: p.name != "saved_model.pb"):
        content = (source / file).read_bytes()
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        with open(target / file, "wb") as out:
            out.write(content[: len(content) // 2])
            out.flush()
            time.sleep(0.3)
            out.write(content[len(content) // 2 :])
        time.sleep(0.3)
        assert running.score(["a"])
    wait_for(lambda: states(running).get(2) == "AVAILABLE")
    assert 'loads_total{outcome="failed"} 0.0' not in metrics(running)


def test_a_damaged_version_is_tried_three_times_and_again_when_it_is_mended(
    running, versions, exported
):
    source, target = versions.base / "2.copy", versions.base / "2"
    shutil.copytree(exported.base / "2", source)
    (source / "saved_model.pb").write_bytes(b"no model")
    os.rename(source, target)  # whole, or the server counts tries of what is copied so far
    failed = 'tokenmill_version_loads_total{outcome="failed"} 3.0'
    wait_for(lambda: failed in metrics(running))
    time.sleep(0.5)
    assert failed in metrics(running)
    shutil.copyfile(exported.base / "2" / "saved_model.pb", target / "saved_model.pb")
    wait_for(lambda: states(running).get(2) == "AVAILABLE")


def test_a_version_with_half_its_warm_up_waits_for_the_other_half(running, versions, exported):
    source, target = exported.base / "2", versions.base / "2.copy"
    shutil.copytree(source, target)
    warm_up = pathlib.Path("assets.extra") / "tf_serving_warmup_requests"
    content = (source / warm_up).read_bytes()
    (target / warm_up).write_bytes(content[: len(content) // 2])
    os.rename(target, versions.base / "2")
    wait_for(lambda: any(v.version == 2 and "DataLoss" in v.error for v in running.status()))
    assert states(running)[1] == "AVAILABLE"
    (versions.base / "2" / warm_up).write_bytes(content)
    wait_for(lambda: states(running).get(2) == "AVAILABLE")


def test_a_deleted_version_gives_way_to_the_newest_that_is_left(running, versions):
    versions(2, 2)
    wait_for(lambda: states(running).get(2) == "AVAILABLE")
    os.remove(versions.base / "2")  # a symbolic link here
    wait_for(lambda: states(running) == {1: "AVAILABLE"})
    assert 'tokenmill_version_available{version="2"} 0.0' in metrics(running)
    versions(2, 2)  # the same number again
    wait_for(lambda: states(running).get(2) == "AVAILABLE")
    assert running.score(["a"])


def test_deleted_versions_are_unloaded_as_tensorflow_serving_does(running, versions):
    os.remove(versions.base / "1")
    wait_for(lambda: not states(running))
    assert httpx.get(f"{running.address}/readyz").status_code == 503
    with (
        Client(running.address, timeout_seconds=1) as hasty,
        pytest.raises(ServingError, match="UNAVAILABLE: no version is ready"),
    ):
        hasty.score(["a"])
    versions(2, 1)  # replaced under the same number
    wait_for(lambda: states(running) == {1: "AVAILABLE"})
    assert running.score(["a"])


def test_a_directory_that_cannot_be_read_takes_nothing_away(running, versions):
    os.rename(versions.base, f"{versions.base}-elsewhere")
    time.sleep(0.3)
    assert running.score(["a"])
    os.rename(f"{versions.base}-elsewhere", versions.base)
    versions(2, 2)
    wait_for(lambda: states(running).get(2) == "AVAILABLE")


def test_what_is_no_number_of_63_bits_is_no_version(tmp_path, running, versions, exported):
    shutil.copytree(exported.base / "2", versions.base / ("9" * 20))
    time.sleep(0.3)
    assert states(running) == {1: "AVAILABLE"}
    for name in ("1", "01", "2", "007", "9" * 20, str(2**63), str(2**63 - 1), "1_0", "²"):
        (tmp_path / "names" / name).mkdir(parents=True)
        (tmp_path / "names" / name / "saved_model.pb").write_bytes(b"")
    (tmp_path / "names" / "3").mkdir()  # no graph yet
    assert list_versions(str(tmp_path / "names")) == [1, 2, 7, 2**63 - 1]
    assert version_names(str(tmp_path / "names"))[1] == "1"  # of 1 and 01, as in its source
