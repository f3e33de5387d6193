"""The local server, over its real ports."""

import base64
import json
import socket
import threading
import time

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.app import ServerThread
from serving.client import Client, Retry, ServingError
from serving.rollout import Rollout, write_rollout
from serving.server.config import ServerConfig
from serving.server.model import LoadedModel
from tokenmill.errors import TokenmillError
from tokenmill.export.step_signatures import cache_names
from tokenmill.export.warmup_requests import predict_request

TEXT = "Returns the sum of the elements."


def settings(base, **options):
    options = {"rest_port": 0, "grpc_port": 0, "poll_seconds": 0.05, **options}
    return ServerConfig(str(base), **options)


@pytest.fixture(scope="module")
def rest(server):
    with httpx.Client(base_url=f"http://127.0.0.1:{server.ports.rest}", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}") as channel:
        yield channel


@pytest.fixture(params=["rest", "grpc"])
def client(request, server):
    address = (
        f"http://127.0.0.1:{server.ports.rest}"
        if request.param == "rest"
        else f"127.0.0.1:{server.ports.grpc}"
    )
    with Client(address) as client:
        yield client


def predict(rest, body, path="/v1/models/default:predict", **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return rest.post(path, content=content, **options)


def test_rows_and_columns_and_grpc_give_the_same_scores(rest, channel, exported):
    texts = [TEXT, "", "日本語"]
    loaded = tf.saved_model.load(str(exported.base / "2"))  # the newest version
    expected = loaded.signatures["score"](text=tf.constant(texts))
    columns = predict(rest, {"signature_name": "score", "inputs": {"text": texts}}).json()
    rows = predict(rest, {"instances": texts}).json()
    named = predict(rest, {"instances": [{"text": text} for text in texts]}).json()
    assert rows == named
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    request.inputs["text"].CopyFrom(tf.make_tensor_proto(texts))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = stub.Predict(request)
    assert response.model_spec.version.value == 2
    for name, value in expected.items():
        for other in (
            columns["outputs"][name],
            [row[name] for row in rows["predictions"]],
            tf.make_ndarray(response.outputs[name]),
        ):
            other = np.array(other, float)  # what is no number is null in JSON
            np.testing.assert_allclose(other, value.numpy(), rtol=1e-4)


def test_output_filter_leaves_out_the_rest(channel):
    request = predict_pb2.PredictRequest(output_filter=["token_count"])
    request.model_spec.name = "default"
    request.inputs["text"].CopyFrom(tf.make_tensor_proto([TEXT]))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    assert set(stub.Predict(request).outputs) == {"token_count"}


def test_the_client_generates_over_both_ports(client):
    (row,) = client.generate([TEXT], max_new_tokens=5)
    assert 0 <= row["completion_tokens"] <= 5
    assert row["finish_reason"] in ("length", "stop")
    assert row["truncated_tokens"] == 0
    assert isinstance(row["text"], str)
    two = client.generate([TEXT], max_new_tokens=5, temperature=2.0, seed=[1, 2])
    assert len(two) == 2
    (embedding,) = client.embed([TEXT])
    assert len(embedding["embedding"]) == 32
    assert client.status()[0] == (2, "AVAILABLE", "")


def test_the_client_sends_what_tensorflow_servings_batching_takes(client, monkeypatch):
    """All inputs with one 0th dimension; what is left out is filled in for one row only."""
    bind, seen = LoadedModel.bind, []

    def strict(self, signature_name, inputs):
        signature = self.find(signature_name)
        filled = {**signature.defaults, **inputs}
        assert set(filled) == set(signature.inputs)
        assert len({len(value) for value in filled.values()}) == 1
        assert {n: v.dtype for n, v in filled.items()} == {
            n: dtype for n, (dtype, _) in signature.inputs.items()
        }
        seen.append(signature_name)
        return bind(self, signature_name, inputs)

    monkeypatch.setattr(LoadedModel, "bind", strict)
    assert len(client.generate([TEXT, "a", ""], max_new_tokens=3)) == 3
    assert len(client.generate([TEXT], temperature=1, top_p=1, max_new_tokens=3)) == 1
    assert len(client.generate([TEXT], seed=[1, 2], temperature=1, max_new_tokens=3)) == 2
    assert len(client.predict("generate_ids", {"token_ids": [[4], [5]], "max_new_tokens": 3})) == 2
    assert len(client.score([TEXT, "a"])) == 2
    assert seen == ["generate"] * 3 + ["generate_ids", "score"]


def test_numbers_that_a_signature_cannot_take_are_named(client):
    for option in ({"seed": 2**40}, {"seed": 0.5}, {"top_k": "many"}):
        with pytest.raises(ServingError, match=next(iter(option))) as caught:
            client.generate([TEXT], **option)
        assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "127.0.0.1:9", "http://127.0.0.1:99999"])
