"""TFX's cache key without the output directory's path: moved or copied, it keeps its cache.

Nor does it count what ran Beam's steps: output is the same, and an engine's address changes. It has
the libraries' versions instead: under other ones everything is computed anew.

Imports TFX.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.portable import cache_utils
from tfx.proto.orchestration.executable_spec_pb2 import BeamExecutableSpec
from tfx.types import Artifact

from tokenmill.metadata.relocation import Move
from tokenmill.stack import stack_versions

_HERE = "{output_dir}"


def portable_cache_context(output_dir: str, directory_id: str) -> Callable[..., Any]:
    """Return what stands in for TFX's `get_cache_context` during a run.

    Args:
        output_dir: Absolute path; it does not count, wherever it stands in a key.
        directory_id: Tells directories apart that share a metadata server; empty without one.
    """
    original = cache_utils.get_cache_context
    move = Move(output_dir, _HERE)

    def get_cache_context(
        *,
        executor_spec: Message | None = None,
        input_artifacts: Mapping[str, Sequence[Artifact]] | None = None,
        parameters: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> metadata_store_pb2.Context:
        inputs = {key: copy.deepcopy(list(made)) for key, made in (input_artifacts or {}).items()}
        for artifacts in inputs.values():
            for artifact in artifacts:
                # Moving a directory corrects its records: that is no new input.
                move.record(artifact.mlmd_artifact).ClearField("last_update_time_since_epoch")
        values = {
            key: move.text(value) if isinstance(value, str) else value
            for key, value in (parameters or {}).items()
        }
        if isinstance(executor_spec, BeamExecutableSpec):
            executor_spec = copy.deepcopy(executor_spec)
            executor_spec.ClearField("beam_pipeline_args")
        return original(
            executor_spec=executor_spec,
            input_artifacts=inputs,
            parameters={**values, "directory_id": directory_id, "stack": stack_versions()},
            **rest,
        )

    return get_cache_context
