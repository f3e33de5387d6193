"""TensorFlow Serving's messages about a model: its status, its metadata."""

from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.server.errors import Code, RequestError
from serving.server.service import Service, Target

_STATES = get_model_status_pb2.ModelVersionStatus.State


def status_response(service: Service, target: Target) -> Any:
    """Make the GetModelStatusResponse of one version or all.

    Raises:
        RequestError: The model or the version is unknown.
    """
    service.check_name(target.model)
    versions = sorted(service.versions.status, reverse=True)
    if target.version is not None or target.label is not None:
        if target.version is None or target.version not in service.versions.status:
            with service.versions.hold(target.version, target.label, None) as (model, _):
                versions = [model.version]
        else:
            versions = [target.version]
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        status = service.versions.status[version]
        entry = response.model_version_status.add(version=version)
        entry.state = _STATES.Value(status.state)
        entry.status.error_code = 2 if status.error else 0  # UNKNOWN, as TensorFlow Serving says
        entry.status.error_message = status.error
    return response


def metadata_response(service: Service, target: Target) -> Any:
    """Make the GetModelMetadataResponse: the signatures of a version.

    Raises:
        RequestError: The model or the version is not served.
    """
    service.check_name(target.model)
    with service.versions.hold(target.version, target.label, None) as (model, _):
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = service.config.model_name
        response.model_spec.version.value = model.version
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in model.signature_defs.items():
            signatures.signature_def[name].CopyFrom(definition)
        response.metadata["signature_def"].Pack(signatures)
        return response


def target_of(spec: Any) -> Target:
    """Convert a ModelSpec to a Target.

    Raises:
        RequestError: The version is negative.
    """
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        if spec.version.value < 0:
            raise RequestError(Code.INVALID_ARGUMENT, "model_spec.version is negative")
        return Target(spec.name, spec.version.value)
    return Target(spec.name, None, spec.version_label if choice else None)