def test_a_server_that_does_not_answer_is_named(address):
    with pytest.raises(ServingError, match=address), Client(address, timeout_seconds=1) as client:
        client.score([TEXT])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"text": [TEXT], "max_new_tokens": 0}, "max_new_tokens must be from 1 to 47"),
        ({"text": [TEXT * 20]}, "context of 48 tokens"),
        ({"text": [TEXT], "temperature": -1.0}, "temperature must be"),
        ({"nonsense": [TEXT]}, "no input 'nonsense'"),
        ({"text": [1]}, "text"),
        ({"text": [TEXT] * 17}, "more than max_batch_size 16"),
        ({"text": [TEXT] * 2, "seed": [1, 2, 3]}, "rows"),
        ({}, "text"),
    ],
)
def test_bad_inputs_are_named_over_both_ports(client, inputs, message):
    with pytest.raises(ServingError, match=message) as caught:
        client.predict("generate", inputs)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "node" not in str(caught.value)


def test_wrong_names_are_not_found_over_both_ports(client):
    with pytest.raises(ServingError, match=r"no signature 'nonsense'.*generate"):
        client.predict("nonsense", {"text": [TEXT]})
    for change in ({"model": "other"}, {"version": 99}, {"label": "canary"}):
        with Client(client.address, **change) as other:
            with pytest.raises(ServingError) as caught:
                other.score([TEXT])
            assert caught.value.code == "NOT_FOUND"
            assert ("this server has 'default'" in str(caught.value)) is ("model" in change)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'{"instances": ["\xff"]}', 400, "UTF-8"),
        (b"[]", 400, "object"),
        (b"[" * 100_000, 400, "not JSON"),
        ({}, 400, "instances"),
        ({"instances": []}, 400, "at least one row"),
        ({"instances": ["a"], "inputs": {}}, 400, "one of them"),
        ({"instances": [{"text": "a"}, {}]}, 400, "same inputs"),
        ({"instances": [{"text": "a"}, "a"]}, 400, "not both"),
        ({"instances": [3]}, 400, "expected strings"),
        ({"instances": [{"b64": "//4="}]}, 400, "not valid UTF-8"),
        ({"instances": [{"b64": "!"}]}, 400, "base64"),
        ({"signature_name": 5, "instances": ["a"]}, 400, "string"),
        ({"signature_name": "score_ids", "inputs": [[1, 2], [3]]}, 400, "different lengths"),
        ({"signature_name": "score_ids", "inputs": [[2**40]]}, 400, "out of the range"),
        ({"signature_name": "score_ids", "inputs": [[0.5]]}, 400, "numbers of type int32"),
        ({"signature_name": "score_ids", "inputs": [[9999]]}, 400, "token_ids must be from"),
        (b"x" * 10_000_000, 413, "longer than"),
    ],
)
def test_bad_bodies_get_the_right_status_and_message(rest, body, status, words):
    response = predict(rest, body)
    assert response.status_code == status, response.text
    assert words in response.json()["error"]


def test_bytes_that_an_error_would_quote_are_a_bad_request(rest):
    body = {"signature_name": "evaluate", "inputs": {"b64": "//4="}}
    assert rest.post("/v1/models/default:predict", json=body).status_code == 400


