"""Vertex AI's model registry: a pushed model becomes a version there, labeled with its numbers.

The model is served by TensorFlow Serving's own image, which reads from Cloud Storage and has
tensorflow-text's operations. Imports no TFX; Google's client only when something is sent.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tokenmill.errors import TokenmillError
from tokenmill.files import copy_into

if TYPE_CHECKING:
    from google.cloud import aiplatform_v1

_COPIES_NAME = ".registry"  # not a number: no version to a server that watches the directory
_PORT = 8080
_NAME = "model"
_UPLOAD_SECONDS = 1800.0


@dataclass(frozen=True)
class RegistryTarget:
    """Where models are registered.

    Attributes:
        project: Google Cloud project.
        region: Such as europe-west4.
        model: Resource id of the model; each run adds a version.
        image: TensorFlow Serving's image, in a registry that Vertex AI can read.
    """

    project: str
    region: str
    model: str
    image: str

    @property
    def parent(self) -> str:
        """Return the location's resource name."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def resource(self) -> str:
        """Return the model's resource name."""
        return f"{self.parent}/models/{self.model}"


def model_id(run_name: str) -> str:
    """Return a run's name as a model's id: up to 63 of [a-z0-9_-], no digit or hyphen first."""
    name = re.sub(r"[^a-z0-9_-]", "-", run_name.lower())
    return (name if name[:1].isalpha() or name[:1] == "_" else f"m-{name}")[:63].rstrip("-")


def version_alias(version: str) -> str:
    """Return the alias by which a pushed version is found again: aliases begin with a letter."""
    return f"v{version}"


def upload_request(
    settings: RegistryTarget, version: str, artifact_uri: str, labels: Mapping[str, str]
) -> "aiplatform_v1.UploadModelRequest":
    """Make the request for the first version of a model.

    Args:
        settings: Where.
        version: The pushed version, a number.
        artifact_uri: A gs:// directory that holds the version's directory.
        labels: The run's numbers.
    """
    from google.cloud import aiplatform_v1

    container = aiplatform_v1.ModelContainerSpec(
        image_uri=settings.image,
        command=["/usr/bin/tensorflow_model_server"],
        # Vertex AI puts the copy of artifact_uri that it made in for the variable.
        args=[
            f"--rest_api_port={_PORT}",
            f"--model_name={_NAME}",
            "--model_base_path=$(AIP_STORAGE_URI)",
        ],
        ports=[aiplatform_v1.Port(container_port=_PORT)],
        predict_route=f"/v1/models/{_NAME}:predict",
        health_route=f"/v1/models/{_NAME}",
    )
    model = aiplatform_v1.Model(
        display_name=settings.model,
        version_aliases=[version_alias(version)],
        labels=dict(labels),
        container_spec=container,
        artifact_uri=artifact_uri,
    )
    return aiplatform_v1.UploadModelRequest(
        parent=settings.parent, model_id=settings.model, model=model
    )


def model_service(region: str) -> "aiplatform_v1.ModelServiceClient":
    """Make Google's client for a region; credentials come from the environment."""
    from google.cloud import aiplatform_v1

    return aiplatform_v1.ModelServiceClient(
        client_options={"api_endpoint": f"{region}-aiplatform.googleapis.com"}
    )


def register(
    settings: RegistryTarget,
    version: str,
    artifact_uri: str,
    labels: Mapping[str, str],
    service: Any = None,
) -> str:
    """Register a version, unless an earlier attempt has done so.

    Args:
        settings: Where.
        version: The pushed version.
        artifact_uri: A gs:// directory that holds the version's directory.
        labels: The run's numbers.
        service: A client; None makes one.

    Returns:
        The version's resource name, projects/../models/<model>@<version id>.

    Raises:
        TokenmillError: There are no credentials, or Vertex AI refuses.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        service = service or model_service(settings.region)
        known = _find(service, f"{settings.resource}@{version_alias(version)}")
        if known is not None:
            return f"{settings.resource}@{known.version_id}"
        request = upload_request(settings, version, artifact_uri, labels)
        if _find(service, settings.resource) is not None:
            request.model_id, request.parent_model = "", settings.resource
        answer = service.upload_model(request=request).result(timeout=_UPLOAD_SECONDS)
    except GoogleAuthError as error:
        raise TokenmillError(
            f"not registered: no credentials for Google Cloud: {error}",
            "The model is pushed. Set GOOGLE_APPLICATION_CREDENTIALS, or run as a service account.",
        ) from None
    except (exceptions.GoogleAPIError, TimeoutError) as error:
        raise TokenmillError(
            f"not registered: Vertex AI refused {settings.resource}: {error}",
            "The model is pushed. Run again once the cause is gone; the other steps are cached.",
        ) from None
    return f"{answer.model}@{answer.model_version_id}"


def _find(service: Any, name: str) -> Any:
    from google.api_core import exceptions

    try:
        return service.get_model(name=name)
    except exceptions.NotFound:
        return None


def lay_out(pushed: str) -> str:
    """Copy a pushed version to where nothing else is: TensorFlow Serving wants its parent.

    Vertex AI takes all that is under a model's artifact URI, which the serving directory's other
    versions must not be.

    Args:
        pushed: A version's directory, <serving directory>/<number>.

    Returns:
        The directory that holds the copy, and the copy only.
    """
    pushed = pushed.rstrip("/")
    base, version = os.path.split(pushed)
    home = os.path.join(base, _COPIES_NAME, version)
    if tf.io.gfile.exists(home):  # left by an attempt that was killed
        tf.io.gfile.rmtree(home)
    copy_into(pushed, home)
    return home
