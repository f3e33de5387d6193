"""TokenizerTrainer, and a Transform that is handed the tokenizer it trained."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import apache_beam as beam
import tensorflow as tf
from tfx.components.transform import component as transform_component
from tfx.dsl.components.base import (
    base_beam_component,
    base_beam_executor,
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
from tfx.utils import io_utils

from components.artifacts import Examples, Tokenizer
from components.tokenize.apply_transform import ApplyTransform
from components.tokenize.config import TokenizerConfig
from components.tokenize.graph import write_graph
from components.tokenize.import_model import lossy_fraction, read_model
from components.tokenize.subword_regularization import SubwordRegularization
from components.tokenize.training import (
    Document,
    Sentences,
    sample_documents,
    sampling_rates,
    train_sentencepiece,
)
from tokenmill.contracts.base import write_document
from tokenmill.contracts.chat import ChatFormat, find_chat_format, write_chat_format
from tokenmill.contracts.tokenizer import (
    DESCRIPTION_NAME,
    TOKENIZER_MODEL_NAME,
    Sample,
    TokenizerDescription,
)
from tokenmill.errors import TokenmillError
from tokenmill.files import list_files, read_json, remove_temporary_files, write_json
from tokenmill.records.documents import read_documents
from tokenmill.records.splits import SPLITS, split_directory
from tokenmill.text.tokenizers.load import load_tokenizer
from tokenmill.timing import timed

# How training documents are split at random is a matter of Transform, not of the vocabulary.
_OF_TRANSFORM = {"sampling_alpha", "bpe_dropout"}
# Its content is in the chat format.
_ELSEWHERE = {*_OF_TRANSFORM, "chat_template"}
# What an imported model is tried on.
_SOME_DOCUMENTS, _SOME_BYTES = 1000, 10_000_000
PREPROCESSING_FN = "components.tokenize.preprocessing.preprocessing_fn"


class TokenizerTrainerSpec(component_spec.ComponentSpec):
    """Curated examples in, a tokenizer out."""

    PARAMETERS = {
        "config": component_spec.ExecutionParameter(type=str),
        "model_sha256": component_spec.ExecutionParameter(type=str),
        "chat_format": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {"examples": component_spec.ChannelParameter(type=Examples)}
    OUTPUTS = {"tokenizer": component_spec.ChannelParameter(type=Tokenizer)}


class TokenizerTrainerExecutor(base_executor.BaseExecutor):
    """Trains on a sample of the train split, or imports a model."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Write the model, its settings and its hash."""
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        tokenizer = artifact_utils.get_single_instance(output_dict["tokenizer"])
        config = TokenizerConfig.from_json(exec_properties["config"])
        if config.path is not None:
            model = _import_model(config.path, exec_properties["model_sha256"])
            lossy = lossy_fraction(model, _some_texts(examples.uri))
            sample: dict[str, Sample] = {}
            cut_words = 0
        else:
            counter = _SampleCounter()
            documents = sample_documents(_read_in_order(examples.uri), _rates(examples.uri, config))
            sentences = Sentences(counter.count(documents))
            model = train_sentencepiece(sentences, config)
            sample, cut_words, lossy = counter.by_source, sentences.cut_words, 0.0
        digest = hashlib.sha256(model).hexdigest()
        tokens = load_tokenizer(model, config.path or "the vocabulary").vocab_size
        tf.io.gfile.makedirs(tokenizer.uri)
        with tf.io.gfile.GFile(os.path.join(tokenizer.uri, TOKENIZER_MODEL_NAME), "wb") as out:
            out.write(model)
        write_document(
            os.path.join(tokenizer.uri, DESCRIPTION_NAME),
            TokenizerDescription(
                **config.model_dump(exclude=_ELSEWHERE),
                sample=sample,
                cut_words=cut_words,
                lossy_fraction=lossy,
                tokens=tokens,
                sha256=digest,
            ),
        )
        if chat_format := exec_properties.get("chat_format"):
            found = ChatFormat.model_validate_json(chat_format)
            write_chat_format(tokenizer.uri, found)
            tokenizer.set_int_custom_property("answers_end", int(bool(found.stop_ids)))
        tokenizer.set_int_custom_property("tokens", tokens)
        tokenizer.set_int_custom_property("cut_words", cut_words)
        tokenizer.set_float_custom_property("lossy_fraction", lossy)
        tokenizer.set_string_custom_property("sha256", digest)


class _SampleCounter:
    """Counts documents and bytes by source as they pass."""

    def __init__(self) -> None:
        self.by_source: dict[str, Sample] = {}

    def count(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            source = document[1].decode()
            counts = self.by_source.setdefault(source, Sample(documents=0, bytes=0))
            counts.documents += 1
            counts.bytes += len(document[2])
            yield document


def _import_model(path: str, sha256: str) -> bytes:
    """Read the model to import and check that it is the file that the pipeline was made with.

    Raises:
        TokenmillError: It is another one, or cannot be read.
    """
    model, digest = read_model(path)
    if digest != sha256:
        raise TokenmillError(
            f"tokenizer.path = {path}: the file changed since the pipeline was made.",
            "Run again.",
        )
    return model


def _some_texts(uri: str) -> Iterator[bytes]:
    """Read the first texts of the train split, up to _SOME_DOCUMENTS and _SOME_BYTES."""
    size = 0
    for _, _, text in itertools.islice(_read_in_order(uri), _SOME_DOCUMENTS):
        size += len(text)
        if size > _SOME_BYTES:
            return
        yield text


def _rates(uri: str, config: TokenizerConfig) -> dict[str, float]:
    """Compute each source's share of documents to sample, in one pass over the train split."""
    bytes_by_source: dict[str, int] = {}
    for _, source, text in _read_in_order(uri):
        bytes_by_source[source.decode()] = bytes_by_source.get(source.decode(), 0) + len(text)
    return sampling_rates(bytes_by_source, config.sample_bytes, config.source_weights)


def _read_in_order(uri: str) -> Iterator[Document]:
    """Read the documents of the train split, shard by shard; the shards are sorted."""
    directory = split_directory(uri, "train")
    for path in list_files(directory):
        for batch in read_documents(path):
            yield from zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True)


