"""The API by clients that others wrote, each in an environment of its own, made from a lock."""

import json
import pathlib
import subprocess
import sys

import httpx
import pytest

from serving.app import ServerThread
from serving.server.config import ServerConfig

CLIENTS = pathlib.Path(__file__).parent / "clients"
pytestmark = pytest.mark.slow  # an environment takes 20 s and the package index


@pytest.fixture(scope="module")
def addresses(exported, chat_base):
    options = {"rest_port": 0, "grpc_port": 0, "openai": True}
    with (
        ServerThread(ServerConfig(str(exported.base), **options)) as texts,
        ServerThread(ServerConfig(str(chat_base), **options)) as talks,
    ):
        yield [f"http://127.0.0.1:{thread.ports.rest}" for thread in (texts, talks)]


def environment(tmp_path, name):
    """The directory of programs of a new environment that has what the lock of a client says."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / name], check=True)
    programs = tmp_path / name / "bin"
    install = ["install", "-q", "--disable-pip-version-check", "--require-hashes", "-r"]
    subprocess.run([programs / "pip", *install, CLIENTS / f"{name}.lock"], check=True)
    return programs


def test_the_openai_package_calls_everything(tmp_path, addresses):
    python = environment(tmp_path, "openai") / "python"
    done = subprocess.run(
        [python, CLIENTS / "use_openai.py", *addresses],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    mine, others = found["sync"], found["async"]
    assert mine["models"] == others["models"] == ["default"]
    assert mine["texts"] == mine["streamed"] == others["texts"]
    assert len(set(mine["texts"])) == 4
    assert mine["logged"] == [8] * 4
    assert mine["usage"][0] == mine["usage"][1]
    assert mine["usage"][0]["completion_tokens"] == 32
    assert mine["message"] == mine["content"] != ""
    assert others["contents"] == [mine["message"]]
    assert mine["chat_usage"][0] == mine["chat_usage"][1]
    assert set(mine["chat_logged"]) == {2}
    floats, packed = mine["embeddings"]
    assert packed == pytest.approx(floats, abs=1e-6)
    assert others["vectors"] == 2
    assert mine["errors"] == {
        "model": ["NotFoundError", "model", "model_not_found"],
        "tools": ["BadRequestError", "tools", "unsupported_parameter"],
        "context": ["BadRequestError", "prompt", "context_length_exceeded"],
        "dimensions": ["BadRequestError", "dimensions", "unsupported_parameter"],
    }
    for address in addresses:  # the stream that was broken off, too
        lines = httpx.get(f"{address}/metrics").text.splitlines()
        faults = [
            line for line in lines if 'protocol="openai"' in line and 'code="INTERNAL"' in line
        ]
        assert all(line.endswith(" 0.0") for line in faults if "_total" in line)


def test_the_document_is_what_the_server_does(tmp_path, addresses):
    """Schemathesis: requests that the document allows, and many that it forbids."""
    program = environment(tmp_path, "schemathesis") / "st"
    for address in addresses:
        document = httpx.get(f"{address}/openapi.json").json()
        schemas = document["components"]["schemas"]
        for schema in schemas.values():  # so that more requests come further
            if "model" in schema.get("required", ()) and "Request" in schema["title"]:
                schema["properties"]["model"] = {"type": "string", "enum": ["default"]}
        text = json.dumps(document).replace(
            f'"exclusiveMaximum": {2**31}', '"exclusiveMaximum": 340'
        )
        path = tmp_path / "openapi.json"
        path.write_text(text)
        # What the document allows may be too long for the context, and 1.0 is no token.
        done = subprocess.run(
            [program, "run", path, "--url", address, "--phases", "examples,coverage,fuzzing",
             "--exclude-checks", "positive_data_acceptance", "--max-examples", "60", "--seed", "1",
             "--continue-on-failure", "--no-color"],
            capture_output=True, text=True, check=False, timeout=500, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:]
        assert "Operations:       7 selected / 7 total" in done.stdout
        assert httpx.get(f"{address}/healthz").status_code == 200
