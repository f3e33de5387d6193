"""Client for TensorFlow Serving's APIs; the same for its binary and for `tokenmill serve`.

Retries what may succeed later (UNAVAILABLE, RESOURCE_EXHAUSTED and connections that broke), with
exponential back-off and full jitter (Brooker 2015, "Exponential Backoff and Jitter"), within the
deadline of the call. Every signature is a pure function, so that a repeated request does no harm.
"""

import random
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from serving.rollout import Rollout
from tokenmill.contracts.served_model import GENERATE_OPTIONS
from tokenmill.errors import TokenmillError

_RETRIED_GRPC = {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
_USER_HEADER = "x-user-key"
_TIMEOUT_HEADER = "x-timeout-seconds"


class ServingError(TokenmillError):
    """Error of a server, or no answer from it.

    Attributes:
        code: Name of the error in gRPC, such as INVALID_ARGUMENT.
    """

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code


class VersionState(NamedTuple):
    """State of a version on a server.

    Attributes:
        version: Number of the version.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error: Why it could not be loaded; empty if it was.
    """

    version: int
    state: str
    error: str


@dataclass(frozen=True)
class Retry:
    """Bounds of the repetitions of a call.

    Attributes:
        attempts: Largest number of tries, the first included.
        first_wait_seconds: Upper bound of the first wait; it doubles from try to try.
        longest_wait_seconds: Upper bound of any wait.
    """

    attempts: int = 5
    first_wait_seconds: float = 0.1
    longest_wait_seconds: float = 5.0

    def wait_seconds(self, attempt: int, rng: random.Random) -> float:
        """Draw the wait after a try, seconds.

        Args:
            attempt: Number of the try, from 1.
            rng: Source of randomness.
        """
        bound = min(self.longest_wait_seconds, self.first_wait_seconds * 2 ** (attempt - 1))
        return rng.uniform(0, bound)


@dataclass
class Client:
    """Client of one model on a server.

    Args:
        address: "http://host:port" for REST, "host:port" for gRPC.
        model: Name of the model.
        timeout_seconds: Longest time of a call with all its retries.
        retry: Bounds of the repetitions.
        label: Version label, "stable" or "canary", or None.
        version: Number of a version, or None.
        rollout: Rollout that assigns users to labels here, as TensorFlow Serving does not.
        api_key: Of a `tokenmill serve --api-keys`, or None.
    """

    address: str
    model: str = "default"
    timeout_seconds: float = 30.0
    retry: Retry = field(default_factory=Retry)
    label: str | None = None
    version: int | None = None
    rollout: Rollout | None = None
    api_key: str | None = None

    def __post_init__(self) -> None:
        self._random = random.Random()
        self._transport: Any
        if self.address.startswith(("http://", "https://")):
            self._transport = _Rest(self.address.rstrip("/"), self.api_key)
        else:
            self._transport = _Grpc(self.address, self.api_key)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def generate(self, texts: list[str], user: str | None = None, **options: Any) -> list[dict]:
        """Continue texts.

        Args:
            texts: The prompts.
            user: Key that assigns the user to an arm of a rollout.
            **options: max_new_tokens, temperature, top_k, top_p, seed, truncate_prompt: a value
                for all or a list with one for each; what is left out has the model's default.

        Returns:
            For each text: text, prompt_tokens, completion_tokens, truncated_tokens, finish_reason.
        """
        return self.predict("generate", {"text": texts, **options}, user)

    def score(self, texts: list[str], user: str | None = None) -> list[dict]:
        """Compute log-likelihood and bits per byte of texts."""
        return self.predict("score", {"text": texts}, user)

    def classify(self, texts: list[str], user: str | None = None) -> list[dict]:
        """Classify texts: label, probabilities and the labels that they are of."""
        return self.predict("classify", {"text": texts}, user)

    def embed(self, texts: list[str], user: str | None = None) -> list[dict]:
        """Embed texts: a vector for each."""
        return self.predict("embed", {"text": texts}, user)

    def predict(
        self, signature: str, inputs: dict[str, Any], user: str | None = None
    ) -> list[dict]:
        """Call any signature by columns.

        TensorFlow Serving's batching wants as many values of each input as there are texts, and
        fills in defaults for one text only: for several, all of `generate`'s options are sent.

        Args:
            signature: Name of the signature.
            inputs: Lists with a value for each row, or single values that hold for all rows.
            user: Key that assigns the user to an arm of a rollout.

        Returns:
            For each row, the outputs by name.

        Raises:
            ServingError: The last try failed, or the deadline passed.
        """
        label = self.label
        if label is None and self.version is None and self.rollout is not None:
            label = self.rollout.assign(user)
        columns = _columns(signature, inputs)
        target = (self.model, self.version, label)
        deadline = time.monotonic() + self.timeout_seconds
        for attempt in range(1, self.retry.attempts + 1):
            left = deadline - time.monotonic()
            try:
                outputs = self._transport.predict(
                    target, signature, columns, user, max(left, 0.001)
                )
                return [
                    dict(zip(outputs, row, strict=True))
                    for row in zip(*outputs.values(), strict=True)
                ]
            except ServingError as error:
                wait = self.retry.wait_seconds(attempt, self._random)
                last = attempt == self.retry.attempts or time.monotonic() + wait >= deadline
                if last or error.code not in _RETRIED_GRPC:
                    raise
                time.sleep(wait)
        raise AssertionError("a try returns or raises")

    def status(self) -> list[VersionState]:
        """Return the state of each version.

        Raises:
            ServingError: The server does not answer, or does not know the model.
        """
        return self._transport.status(self.model, self.timeout_seconds)


def _columns(signature: str, inputs: dict[str, Any]) -> dict[str, list]:
    """Return a list for each input, and with several rows as long a list of every option."""
    columns = {k: v if isinstance(v, list) else [v] for k, v in inputs.items()}
    rows = max(map(len, columns.values()), default=1)
    if rows > 1 and signature in ("generate", "generate_ids", "chat"):
        defaults = {name: [value] for name, (value, _) in GENERATE_OPTIONS.items()}
        columns = {**defaults, **columns}
    return {k: v * rows if len(v) == 1 else v for k, v in columns.items()}


_CODES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED",
          404: "NOT_FOUND", 405: "UNIMPLEMENTED", 413: "TOO_LARGE",
          429: "RESOURCE_EXHAUSTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE",
          504: "DEADLINE_EXCEEDED"}  # fmt: skip


