"""Packer: tokenised documents become fixed-length rows."""

import json
import os
from dataclasses import asdict

from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec

from components.artifacts import Examples, PackedRows
from components.documents import SPLITS, read_json, split_directory
from components.pack.rows import MANIFEST_NAME
from components.pack.transforms import PackSettings, PackSplit
from components.timing import timed


class PackerSpec(component_spec.ComponentSpec):
    """Transformed examples in, packed rows out."""

    PARAMETERS = {"settings": component_spec.ExecutionParameter(type=str)}
    INPUTS = {"examples": component_spec.ChannelParameter(type=Examples)}
    OUTPUTS = {"packed_rows": component_spec.ChannelParameter(type=PackedRows)}


class PackerExecutor(base_beam_executor.BaseBeamExecutor):
    """Packs each split for itself."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Writes rows, index and manifest of both splits."""
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        packed = artifact_utils.get_single_instance(output_dict["packed_rows"])
        settings = PackSettings(**json.loads(exec_properties["settings"]))
        packed.split_names = examples.split_names
        with self._make_beam_pipeline() as pipeline:
            for split in SPLITS:
                pattern = os.path.join(split_directory(examples.uri, split), "*")
                pipeline | f"Pack[{split}]" >> PackSplit(pattern, packed.uri, split, settings)
        manifests = [
            read_json(os.path.join(split_directory(packed.uri, split), MANIFEST_NAME))
            for split in SPLITS
        ]
        for name in ("rows", "slots", "padding_slots", "tokens", "documents", "targets"):
            packed.set_int_custom_property(name, sum(m[name] for m in manifests))


class Packer(base_beam_component.BaseBeamComponent):
    """Packs documents into rows of `sequence_length` tokens.

    Outputs:
        packed_rows: `PackedRows`, splits train and eval.

    Args:
        examples: Channel of transformed `Examples` with token_ids.
        settings: Length, vocabulary size, files per split.
    """

    SPEC_CLASS = PackerSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(PackerExecutor)

    def __init__(self, examples: Channel, settings: PackSettings):
        spec = PackerSpec(
            examples=examples,
            settings=json.dumps(asdict(settings), sort_keys=True),
            packed_rows=Channel(type=PackedRows),
        )
        super().__init__(spec=spec)
