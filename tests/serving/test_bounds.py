"""What hostile, slow and careless clients may cost the server: little, and nobody else's answer."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time

import httpx
import pytest

from serving.app import ServerThread
from serving.client import Client, ServingError
from serving.server.config import ServerConfig
from tokenmill.errors import TokenmillError

PATH = "/v1/models/default:predict"
BODY = {"instances": ["Returns the sum."]}


def settings(base, **options):
    return ServerConfig(str(base), rest_port=0, grpc_port=0, poll_seconds=0.05, **options)


@pytest.fixture(scope="module")
def rest(server):
    with httpx.Client(base_url=f"http://127.0.0.1:{server.ports.rest}", timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:1"}, 200),
        ({"host": "[::1]:8501"}, 200),
        ({"host": "192.168.0.7"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8501"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "localhost", "origin": "http://localhost"}, 200),
        ({"host": "localhost:8501", "origin": "http://localhost:8888"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_only_the_servers_own_names_and_pages_are_answered(rest, headers, status):
    for answer in (
        rest.post(PATH, json=BODY, headers=headers),
        rest.get("/metrics", headers=headers),
    ):
        assert answer.status_code == status, answer.text
    if status == 403:
        assert "--allow-host" in rest.post(PATH, json=BODY, headers=headers).json()["error"]


@pytest.mark.parametrize("allowed", ["models.example", "*"])
def test_other_names_and_pages_can_be_allowed(exported, loaded_once, allowed):
    with ServerThread(settings(exported.base, allowed_hosts=(allowed,))) as thread:
        url = f"http://127.0.0.1:{thread.ports.rest}{PATH}"
        for headers in ({"host": "Models.example:80"}, {"origin": "https://models.example"}):
            assert httpx.post(url, json=BODY, headers=headers).status_code == 200


def test_a_request_may_shorten_its_deadline_only(exported, loaded_once):
    options = {"deadline_seconds": 0.6, "batch_timeout_micros": 2_000_000}
    with ServerThread(settings(exported.base, **options)) as thread:
        address = f"http://127.0.0.1:{thread.ports.rest}"
        for timeout in ("500", "inf", "0.2"):
            started = time.monotonic()
            answer = httpx.post(
                address + PATH, json=BODY, headers={"x-timeout-seconds": timeout}, timeout=60
            )
            assert answer.status_code == 504
            assert time.monotonic() - started < 1.9
        with Client(f"127.0.0.1:{thread.ports.grpc}", timeout_seconds=60) as client:
            started = time.monotonic()
            with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
                client.score(["a"])
            assert time.monotonic() - started < 1.9


@pytest.mark.parametrize("depth", [1000, 100_000])
@pytest.mark.parametrize("form", ['"instances": %s', '"inputs": %s', '"inputs": {"text": [%s]}'])
@pytest.mark.parametrize("signature", ["score", "score_ids"])
def test_deeply_nested_lists_are_a_bad_request(rest, depth, form, signature):
    nested = "[" * depth + "1" + "]" * depth
    body = f'{{"signature_name": "{signature}", {form % nested}}}'.replace("text", "token_ids")
    answer = rest.post(PATH, content=body.encode())
    assert answer.status_code == 400
    assert len(answer.json()["error"]) < 300


@pytest.mark.parametrize("client_of", ["rest", "grpc"])
def test_logits_are_computed_for_one_context_at_most(server, client_of):
    port = getattr(server.ports, client_of)
    with Client(f"{'http://' if client_of == 'rest' else ''}127.0.0.1:{port}") as client:
        (row,) = client.predict("logits_ids", {"token_ids": [[2] + [5] * 47]})
        assert len(row["output" if client_of == "rest" else "logits"]) == 48
        for ids, words in (
            ([2] * 49, "may have 48 tokens at most"),
            ([2, 9999], "token_ids must be from"),
        ):
            with pytest.raises(ServingError, match=words) as caught:
                client.predict("logits_ids", {"token_ids": [ids]})
            assert caught.value.code == "INVALID_ARGUMENT"


def test_version_numbers_that_no_version_has(rest):
    for version, status in (
        ("9" * 17, 404),
        ("9" * 20, 400),
        ("9" * 5000, 400),
        ("0" * 50 + "2", 200),
    ):
        answer = rest.post(f"/v1/models/default/versions/{version}:predict", json=BODY)
        assert answer.status_code == status


def test_the_score_of_no_text_is_no_number(server):
    for address in (f"http://127.0.0.1:{server.ports.rest}", f"127.0.0.1:{server.ports.grpc}"):
        with Client(address) as client:
            empty, text = client.score(["", "a"])
        assert empty["bits_per_byte"] is None
        assert empty["byte_count"] == 0
        assert text["bits_per_byte"] > 0


def read_all(connection):
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_headers_are_bounded(exported, loaded_once):
    with ServerThread(settings(exported.base, max_header_bytes=4000)) as thread:
        address = ("127.0.0.1", thread.ports.rest)
        start = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
        whole = start + b"x-a: " + b"a" * 5000 + b"\r\n\r\n"
        many = start + b"".join(b"x-%d: a\r\n" % i for i in range(1000))
        for sent in (whole, start + b"x-a: " + b"a" * 5000, many, b"G" * 5000, b"\r\n" * 5000):
            with socket.create_connection(address, timeout=60) as connection:
                connection.sendall(sent)
                answer = read_all(connection)
                assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")), answer
        with httpx.Client(base_url=f"http://127.0.0.1:{thread.ports.rest}") as rest:
            body = {"instances": ["a" * 20_000]}  # bodies have a bound of their own
            for _ in range(3):
                assert rest.post(PATH, json=body, timeout=60).status_code == 200
                assert rest.get("/healthz", headers={"x-a": "a" * 3000}).status_code == 200


def test_silent_connections_give_way_and_are_closed(exported, loaded_once):
    options = {"max_connections": 3, "idle_seconds": 2.0}
    with ServerThread(settings(exported.base, **options)) as thread:
        address = ("127.0.0.1", thread.ports.rest)
        whole = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
        silent = [socket.create_connection(address, timeout=60) for _ in range(3)]
        started = time.monotonic()
        silent[1].sendall(b"GET /healthz HT")
        silent[2].sendall(whole)
        assert silent[2].recv(100).startswith(b"HTTP/1.1 200")
        with socket.create_connection(address, timeout=60) as one_more:
            one_more.sendall(whole)
            assert one_more.recv(100).startswith(b"HTTP/1.1 200")
            assert read_all(silent[0]) == b""
            assert time.monotonic() - started < 1.5
        for connection in silent:
            read_all(connection)  # until the server closes it
            connection.close()
        assert 1 < time.monotonic() - started < 30
        with socket.create_connection(address, timeout=60) as trickle:
            started = time.monotonic()
            with contextlib.suppress(ConnectionError):
                for letter in b"GET /healthz HTTP/1.1\r\n" * 100:
                    trickle.sendall(bytes([letter]))
                    time.sleep(0.1)
                    assert time.monotonic() - started < 30, "it is still open"


def test_no_connection_is_opened_beside_as_many_busy_ones_as_may_be(exported, loaded_once):
    with ServerThread(settings(exported.base, max_connections=3)) as thread:
        address = ("127.0.0.1", thread.ports.rest)
        start = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\n".encode()
        start += b"content-length: 99\r\nx-timeout-seconds: 3\r\n\r\n{"
        busy = [socket.create_connection(address, timeout=60) for _ in range(3)]
        for connection in busy:
            connection.sendall(start)
        time.sleep(0.5)
        with socket.create_connection(address, timeout=60) as one_more:
            assert read_all(one_more).startswith(b"HTTP/1.1 503")
        for connection in busy:
            assert connection.recv(100).startswith(b"HTTP/1.1 504")
            connection.close()
        answer = httpx.post(f"http://127.0.0.1:{thread.ports.rest}{PATH}", json=BODY, timeout=60)
        assert answer.status_code == 200


@pytest.mark.parametrize("reads", [False, True])
def test_an_answer_is_kept_only_for_a_client_that_reads(exported, loaded_once, reads):
    options = {"idle_seconds": 1.0, "max_batch_size": 64, "max_queued_rows": 64}
    with ServerThread(settings(exported.base, **options)) as thread:
        body = {"signature_name": "logits_ids", "inputs": {"token_ids": [[5] * 48] * 64}}
        content = json.dumps(body).encode()
        head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n"
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
            connection.settimeout(60)
            connection.connect(("127.0.0.1", thread.ports.rest))
            connection.sendall(head.encode() + content)
            answer = connection.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200")
            length = int(re.search(rb"content-length: (\d+)", answer)[1])
            with contextlib.suppress(ConnectionError):
                for _ in range(30):  # as long as it takes to be thought silent, and longer
                    time.sleep(0.1)
                    answer += connection.recv(50_000) if reads else b""
                while part := connection.recv(1 << 20):
                    answer += part
            assert (len(answer) > length) is reads


def metric(rest, name):
    lines = rest.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_a_full_disk_under_the_request_log_costs_no_answer(exported, loaded_once):
    with ServerThread(settings(exported.base, request_log="/dev/full")) as thread:
        with httpx.Client(base_url=f"http://127.0.0.1:{thread.ports.rest}", timeout=60) as rest:
            for _ in range(5):
                assert rest.post(PATH, json=BODY).status_code == 200
            assert rest.post(PATH, json={}).status_code == 400
            assert metric(rest, "tokenmill_request_log_lost_lines_total") == 6
        with Client(f"127.0.0.1:{thread.ports.grpc}") as client:
            assert client.score(["a"])


LIMITED = """
import resource, sys
from serving.server.config import ServerConfig
from serving.server.metrics import ServerMetrics
from serving.server.service import RequestLog

log = RequestLog(ServerConfig("", request_log=sys.argv[1]), ServerMetrics())
for limit in (600, 600, 10_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for _ in range(4):
        log.write("rest", "1", "stable", "score", "OK", 0.1, 3, {}, None)
print(log._metrics.lost_log_lines._value.get())
"""


def test_a_line_cut_off_by_a_full_disk_damages_no_other(tmp_path):
    path = tmp_path / "requests.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=True
    )
    lost = int(float(done.stdout))
    whole = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            whole.append(json.loads(line))
    assert lost + len(whole) == 12
    assert len(whole) >= 6
    assert {record["signature"] for record in whole} == {"score"}


def test_a_request_log_that_cannot_be_written_is_an_error_at_the_start(exported, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "nowhere" / "log", tmp_path, tmp_path / "pipe"):
        with (
            pytest.raises(TokenmillError, match=r"cannot write the request log .*--request-log"),
            ServerThread(settings(exported.base, request_log=str(path))),
        ):
            pass
