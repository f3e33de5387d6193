"""ML Metadata on MySQL (MariaDB) and PostgreSQL: real servers, two runs at the same time."""

import json
import logging
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from ml_metadata.proto import metadata_store_pb2

from pipeline.cli import cli
from tokenmill.contracts.metadata_server import METADATA_SERVER_NAME
from tokenmill.metadata.output_directory import claim_directory
from tokenmill.metadata.server_url import PASSWORD_VARIABLE
from tokenmill.metadata.store import connection_config, open_store

PASSWORD = "s3cret'with\"quotes"
POSTGRES = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), default=pathlib.Path("/nowhere"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://me:hunter2@host/db", PASSWORD_VARIABLE),
        ("mysql://me:hun/ter2@host/db", PASSWORD_VARIABLE),
        ("mysql://me:hunter2#@host/db", PASSWORD_VARIABLE),
        ("postgresql://me@host/db?password=hunter2", PASSWORD_VARIABLE),
        ("mysql://host/db", "mysql://user@host"),
        ("oracle://me@host/db", "mysql://user@host"),
        ("postgresql://me@host:port/db", "postgresql://user@host"),
        ("mysql://me@host", "expected"),
        ("runs.sqlite", "expected"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_is_written(url, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(f'[run]\nmetadata_url = "{url}"\n')
    output = ("--output-dir", "out")
    for command in (
        ("run", "--set", f"run.metadata_url={url}", *output),
        ("run", "--config", "mine.toml", *output),
        (
            "manifests",
            "training",
            "--engine",
            "kubernetes",
            "--config",
            "mine.toml",
            "--output",
            "out",
        ),
        ("lineage", ".", "--metadata-url", url),
    ):
        if command[0] == "lineage" and "://" not in url:
            continue  # a SQLite file, as well
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 1, result.output
        if command[0] != "lineage":
            assert words in result.output
        assert "hunter2" not in result.output
        assert "ter2" not in result.output
        assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_a_password_under_a_mistyped_key_is_not_repeated():
    said = CliRunner().invoke(cli, ["run", "--set", "run.metadata_ulr=mysql://me:hunter2@h/d"])
    assert said.exit_code == 1
    assert "metadata_ulr" in said.output
    assert "hunter2" not in said.output


def test_the_password_comes_from_the_environment_and_stays_out_of_the_log(monkeypatch, caplog):
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    config = connection_config("mysql://me@host/db")
    assert (config.mysql.host, config.mysql.port, config.mysql.database) == ("host", 3306, "db")
    assert config.mysql.password == PASSWORD
    logger = logging.getLogger("absl")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger="absl"):
        logger.info("Using connection config:\n %s", config)
        logger.info("nothing to hide: %d", 3)
    logger.removeHandler(caplog.handler)
    assert "host" in caplog.text
    assert "s3cret" not in caplog.text
    assert "<redacted>" in caplog.text
    assert "nothing to hide: 3" in caplog.text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(command, log: pathlib.Path, seconds=60.0):
    end = time.monotonic() + seconds
    while subprocess.run(command, capture_output=True, check=False).returncode:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)


@pytest.fixture
def mysql(tmp_path):
    if shutil.which("mariadbd") is None or os.geteuid():
        pytest.skip("needs mariadb-server (apt-get install mariadb-server) and root")
    data, port, sock = tmp_path / "data", free_port(), f"/tmp/tokenmill-{os.getpid()}.sock"
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root"]
    subprocess.run(install, check=True, capture_output=True)
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--port={port}",
             "--bind-address=127.0.0.1", f"--socket={sock}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        client = ["mariadb", "--no-defaults", f"--socket={sock}", "-uroot"]
        wait_for([*client, "-e", "SELECT 1"], tmp_path / "server.log")
        quoted = PASSWORD.replace("'", "''")
        sql = (
            f"CREATE USER mlmd@'127.0.0.1' IDENTIFIED BY '{quoted}';"
            "CREATE DATABASE runs; GRANT ALL ON runs.* TO mlmd@'127.0.0.1';"
        )
        subprocess.run([*client, "-e", sql], check=True)
        yield f"mysql://mlmd@127.0.0.1:{port}/runs"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def postgresql(tmp_path):
    if not POSTGRES.exists() or os.geteuid():
        pytest.skip("needs a PostgreSQL server (apt-get install postgresql) and root")
    home, port = pathlib.Path(f"/tmp/tokenmill-postgres-{os.getpid()}"), free_port()
    home.mkdir()
    shutil.chown(home, "postgres")
    password = home / "password"
    password.write_text(PASSWORD)
    shutil.chown(password, "postgres")
    log = home / "server.log"
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    subprocess.run(
        [POSTGRES / "initdb", "-D", home / "data", "-U", "mlmd", "-A", "scram-sha-256",
         f"--pwfile={password}"],
        check=True, capture_output=True, cwd=home, **as_user,
    )  # fmt: skip
    with log.open("w") as out:
        server = subprocess.Popen(
            [POSTGRES / "postgres", "-D", home / "data", "-p", str(port), "-k", home],
            stdout=out, stderr=out, cwd=home, **as_user,
        )  # fmt: skip
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    try:
        wait_for([POSTGRES / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], log)
        subprocess.run(
            [POSTGRES / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "mlmd", "runs"],
            check=True, env=environment,
        )  # fmt: skip
        yield f"postgresql://mlmd@127.0.0.1:{port}/runs"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(home)


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_texts_come_back_as_they_were_and_clients_may_come_at_once(kind, request, monkeypatch):
    url = request.getfixturevalue(kind)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    # On an empty server each makes the tables.
    open_it = f"from tokenmill.metadata.store import open_store; open_store({url!r})"
    clients = [
        subprocess.Popen([sys.executable, "-c", open_it], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for client in clients:
        _, said = client.communicate(timeout=60)
        assert client.returncode == 0, said
    store = open_store(url)
    text = '{"a": "x\\"y\\\\n \' \\n \uf05c\uf05cb \\u00e9 \u00e9"}\n\\'
    kind_id = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="Text"))
    made = metadata_store_pb2.Artifact(type_id=kind_id, uri="/home/a\\b'c", name="n\\")
    made.custom_properties["text"].string_value = text
    (number,) = store.put_artifacts([made])
    (found,) = store.get_artifacts_by_uri(made.uri)
    assert (found.id, found.uri, found.name) == (number, made.uri, made.name)
    assert found.custom_properties["text"].string_value == text
    assert made.custom_properties["text"].string_value == text
    # TFX's cache takes it for granted that they come in this order, also when one was changed.
    (second,) = store.put_artifacts([metadata_store_pb2.Artifact(type_id=kind_id, uri="/b")])
    found.uri = "/moved"
    store.put_artifacts([found])
    assert [a.id for a in store.get_artifacts_by_id([number, second])] == [number, second]


@pytest.mark.parametrize(
    ("kind", "cause"), [("mysql", "mysql_native_password"), ("postgresql", "password auth")]
)
def test_a_server_that_refuses_says_why_before_anything_is_written(
    kind, cause, request, tmp_path, monkeypatch
):
    url = request.getfixturevalue(kind)
    monkeypatch.setenv(PASSWORD_VARIABLE, "wrong")
    words = ["run", "--output-dir", tmp_path / "out", "--set", f"run.metadata_url={url}"]
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert result.exit_code == 1
    assert f"refuses {url}" in result.output
    assert cause in result.output
    assert not (tmp_path / "out").exists()


def test_a_server_that_does_not_answer_is_one_message(tmp_path):
    claim_directory(str(tmp_path), f"mysql://me@127.0.0.1:{free_port()}/runs", "demo")
    result = CliRunner().invoke(cli, ["gc", str(tmp_path), "--keep", "1"])
    assert result.exit_code == 1
    assert "does not answer" in result.output
    assert "Connection refused (host 127.0.0.1, port" in result.output


def ask(*words) -> str:
    """What a command prints."""
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, words)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_two_first_runs_at_once_and_every_command_finds_its_directory_s(
    kind, request, workspace, tmp_path, monkeypatch
):
    url = request.getfixturevalue(kind)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    home, other = tmp_path / 'ho"me', tmp_path / "other"  # a name that JSON escapes
    settings = (
        f'run.metadata_url="{url}"',
        "train.max_steps=60",
        "evaluate.beat_baseline=false",  # so few steps teach less than token frequencies
    )
    words = [word for setting in settings for word in ("--set", setting)]
    runs = [workspace.start("--output-dir", str(directory), *words) for directory in (home, other)]
    for run in runs:
        output, _ = run.communicate(timeout=900)
        assert run.returncode == 0, output
    assert not (home / "metadata.sqlite").exists()
    assert PASSWORD not in (home / METADATA_SERVER_NAME).read_text()
    (shown,) = json.loads(ask("runs", "--run", home, "--json"))
    assert shown["trained"]
    row = json.loads(ask("why", "--row", 0, "--run", home, "--json"))
    assert row["models"]
    assert "exact_duplicate" in ask("curate", "inspect", home)
    assert "doc_id" in ask("schema", "show", home)
    assert json.loads(ask("lineage", home / "serving_model", "--json"))["run_id"] == shown["run"]
    assert "Nothing to remove" in ask("gc", home, "--keep", 1)
    # A second run is all cached, elsewhere too.
    moved = tmp_path / "moved"
    home.rename(moved)
    again = workspace.run("--output-dir", str(moved), *words)
    assert again.exit_code == 0, again.output
    assert all("cached" in line for line in again.step_lines().values()), again.output
    assert len(json.loads(ask("runs", "--run", moved, "--json"))) == 2
    assert len(json.loads(ask("runs", "--run", other, "--json"))) == 1
