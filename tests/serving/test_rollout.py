"""Rollouts: the assignment, the files, and an automatic rollback under load."""

import json
import os
import time

import httpx
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.config import model_server_config_pb2

from pipeline.cli import cli
from serving.app import ServerThread
from serving.rollout import Rollout, read_rollout, user_share, write_rollout
from serving.server.config import ServerConfig
from serving.watch import _Tail
from tokenmill.errors import TokenmillError


def rollout(weight=0.3, **change):
    options = {"stable": 1, "canary": 2, "canary_weight": weight, "salt": "1-2",
               "status": "running"}  # fmt: skip
    return Rollout(**{**options, **change})


@given(st.text(max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_users_stay_in_the_canary_as_it_grows(key, one, other):
    small, large = sorted((one, other))
    if rollout(small).assign(key) == "canary":
        assert rollout(large).assign(key) == "canary"
    assert rollout(0.0).assign(key) == "stable"
    assert rollout(1.0).assign(key) == "canary"


def test_shares_are_even_and_those_of_two_rollouts_independent():
    keys = [f"user-{i}" for i in range(20_000)]
    a = [user_share(key, "a") < 0.3 for key in keys]
    b = [user_share(key, "b") < 0.3 for key in keys]
    assert sum(a) / len(keys) == pytest.approx(0.3, abs=0.01)
    both = sum(x and y for x, y in zip(a, b, strict=True)) / len(keys)
    assert both == pytest.approx(0.09, abs=0.01)
    assert rollout().assign(None) == "stable"


def test_the_files_say_the_same_to_both_servers(tmp_path):
    write_rollout(str(tmp_path), rollout(), "tiny")
    assert read_rollout(str(tmp_path)) == rollout()
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((tmp_path / "models.config").read_text(), config)
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("tiny", str(tmp_path))
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}
    assert sorted(os.listdir(tmp_path)) == ["models.config", "rollout.json"]


def invoke(*arguments):
    return CliRunner().invoke(cli, ["rollout", *map(str, arguments)])


def test_start_promote_and_what_is_refused(tmp_path):
    for version in ("1", "2", "3"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "saved_model.pb").write_bytes(b"")
    assert invoke("promote", tmp_path).exit_code == 1
    assert "no such version" in invoke("start", tmp_path, "--canary", 9).output
    assert invoke("start", tmp_path, "--canary", 2, "--weight", 0.5).exit_code == 0
    assert read_rollout(str(tmp_path)) == rollout(0.5)
    refused = invoke("start", tmp_path, "--canary", 3)
    assert refused.exit_code == 1
    assert "version 2 is being rolled out" in refused.output
    assert invoke("start", tmp_path, "--canary", 2, "--weight", 1.0).exit_code == 0  # grows
    assert invoke("promote", tmp_path).exit_code == 0
    promoted = read_rollout(str(tmp_path))
    assert (promoted.stable, promoted.canary, promoted.status) == (2, None, "promoted")
    assert invoke("start", tmp_path).exit_code == 0  # the newest
    assert invoke("rollback", tmp_path).exit_code == 0
    back = read_rollout(str(tmp_path))
    assert (back.stable, back.canary, back.status) == (2, None, "rolled_back")


def base_of(tmp_path, *versions):
    for version in versions:
        (tmp_path / str(version)).mkdir()
        (tmp_path / str(version) / "saved_model.pb").write_bytes(b"")


def test_what_is_gone_is_not_made_stable(tmp_path):
    base_of(tmp_path, 1, 2)
    assert invoke("start", tmp_path, "--canary", 2).exit_code == 0
    os.rename(tmp_path / "2", tmp_path / "away")
    refused = invoke("promote", tmp_path)
    assert refused.exit_code == 1
    assert "version 2 is not in" in refused.output
    assert read_rollout(str(tmp_path)).status == "running"
    os.rename(tmp_path / "1", tmp_path / "2")
    refused = invoke("rollback", tmp_path)
    assert refused.exit_code == 1
    assert "version 1 is not in" in refused.output
    assert invoke("promote", tmp_path).exit_code == 0


def test_a_promotion_can_be_rolled_back(tmp_path):
    base_of(tmp_path, 1, 2)
    assert invoke("start", tmp_path).exit_code == 0
    assert invoke("promote", tmp_path).exit_code == 0
    assert invoke("rollback", tmp_path).output == "rolled back: stable 1\n"
    assert read_rollout(str(tmp_path)) == rollout(
        0.0, canary=None, status="rolled_back", reason="by hand"
    )
    again = invoke("rollback", tmp_path)
    assert again.exit_code == 1
    assert "no rollout is running" in again.output


def write_log(path, records):
    with open(path, "a", encoding="utf-8") as out:
        for record in records:
            line = {"time": time.time(), "code": "OK", "tokens": 1, "seconds": 0.01, **record}
            out.write(json.dumps(line) + "\n")


CANARY, STABLE = {"label": "canary", "version": "2"}, {"label": "stable", "version": "1"}


def test_requests_from_before_the_rollout_and_from_loading_are_not_counted(tmp_path):
    base_of(tmp_path, 1, 2)
    log = tmp_path / "requests.jsonl"
    slow = {"seconds": 9.0, "code": "INTERNAL"}
    write_log(log, [{**CANARY, **slow}] * 300)
    feedback = tmp_path / "feedback.jsonl"
    feedback.write_text('{"user": "a", "value": 1, "time": 5}\n{"user": "a", "value": 1}\n')
    assert invoke("start", tmp_path, "--weight", 1.0).exit_code == 0
    # The version of the canary answered all while the stable one was being loaded.
    write_log(log, [{"label": "stable", "version": "2", **slow}] * 300)
    write_log(log, [CANARY] * 150 + [STABLE] * 20)
    options = ["--p99-ms", 100, "--max-error-rate", 0.01, "--feedback", feedback]
    fine = invoke("watch", tmp_path, "--request-log", log, *options)
    assert fine.exit_code == 0, fine.output
    report = json.loads(fine.output)
    assert report["arms"]["canary"]["requests"] == 150
    assert report["arms"]["stable"]["requests"] == 20
    assert report["arms"]["canary"]["feedback"] == 1
    assert report["judged"]
    assert invoke("start", tmp_path, "--canary", 2, "--weight", 0.9).exit_code == 0  # goes on
    again = invoke("watch", tmp_path, "--request-log", log, *options)
    assert json.loads(again.output)["arms"]["canary"]["requests"] == 150
    write_log(log, [{**CANARY, **slow}] * 300)
    breach = invoke("watch", tmp_path, "--request-log", log, *options)
    assert breach.exit_code == 1
    assert read_rollout(str(tmp_path)).status == "rolled_back"


@pytest.mark.parametrize(("count", "words"), [(0, "is it loaded"), (99, "99 requests")])
def test_a_canary_that_nobody_was_served_by_is_not_found_well(tmp_path, count, words):
    base_of(tmp_path, 1, 2)
    assert invoke("start", tmp_path).exit_code == 0
    log = tmp_path / "requests.jsonl"
    write_log(log, [STABLE] * 500 + [CANARY] * count)
    found = invoke("watch", tmp_path, "--request-log", log, "--p99-ms", 100)
    assert found.exit_code == 2
    report = json.loads(found.output)
    assert words in report["reason"]
    assert not report["judged"]
    assert not report["rolled_back"]
    assert read_rollout(str(tmp_path)).status == "running"


def test_lines_without_numbers_are_left_out(tmp_path):
    base_of(tmp_path, 1, 2)
    assert invoke("start", tmp_path, "--weight", 1.0).exit_code == 0
    log, feedback = tmp_path / "requests.jsonl", tmp_path / "feedback.jsonl"
    odd = [{"code": None}, {"seconds": None}, {"tokens": "1"}, {"seconds": float("nan")}]
    write_log(log, [CANARY | line for line in odd] + [CANARY] * 2)
    votes = ("NaN", "1e400", "true", "null", "1" + "0" * 400, "3")
    feedback.write_text("".join(f'{{"user": "a", "value": {vote}}}\n' for vote in votes))
    found = invoke("watch", tmp_path, "--request-log", log, "--feedback", feedback)
    canary = json.loads(found.output)["arms"]["canary"]
    assert (canary["requests"], canary["feedback"]) == (2, 3)
    directory = invoke("watch", tmp_path, "--request-log", tmp_path)
    assert directory.exit_code == 1
    assert "is a directory" in directory.output


def test_a_log_that_is_not_there_is_named(tmp_path):
    base_of(tmp_path, 1, 2)
    assert invoke("start", tmp_path).exit_code == 0
    found = invoke("watch", tmp_path, "--request-log", tmp_path / "none")
    assert found.exit_code == 2
    assert f"there is no {tmp_path / 'none'}" in found.output


def test_a_log_that_is_emptied_is_read_on(tmp_path):
    log = tmp_path / "log"
    tail = _Tail(str(log))
    for count in (3, 2):
        log.write_text('{"a": 1}\n' * count)
        assert len(list(tail.lines())) == count


def test_nothing_is_watched_without_a_rollout(tmp_path):
    base_of(tmp_path, 1, 2)
    found = invoke("watch", tmp_path, "--request-log", tmp_path / "none")
    assert found.exit_code == 1
    assert "no rollout is running" in found.output


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "rollout.json").write_text("{")
    with pytest.raises(TokenmillError, match=r"rollout\.json is damaged"):
        read_rollout(str(tmp_path))


