"""Both ports under random and damaged requests: right codes, alive, memory flat."""

import json
import random

import grpc
import httpx
import psutil
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

REST_CODES = {200, 400, 404, 405, 413, 422, 429}
GRPC_CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,  # gRPC's own answer to bytes that are no message
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNIMPLEMENTED,
}
LEAVES = [None, True, -1, 0, 3, 2**70, 1.5, -1e308, "", "a", "\x00", "\ud7ff", "x" * 500, [], {},
          [[]], {"b64": "//4="}, {"b64": 1}, "日本語", [1, [2]], 340, 339]  # fmt: skip
KEYS = ["text", "token_ids", "max_new_tokens", "temperature", "top_k", "top_p", "seed",
        "truncate_prompt", "examples", "other"]  # fmt: skip
SIGNATURES = ["score", "generate", "embed", "score_ids", "generate_ids", "embed_ids", "evaluate",
              "serving_default", "", "other", "__saved_model_init_op"]  # fmt: skip


def value(rng, depth=2):
    if depth and rng.random() < 0.5:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return rng.choice(LEAVES)


def body(rng):
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(200))
    document = {"signature_name": rng.choice(SIGNATURES)}
    columns = {rng.choice(KEYS): value(rng) for _ in range(rng.randrange(4))}
    if rng.random() < 0.6:
        document["inputs"] = rng.choice([columns, value(rng)])
    if rng.random() < 0.5:
        document["instances"] = rng.choice([[columns] * rng.randrange(3), value(rng)])
    text = bytearray(json.dumps(document).encode())
    if rng.random() < 0.3:  # damaged on the way
        for _ in range(3):
            text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(text)


def path(rng):
    if rng.random() < 0.8:
        return "/v1/models/default:predict"
    parts = ["v1", "models", "default", "..", "%2e%2e", "versions", "labels", "2", "-1", "canary",
             "metadata", ":predict", "default:predict", "%00", "9" * 30]  # fmt: skip
    return "/" + "/".join(rng.choice(parts) for _ in range(rng.randrange(6)))


def message(rng):
    if rng.random() < 0.2:
        return rng.randbytes(rng.randrange(200))
    request = predict_pb2.PredictRequest()
    request.model_spec.name = rng.choice(["default", "default", "default", "", "../x"])
    request.model_spec.signature_name = rng.choice(SIGNATURES)
    if rng.random() < 0.1:
        request.model_spec.version.value = rng.choice([0, 2, -1, 2**62])
    for _ in range(rng.randrange(4)):
        tensor = request.inputs[rng.choice(KEYS)]
        good = rng.choice([["a"], [b"\xff"], [[4, 5]], [3], [0.5], [True], "a", [1, 2, 3]])
        tensor.CopyFrom(tf.make_tensor_proto(good))
        if rng.random() < 0.3:
            tensor.tensor_shape.dim.add(size=rng.choice([0, 1, 5, 2**40, -1]))
        if rng.random() < 0.2:
            tensor.dtype = rng.choice([0, 1, 3, 7, 10, 999])
    data = bytearray(request.SerializeToString())
    if data and rng.random() < 0.2:
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


@pytest.mark.parametrize(
    "requests", [400, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_random_requests_do_no_harm(server, requests):
    rng = random.Random(requests)
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{server.ports.rest}", timeout=60) as rest,
        grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}") as channel,
    ):
        predict = "/tensorflow.serving.PredictionService/Predict"
        send = channel.unary_unary(predict, lambda x: x, lambda x: x)
        statuses, before = {}, None
        for i in range(requests):
            if i == requests // 2:
                before = psutil.Process().memory_info().rss
            request = rest.build_request(rng.choice(["POST"] * 9 + ["GET"]), "/", content=body(rng))
            request.url = request.url.copy_with(raw_path=path(rng).encode())
            response = rest.send(request)
            assert response.status_code in REST_CODES, (response.text, request.content)
            if response.status_code != 200:
                statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            data = message(rng)
            try:
                send(data, timeout=60)
                code = grpc.StatusCode.OK
            except grpc.RpcError as error:
                code = error.code()
            assert code in GRPC_CODES, data
            statuses[code] = statuses.get(code, 0) + 1
        grown = psutil.Process().memory_info().rss - before
        assert rest.get("/readyz").status_code == 200
        assert rest.post("/v1/models/default:predict", json={"instances": ["still alive"]}).json()[
            "predictions"
        ]
    assert {400, 404, grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= set(statuses)
    assert grown < 64 * 2**20
