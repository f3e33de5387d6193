"""TokenizerTrainer, and a Transform that is handed the tokeniser it trained."""

import hashlib
import json
import os
from dataclasses import asdict

import sentencepiece
import tensorflow as tf
from tfx.components.transform import component as transform_component
from tfx.components.transform import executor as transform_executor
from tfx.dsl.components.base import (
    base_beam_component,
    base_component,
    base_executor,
    executor_spec,
)
from tfx.types import (
    Channel,
    artifact_utils,
    component_spec,
    standard_artifacts,
    standard_component_specs,
)
from tfx.utils import json_utils

from components.artifacts import Examples, Tokenizer
from components.documents import decode_documents, split_directory, write_json
from components.timing import timed
from components.tokenize.preprocessing import TOKENIZER_PATH_KEY
from components.tokenize.training import (
    TokenizerSettings,
    sample_documents,
    train_sentencepiece,
)

MODEL_NAME = "tokenizer.model"
DESCRIPTION_NAME = "tokenizer.json"
PREPROCESSING_FN = "components.tokenize.preprocessing.preprocessing_fn"


class TokenizerTrainerSpec(component_spec.ComponentSpec):
    """Curated examples in, a tokeniser out."""

    PARAMETERS = {"settings": component_spec.ExecutionParameter(type=str)}
    INPUTS = {"examples": component_spec.ChannelParameter(type=Examples)}
    OUTPUTS = {"tokenizer": component_spec.ChannelParameter(type=Tokenizer)}


class TokenizerTrainerExecutor(base_executor.BaseExecutor):
    """Trains on a sample of the train split."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Writes the model, its settings and its hash."""
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        tokenizer = artifact_utils.get_single_instance(output_dict["tokenizer"])
        settings = TokenizerSettings(**json.loads(exec_properties["settings"]))
        total_bytes = examples.get_int_custom_property("bytes")
        texts = sample_documents(_read_in_order(examples.uri), total_bytes, settings.sample_bytes)
        model = train_sentencepiece(texts, settings)
        tf.io.gfile.makedirs(tokenizer.uri)
        with tf.io.gfile.GFile(os.path.join(tokenizer.uri, MODEL_NAME), "wb") as out:
            out.write(model)
        digest = hashlib.sha256(model).hexdigest()
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
        write_json(
            os.path.join(tokenizer.uri, DESCRIPTION_NAME),
            {**asdict(settings), "pieces": pieces, "sha256": digest},
        )
        tokenizer.set_int_custom_property("pieces", pieces)
        tokenizer.set_string_custom_property("sha256", digest)


def _read_in_order(uri: str):
    """(doc_id, text) of the train split, shard by shard; the shards are sorted."""
    directory = split_directory(uri, "train")
    for name in sorted(tf.io.gfile.listdir(directory)):
        dataset = tf.data.TFRecordDataset(os.path.join(directory, name), "GZIP").batch(512)
        for records in dataset.as_numpy_iterator():
            batch = decode_documents(records.tolist())
            yield from zip(batch.column(0).to_pylist(), batch.column(2).to_pylist(), strict=True)


class TokenizerTrainer(base_component.BaseComponent):
    """Trains a SentencePiece vocabulary.

    Outputs:
        tokenizer: `Tokenizer`.

    Args:
        examples: Channel of curated `Examples`.
        settings: Model type, vocabulary size, sample size.
    """

    SPEC_CLASS = TokenizerTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(TokenizerTrainerExecutor)

    def __init__(self, examples: Channel, settings: TokenizerSettings):
        spec = TokenizerTrainerSpec(
            examples=examples,
            settings=json.dumps(asdict(settings), sort_keys=True),
            tokenizer=Channel(type=Tokenizer),
        )
        super().__init__(spec=spec)


class TokenizingTransformSpec(standard_component_specs.TransformSpec):
    """TFX's Transform with one more input."""

    INPUTS = {
        **standard_component_specs.TransformSpec.INPUTS,
        "tokenizer": component_spec.ChannelParameter(type=Tokenizer),
    }


class TokenizingTransformExecutor(transform_executor.Executor):
    """Tells preprocessing_fn where the tokeniser is, then does what Transform does."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Runs Transform with the tokeniser's path in custom_config."""
        inputs = dict(input_dict)
        tokenizer = artifact_utils.get_single_instance(inputs.pop("tokenizer"))
        custom_config = {TOKENIZER_PATH_KEY: os.path.join(tokenizer.uri, MODEL_NAME)}
        properties = {
            **exec_properties,
            standard_component_specs.CUSTOM_CONFIG_KEY: json_utils.dumps(custom_config),
        }
        super().Do(inputs, output_dict, properties)
        # Transform counts nothing itself; the packer checks that every document arrived.
        transformed = artifact_utils.get_single_instance(output_dict["transformed_examples"])
        curated = artifact_utils.get_single_instance(inputs["examples"])
        for name in ("documents", "bytes"):
            transformed.set_int_custom_property(name, curated.get_int_custom_property(name))


class TokenizingTransform(base_beam_component.BaseBeamComponent):
    """Tokenises in TFX Transform.

    The tf.text op needs the SentencePiece model when the graph is built, and an analyzer's
    result does not exist by then; hence the tokeniser comes from a step before, as an input.

    Outputs:
        transform_graph: `TransformGraph`, raw text -> token ids; part of the pushed model.
        transformed_examples: `Examples` with token_ids, doc_id, source, byte_count.

    Args:
        examples: Channel of curated `Examples`.
        schema: Channel of `Schema`.
        tokenizer: Channel of `Tokenizer`.
    """

    SPEC_CLASS = TokenizingTransformSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(TokenizingTransformExecutor)

    def __init__(self, examples: Channel, schema: Channel, tokenizer: Channel):
        standard = transform_component.Transform(
            examples=examples,
            schema=schema,
            preprocessing_fn=PREPROCESSING_FN,
            disable_analyzer_cache=True,
            disable_statistics=True,
        )
        spec = TokenizingTransformSpec(
            examples=examples,
            schema=schema,
            tokenizer=tokenizer,
            transform_graph=Channel(type=standard_artifacts.TransformGraph),
            transformed_examples=standard.outputs["transformed_examples"],
            **standard.exec_properties,
        )
        super().__init__(spec=spec)
