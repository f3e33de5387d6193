"""QualityTrainer: learns from examples what the Curator scores documents by."""

import json
from collections.abc import Iterator

from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import Channel, artifact_utils, component_spec

from components.artifacts import Examples, QualityModel
from components.curate.config import CurateConfig
from components.curate.quality.classifier import import_classifier
from components.curate.quality.config import ExampleFiles
from components.curate.quality.examples import TrainDocument, gather_examples
from components.curate.quality.training import train_on
from tokenmill.contracts.quality_model import write_quality_model
from tokenmill.files import list_files
from tokenmill.records.documents import read_documents
from tokenmill.records.splits import split_directory
from tokenmill.timing import timed

# What of [curate] a score depends on.
_KEYS = {"quality", "mask", "decontaminate_ngram_words", "decontaminate_max_documents"}
_DECISIONS = {"min_score", "top_share", "source_top_shares"}


class QualityTrainerSpec(component_spec.ComponentSpec):
    """Examples in, a scorer of documents out."""

    PARAMETERS = {
        "config": component_spec.ExecutionParameter(type=str),
        "files": component_spec.ExecutionParameter(type=str),
        "benchmarks": component_spec.ExecutionParameter(type=str),
        "classifier": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {"examples": component_spec.ChannelParameter(type=Examples)}
    OUTPUTS = {"quality_model": component_spec.ChannelParameter(type=QualityModel)}


class QualityTrainerExecutor(base_executor.BaseExecutor):
    """Trains a linear model of hashed n-grams on examples that no evaluation text is among."""

    @timed
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        """Write the scorer and what it is worth on held-out examples; or import a classifier.

        Raises:
            TokenmillError: There are too few examples, or the classifier has changed.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        uri = artifact_utils.get_single_uri(input_dict["examples"])
        artifact = artifact_utils.get_single_instance(output_dict["quality_model"])
        config = CurateConfig.from_json(exec_properties["config"])
        if classifier := exec_properties.get("classifier"):
            document = import_classifier(config.quality, classifier, artifact.uri)
            write_quality_model(artifact.uri, document, None)
            return
        files = ExampleFiles(**json.loads(exec_properties["files"]))
        examples = gather_examples(
            _train_documents(uri),
            _texts(files.positive),
            _texts(files.negative),
            (text for path in _paths(uri, "eval") for text in _texts(path)),
            json.loads(exec_properties["benchmarks"]),
            config,
        )
        document, scorer = train_on(examples)
        write_quality_model(artifact.uri, document, scorer.weights)
        artifact.set_int_custom_property("positive_examples", document.positive.documents)
        artifact.set_int_custom_property("negative_examples", document.negative.documents)
        assert document.held_out is not None
        artifact.set_float_custom_property("roc_auc", document.held_out.roc_auc)


def _paths(uri: str, split: str) -> list[str]:
    return list_files(split_directory(uri, split))


def _train_documents(uri: str) -> Iterator[TrainDocument]:
    for path in _paths(uri, "train"):
        for batch in read_documents(path):
            columns = (batch.column(name).to_pylist() for name in ("source", "label", "text"))
            for source, label, text in zip(*columns, strict=True):
                yield TrainDocument(source.decode(), label.decode(), text)


def _texts(path: str) -> Iterator[bytes]:
    """Read the texts of a file of documents; none of no file."""
    if path:
        for batch in read_documents(path):
            yield from batch.column("text").to_pylist()


class QualityTrainer(base_component.BaseComponent):
    """Learns a score of documents from examples of what is wanted and what is not.

    Outputs:
        quality_model: `QualityModel`.

    Args:
        examples: Channel of `Examples` as ingested: of its training split are examples, its
            evaluation split says what must not be one.
        config: The section [curate].
        files: Pinned texts of the files that config.quality names.
        benchmarks: Texts that must not be an example, either.
        classifier: Fingerprint of the classifier that config.quality names; empty for none.
    """

    SPEC_CLASS = QualityTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(QualityTrainerExecutor)

    def __init__(
        self,
        examples: Channel,
        config: CurateConfig,
        files: ExampleFiles,
        benchmarks: tuple[str, ...],
        classifier: str = "",
    ):
        # A new threshold trains nothing anew.
        fields = type(config.quality).model_fields
        undecided = config.quality.model_copy(
            update={name: fields[name].default for name in _DECISIONS}
        )
        spec = QualityTrainerSpec(
            examples=examples,
            config=config.model_copy(update={"quality": undecided}).to_json(include=_KEYS),
            files=json.dumps(files._asdict(), sort_keys=True),
            benchmarks=json.dumps(benchmarks),
            classifier=classifier or None,
            quality_model=Channel(type=QualityModel),
        )
        super().__init__(spec=spec)