def test_text_as_base64_is_text(rest):
    coded = {"b64": base64.b64encode(TEXT.encode()).decode()}
    assert (
        predict(rest, {"instances": [coded]}).json() == predict(rest, {"instances": [TEXT]}).json()
    )


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/../../etc/passwd:predict",
        "/v1/models/..%2f..%2fetc%2fpasswd:predict",
        "/v1/models/%2e%2e:predict",
        "/v1/models/default/versions/../2:predict",
        "/v1/models/default/labels/..%2f2:predict",
        "/v1/models/default/versions/-1:predict",
        "/v1/models/default\x00:predict",
        "/v1/models/",
        "/v1/models",
        "/metrics/",
        "/etc/passwd",
    ],
)
def test_paths_lead_nowhere_else(rest, path):
    request = rest.build_request("POST", "/", content=b'{"instances": ["a"]}')
    request.url = request.url.copy_with(raw_path=path.replace("\x00", "%00").encode())
    assert rest.send(request).status_code == 404


def test_methods_and_other_verbs(rest):
    assert rest.get("/v1/models/default:predict").status_code == 405
    assert predict(rest, {}, "/v1/models/default").status_code == 405
    for verb in ("classify", "regress"):
        response = predict(rest, {"examples": []}, f"/v1/models/default:{verb}")
        assert response.status_code == 400
        assert ":predict" in response.json()["error"]


def test_status_and_metadata_in_tensorflow_servings_words(rest, channel):
    (entry,) = rest.get("/v1/models/default").json()["model_version_status"]
    assert entry == {
        "version": "2",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    metadata = rest.get("/v1/models/default/versions/2/metadata").json()
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures["generate"]["inputs"]["max_new_tokens"]["dtype"] == "DT_INT32"
    assert metadata["model_spec"]["version"] == "2"
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "default"
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    unpacked = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(request).metadata["signature_def"].Unpack(unpacked)
    assert set(unpacked.signature_def) >= {"score", "generate", "embed", "serving_default"}
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "default"
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    assert models.GetModelStatus(status).model_version_status[0].version == 2


def test_health_and_metrics(rest, channel, client):
    assert rest.get("/healthz").status_code == rest.get("/readyz").status_code == 200
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    (row,) = client.generate([TEXT], max_new_tokens=6)
    text = rest.get("/metrics").text
    samples = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")
    )
    generated = 'tokenmill_tokens_total{kind="generated",signature="generate",version="2"}'
    client.generate([TEXT], max_new_tokens=6)
    again = rest.get("/metrics").text
    (line,) = [line for line in again.splitlines() if line.startswith(generated)]
    assert float(line.split()[-1]) - float(samples[generated]) == row["completion_tokens"]
    request = 'protocol="rest",signature="embed",version="2"} 0.0'
    counters = [m for m in text.splitlines() if m.startswith("tokenmill_requests_total{")]
    zeros = [m for m in counters if m.endswith(request)]
    assert {m.split('code="')[1].split('"')[0] for m in zeros} >= {"INTERNAL", "UNAVAILABLE"}
    for name in ("tokenmill_request_seconds_bucket", "tokenmill_batch_rows_sum",
                 "tokenmill_queued_rows", "process_resident_memory_bytes"):  # fmt: skip
        assert name in text


