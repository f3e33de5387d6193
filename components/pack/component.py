"""Packer: tokenized documents become fixed-length rows."""

import os
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec

from components.artifacts import Examples, PackedRows, Tokenizer
from components.pack.classification import FindLabels
from components.pack.job import PackJob
from components.pack.quality_buckets import MIN_BUCKET_ROWS, FindQualityBuckets
from components.pack.transforms import PackSplit
from tokenmill.contracts.packed_rows import (
    CONVERSATION_REASONS,
    LABEL_REASONS,
    PackedManifest,
    read_packed_manifest,
)
from tokenmill.contracts.tokenizer import TOKENIZER_MODEL_NAME
from tokenmill.errors import TokenmillError
from tokenmill.records.splits import SPLITS, split_directory
from tokenmill.rows.token_flags import CONTROL, token_flags
from tokenmill.text.tokenizers.load import read_tokenizer
from tokenmill.timing import timed


class PackerSpec(component_spec.ComponentSpec):
    """Transformed examples and their vocabulary in, packed rows out."""

    PARAMETERS = {"config": component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=Examples),
        "tokenizer": component_spec.ChannelParameter(type=Tokenizer),
    }
    OUTPUTS = {"packed_rows": component_spec.ChannelParameter(type=PackedRows)}


class PackerExecutor(base_beam_executor.BaseBeamExecutor):
    """Packs each split for itself."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Write rows, indexes and manifest of both splits.

        Raises:
            TokenmillError: The configuration does not go with the vocabulary or the documents.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        packed = artifact_utils.get_single_instance(output_dict["packed_rows"])
        job = PackJob.from_json(exec_properties["config"])
        tokenizer = artifact_utils.get_single_uri(input_dict["tokenizer"])
        vocabulary = read_tokenizer(os.path.join(tokenizer, TOKENIZER_MODEL_NAME))
        vocabulary.control_ids.check_task(job.task, tokenizer)
        job = job.model_copy(update={"control_ids": vocabulary.control_ids})
        flags = token_flags(vocabulary.token_bytes)
        sizes = np.array([len(value or b"") for value in vocabulary.token_bytes], np.int64)
        if len(flags) > job.vocab_size:
            raise TokenmillError(
                f"{tokenizer}: the vocabulary has {len(flags):,} tokens, the model has room for "
                f"{job.vocab_size:,}.",
                "Set tokenizer.vocab_size to the vocabulary's size.",
            )
        # Ids that the vocabulary does not use are never drawn.
        unused = job.vocab_size - len(flags)
        flags = np.pad(flags, (0, unused), constant_values=CONTROL)
        packed.set_string_custom_property("split_names", examples.split_names)
        with self._make_beam_pipeline() as pipeline:
            label_names = None
            if job.classifies:
                train = os.path.join(split_directory(examples.uri, "train"), "*")
                label_names = beam.pvalue.AsSingleton(
                    pipeline | "FindLabels" >> FindLabels(train, job.classes)
                )
            buckets = None
            if job.quality_weighting:
                train_tokens = examples.get_int_custom_property("train_tokens")
                shards = job.shards_of(train_tokens)
                buckets = beam.pvalue.AsSingleton(
                    pipeline
                    | "FindQualityBuckets"
                    >> FindQualityBuckets(
                        os.path.join(split_directory(examples.uri, "train"), "*"),
                        MIN_BUCKET_ROWS * job.sequence_length * shards,
                    )
                )
            for split in SPLITS:
                pattern = os.path.join(split_directory(examples.uri, split), "*")
                tokens = examples.get_int_custom_property(f"{split}_tokens")
                pipeline | f"Pack[{split}]" >> PackSplit(
                    pattern,
                    packed.uri,
                    split,
                    job.of_split(split, tokens),
                    flags,
                    label_names,
                    sizes if job.conversations else None,
                    buckets if split == "train" else None,  # held-out text never weighs
                )
        manifests = [read_packed_manifest(packed.uri, split) for split in SPLITS]
        names = ["rows", "slots", "padding_slots", "tokens", "documents", "loss_tokens"]
        if job.conversations:
            _check_conversations(manifests)
            names += [f"dropped_{reason}" for reason in CONVERSATION_REASONS]
            names += ["truncated_tokens", "truncated_conversations", "prompt_tokens"]
        if job.classifies:
            _check_eval_split(manifests[1])
            names += [*(f"dropped_{reason}" for reason in LABEL_REASONS), "truncated_tokens"]
        for name in names:
            packed.set_int_custom_property(name, sum(getattr(m, name) for m in manifests))


def _check_conversations(manifests: Sequence[PackedManifest]) -> None:
    for split, manifest in zip(SPLITS, manifests, strict=True):
        if not manifest.rows:
            raise TokenmillError(
                f"no conversation of the {split} split has an answer that fits into a row "
                f"({manifest.documents:,} conversations, {manifest.dropped_too_long:,} too long, "
                f"{manifest.dropped_no_answer:,} without an answer).",
                f"Set model.sequence_length above {manifest.sequence_length:,}, or give more "
                "conversations.",
            )


def _check_eval_split(manifest: PackedManifest) -> None:
    if not manifest.rows:
        raise TokenmillError(
            f"no held-out document has a label that training knows ({manifest.documents:,} "
            f"documents, {manifest.dropped_no_label:,} without a label).",
            "Give more labeled documents, or a larger corpus.eval_fraction.",
        )


class Packer(base_beam_component.BaseBeamComponent):
    """Packs documents into rows of `sequence_length` tokens.

    Outputs:
        packed_rows: `PackedRows`, splits train and eval.

    Args:
        examples: Channel of transformed `Examples` with token_ids, and the custom properties
            `train_tokens` and `eval_tokens`.
        tokenizer: Channel of the `Tokenizer` that made them.
        job: Length, task, files per split.
    """

    SPEC_CLASS = PackerSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(PackerExecutor)

    def __init__(self, examples: Channel, tokenizer: Channel, job: PackJob):
        spec = PackerSpec(
            examples=examples,
            tokenizer=tokenizer,
            config=job.to_json(),
            packed_rows=Channel(type=PackedRows),
        )
        super().__init__(spec=spec)
