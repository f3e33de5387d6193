"""The OpenAI-compatible API over a real port, beside what the model's signatures compute."""

import base64
import concurrent.futures
import functools
import json
import os
import shutil
import socket
import struct
import subprocess
import threading
import time

import httpx
import numpy as np
import pytest
import tensorflow as tf

from serving.app import ServerThread
from serving.client import Client, ServingError
from serving.gateway.app import serve_gateway
from serving.gateway.signature_steps import SignatureSteps
from serving.server.config import ServerConfig
from serving.server.errors import Code, RequestError
from tokenmill.contracts.chat import read_chat_format
from tokenmill.errors import TokenmillError
from tokenmill.text.chat import Chat
from tokenmill.text.tokenizers.load import read_tokenizer

PROMPTS = ["Returns the", "", "A layer", "Straße €"]
GREEDY = {"model": "default", "temperature": 0}


def config(base, **options):
    options = {"rest_port": 0, "grpc_port": 0, "poll_seconds": 0.05, "openai": True, **options}
    return ServerConfig(str(base), **options)


@pytest.fixture(scope="module")
def gateway(exported, load_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.server.versions.LoadedModel", load_once)
        with ServerThread(config(exported.base)) as thread:
            yield thread


@pytest.fixture(scope="module")
def chat_gateway(chat_base, load_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.server.versions.LoadedModel", load_once)
        with ServerThread(config(chat_base, max_queued_rows=6, max_batch_size=1)) as thread:
            yield thread


def client_of(thread):
    return httpx.Client(base_url=f"http://127.0.0.1:{thread.ports.rest}", timeout=60)


@pytest.fixture(scope="module")
def api(gateway):
    with client_of(gateway) as client:
        yield client


@pytest.fixture(scope="module")
def chat_api(chat_gateway):
    with client_of(chat_gateway) as client:
        yield client


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported.base / "2")).signatures


@pytest.fixture(scope="module")
def tokenizer(exported):
    return read_tokenizer(exported.tokenizer)


def ids_of(tokenizer, text):
    return tokenizer.tokenize(tf.constant([text])).to_list()[0]


