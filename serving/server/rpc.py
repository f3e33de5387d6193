"""TensorFlow Serving's gRPC API: PredictionService and ModelService, and gRPC's health service."""

import math
import time
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.server.errors import Code, RequestError
from serving.server.protos import metadata_response, status_response, target_of
from serving.server.service import Service

USER_METADATA = "x-user-key"
_STATUS = {
    **{c: grpc.StatusCode[c.name] for c in Code if c.name in grpc.StatusCode.__members__},
    Code.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


async def _abort(context: Any, error: RequestError) -> None:
    await context.abort(_STATUS.get(error.code, grpc.StatusCode.UNKNOWN), error.message)


def _check_key(service: Service, context: Any) -> None:
    """Refuse a call without an API key where one is needed."""
    if service.admission.keys is not None:
        metadata = dict(context.invocation_metadata() or ())
        service.admission.keys.check(metadata.get("authorization"))


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; other methods need signatures that the models lack."""

    def __init__(self, service: Service):
        self._service = service

    async def Predict(self, request, context):
        """Answer with all outputs, or with those that output_filter names."""
        try:
            _check_key(self._service, context)
            with self._service.admission.admit():
                return await self._predict(request, context)
        except RequestError as error:
            await _abort(context, error)

    async def _predict(self, request, context):
        def decode(model):
            signature = model.find(request.model_spec.signature_name)
            limit = self._service.config.max_request_bytes
            inputs = {name: _to_array(name, x, limit) for name, x in request.inputs.items()}
            unknown = sorted(set(request.output_filter) - set(signature.outputs))
            if unknown:
                raise RequestError(Code.INVALID_ARGUMENT, f"no output {unknown[0]!r:.80}")
            return signature, inputs, None

        arrived = time.monotonic()
        metadata = dict(context.invocation_metadata() or ())
        outputs, model, signature, _ = await self._service.predict(
            "grpc",
            target_of(request.model_spec),
            decode,
            metadata.get(USER_METADATA),
            arrived,
            context.time_remaining(),
        )
        response = predict_pb2.PredictResponse()
        response.model_spec.name = self._service.config.model_name
        response.model_spec.version.value = model.version
        response.model_spec.signature_name = signature.name
        import tensorflow as tf

        for name in request.output_filter or outputs:
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response

    async def GetModelMetadata(self, request, context):
        """Answer with the signatures of a version."""
        try:
            _check_key(self._service, context)
            if list(request.metadata_field) != ["signature_def"]:
                raise RequestError(
                    Code.INVALID_ARGUMENT, 'metadata_field must be "signature_def", nothing else'
                )
            return metadata_response(self._service, target_of(request.model_spec))
        except RequestError as error:
            await _abort(context, error)

    async def Classify(self, request, context):
        """Refuse: there is no such signature."""
        await _abort(
            context, RequestError(Code.INVALID_ARGUMENT, "this model's signatures are for Predict")
        )

    Regress = MultiInference = Classify


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus. The directory configures the server; clients cannot."""

    def __init__(self, service: Service):
        self._service = service

    async def GetModelStatus(self, request, context):
        """Answer with the states of the versions."""
        try:
            _check_key(self._service, context)
            return status_response(self._service, target_of(request.model_spec))
        except RequestError as error:
            await _abort(context, error)

    async def HandleReloadConfigRequest(self, request, context):
        """Refuse."""
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "this server is configured by its directory"
        )


class Health(health_pb2_grpc.HealthServicer):
    """Health service: SERVING as soon as a version is ready."""

    def __init__(self, service: Service):
        self._service = service

    async def Check(self, request, context):
        """Answer for a service; the empty name is the server as a whole."""
        known = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
        if request.service not in known:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        ready = self._service.versions.ready
        return health_pb2.HealthCheckResponse(status="SERVING" if ready else "NOT_SERVING")


def _to_array(name: str, tensor: Message, limit: int) -> np.ndarray:
    """Convert a TensorProto; refuse shapes that its bytes do not fill, before memory is taken."""
    import tensorflow as tf

    sizes = [d.size for d in tensor.tensor_shape.dim]
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise RequestError(Code.INVALID_ARGUMENT, f"{name}: the shape is unknown")
    if math.prod(sizes) > limit:
        raise RequestError(Code.INVALID_ARGUMENT, f"{name}: more than {limit} elements")
    try:
        array = tf.make_ndarray(tensor)
    except (TypeError, ValueError, IndexError) as error:
        raise RequestError(Code.INVALID_ARGUMENT, f"{name}: {error}"[:200]) from None
    return array


async def start_grpc(service: Service, host: str, port: int) -> tuple[Any, int]:
    """Start the gRPC server on the running event loop; return it and its port.

    Raises:
        OSError: The port is in use.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),  # or two servers would share a port in silence
            ("grpc.max_receive_message_length", service.config.max_request_bytes),
            ("grpc.max_connection_idle_ms", int(service.config.idle_seconds * 1000)),
        ],
        # More than are admitted, so that health is answered and shedding is counted.
        maximum_concurrent_rpcs=service.config.max_requests + 100,
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(service), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(service), server)
    health_pb2_grpc.add_HealthServicer_to_server(Health(service), server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(str(error)) from None
    if bound == 0:
        raise OSError(f"cannot listen on {address}")
    await server.start()
    return server, bound
