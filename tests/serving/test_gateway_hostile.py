"""Requests and servers that would hold others up: what one sends costs the others nothing."""

import asyncio
import concurrent.futures
import functools
import json
import os
import shutil
import socket
import threading
import time
import types

import httpx
import pytest

from serving.app import ServerThread
from serving.gateway.app import serve_gateway
from serving.gateway.completions import check_count
from serving.gateway.errors import FieldError
from serving.gateway.remote import GrpcModel, RemoteBackend
from serving.gateway.requests import ChatRequest, CompletionRequest, DetokenizeRequest, read_request
from serving.gateway.signature_steps import SignatureSteps
from serving.gateway.text_stream import TextStream
from serving.server.config import ServerConfig
from serving.server.metrics import ServerMetrics

GREEDY = {"model": "default", "temperature": 0}
_SECONDS = 1.0
"""What computes so long holds all clients up; each of these took 2 to 16 once, and takes 0.02."""


def config(base, **options):
    options = {"rest_port": 0, "grpc_port": 0, "openai": True, **options}
    return ServerConfig(str(base), **options)


def completion(prompt):
    return f'{{"model": "m", "prompt": {prompt}}}'.encode()


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (completion(f"[{','.join(['-1'] * 340_000)}]"), CompletionRequest),
        (completion(f"[[{','.join(['1.5'] * 250_000)}]]"), CompletionRequest),
        (completion('"a", "logit_bias": {' + ",".join(f'"{i}":""' for i in range(90_000)) + "}"),
         CompletionRequest),
        (b'{"tokens": [%s]}' % b",".join([b"-1"] * 340_000), DetokenizeRequest),
        (b'{"model": "m", "messages": [{"role": "user", "content": [%s]}]}'
         % b",".join([b"{}"] * 340_000), ChatRequest),
    ],
    ids=["ids", "list", "bias", "tokens", "parts"],
)  # fmt: skip
def test_of_many_errors_the_first_is_told_soon(body, model):
    assert len(body) < ServerConfig("").max_request_bytes
    began = time.thread_time()
    with pytest.raises(FieldError):
        read_request(body, model)
    assert time.thread_time() - began < _SECONDS


