"""The gateway under careless, hostile and many clients: nothing lost, nothing kept."""

import contextlib
import json
import random
import socket
import threading
import time

import httpx
import psutil
import pytest

from serving.app import ServerThread
from serving.server.config import ServerConfig

CODES = {200, 400, 404, 405, 413, 422, 429}
PROMPT = "Returns the sum of"
STREAM = {"model": "default", "prompt": PROMPT, "max_tokens": 24, "temperature": 0, "stream": True}


def settings(base, **options):
    options = {"rest_port": 0, "grpc_port": 0, "poll_seconds": 0.05, **options}
    return ServerConfig(str(base), openai=True, **options)


@pytest.fixture(scope="module")
def gateway(exported, load_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.server.versions.LoadedModel", load_once)
        with ServerThread(settings(exported.base)) as server:
            yield server


def metric(server, name, **labels):
    """The sum of a metric's samples that have these labels."""
    text = httpx.get(f"http://127.0.0.1:{server.ports.rest}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith(name)]
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(w in line for w in wanted))


def requests_of(server, code):
    return metric(server, "tokenmill_requests_total", protocol="openai", code=code)


def raw_request(server, body):
    content = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.ports.rest), timeout=30)
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


def whole_text(port):
    """Stream an answer; return its text."""
    pieces = []
    with httpx.stream("POST", f"http://127.0.0.1:{port}/v1/completions", json=STREAM) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                assert "error" not in event, event
                pieces.append(event["choices"][0]["text"])
    assert line == "" or line == "data: [DONE]"
    return "".join(pieces)


def test_two_hundred_clients_that_break_off_leave_no_trace(gateway):
    expected = whole_text(gateway.ports.rest)
    asked = [requests_of(gateway, code) for code in ("OK", "CANCELLED")]
    rng, process = random.Random(0), psutil.Process()
    sizes = []
    for _ in range(2):
        for number in range(100):
            connection = raw_request(gateway, {**STREAM, "n": rng.choice([1, 1, 3])})
            kind = number % 4
            if kind == 1:  # in the middle of the first bytes
                connection.recv(rng.randrange(1, 200))
            elif kind == 2:  # in the middle of the stream
                for _ in range(rng.randrange(1, 5)):
                    connection.recv(400)
            elif kind == 3:  # by a reset
                linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
            if number % 25 == 0:  # a neighbor is not disturbed
                assert whole_text(gateway.ports.rest) == expected
        sizes.append(process.memory_info().rss)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        now = [requests_of(gateway, code) for code in ("OK", "CANCELLED")]
        if sum(now) - sum(asked) >= 208:  # each is answered or has left, and so do all places
            break
        time.sleep(0.1)
    assert sum(now) - sum(asked) == 208
    assert now[1] - asked[1] > 50
    assert sizes[1] - sizes[0] < 64 << 20
    assert whole_text(gateway.ports.rest) == expected


@contextlib.contextmanager
def clients(count, work):
    """Repeat `work` on threads until the context ends."""
    stop, failures = threading.Event(), []

    def run():
        while not stop.is_set():
            try:
                work()
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("swaps", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_streams_outlive_swaps_of_the_version(versions, loaded_once, swaps):
    versions(1, 1)
    seen = set()
    with ServerThread(settings(versions.base)) as server:
        alone = {1: whole_text(server.ports.rest)}
        versions(2, 2)
        deadline = time.monotonic() + 300
        while len(alone) < 2 and time.monotonic() < deadline:
            text = whole_text(server.ports.rest)
            if text != alone[1]:
                alone[2] = text
        assert set(alone) == {1, 2}
        counts = {text: 0 for text in alone.values()}

        def work():
            text = whole_text(server.ports.rest)
            assert text in counts, text
            counts[text] += 1
            seen.add(text)
            time.sleep(0.05)  # the version that is loaded meanwhile runs on this interpreter, too

        with clients(3, work) as failures:
            for number in range(3, 3 + swaps):
                before = dict(counts)
                versions(1 + number % 2, number)
                expected = alone[1 + number % 2]
                deadline = time.monotonic() + 300
                while counts[expected] == before[expected] and time.monotonic() < deadline:
                    time.sleep(0.01)
                assert counts[expected] > before[expected], failures[:2]
    assert not failures, failures[0]
    assert seen == set(alone.values())


VALUES = [None, True, False, -1, 0, 1, 3, 2**70, 1.5, -1e308, "", "a", "\x00", "x" * 500, [], {},
          [[]], [[3, 4]], [4, 5], "日本語", [1, [2]], ["a", "b"], 340, [10**9], "float", {"a": 1},
          [{"role": "user", "content": "Hi"}], {"include_usage": True}]  # fmt: skip
KEYS = ["model", "prompt", "max_tokens", "temperature", "top_p", "top_k", "n", "stop", "seed",
        "stream", "logprobs", "echo", "presence_penalty", "frequency_penalty", "input", "messages",
        "repetition_penalty", "stream_options", "encoding_format", "tokens", "best_of", "suffix",
        "logit_bias", "user", "tools", "add_special_tokens", "other"]  # fmt: skip
PATHS = ["/v1/completions"] * 6 + ["/v1/chat/completions", "/v1/embeddings", "/tokenize",
         "/detokenize", "/tokenizer_info", "/v1/models", "/openapi.json", "/v1",
         "/v1/nothing"]  # fmt: skip


def random_body(rng):
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(200))
    document = {"model": "default", "prompt": "a b", "max_tokens": 2} if rng.random() < 0.7 else {}
    for _ in range(rng.randrange(4)):
        document[rng.choice(KEYS)] = rng.choice(VALUES)
    text = bytearray(json.dumps(document).encode())
    if text and rng.random() < 0.1:
        for _ in range(3):
            text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(text)


def fuzz(server, count, seed):
    rng, process, found, sizes = random.Random(seed), psutil.Process(), {}, []
    with httpx.Client(base_url=f"http://127.0.0.1:{server.ports.rest}", timeout=60) as client:
        for number in range(count):
            path = rng.choice(PATHS)
            method = "POST" if rng.random() < 0.95 else rng.choice(["GET", "PUT", "DELETE"])
            answer = client.request(method, path, content=random_body(rng))
            assert answer.status_code in CODES, (path, answer.status_code, answer.text)
            if answer.status_code >= 400:
                error = answer.json()["error"]
                assert isinstance(error if isinstance(error, str) else error["message"], str)
            found[answer.status_code] = found.get(answer.status_code, 0) + 1
            if number in (count // 2, count - 1):
                sizes.append(process.memory_info().rss)
    assert found[200] > count / 50
    assert found[400] > count / 50
    assert sizes[1] - sizes[0] < 96 << 20, sizes
    assert whole_text(server.ports.rest)


def test_random_requests(gateway):
    fuzz(gateway, 800, 1)


@pytest.mark.slow
def test_ten_thousand_random_requests(gateway):
    fuzz(gateway, 10_000, 2)
