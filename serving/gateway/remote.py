"""The gateway's models behind gRPC: a TensorFlow Serving, or `tokenmill serve`, elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from serving.gateway.backend import HeldVersion
from serving.gateway.engine import make_thread
from serving.gateway.model_assets import ModelAssets
from serving.gateway.signature_steps import SignatureSteps
from serving.gateway.version import GatewayVersion
from serving.saved_model import version_names
from serving.server.config import ServerConfig
from serving.server.errors import Code, RequestError
from serving.server.metrics import ServerMetrics
from serving.server.model import read_signature_defs
from tokenmill.export.warmup_requests import predict_request

_LOG = logging.getLogger("tokenmill.serve")
# A batch of the server may meet another gateway's, whose caches have another width: it is refused.
_ATTEMPTS, _LONGEST_WAIT_SECONDS = 5, 0.05
_LONGEST_RECONNECT_MILLISECONDS = 2000


class GrpcModel:
    """Calls of a model on a server, each of one version.

    Args:
        address: HOST:PORT.
        name: Of the model.
        timeout_seconds: Longest time of a call.
    """

    def __init__(self, address: str, name: str, timeout_seconds: float):
        self._name, self._timeout = name, timeout_seconds
        # A cache is as large as it is.
        lengths = ("grpc.max_send_message_length", "grpc.max_receive_message_length")
        options = [(name, -1) for name in lengths]
        # By default gRPC looks for a server that was away for long once in two minutes.
        options.append(("grpc.max_reconnect_backoff_ms", _LONGEST_RECONNECT_MILLISECONDS))
        self._channel = grpc.insecure_channel(address, options)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self.address = address

    def available_versions(self) -> list[int]:
        """Return the versions that the server serves, newest first.

        Raises:
            RequestError: The server does not answer, or has no such model.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._name
        try:
            answer = self._models.GetModelStatus(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._error(error) from None
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        served = [s.version for s in answer.model_version_status if s.state == available]
        return sorted(served, reverse=True)

    def predict(
        self, version: int, signature: str, inputs: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Call a signature of a version.

        Raises:
            RequestError: The server refuses the call, or does not answer it.
        """
        request = predict_request(self._name, signature, inputs)
        request.model_spec.version.value = version
        for attempt in range(_ATTEMPTS):
            try:
                answer = self._predictions.Predict(request, timeout=self._timeout)
                return {name: tf.make_ndarray(value) for name, value in answer.outputs.items()}
            except grpc.RpcError as error:
                met_another = error.code() is grpc.StatusCode.FAILED_PRECONDITION
                if not met_another or attempt + 1 == _ATTEMPTS:
                    raise self._error(error) from None
            time.sleep(random.uniform(0, _LONGEST_WAIT_SECONDS))
        raise AssertionError("the last attempt raises")

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _error(self, error: grpc.RpcError) -> RequestError:
        status, details = error.code().name, error.details() or ""
        code = Code[status] if status in Code.__members__ else Code.INTERNAL
        if code in (Code.NOT_FOUND, Code.UNAVAILABLE):
            return RequestError(Code.UNAVAILABLE, f"{self.address} answers: {details:.200}")
        return RequestError(code, f"{details:.300}")


@dataclass(frozen=True)
class _Known:
    """What was last known of the server: a version and when it was asked, by time.monotonic."""

    version: int
    asked: float


class RemoteBackend:
    """The newest version that a server serves and whose files are at hand.

    Args:
        model: Calls of the server.
        config: Of the gateway; `model_dir` is the base directory that the server loads from, or a
            copy with each version's `saved_model.pb` and `assets.extra`.
        metrics: Of the gateway.
    """

    def __init__(self, model: GrpcModel, config: ServerConfig, metrics: ServerMetrics):
        self._model, self._config, self._metrics = model, config, metrics
        self.model_name = config.model_name
        self._versions: dict[int, GatewayVersion] = {}
        self._held: dict[int, int] = {}
        self._known: _Known | None = None
        self._asking: asyncio.Task[GatewayVersion] | None = None

    @contextlib.asynccontextmanager
    async def hold(self, user_key: str | None) -> AsyncIterator[HeldVersion]:
        """Hold the newest version until the context ends; a rollout's arms are the server's."""
        version = await self._newest()
        number = version.version
        self._held[number] = self._held.get(number, 0) + 1
        try:
            yield version
        finally:
            self._held[number] -= 1

    async def _newest(self) -> GatewayVersion:
        known = self._known
        if known is not None and time.monotonic() - known.asked < self._config.poll_seconds:
            return self._versions[known.version]
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._asked)
        # One asks for all: one after another they would wait as often as long for one that hangs.
        return await asyncio.shield(self._asking)

    def _asked(self, task: asyncio.Task[GatewayVersion]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # seen, even if all who waited have left

    async def _ask(self) -> GatewayVersion:
        """Ask the server which version it serves, and open it."""
        now = time.monotonic()
        served = await asyncio.to_thread(self._model.available_versions)
        names = version_names(self._config.model_dir)
        found = next((v for v in served if v in names), None)
        if found is None:
            raise RequestError(
                Code.UNAVAILABLE,
                f"{self._model.address} serves the versions {served or 'none'}, and "
                f"{self._config.model_dir} has none of them",
            )
        if found not in self._versions:
            directory = os.path.join(self._config.model_dir, names[found])
            try:
                self._versions[found] = await asyncio.to_thread(self._open, found, directory)
            except Exception as error:  # damaged files fail in any way
                _LOG.exception("version_failed", extra={"version": found})
                raise RequestError(
                    Code.UNAVAILABLE, f"version {found} cannot be read: {error}"[:300]
                ) from None
        self._known = _Known(found, now)
        for old in set(self._versions) - {found}:
            if not self._held.get(old):
                self._versions.pop(old)
        return self._versions[found]

    def _open(self, number: int, directory: str) -> GatewayVersion:
        assets, signatures = ModelAssets(directory), read_signature_defs(directory)

        def call(signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return self._model.predict(number, signature, inputs)

        async def compute(signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return await asyncio.to_thread(call, signature, inputs)

        version = GatewayVersion(number, signatures, assets, compute)
        if "decode_ids" in signatures:
            steps = SignatureSteps(call, assets.shape, assets.padding)
            thread = make_thread()
            weakref.finalize(version, thread.shutdown, wait=False)
            version.continue_by(steps, thread, self._config, self._metrics)
        return version
