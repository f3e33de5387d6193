"""Whether anybody is signed in to Google Cloud: one question, a second at most."""

import contextlib
import os
import socket
import subprocess
import sys
import threading

import pytest

from pipeline.runners.cloud_credentials import check_credentials
from tokenmill.errors import TokenmillError

IMAGE = "registry.invalid/tokenmill@sha256:" + "a" * 64
COMMAND = (
    *(sys.executable, "-m", "pipeline.cli", "compile", "--runner", "vertex"),
    *("--set", 'corpus.input=["gs://bucket/corpus/*.jsonl"]'),
    *("--set", 'engine.pipeline_root="gs://bucket/run"', "--set", f'engine.image="{IMAGE}"'),
    *("--set", 'engine.project="p"', "--set", 'engine.region="europe-west4"'),
)


@contextlib.contextmanager
def metadata_server(answer: bytes | None):
    """A metadata server; without an answer it takes connections and is silent, as a firewall."""
    asked, held = [], []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    asked.append(connection.recv(1000) if answer else b"")
                    if answer:
                        connection.sendall(answer)
                        connection.close()
                    held.append(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", asked


def compile_without_credentials(directory, address):
    removed = ("GOOGLE_APPLICATION_CREDENTIALS", "NO_GCE_CHECK", "STORAGE_EMULATOR_HOST")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    environment |= {"HOME": str(directory), "CLOUDSDK_CONFIG": str(directory / "none")}
    return subprocess.run(
        [*COMMAND, "--output", str(directory / "spec.json")],
        env={**environment, "GCE_METADATA_IP": address},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_metadata_server_that_is_silent_is_asked_once(tmp_path):
    """Google's library asks three times, three seconds each, and Beam asks that again and again."""
    with metadata_server(None) as (address, asked):
        result = compile_without_credentials(tmp_path, address)
    assert result.returncode == 1
    assert "gs://bucket/corpus" in result.stderr or "gs://bucket/run" in result.stderr
    assert "there are no credentials of Google Cloud here" in result.stderr
    assert "gcloud auth application-default login" in result.stderr
    assert len(asked) == 1
    assert not (tmp_path / "spec.json").exists()


def test_what_answers_and_is_no_metadata_server_gives_no_credentials(tmp_path, monkeypatch):
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "NO_GCE_CHECK", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with metadata_server(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n") as (address, asked):
        monkeypatch.setenv("GCE_METADATA_IP", address)
        with pytest.raises(TokenmillError, match="there are no credentials of Google Cloud here"):
            check_credentials("gs://bucket")
    assert len(asked) == 1


def test_on_a_machine_of_google_cloud_its_server_is_enough(monkeypatch):
    """What google.auth then asks of it is not answered here: it is not this check's."""
    answer = b"HTTP/1.0 200 OK\r\nMetadata-Flavor: Google\r\nContent-Length: 0\r\n\r\n"
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "NO_GCE_CHECK", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("google.auth.default", lambda: (None, None))
    with metadata_server(answer) as (address, asked):
        monkeypatch.setenv("GCE_METADATA_IP", address)
        monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
        check_credentials("gs://bucket")
    assert b"Metadata-Flavor: Google" in asked[0]
