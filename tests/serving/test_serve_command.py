"""The commands as a user runs them, in processes of their own."""

import json
import re
import signal
import socket
import subprocess
import sys

import pytest

from serving.server import http_server


def tokenmill(*arguments):
    return [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]


def run(*arguments):
    return subprocess.run(tokenmill(*arguments), capture_output=True, text=True, check=False)


def test_serve_answers_generate_and_score_and_stops_on_a_signal(exported):
    server = subprocess.Popen(
        tokenmill("serve", exported.base, "--rest-port", 0, "--grpc-port", 0),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        rest = re.fullmatch(r"REST: (http://127\.0\.0\.1:\d+)/v1/models/default\n",
                            server.stdout.readline())[1]  # fmt: skip
        rpc = re.fullmatch(r"gRPC: (127\.0\.0\.1:\d+)\n", server.stdout.readline())[1]
        generated = run("generate", "Returns", "--server", rest, "--max-new-tokens", 5)
        scored = run("score", "Returns the sum.", "--server", rpc)
        wrong = run("score", "Returns", "--server", rest, "--name", "other")
        nobody = run("generate", "x", "--server", "http://127.0.0.1:9", "--timeout", 1)
        taken = run("serve", exported.base, "--rest-port", rest.rsplit(":", 1)[1])
    finally:
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=60)
    assert generated.returncode == 0, generated.stderr
    assert generated.stdout.startswith("Returns")
    assert "tokens]" in generated.stdout
    assert json.loads(scored.stdout)["byte_count"] == 16
    assert wrong.returncode == 1
    assert "NOT_FOUND" in wrong.stderr
    assert nobody.returncode == 1
    assert "http://127.0.0.1:9" in nobody.stderr
    assert taken.returncode == 1
    assert "is in use" in taken.stderr
    assert "--rest-port" in taken.stderr
    assert "\\u001b" not in log
    assert "\x1b" not in log
    events = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]
    assert events[-1] == "stopped"
    assert "listening" in events


@pytest.mark.parametrize("command", ["serve", "score"])
def test_no_model_is_an_error_that_says_what_to_do(tmp_path, command):
    target = (tmp_path,) if command == "serve" else ("x", "--model", tmp_path)
    result = run(command, *target)
    assert result.returncode == 1
    assert "no pushed model in" in result.stderr
    assert "tokenmill run" in result.stderr


def test_answers_do_not_wait_for_acknowledgements():
    """asyncio sets TCP_NODELAY on connections whose socket names its protocol, on no other."""
    with (
        http_server.listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        listener.setblocking(True)
        connection, _ = listener.accept()
        with connection:
            assert connection.proto == socket.IPPROTO_TCP
