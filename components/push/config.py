"""The section [push]: where a blessed model goes."""

from typing import Annotated, Literal

from pydantic import Field

from tokenmill.config_model import Section


class PushConfig(Section):
    """Where a blessed model goes."""

    directory: str | None = None
    """Base directory of numbered SavedModels; None means <output_dir>/serving_model."""
    quantization: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    """How the SavedModel stores weights: half precision halves it, int8 quarters it; the
    arithmetic stays as it was. The Evaluator scores the model with these weights."""
    infra_validator: Literal["process", "docker", "off"] = "process"
    """What a model must pass before it is pushed: "process" calls every signature in a fresh
    process with TensorFlow and tensorflow-text only; "docker" is TFX's InfraValidator with
    TensorFlow Serving's image, besides."""
    max_check_seconds: Annotated[float, Field(gt=0)] = 300.0
    """The longest that loading the model and calling it may take before the push."""
    registry: Literal["off", "vertex"] = "off"
    """"vertex": what was pushed becomes a version in Vertex AI's model registry, with the ledger's
    numbers as labels. Needs engine.project, engine.region, a gs:// directory and registry_image."""
    registry_image: str | None = None
    """The image that serves a registered model: TensorFlow Serving, no older than the TensorFlow
    that exported it (2.21.0 serves all), copied to an Artifact Registry that Vertex AI can read."""
