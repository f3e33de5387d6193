"""What a request may hold: the rest is refused by its name."""

import json

import pytest

from serving.gateway.errors import FieldError, error_body, error_response
from serving.gateway.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
    read_request,
)
from serving.server.errors import Code, RequestError

COMPLETION = {"model": "m", "prompt": "Hi"}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
EMBEDDING = {"model": "m", "input": "Hi"}
MODELS = {
    "completion": (CompletionRequest, COMPLETION),
    "chat": (ChatRequest, CHAT),
    "embedding": (EmbeddingRequest, EMBEDDING),
    "tokenize": (TokenizeRequest, {"prompt": "Hi"}),
    "detokenize": (DetokenizeRequest, {"tokens": [1]}),
}


def read(kind, **values):
    model, body = MODELS[kind]
    return read_request(json.dumps(body | values).encode(), model)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("completion", {"n": 1, "best_of": 1, "logit_bias": {}, "suffix": ""}),
        ("completion", {"prompt": ["a", ""]}),
        ("completion", {"prompt": ""}),
        ("completion", {"prompt": [5, 6]}),
        ("completion", {"prompt": [[5], [6, 7]]}),
        ("completion", {"stop": ["x"] * 16, "temperature": 0, "top_p": 1, "top_k": -1}),
        ("completion", {"stop": "x", "temperature": 0.0, "logprobs": 0, "echo": False}),
        ("completion", {"stop": [], "stream_options": {"include_usage": True}, "stream": True}),
        ("completion", {"seed": -(2**63), "presence_penalty": -2, "repetition_penalty": 1.1}),
        ("completion", dict.fromkeys(["n", "stop", "max_tokens", "suffix", "min_p"])),
        ("chat", {"max_completion_tokens": 5, "logprobs": True, "top_logprobs": 20}),
        ("chat", {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}}),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}),
        ("embedding", {"input": [[5]], "encoding_format": "base64", "user": "me"}),
        ("tokenize", {"add_special_tokens": False}),
        ("detokenize", {"tokens": []}),
    ],
)
def test_what_is_served_is_read(kind, values):
    body = read(kind, **values)
    for name, value in values.items():
        if value is not None and name in type(body).model_fields and name != "messages":
            found = getattr(body, name)
            assert (found.model_dump() if name == "stream_options" else found) == value


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("completion", "foo", 1),
        ("completion", "foo", None),
        ("completion", "best", True),
        ("completion", "suffix", "end"),
        ("completion", "logit_bias", {"5": 1}),
        ("completion", "n", 129),
        ("completion", "n", 0),
        ("completion", "n", True),
        ("completion", "n", "1"),
        ("completion", "n", 1.0),
        ("completion", "temperature", 2.1),
        ("completion", "temperature", -0.1),
        ("completion", "temperature", "0"),
        ("completion", "temperature", False),
        ("completion", "top_p", 0),
        ("completion", "top_k", -2),
        ("completion", "logprobs", 21),
        ("completion", "logprobs", True),
        ("completion", "echo", 1),
        ("completion", "max_tokens", -1),
        ("completion", "max_tokens", 2**31),
        ("completion", "seed", 2**63),
        ("completion", "seed", 0.5),
        ("completion", "stop", ["x"] * 17),
        ("completion", "stop", ""),
        ("completion", "stop", [""]),
        ("completion", "stop", [5]),
        ("completion", "stop", ["x" * 1001]),
        ("completion", "stream_options", {"include": True}),
        ("completion", "prompt", 5),
        ("completion", "prompt", []),
        ("completion", "prompt", [[]]),
        ("completion", "prompt", ["a", 5]),
        ("completion", "prompt", [5, "a"]),
        ("completion", "prompt", [-1]),
        ("completion", "prompt", [1.5]),
        ("completion", "prompt", [True]),
        ("completion", "prompt", [2**31]),
        ("completion", "prompt", ["a"] * 2049),
        ("completion", "prompt", [[[5]]]),
        ("completion", "min_p", 0.1),
        ("completion", "skip_special_tokens", 1),
        ("completion", "guided_json", {}),
        ("completion", "response_format", {"type": "json_object"}),
        ("chat", "response_format", {"type": "json_schema"}),
        ("chat", "tools", [{"type": "function"}]),
        ("chat", "functions", [{}]),
        ("chat", "function_call", "f"),
        ("chat", "tool_choice", "required"),
        ("chat", "modalities", ["audio"]),
        ("chat", "reasoning_effort", "low"),
        ("chat", "logprobs", 5),
        ("chat", "top_logprobs", 21),
        ("chat", "max_tokens", 0),
        ("chat", "echo", True),
        ("chat", "messages", []),
        ("chat", "messages", "Hi"),
        ("chat", "messages", [{"role": "tool", "content": "x"}]),
        ("chat", "messages", [{"role": "user"}]),
        ("chat", "messages", [{"role": "user", "content": "x", "name": "me"}]),
        ("chat", "messages", [{"role": "user", "content": [{"type": "image_url"}]}]),
        ("embedding", "dimensions", 5),
        ("embedding", "encoding_format", "int8"),
        ("embedding", "input", []),
        ("tokenize", "messages", []),
        ("tokenize", "return_token_strs", True),
        ("detokenize", "tokens", ["a"]),
    ],
)
def test_what_is_not_served_is_refused_by_its_name(kind, field, value):
    with pytest.raises(FieldError) as caught:
        read(kind, **{field: value})
    assert caught.value.field == field
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert field in caught.value.message
    assert len(caught.value.message) < 500
    error = error_body(caught.value)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == field
    assert error["code"]


@pytest.mark.parametrize("kind", MODELS)
def test_a_key_that_is_missing_is_named(kind):
    model, body = MODELS[kind]
    for field in body:
        left = {name: value for name, value in body.items() if name != field}
        with pytest.raises(FieldError, match="missing") as caught:
            read_request(json.dumps(left).encode(), model)
        assert caught.value.field == field


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"5", b"null", b'"text"', b'{"model": NaN}', b'{"model": "\\ud800"}',
        b"[" * 100_000, b'{"prompt": ' * 5000, b"\xff", b'{"prompt": "\xff"}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_object_is_refused(content):
    with pytest.raises(RequestError) as caught:
        read_request(content, CompletionRequest)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert len(caught.value.message) < 300


def test_statuses_have_openais_types():
    for code, kind in (
        (Code.UNAUTHENTICATED, "authentication_error"),
        (Code.RESOURCE_EXHAUSTED, "rate_limit_error"),
        (Code.INTERNAL, "server_error"),
        (Code.TOO_LARGE, "invalid_request_error"),
    ):
        answer = error_response(RequestError(code, "why"))
        assert answer.status_code == code.value
        assert json.loads(answer.body)["error"]["type"] == kind
        assert ("retry-after" in answer.headers) is (code is Code.RESOURCE_EXHAUSTED)