def tensor(shape, **content):
    proto = tf.make_tensor_proto([TEXT])
    proto.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    proto.MergeFrom(type(proto)(**content))
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        tf.make_tensor_proto([[TEXT]]),
        tf.make_tensor_proto(TEXT),
        tf.make_tensor_proto([1.5]),
        tensor([10**12]),
        tensor([10**6 * 2]),
        tensor([None]),
        type(tf.make_tensor_proto(1))(dtype=999),
        type(tf.make_tensor_proto(1))(dtype=tf.int32.as_datatype_enum, tensor_content=b"123"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(channel, proto):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    request.inputs["text"].CopyFrom(proto)
    with pytest.raises(grpc.RpcError) as caught:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()


def test_bytes_that_are_no_message_and_messages_that_are_too_long(channel):
    method = "/tensorflow.serving.PredictionService/Predict"
    send = channel.unary_unary(method, lambda x: x, lambda x: x)
    with pytest.raises(grpc.RpcError) as caught:
        send(b"\xff\xff\xff no message")
    assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    with pytest.raises(grpc.RpcError) as caught:
        send(b"\x00" * 10_000_000)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_deadlines(client, rest):
    with Client(client.address, timeout_seconds=0.0001) as hasty:
        with pytest.raises(ServingError) as caught:
            hasty.generate([TEXT] * 8, max_new_tokens=40)
        assert caught.value.code == "DEADLINE_EXCEEDED"
    response = predict(rest, {"instances": [TEXT]}, headers={"x-timeout-seconds": "0"})
    assert response.status_code == 504
    response = predict(rest, {"instances": [TEXT]}, headers={"x-timeout-seconds": "soon"})
    assert response.status_code == 400


def in_parallel(function, count):
    results = [None] * count

    def run(i):
        try:
            results[i] = function(i)
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_requests_are_batched_and_nobody_pays_for_a_neighbors_error(exported, loaded_once):
    options = {"batch_timeout_micros": 200_000, "num_batch_threads": 1}
    with ServerThread(settings(exported.base, **options)) as thread:
        address = f"http://127.0.0.1:{thread.ports.rest}"
        texts = [f"{TEXT} {i}" for i in range(7)]

        def call(i):
            with Client(address, retry=Retry(attempts=1)) as client:
                if i == 7:
                    return client.score(["x"]) and client.predict(
                        "generate", {"text": ["a"], "max_new_tokens": 999}
                    )
                return client.score([texts[i]])[0]["nll_sum"]

        together = in_parallel(call, 8)
        metrics = httpx.get(f"{address}/metrics").text
        with Client(address) as client:
            alone = [client.score([text])[0]["nll_sum"] for text in texts]
    np.testing.assert_allclose(together[:7], alone, rtol=1e-4)
    assert "max_new_tokens must be" in str(together[7])
    lines = [m for m in metrics.splitlines() if m.startswith("tokenmill_batch_rows_")]
    values = dict(line.rsplit(" ", 1) for line in lines)
    batches = float(values['tokenmill_batch_rows_count{signature="score"}'])
    rows = float(values['tokenmill_batch_rows_sum{signature="score"}'])
    assert rows == 8
    assert batches < 8


def test_steps_whose_caches_do_not_fit_together_are_computed_one_by_one(exported, loaded_once):
    random = np.random.default_rng(5)

    def step(width):
        shape = (1, 2, width, 8)
        cache = {n: random.normal(size=shape).astype(np.float32) for n in cache_names(2)}
        token = {
            "token_ids": np.array([width], np.int32),
            "positions": np.array([width - 1], np.int32),
        }
        return predict_request("default", "decode_ids", token | cache)

    requests = [step(width) for width in (3, 9, 9, 4)]
    options = {"batch_timeout_micros": 200_000, "num_batch_threads": 1}
    with (
        ServerThread(settings(exported.base, **options)) as thread,
        grpc.insecure_channel(f"127.0.0.1:{thread.ports.grpc}") as channel,
    ):
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        together = in_parallel(lambda i: predict(requests[i], timeout=60), len(requests))
        alone = [predict(request, timeout=60) for request in requests]
    for got, expected in zip(together, alone, strict=True):
        assert not isinstance(got, Exception), got
        logits = (tf.make_ndarray(answer.outputs["logits"]) for answer in (got, expected))
        np.testing.assert_allclose(*logits, atol=1e-5)


def test_more_than_the_queue_holds_is_shed_with_429(exported, loaded_once):
    options = {"num_batch_threads": 1, "max_queued_rows": 2, "max_batch_size": 1}
    with ServerThread(settings(exported.base, **options)) as thread:

        def call(i):
            with httpx.Client(base_url=f"http://127.0.0.1:{thread.ports.rest}") as rest:
                body = {"signature_name": "generate", "inputs": {"text": [TEXT],
                        "max_new_tokens": [20]}}  # fmt: skip
                return predict(rest, body, timeout=60)

        answers = in_parallel(call, 16)
        statuses = sorted(answer.status_code for answer in answers)
        assert set(statuses) == {200, 429}
        shed = next(answer for answer in answers if answer.status_code == 429)
        assert shed.headers["retry-after"]
        # a client that waits and tries again is answered
        with Client(f"127.0.0.1:{thread.ports.grpc}", retry=Retry(attempts=50)) as patient:
            assert all(in_parallel(lambda i: patient.score([TEXT]), 16))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_versions_are_switched_without_losing_a_request(versions):
    versions(1, 1)
    with ServerThread(settings(versions.base)) as thread:
        address = f"http://127.0.0.1:{thread.ports.rest}"
        outcomes, done = [], threading.Event()

        def load():
            with httpx.Client(base_url=address, timeout=60) as rest:
                while not done.is_set():
                    response = predict(rest, {"instances": [TEXT]})
                    outcomes.append((response.status_code, response.headers.get("x-model-version")))

        thread_of_load = threading.Thread(target=load)
        thread_of_load.start()
        with Client(address) as client:

            def serving():
                return {v.version for v in client.status() if v.state == "AVAILABLE"}

            wait_for(lambda: outcomes)  # on a loaded machine the first request may come late
            versions(2, 2)
            wait_for(lambda: serving() == {2})
            # a damaged version changes nothing, and says why
            (versions.base / "3").mkdir()
            (versions.base / "3" / "saved_model.pb").write_bytes(b"no model")
            wait_for(lambda: any(v.version == 3 and v.error for v in client.status()))
            assert serving() == {2}
            # back to 1 by a rollout file
            write_rollout(str(versions.base), Rollout(1, None, 0.0, "s", "rolled_back"))
            wait_for(lambda: serving() == {1})
            wait_for(lambda: outcomes[-1][1] == "1")  # the next answer may come late, too
        done.set()
        thread_of_load.join()
    assert {status for status, _ in outcomes} == {200}
    seen = [version for _, version in outcomes]
    changes = [b for a, b in zip([None, *seen], seen, strict=False) if a != b]
    assert changes == ["1", "2", "1"]


def test_a_port_in_use_is_an_error_that_names_it(exported, server):
    for option, port in (("rest_port", server.ports.rest), ("grpc_port", server.ports.grpc)):
        name = option.replace("_", "-")
        with (
            pytest.raises(TokenmillError, match=rf":{port} is in use.*--{name}"),
            ServerThread(settings(exported.base, **{option: port})),
        ):
            pass


def test_bodies_that_do_not_come_hold_no_room_for_longer_than_their_deadline(exported, loaded_once):
    options = {"num_batch_threads": 1, "max_queued_rows": 2, "max_batch_size": 1}
    with ServerThread(settings(exported.base, **options)) as thread:
        address = ("127.0.0.1", thread.ports.rest)
        start = (
            b"POST /v1/models/default:predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n"
        )
        slow = [socket.create_connection(address, timeout=60) for _ in range(3)]
        for connection in slow:
            connection.sendall(start + b'x-timeout-seconds: 2\r\n\r\n{"inst')
        with httpx.Client(base_url=f"http://127.0.0.1:{thread.ports.rest}", timeout=60) as rest:
            wait_for(lambda: predict(rest, {"instances": [TEXT]}).status_code == 429)
            assert rest.get("/healthz").status_code == 200
            with (
                Client(f"127.0.0.1:{thread.ports.grpc}", retry=Retry(attempts=1)) as client,
                pytest.raises(ServingError, match="RESOURCE_EXHAUSTED"),
            ):
                client.score([TEXT])
            for connection in slow:
                assert connection.recv(1000).startswith(b"HTTP/1.1 504")
                connection.close()
            assert predict(rest, {"instances": [TEXT]}).status_code == 200