def test_two_real_versions_under_load_and_an_automatic_rollback(versions, loaded_once, tmp_path):
    versions(1, 1)
    versions(2, 2)
    write_rollout(str(versions.base), rollout(0.5))
    log = tmp_path / "requests.jsonl"
    server = ServerConfig(
        str(versions.base), rest_port=0, grpc_port=0, poll_seconds=0.05, request_log=str(log)
    )
    with (
        ServerThread(server) as thread,
        httpx.Client(base_url=f"http://127.0.0.1:{thread.ports.rest}", timeout=60) as rest,
    ):

        def version_of(user):
            headers = {"x-user-key": user} if user else {}
            body = {"instances": ["private words"]}
            response = rest.post("/v1/models/default:predict", json=body, headers=headers)
            assert response.status_code == 200, response.text
            return int(response.headers["x-model-version"])

        users = [f"user-{i}" for i in range(250)]
        expected = [2 if user_share(user, "1-2") < 0.5 else 1 for user in users]
        assert [version_of(user) for user in users] == expected
        assert [version_of(user) for user in users[:20]] == expected[:20]
        assert version_of(None) == 1
        for label, version in (("stable", "1"), ("canary", "2")):
            path = f"/v1/models/default/labels/{label}:predict"
            response = rest.post(path, json={"instances": ["a"]})
            assert response.headers["x-model-version"] == version
        watch = ["watch", versions.base, "--request-log", log]
        fine = invoke(*watch, "--p99-ms", 60_000, "--max-error-rate", 0.01)
        assert fine.exit_code == 0, fine.output
        report = json.loads(fine.output)
        assert report["arms"]["canary"]["requests"] == (expected + expected[:20]).count(2) + 1
        assert report["canary_less_stable"]["tokens"]["verdict"] == "undecided"
        breach = invoke(*watch, "--p99-ms", 0.001)
        assert breach.exit_code == 1
        assert "p99" in json.loads(breach.output)["reason"]
        assert read_rollout(str(versions.base)).status == "rolled_back"
        for _ in range(200):
            status = rest.get("/v1/models/default").json()["model_version_status"]
            if [v["version"] for v in status if v["state"] == "AVAILABLE"] == ["1"]:
                break
        assert {version_of(user) for user in users[:20]} == {1}
    text = log.read_text()
    assert "private words" not in text
    assert "user-1" not in text
