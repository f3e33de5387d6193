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

from pipeline.cli import cli
from tokenmill.contracts.metadata_server import METADATA_SERVER_NAME
from tokenmill.errors import TokenmillError
from tokenmill.metadata.output_directory import claim_directory, open_runs
from tokenmill.metadata.store import PASSWORD_VARIABLE, connection_config, open_store

PASSWORD = "s3cret'with\"quotes"
POSTGRES = pathlib.Path("/usr/lib/postgresql/15/bin")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://me:hunter2@host/db", PASSWORD_VARIABLE),
        ("mysql://host/db", "mysql://user@host"),
        ("oracle://me@host/db", "mysql://user@host"),
        ("postgresql://me@host:port/db", "postgresql://user@host"),
        ("mysql://me@host", "expected"),
    ],
)
def test_a_wrong_url_is_one_message_that_shows_no_password(url, words):
    with pytest.raises(TokenmillError) as caught:
        connection_config(url)
    said = f"{caught.value.message} {caught.value.hint}"
    assert words in said
    assert "hunter2" not in said


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
        pytest.skip("needs postgresql-15 (apt-get install postgresql-15) and root")
    home, port = pathlib.Path(f"/tmp/tokenmill-postgres-{os.getpid()}"), free_port()
    home.mkdir()
    shutil.chown(home, "postgres")
    password = home / "password"
    password.write_text(PASSWORD)
    shutil.chown(password, "postgres")
    log = home / "server.log"
    as_user = ["runuser", "-u", "postgres", "--"]
    subprocess.run(
        [*as_user, POSTGRES / "initdb", "-D", home / "data", "-U", "mlmd", "-A", "scram-sha-256",
         f"--pwfile={password}"],
        check=True, capture_output=True, cwd=home,
    )  # fmt: skip
    with log.open("w") as out:
        server = subprocess.Popen(
            [*as_user, POSTGRES / "postgres", "-D", home / "data", "-p", str(port), "-k", home],
            stdout=out, stderr=out, cwd=home,
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_two_runs_at_the_same_time_on_one_server(kind, request, tmp_path, monkeypatch):
    url = request.getfixturevalue(kind)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    open_store(url)  # makes the tables: two first runs at once would both
    root = pathlib.Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), str(pathlib.Path(__file__).parent)]),
    }
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "tiny_pipeline", name, str(tmp_path / name), url],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for name in ("first", "second")
    ]  # fmt: skip
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    for run, output in zip(runs, outputs, strict=True):
        assert run.returncode == 0, output[-3000:]
        assert "Using connection config" in output
        assert "s3cret" not in output
    store = open_store(url)
    assert {c.name for c in store.get_contexts_by_type("pipeline")} == {"first", "second"}
    models = store.get_artifacts_by_type("Model")
    assert len(models) == 4
    texts = sorted(pathlib.Path(model.uri, "text").read_text() for model in models)
    assert texts == ["first", "first", "second", "second"]
    for name in ("first", "second"):
        claim_directory(str(tmp_path / name), url, name)
        (run,) = open_runs(str(tmp_path / name)).runs()  # not the other's
        (node,) = open_runs(str(tmp_path / name)).nodes("Write")
        assert node.name == f"{name}.Write"


def test_a_server_that_does_not_answer_is_one_message(tmp_path):
    claim_directory(str(tmp_path), f"mysql://me@127.0.0.1:{free_port()}/runs", "demo")
    result = CliRunner().invoke(cli, ["gc", str(tmp_path), "--keep", "1"])
    assert result.exit_code == 1
    assert "does not answer" in result.output
    assert PASSWORD_VARIABLE in result.output


def ask(*words) -> str:
    """What a command prints."""
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, words)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_every_command_finds_the_server_by_the_output_directory(
    mysql, workspace, tmp_path, monkeypatch
):
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    home = tmp_path / "home"
    settings = (
        f'run.metadata_url="{mysql}"',
        "train.max_steps=60",
        "evaluate.beat_baseline=false",  # so few steps teach less than token frequencies
    )
    words = [word for setting in settings for word in ("--set", setting)]
    run = workspace.run("--output-dir", str(home), *words)
    assert run.exit_code == 0, run.output
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
    # A second run is all cached, and compares its texts' statistics with the first's.
    again = workspace.run("--output-dir", str(home), *words)
    assert again.exit_code == 0, again.output
    assert len(json.loads(ask("runs", "--run", home, "--json"))) == 2