def complete(api, **body):
    answer = api.post("/v1/completions", json=GREEDY | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events_of(api, path, body):
    """The events of a stream, without the last, which says that it is done."""
    with api.stream("POST", path, json=body | {"stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    assert text.endswith("data: [DONE]\n\n")
    lines = text.split("\n\n")[:-2]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def metric(api, name, *labels):
    lines = api.get("/metrics").text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith(name) and all(label in line for label in labels)
    )


def test_greedy_and_seeded_answers_are_those_of_generate(api, gateway):
    with Client(f"127.0.0.1:{gateway.ports.grpc}") as client:
        for options in (
            {"temperature": 0.0},
            {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 5},
        ):
            wanted = client.generate(PROMPTS, max_new_tokens=9, **options)
            got = complete(api, prompt=PROMPTS, max_tokens=9, **options)
            assert [c["index"] for c in got["choices"]] == [0, 1, 2, 3]
            for choice, row in zip(got["choices"], wanted, strict=True):
                assert choice["finish_reason"] == row["finish_reason"]
                # SentencePiece and Unicode count U+FFFD of a broken character in two ways.
                assert choice["text"].replace("\ufffd", "") == row["text"].replace("\ufffd", "")
            assert got["usage"]["prompt_tokens"] == sum(r["prompt_tokens"] for r in wanted)
            assert got["usage"]["completion_tokens"] == sum(r["completion_tokens"] for r in wanted)
    assert got["usage"]["total_tokens"] == sum(list(got["usage"].values())[:2])
    assert got["model"] == "default"
    assert got["object"] == "text_completion"


def test_ids_are_continued_as_their_text_is_with_and_without_begin(api, tokenizer):
    ids = ids_of(tokenizer, "Returns the")
    whole = complete(api, prompt="Returns the", max_tokens=7)
    for prompt in (ids, [2, *ids], [ids], [[2, *ids]]):
        other = complete(api, prompt=prompt, max_tokens=7)
        assert other["choices"] == whole["choices"]
        assert other["usage"] == whole["usage"]
    without = complete(api, prompt="Returns the", max_tokens=7, add_special_tokens=False)
    assert without["choices"] != whole["choices"]


@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_is_the_whole_answer_piece_by_piece(api, echo):
    body = {
        "prompt": PROMPTS, "max_tokens": 9, "n": 2, "logprobs": 2, "echo": echo,
        "temperature": 0.9, "seed": 3, "stream_options": {"include_usage": True},
    }  # fmt: skip
    events = events_of(api, "/v1/completions", GREEDY | body)
    del body["stream_options"]
    whole = complete(api, **body)
    *parts, last = events
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert len({event["id"] for event in events}) == 1
    order = [event["choices"][0]["index"] for event in parts]
    assert order != sorted(order)  # all of them at once
    for choice in whole["choices"]:
        mine = [e["choices"][0] for e in parts if e["choices"][0]["index"] == choice["index"]]
        assert len(mine) > 1
        assert "".join(c["text"] for c in mine) == choice["text"]
        reasons = [c["finish_reason"] for c in mine]
        assert reasons == [None] * (len(mine) - 1) + [choice["finish_reason"]]
        for key, values in choice["logprobs"].items():
            streamed = [value for c in mine for value in c["logprobs"][key]]
            if "logprobs" not in key:
                assert streamed == values
                continue
            for one, other in zip(streamed, values, strict=True):
                # The same up to rounding: they were computed in batches of other sizes.
                assert one == (None if other is None else pytest.approx(other, abs=1e-5))
        # Of a token that is a part of a character the character counts.
        starts = choice["logprobs"]["text_offset"]
        assert starts == sorted(starts)
        for start, token in zip(starts, choice["logprobs"]["tokens"], strict=True):
            if not token.startswith(("token_id:", "<")):
                assert choice["text"][start : start + len(token)] == token


def test_choices_have_seeds_of_their_own_and_the_first_that_of_the_request(api):
    body = {"prompt": "A", "max_tokens": 12, "temperature": 1.0}
    one = complete(api, **body, seed=7)["choices"]
    many = complete(api, **body, seed=7, n=4, best_of=4)["choices"]
    assert many[0] == one[0]
    assert len({c["text"] for c in many}) > 1
    assert complete(api, **body, seed=8)["choices"][0]["text"] == many[1]["text"]
    drawn = {complete(api, **body)["choices"][0]["text"] for _ in range(4)}
    assert len(drawn) > 1


def test_values_that_float32_has_not_are_the_likeliest_token(api):
    wanted = complete(api, prompt="Returns", max_tokens=6)["choices"]
    for body in ({"top_p": 5e-324}, {"temperature": 5e-324}, {"temperature": 1e-7}):
        assert (
            complete(api, prompt="Returns", max_tokens=6, **{"temperature": 1} | body)["choices"]
            == wanted
        )
    complete(api, prompt="Returns", max_tokens=6, repetition_penalty=0.01, temperature=1e-5)


def log_softmax(signatures, ids):
    logits = signatures["logits_ids"](token_ids=tf.constant([ids]))["logits"].numpy()[0]
    wide = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(1, keepdims=True))


@pytest.mark.parametrize("text", ["Returns the sum of all.", "Straße € 日本", "a"])
def test_echoed_log_probabilities_are_those_of_the_model(api, tokenizer, signatures, text):
    ids = ids_of(tokenizer, text)
    scores = log_softmax(signatures, [2, *ids])
    for prompt in (text, ids):
        choice = complete(api, prompt=prompt, max_tokens=1, echo=True, logprobs=3)["choices"][0]
        logged = choice["logprobs"]
        assert {len(values) for values in logged.values()} == {len(ids) + 1}
        assert logged["token_logprobs"][0] is None
        assert logged["top_logprobs"][0] is None
        for place in range(1, len(ids)):
            wanted = scores[place]  # after begin and `place` tokens
            value = logged["token_logprobs"][place]
            assert value == pytest.approx(wanted[ids[place]], abs=1e-5)
            top = logged["top_logprobs"][place]
            best = np.sort(wanted)[::-1][:3]
            assert sorted(top.values())[::-1][:3] == pytest.approx(best, abs=1e-5)
            greedy = int(np.argmax(wanted)) == ids[place]
            assert (value == max(top.values())) is greedy
        assert max(logged["top_logprobs"][-1].values()) == logged["token_logprobs"][-1]
        assert choice["text"].startswith(text)
    begun = complete(api, prompt=[2, *ids], max_tokens=0, echo=True, logprobs=1)["choices"][0]
    values = begun["logprobs"]["token_logprobs"]
    assert len(values) == len(ids) + 1
    assert values[0] is None
    wanted = [scores[place][i] for place, i in enumerate(ids)]
    assert values[1:] == pytest.approx(wanted, abs=1e-5)
    assert begun["text"] == text
    assert begun["finish_reason"] == "length"


def test_the_sum_of_echoed_log_probabilities_is_the_score(api, gateway, signatures, tokenizer):
    text = "Raises ValueError."
    ids = ids_of(tokenizer, text)
    choice = complete(api, prompt=[2, *ids, 3], max_tokens=0, echo=True, logprobs=0)["choices"][0]
    with Client(f"127.0.0.1:{gateway.ports.grpc}") as client:
        (row,) = client.score([text])
    total = sum(choice["logprobs"]["token_logprobs"][1:])
    assert total == pytest.approx(row["log_likelihood"], rel=1e-5)
    assert choice["logprobs"]["tokens"][-1] == "</s>"


def test_prompts_of_the_context_less_two_have_one_token_more(api):
    """As lm-evaluation-harness sends: begin, prompt and the one token fill the context."""
    answer = complete(api, prompt=[[50] * 46], max_tokens=1, echo=True, logprobs=1)
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == 47
    for prompt, new in (([50] * 47, 1), ([50] * 46, 2), ("a" * 200, 1)):
        refused = api.post("/v1/completions", json=GREEDY | {"prompt": prompt, "max_tokens": new})
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        assert "47 tokens" in refused.json()["error"]["message"]
    assert complete(api, prompt=[50] * 40)["usage"]["completion_tokens"] <= 7


def test_stop_strings_end_answers_and_are_no_part_of_them(api):
    whole = complete(api, prompt="Returns", max_tokens=30, temperature=0.7, seed=1)["choices"][0]
    text = whole["text"]
    places = [i for i in range(4, len(text) - 3) if text.find(text[i : i + 3]) == i]
    for place in places[:3]:
        body = {"prompt": "Returns", "max_tokens": 30, "temperature": 0.7, "seed": 1, "logprobs": 0}
        body["stop"] = ["nowhere", text[place : place + 3]]
        choice = complete(api, **body)["choices"][0]
        assert choice["text"] == text[:place]
        assert choice["finish_reason"] == "stop"
        assert all(start < place for start in choice["logprobs"]["text_offset"])
        events = events_of(api, "/v1/completions", GREEDY | body)
        assert "".join(e["choices"][0]["text"] for e in events) == text[:place]
        assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_end_of_a_text_ends_its_answer(api):
    for seed in range(60):
        body = {"prompt": "A", "max_tokens": 40, "temperature": 1.5, "seed": seed, "logprobs": 0}
        answer = complete(api, **body)
        choice = answer["choices"][0]
        if choice["finish_reason"] == "stop":
            assert choice["logprobs"]["tokens"][-1] == "</s>"
            assert answer["usage"]["completion_tokens"] == len(choice["logprobs"]["tokens"]) - 1
            return
    pytest.fail("no seed ended a text")


TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
CHAT = {"model": "default", "messages": TALK, "temperature": 0, "max_tokens": 12}


def test_chat_is_the_signature_of_that_name(chat_api, chat_gateway, chat_base):
    prompt = Chat(read_chat_format(str(chat_base / "1" / "assets.extra"))).prompt(TALK)
    answer = chat_api.post("/v1/chat/completions", json=CHAT).json()
    with Client(f"127.0.0.1:{chat_gateway.ports.grpc}") as client:
        row = client.predict("chat", {"prompt": [prompt], "max_new_tokens": 12})[0]
    choice = answer["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].replace("\ufffd", "") == row["text"].replace("\ufffd", "")
    assert choice["finish_reason"] == row["finish_reason"]
    assert answer["usage"]["prompt_tokens"] == row["prompt_tokens"]
    assert answer["usage"]["completion_tokens"] == row["completion_tokens"]
    parts = [dict(turn, content=[{"type": "text", "text": turn["content"]}]) for turn in TALK]
    again = chat_api.post("/v1/chat/completions", json=CHAT | {"messages": parts}).json()
    assert again["choices"] == answer["choices"]


def test_chat_streams_with_log_probabilities(chat_api):
    body = CHAT | {"n": 2, "seed": 1, "temperature": 0.8, "logprobs": True, "top_logprobs": 2}
    whole = chat_api.post("/v1/chat/completions", json=body).json()
    usage = {"stream_options": {"include_usage": True}}
    *parts, last = events_of(chat_api, "/v1/chat/completions", body | usage)
    assert last["usage"] == whole["usage"]
    for choice in whole["choices"]:
        mine = [e["choices"][0] for e in parts if e["choices"][0]["index"] == choice["index"]]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        content = "".join(c["delta"].get("content", "") for c in mine)
        assert content == choice["message"]["content"]
        tokens = [t for c in mine if c["logprobs"] for t in c["logprobs"]["content"]]
        logged = choice["logprobs"]["content"]
        assert [t["token"] for t in tokens] == [t["token"] for t in logged]
        assert all(len(t["top_logprobs"]) == 2 for t in logged)
        values = b"".join(bytes(t["bytes"] or []) for t in logged)
        assert values.decode("utf-8", "replace") == content
        assert mine[-1]["finish_reason"] == choice["finish_reason"]


def test_embeddings_are_those_of_the_signature_in_both_encodings(api, signatures, tokenizer):
    texts = [f"{text} {number}" for number in range(9) for text in ("a tensor", "Ü")]
    wanted = signatures["embed"](text=tf.constant(texts))["embedding"].numpy()
    body = {"model": "default", "input": texts}
    answer = api.post("/v1/embeddings", json=body).json()
    got = [row["embedding"] for row in answer["data"]]
    assert np.array(got) == pytest.approx(wanted, abs=1e-5)
    counts = [len(ids_of(tokenizer, text)) for text in texts]
    assert answer["usage"] == {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    packed = api.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()
    raw = base64.b64decode(packed["data"][3]["embedding"])
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(got[3], abs=1e-6)
    ids = api.post("/v1/embeddings", json=body | {"input": ids_of(tokenizer, "Ü 3")}).json()
    assert ids["data"][0]["embedding"] == pytest.approx(got[texts.index("Ü 3")], abs=1e-5)
    long = api.post("/v1/embeddings", json=body | {"input": "a" * 500})
    assert long.json()["error"]["code"] == "context_length_exceeded"


def test_texts_are_tokenized_and_come_back(api, tokenizer):
    for text in ("Returns the", "", "Straße €\n x", "<s> a", "</s></s>"):
        plain = api.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()
        assert plain["tokens"] == ids_of(tokenizer, text)
        assert plain["count"] == len(plain["tokens"])
        begun = api.post("/tokenize", json={"prompt": text, "model": "default"}).json()
        assert begun["tokens"] == [2, *plain["tokens"]]
        back = api.post("/detokenize", json={"tokens": begun["tokens"]}).json()
        assert back == {"prompt": text}
    info = api.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"], info["chat_template"]) == ("<s>", "</s>", None)
    for name, i in (("bos", 2), ("eos", 3), ("pad", 0), ("unk", 1)):
        for special in (True, False):
            body = {"prompt": info[f"{name}_token"], "add_special_tokens": special}
            assert api.post("/tokenize", json=body).json()["tokens"] == [i]


def test_models_and_the_other_api_share_the_port(api, chat_api):
    (model,) = api.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("default", "model", 47)
    assert api.get("/v1/models/default").json()["model_version_status"][0]["state"] == "AVAILABLE"
    body = {"instances": ["a"]}
    assert api.post("/v1/models/default:predict", json=body).status_code == 200
    template = chat_api.get("/tokenizer_info").json()["chat_template"]
    assert "<|im_start|>" in template


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/v1/completions", {"prompt": "a", "model": "other"}, 404, "model"),
        ("/v1/completions", {"prompt": [9999]}, 400, "prompt"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        ("/v1/completions", {"prompt": "a", "best_of": 3}, 400, "best_of"),
        ("/v1/completions", {"prompt": "", "add_special_tokens": False}, 400, "prompt"),
        ("/v1/completions", {"prompt": ["a"] * 100, "n": 21}, 400, "n"),
        ("/v1/chat/completions", {"messages": TALK}, 400, "model"),
        ("/v1/embeddings", {"input": [9999]}, 400, "input"),
        ("/detokenize", {"tokens": [340]}, 400, "tokens"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_openais_form(api, path, body, status, field, stream):
    if stream and "completions" in path:
        body = body | {"stream": True}
    answer = api.post(path, json={"model": "default"} | body, headers={"x-request-id": "mine"})
    assert answer.status_code == status
    assert answer.headers["x-request-id"] == "mine"
    error = answer.json()["error"]
    assert error["param"] == field
    assert set(error) == {"message", "type", "param", "code"}


def test_options_of_streams_need_a_stream(api, chat_api):
    for client, path, body in (
        (api, "/v1/completions", GREEDY | {"prompt": "a"}),
        (chat_api, "/v1/chat/completions", CHAT),
    ):
        answer = client.post(path, json=body | {"stream_options": {}})
        assert answer.json()["error"]["param"] == "stream_options"


def test_paths_methods_and_bodies_that_are_refused(api, exported, loaded_once):
    for method, path in (("GET", "/v1/completions"), ("PUT", "/tokenize"), ("POST", "/v1/models")):
        answer = api.request(method, path)
        assert answer.status_code == 405
        assert answer.headers["allow"]
        assert answer.json()["error"]["message"].startswith("use ")
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
        answer = api.post("/v1/completions", json=GREEDY | {"prompt": "a"}, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["type"] == "permission_error"
    assert api.post("/v1/completions", content=b"x" * (1 << 20) + b"x").status_code == 413
    with (
        ServerThread(config(exported.base, kv_cache_bytes=70_000)) as thread,
        client_of(thread) as c,
    ):
        answer = c.post("/v1/completions", json=GREEDY | {"prompt": "a", "n": 128})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "n"
    assert "--max-streams" in answer.json()["error"]["message"]


def test_a_large_batch_runs_through_in_windows(api):
    prompts = [f"a {number}" for number in range(150)]
    answer = complete(api, prompt=prompts, max_tokens=2, echo=True, logprobs=1)
    texts = [choice["text"] for choice in answer["choices"]]
    assert all(t.startswith(p) for t, p in zip(texts, prompts, strict=True))


def test_requests_are_counted(api):
    labels = ('protocol="openai"', 'signature="completions"', 'code="OK"')
    before = metric(api, "tokenmill_requests_total", *labels)
    tokens = metric(api, "tokenmill_tokens_total", 'signature="completions"')
    usage = complete(api, prompt="Returns", max_tokens=3)["usage"]
    assert metric(api, "tokenmill_requests_total", *labels) == before + 1
    counted = metric(api, "tokenmill_tokens_total", 'signature="completions"')
    assert counted == tokens + usage["total_tokens"]
    api.post("/v1/completions", json={"model": "default", "prompt": 5})
    assert metric(api, "tokenmill_requests_total", *labels[:2], 'code="INVALID_ARGUMENT"') >= 1


def test_the_request_log_has_sizes_and_no_texts(exported, loaded_once, tmp_path):
    log = tmp_path / "requests.jsonl"
    options = config(exported.base, request_log=str(log))
    with ServerThread(options) as thread, client_of(thread) as api:
        usage = complete(api, prompt=["Straße", "a b"], max_tokens=2, user="me")["usage"]
        api.post("/v1/completions", json={"model": "default", "prompt": "a", "n": 0})
    first, second = map(json.loads, log.read_text().splitlines())
    assert (first["protocol"], first["signature"], first["code"]) == ("openai", "completions", "OK")
    assert first["tokens"] == usage["total_tokens"]
    assert first["text_characters"] == [6, 3]
    assert first["user"]
    assert "Straße" not in log.read_text()
    assert second["code"] == "INVALID_ARGUMENT"


LONG = CHAT | {"max_tokens": 900, "n": 4, "temperature": 1.2, "seed": 3}


def streams_of(chat_api):
    return metric(chat_api, "tokenmill_requests_total", 'code="CANCELLED"')


def wait_until(condition, seconds=20):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to be"
        time.sleep(0.01)


@pytest.mark.parametrize("moment", ["after the first event", "before it", "whole answer"])
def test_a_client_that_leaves_frees_its_place(chat_api, chat_gateway, moment):
    """Seven requests are admitted at once; twenty come, and each leaves."""
    body = json.dumps(LONG | {"stream": moment != "whole answer"}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode()
    for _ in range(20):
        left = streams_of(chat_api)
        with socket.create_connection(("127.0.0.1", chat_gateway.ports.rest)) as connection:
            connection.sendall(head + body)
            if moment == "after the first event":
                assert b"200 OK" in connection.recv(1000)
            elif moment == "whole answer":
                time.sleep(0.1)
        wait_until(lambda left=left: streams_of(chat_api) == left + 1)
    answer = chat_api.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200


def test_more_than_can_be_served_are_shed_and_the_others_answered(chat_api, chat_gateway):
    shed = metric(chat_api, "tokenmill_shed_requests_total")
    body = CHAT | {"max_tokens": 300, "temperature": 1.0, "seed": 1}
    barrier = threading.Barrier(16)

    def ask(_):
        with client_of(chat_gateway) as client:
            barrier.wait()
            return client.post("/v1/chat/completions", json=body)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert len({a.json()["choices"][0]["message"]["content"] for a in answers if a.is_success}) == 1
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert metric(chat_api, "tokenmill_shed_requests_total") == shed + statuses.count(429)


def test_the_deadline_is_for_the_first_token(chat_api, monkeypatch):
    headers = {"x-timeout-seconds": "0.0001"}
    answer = chat_api.post("/v1/chat/completions", json=LONG, headers=headers)
    assert answer.status_code == 504
    assert answer.json()["error"]["type"] == "timeout_error"
    real = SignatureSteps.step

    def slow(self, tokens, positions):
        time.sleep(0.05)
        return real(self, tokens, positions)

    monkeypatch.setattr(SignatureSteps, "step", slow)
    started = time.monotonic()
    body = CHAT | {"max_tokens": 60, "messages": TALK[1:]}
    answer = chat_api.post("/v1/chat/completions", json=body, headers={"x-timeout-seconds": "2"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 60
    assert time.monotonic() - started > 2


def test_an_error_within_a_stream_is_its_last_event(chat_gateway, chat_api, monkeypatch):
    steps = []
    real = SignatureSteps.step

    def broken(self, tokens, positions):
        steps.append(1)
        if len(steps) == 5:
            raise RequestError(Code.INTERNAL, "out of luck")
        return real(self, tokens, positions)

    monkeypatch.setattr(SignatureSteps, "step", broken)
    with chat_api.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
        text = "".join(answer.iter_text())
    assert answer.status_code == 200
    last = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["message"] == "out of luck"
    assert last["error"]["type"] == "server_error"
    assert "[DONE]" not in text
    assert chat_api.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_a_stream_that_nobody_reads_is_ended(chat_base, loaded_once):
    with ServerThread(config(chat_base, idle_seconds=1.0)) as thread, client_of(thread) as api:
        body = LONG | {"stream": True, "n": 64, "logprobs": True, "top_logprobs": 20}
        body = json.dumps(body | {"max_tokens": 700}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}"
        )
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 5000)
            connection.connect(("127.0.0.1", thread.ports.rest))
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            wait_until(lambda: streams_of(api) == 1, 60)


def write_keys(path, text, mode=0o600):
    path.write_text(text)
    os.chmod(path, mode)
    return str(path)


def bearer(key):
    return {} if key is None else {"authorization": f"Bearer {key}".strip()}


def test_keys_are_asked_for_everywhere_but_where_health_is(exported, loaded_once, tmp_path):
    keys = write_keys(
        tmp_path / "keys", "\ufeff# ours\r\nfirst-key\r\n\nsecond#key # of the tests\n"
    )
    with ServerThread(config(exported.base, api_keys=keys)) as thread, client_of(thread) as api:
        for key, status in (
            (None, 401), ("", 401), ("first", 401), ("first-key-", 401), ("# ours", 401),
            ("first-key", 200), ("second#key", 200), ("second", 401),
        ):  # fmt: skip
            headers = bearer(key)
            body = GREEDY | {"prompt": "a", "max_tokens": 1}
            answer = api.post("/v1/completions", json=body, headers=headers)
            assert answer.status_code == status, (key, answer.text)
            assert api.get("/v1/models", headers=headers).status_code == status
            predict = {"instances": ["a"]}
            answered = api.post("/v1/models/default:predict", json=predict, headers=headers)
            assert answered.status_code == status
            if status == 401:
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
        for open_path in ("/healthz", "/readyz", "/metrics"):
            assert api.get(open_path).status_code == 200
        for address in (f"127.0.0.1:{thread.ports.grpc}", f"http://127.0.0.1:{thread.ports.rest}"):
            with Client(address) as client, pytest.raises(ServingError, match="UNAUTHENTICATED"):
                client.score(["a"])
            with Client(address, api_key="second#key") as client:
                assert client.score(["a"])[0]["token_count"] > 1


def test_a_file_of_keys_is_read_anew(exported, loaded_once, tmp_path):
    path = tmp_path / "keys"
    keys = write_keys(path, "first-key\n")
    with ServerThread(config(exported.base, api_keys=keys)) as thread, client_of(thread) as api:

        def statuses(*names):
            return [api.get("/v1/models", headers=bearer(key)).status_code for key in names]

        assert statuses("first-key", "third-key") == [200, 401]
        write_keys(path, "third-key\n")
        assert statuses("first-key", "third-key") == [401, 200]
        write_keys(path, "fourth-key\n", 0o644)  # no secret: the keys before it stay
        assert statuses("fourth-key", "third-key") == [401, 200]
        path.unlink()
        assert statuses("fourth-key", "third-key") == [401, 200]
        write_keys(path, "")
        assert statuses("fourth-key", "third-key") == [401, 401]


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("key\n", 0o644, "chmod 600"),
        ("key\n", 0o620, "chmod 600"),
        ("# none\n", 0o600, "no API key"),
        ("key\nclé\n", 0o600, "line 2"),
        ("two words\n", 0o600, "line 1"),
    ],
)
def test_a_file_that_is_no_secret_or_has_no_key_is_refused(
    exported, loaded_once, tmp_path, text, mode, words
):
    keys = write_keys(tmp_path / "keys", text, mode)
    with (
        pytest.raises(TokenmillError, match=words),
        ServerThread(config(exported.base, api_keys=keys)),
    ):
        pass


def test_without_keys_any_key_will_do(api):
    for header in ("Bearer", "Bearer x", "Basic x"):
        answer = api.get("/v1/models", headers={"authorization": header})
        assert answer.status_code == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(gateway):
    url = f"http://127.0.0.1:{gateway.ports.rest}/v1/completions"
    body = json.dumps(GREEDY | {"prompt": "Returns", "max_tokens": 5})
    command = ["curl", "-sS", "-H", "content-type: application/json", "-d"]
    whole = subprocess.run([*command, body, url], capture_output=True, check=True, timeout=60)
    choice = json.loads(whole.stdout)["choices"][0]
    streaming = body[:-1] + ', "stream": true}'
    stream = subprocess.run(
        [*command, streaming, "-N", url], capture_output=True, check=True, timeout=60
    )
    lines = [line for line in stream.stdout.decode().splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(p["choices"][0]["text"] for p in pieces) == choice["text"]


def test_a_gateway_elsewhere_answers_as_the_one_within_the_server(api, gateway, exported):
    run = functools.partial(serve_gateway, f"127.0.0.1:{gateway.ports.grpc}")
    with ServerThread(config(exported.base), run) as thread, client_of(thread) as other:
        assert other.get("/readyz").json() == {"status": "ready"}
        for body in (
            {"prompt": PROMPTS, "max_tokens": 9},
            {"prompt": PROMPTS, "max_tokens": 9, "temperature": 0.8, "seed": 3, "n": 2},
        ):
            assert complete(other, **body)["choices"] == complete(api, **body)["choices"]
        body = {"prompt": "Returns the sum.", "max_tokens": 1, "echo": True, "logprobs": 1}
        mine, theirs = (complete(client, **body)["choices"][0] for client in (other, api))
        assert mine["text"] == theirs["text"]
        values = [choice["logprobs"]["token_logprobs"][1:] for choice in (mine, theirs)]
        assert values[0] == pytest.approx(values[1], abs=1e-5)
        assert other.get("/v1/models/default").json()["id"] == "default"
        refused = other.get("/v1/models/other")
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model")
        assert other.get("/nowhere").json()["error"]["message"].startswith("no path")
        vectors = [
            c.post("/v1/embeddings", json={"model": "default", "input": "a"}).json()
            for c in (other, api)
        ]
        assert vectors[0] == vectors[1]
        assert metric(other, "tokenmill_requests_total", 'signature="completions"') == 3


def test_a_gateway_without_its_server_says_so(exported):
    run = functools.partial(serve_gateway, "127.0.0.1:9")
    options = config(exported.base, deadline_seconds=2)
    with ServerThread(options, run) as thread, client_of(thread) as api:
        assert api.get("/healthz").status_code == 200
        assert api.get("/readyz").status_code == 503
        answer = api.post("/v1/completions", json=GREEDY | {"prompt": "a"})
        assert answer.status_code in (503, 504)
        assert answer.json()["error"]["type"] in ("server_error", "timeout_error")