def test_long_stop_strings_of_many_answers_are_prepared_once():
    def seconds(length):
        stops = ["ab" * (length // 2) + f"{number:010d}" for number in range(16)]
        began = time.thread_time()
        streams = [TextStream(stops) for _ in range(256)]
        took = time.thread_time() - began
        piece = streams[-1].push((stops[7] + "rest").encode(), None)
        assert (piece.text, streams[-1].stopped) == ("", True)
        return took

    short, long = (min(seconds(length) for _ in range(3)) for length in (2, 990))
    assert long < 8 * short  # prepared for each answer, it takes over 50 times as long


@pytest.fixture
def api(exported, loaded_once):
    with (
        ServerThread(config(exported.base)) as thread,
        httpx.Client(base_url=f"http://127.0.0.1:{thread.ports.rest}", timeout=60) as client,
    ):
        yield client


def test_a_prompt_of_padding_is_refused_and_ends_no_other_text(api):
    answers = [
        api.post(path, json={"model": "default", field: ids, **more})
        for path, field, more in (
            ("/v1/completions", "prompt", {"add_special_tokens": False}),
            ("/v1/completions", "prompt", {"echo": True, "logprobs": 1}),
            ("/v1/embeddings", "input", {}),
        )
        for ids in ([0], [5, 6, 0, 0], [[5], [0]])
    ]
    for answer in answers:
        assert answer.status_code == 400, answer.text
        assert "padding" in answer.json()["error"]["message"]
    within = api.post("/v1/completions", json=GREEDY | {"prompt": [0, 5], "max_tokens": 2})
    assert within.status_code == 200


def test_requests_of_many_prompts_do_not_shed_each_other(api):
    body = GREEDY | {"prompt": ["a b c d e"] * 60, "echo": True, "logprobs": 1, "max_tokens": 0}

    def ask(_):
        return api.post("/v1/completions", json=body)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    vectors = {"model": "default", "input": ["a b c"] * 60}
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: api.post("/v1/embeddings", json=vectors), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6


def test_memory_for_less_than_a_context_refuses_what_does_not_fit_by_its_option(
    exported, loaded_once
):
    # The tests' model has a context of one block of slots: less than that holds no text at all.
    with ServerThread(config(exported.base, kv_cache_bytes=1, max_streams=1)) as thread:
        url = f"http://127.0.0.1:{thread.ports.rest}/v1/completions"
        for body in ({}, {"n": 2}):
            answer = httpx.post(url, json=GREEDY | {"prompt": "a", "max_tokens": 2} | body)
            assert "--kv-cache-bytes" in answer.json()["error"]["message"]


def test_one_text_is_not_refused_for_the_memory_of_a_whole_context():
    held = types.SimpleNamespace(max_texts=0)
    check_count(1, 3, held)
    with pytest.raises(FieldError, match="--max-streams"):
        check_count(2, 1, held)


def test_a_server_that_hangs_costs_each_request_one_deadline(exported):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, answers nothing
        run = functools.partial(serve_gateway, f"127.0.0.1:{silent.getsockname()[1]}")
        with ServerThread(config(exported.base, deadline_seconds=2), run) as thread:

            def ask(_):
                url = f"http://127.0.0.1:{thread.ports.rest}/v1/completions"
                return httpx.post(url, json=GREEDY | {"prompt": "a"}, timeout=60).status_code

            began = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(5) as pool:
                statuses = list(pool.map(ask, range(5)))
            assert set(statuses) <= {503, 504}
            assert time.monotonic() - began < 6  # not 5 times 2 seconds


def test_who_leaves_while_the_server_is_asked_takes_nothing_from_the_others(exported, server):
    async def main():
        model = GrpcModel(f"127.0.0.1:{server.ports.grpc}", "default", 30)
        backend = RemoteBackend(model, config(exported.base), ServerMetrics())

        async def version():
            async with backend.hold(None) as held:
                return held.version

        leaves, stays = asyncio.ensure_future(version()), asyncio.ensure_future(version())
        await asyncio.sleep(0)
        leaves.cancel()
        try:
            assert await asyncio.wait_for(stays, 30) == await version()
            with pytest.raises(asyncio.CancelledError):
                await leaves
        finally:
            model.close()

    asyncio.run(main())


def push(exported, base, number, damaged=False):
    """Push version 1 under another number; a damaged one lacks what the gateway reads."""
    aside = base / ".pushing"
    shutil.copytree(exported.base / "1", aside)
    if damaged:
        (aside / "assets.extra" / "model.json").unlink()
    os.rename(aside, base / str(number))


def test_a_version_that_the_gateway_cannot_read_takes_no_others_place(exported, tmp_path):
    push(exported, tmp_path, 1)
    options = config(tmp_path, poll_seconds=0.1)
    with ServerThread(options) as thread:
        url = f"http://127.0.0.1:{thread.ports.rest}/v1"
        push(exported, tmp_path, 2, damaged=True)
        deadline = time.monotonic() + 60
        while "model.json" not in (text := httpx.get(f"{url}/models/default").text):
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        answer = httpx.post(f"{url}/completions", json=GREEDY | {"prompt": "a"}, timeout=60)
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, "1")


def test_a_gateway_names_the_version_whose_files_it_cannot_read(exported, server, tmp_path):
    for number in (1, 2):
        push(exported, tmp_path, number, damaged=True)
    run = functools.partial(serve_gateway, f"127.0.0.1:{server.ports.grpc}")
    with ServerThread(config(tmp_path), run) as thread:
        url = f"http://127.0.0.1:{thread.ports.rest}"
        answer = httpx.post(f"{url}/v1/completions", json=GREEDY | {"prompt": "a"}, timeout=60)
        assert answer.status_code == 503
        assert "model.json" in answer.json()["error"]["message"]
        assert httpx.get(f"{url}/readyz").status_code == 503


def test_a_stream_that_outlasts_the_servers_end_is_told(exported, loaded_once, monkeypatch):
    step = SignatureSteps.step

    def slow(self, tokens, positions):
        time.sleep(0.2)
        return step(self, tokens, positions)

    lines, begun = [], threading.Event()
    body = GREEDY | {"prompt": "Returns", "max_tokens": 40, "stream": True, "stop": None}

    def read():
        with httpx.stream("POST", url, json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                begun.set()

    with ServerThread(config(exported.base, deadline_seconds=3)) as thread:
        url = f"http://127.0.0.1:{thread.ports.rest}/v1/completions"
        while httpx.post(url, json=body | {"stream": False}, timeout=60).status_code != 200:
            pass  # until it is compiled
        monkeypatch.setattr(SignatureSteps, "step", slow)
        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(30)
    reader.join(30)
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "choices" in events[0]
    assert events[-1]["error"]["type"] == "server_error"
