"""TFX's InfraValidator: the model in TensorFlow Serving's own container, where there is Docker."""

from tfx.components import InfraValidator
from tfx.proto import infra_validator_pb2
from tfx.types import Channel

# Of the TensorFlow that exports the models; a server takes older models, too.
SERVING_TAG = "2.21.0"


def make_infra_validator(model: Channel) -> InfraValidator:
    """Load the model in `tensorflow/serving` on this machine's Docker; no requests are sent.

    Requests are those of model_check.py: InfraValidator's own come from Examples, but the
    signatures take text.
    """
    return InfraValidator(
        model=model,
        serving_spec=infra_validator_pb2.ServingSpec(
            tensorflow_serving=infra_validator_pb2.TensorFlowServing(tags=[SERVING_TAG]),
            local_docker=infra_validator_pb2.LocalDockerConfig(),
        ),
        validation_spec=infra_validator_pb2.ValidationSpec(
            max_loading_time_seconds=300, num_tries=3
        ),
    )