class TokenizerTrainer(base_component.BaseComponent):
    """Trains a SentencePiece vocabulary.

    Outputs:
        tokenizer: `Tokenizer`.

    Args:
        examples: Channel of curated `Examples`.
        config: Model type, vocabulary size, sample; or the absolute path of a model to import.
        model_sha256: SHA-256 of that file; empty if there is none.
        chat_format: JSON of the `ChatFormat` of conversations; empty where documents are texts.
    """

    SPEC_CLASS = TokenizerTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(TokenizerTrainerExecutor)

    def __init__(
        self,
        examples: Channel,
        config: TokenizerConfig,
        model_sha256: str = "",
        chat_format: str = "",
    ):
        spec = TokenizerTrainerSpec(
            examples=examples,
            config=config.to_json(exclude=_ELSEWHERE),
            model_sha256=model_sha256,
            chat_format=chat_format or None,
            tokenizer=Channel(type=Tokenizer),
        )
        super().__init__(spec=spec)


class TokenizingTransformSpec(standard_component_specs.TransformSpec):
    """TFX's Transform with one more input."""

    PARAMETERS = {
        **standard_component_specs.TransformSpec.PARAMETERS,
        "regularization": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        **standard_component_specs.TransformSpec.INPUTS,
        "tokenizer": component_spec.ChannelParameter(type=Tokenizer),
    }


class TokenizingTransformExecutor(base_beam_executor.BaseBeamExecutor):
    """Transform that takes the tokenizer from an input (graph.py, apply_transform.py)."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Make the graph and apply it to both splits."""
        self._log_startup(input_dict, output_dict, exec_properties)
        curated = artifact_utils.get_single_instance(input_dict["examples"])
        tokenizer = artifact_utils.get_single_instance(input_dict["tokenizer"])
        schema = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        graph = artifact_utils.get_single_instance(output_dict["transform_graph"])
        transformed = artifact_utils.get_single_instance(output_dict["transformed_examples"])
        model_path = os.path.join(tokenizer.uri, TOKENIZER_MODEL_NAME)
        chat_format = find_chat_format(tokenizer.uri)
        drawn = json.loads(exec_properties.get("regularization") or "null")
        write_graph(io_utils.SchemaReader().read(schema), model_path, graph.uri)
        counts = {split: os.path.join(transformed.uri, f"tokens-{split}.json") for split in SPLITS}
        with self._make_beam_pipeline() as pipeline:
            for split in SPLITS:
                tokens = pipeline | f"ApplyTransform[{split}]" >> ApplyTransform(
                    curated.uri,
                    transformed.uri,
                    split,
                    graph.uri,
                    model_path,
                    SubwordRegularization(**drawn) if drawn and split == "train" else None,
                    None if chat_format is None else chat_format.special_tokens,
                )
                tokens | f"Count[{split}]" >> beam.Map(_write_count, counts[split])
        for split in SPLITS:
            remove_temporary_files(split_directory(transformed.uri, split))
            transformed.set_int_custom_property(f"{split}_tokens", read_json(counts[split]))
        transformed.split_names = curated.split_names
        # Transform counts nothing itself; the packer checks that every document arrived.
        for name in ("documents", "bytes"):
            transformed.set_int_custom_property(name, curated.get_int_custom_property(name))


def _write_count(tokens: int, path: str) -> None:
    write_json(path, tokens)


class TokenizingTransform(base_beam_component.BaseBeamComponent):
    """Tokenizes in TFX Transform.

    The tf.text op needs the SentencePiece model when the graph is built, and an analyzer's
    result does not exist by then; hence the tokenizer comes from a step before, as an input.

    Outputs:
        transform_graph: `TransformGraph`, raw text -> token ids; part of the pushed model.
        transformed_examples: `Examples` with token_ids, doc_id, source, language, byte_count; its
            custom properties `train_tokens` and `eval_tokens` count the tokens of the splits.

    Args:
        examples: Channel of curated `Examples`.
        schema: Channel of `Schema`.
        tokenizer: Channel of `Tokenizer`.
        regularization: Draw the split of each training document at random; None takes the best.
    """

    SPEC_CLASS = TokenizingTransformSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(TokenizingTransformExecutor)

    def __init__(
        self,
        examples: Channel,
        schema: Channel,
        tokenizer: Channel,
        regularization: SubwordRegularization | None = None,
    ):
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
            regularization=(
                json.dumps(asdict(regularization), sort_keys=True) if regularization else None
            ),
        )
        super().__init__(spec=spec)