def _authorization(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


class _Rest:
    def __init__(self, base: str, api_key: str | None):
        import httpx

        self._errors = httpx
        self._base = base
        try:
            headers = _authorization(api_key)
            self._client = httpx.Client(base_url=base, headers=headers, trust_env=False)
        except httpx.InvalidURL as error:
            raise ServingError("INVALID_ARGUMENT", f"{base} is no address: {error}") from None

    def predict(self, target, signature, columns, user, timeout):
        model, version, label = target
        where = f"/versions/{version}" if version is not None else f"/labels/{label}"
        path = f"/v1/models/{model}{where if version is not None or label else ''}:predict"
        headers = {_TIMEOUT_HEADER: f"{timeout:.3f}"}
        if user is not None:
            headers[_USER_HEADER] = user
        body = {"signature_name": signature, "inputs": columns}
        answer = self._send("POST", path, timeout, json=body, headers=headers)["outputs"]
        return answer if isinstance(answer, dict) else {"output": answer}

    def status(self, model, timeout):
        answer = self._send("GET", f"/v1/models/{model}", timeout)
        return [
            VersionState(int(v["version"]), v["state"], v["status"].get("error_message", ""))
            for v in answer["model_version_status"]
        ]

    def _send(self, method, path, timeout, **options):
        try:
            response = self._client.request(method, path, timeout=timeout, **options)
        except self._errors.TimeoutException:
            message = f"no answer from {self._base} in {timeout:.3g} s"
            raise ServingError("DEADLINE_EXCEEDED", message) from None
        except self._errors.TransportError as error:
            message = f"{self._base}: {str(error) or type(error).__name__}"
            raise ServingError("UNAVAILABLE", message) from None
        try:
            answer = response.json()
        except ValueError:
            answer = {"error": f"{self._base} answers {response.text[:200]!r}"}
        if response.status_code != 200 or not isinstance(answer, dict) or "error" in answer:
            code = _CODES.get(response.status_code, "INTERNAL")
            message = answer.get("error", "") if isinstance(answer, dict) else str(answer)[:200]
            raise ServingError(code, str(message))
        return answer

    def close(self):
        self._client.close()


class _Grpc:
    def __init__(self, address: str, api_key: str | None):
        import grpc
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self._errors = grpc
        self._address, self._authorization = address, [*_authorization(api_key).items()]
        self._channel = grpc.insecure_channel(address)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(self, target, signature, columns, user, timeout):
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        model, version, label = target
        request.model_spec.name, request.model_spec.signature_name = model, signature
        if version is not None:
            request.model_spec.version.value = version
        elif label:
            request.model_spec.version_label = label
        for name, values in columns.items():
            request.inputs[name].CopyFrom(_to_proto(tf, name, values))
        metadata = [] if user is None else [(_USER_HEADER, user)]
        response = self._call(self._predictions.Predict, request, timeout, metadata)
        return {name: _to_list(tf.make_ndarray(x)) for name, x in sorted(response.outputs.items())}

    def status(self, model, timeout):
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        response = self._call(self._models.GetModelStatus, request, timeout, [])
        states = get_model_status_pb2.ModelVersionStatus.State
        return [
            VersionState(v.version, states.Name(v.state), v.status.error_message)
            for v in response.model_version_status
        ]

    def _call(self, method, request, timeout, metadata):
        try:
            metadata = [*metadata, *self._authorization]
            return method(request, timeout=timeout, metadata=metadata)
        except self._errors.RpcError as error:
            code, message = error.code().name, error.details() or ""
            if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                message = f"{self._address}: {message}"
            raise ServingError(code, message) from None

    def close(self):
        self._channel.close()


def _to_proto(tf, name, values):
    """Convert values to a TensorProto; numbers to int32 or float32, which the signatures take.

    Raises:
        ServingError: They are of several types, or too large.
    """
    first = values[0] if values else ""
    flat = [x for row in values for x in row] if isinstance(first, list) else values
    dtype = tf.int32
    if isinstance(first, (str, bytes)):
        dtype = tf.string
    elif isinstance(first, bool):
        dtype = tf.bool
    elif GENERATE_OPTIONS.get(name, (0, int))[1] is float or any(
        isinstance(x, float) for x in flat
    ):
        dtype = tf.float32  # a temperature of 1 is one of 1.0, as in JSON
    if dtype is tf.int32 and any(isinstance(x, int) and not -(2**31) <= x < 2**31 for x in flat):
        raise ServingError("INVALID_ARGUMENT", f"{name}: a number is out of the range of int32")
    try:
        return tf.make_tensor_proto(values, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ServingError("INVALID_ARGUMENT", f"{name}: {error}"[:300]) from None


def _to_list(array):
    if array.dtype.kind == "O":
        return _decoded(array.tolist())
    if array.ndim == 1:  # what is no number is None, as in JSON
        return [None if x != x else x for x in array.tolist()]
    return array.tolist()


def _decoded(value: Any) -> Any:
    """Decode nested lists of bytes as text."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode("utf-8", "replace")
