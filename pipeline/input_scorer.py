"""A scorer of documents, trained on files as a run would train it: for previews."""

from collections.abc import Iterator, Sequence

from components.curate.quality.classifier import ClassifierScorer, describe_classifier
from components.curate.quality.config import file_entries
from components.curate.quality.examples import TrainDocument, gather_examples
from components.curate.quality.scorer import Scorer
from components.curate.quality.training import train_on
from components.ingest.transforms import split_of
from pipeline.config import Config
from pipeline.input_documents import InputDocuments
from pipeline.other_texts import read_benchmarks
from tokenmill.contracts.quality_model import QualityModelDocument


def train_input_scorer(config: Config, paths: Sequence[str]) -> tuple[QualityModelDocument, Scorer]:
    """Train what [curate.quality] asks for on the documents of files.

    Raises:
        TokenmillError: There are too few examples, or a file cannot be read.
    """
    quality = config.curate.quality
    if quality.classifier is not None:
        document = describe_classifier(quality)
        return document, ClassifierScorer(quality.classifier, document.classifier_labels)
    examples = gather_examples(
        (
            TrainDocument(document.source.decode(), document.label.decode(), document.text)
            for document in _of_split(config, paths, "train")
        ),
        _of_files(config, quality.positive),
        _of_files(config, quality.negative),
        (document.text for document in _of_split(config, paths, "eval")),
        read_benchmarks(
            config.curate.benchmark_files, config.corpus.of_texts, config.curate.benchmark_tasks
        ),
        config.curate,
    )
    return train_on(examples)


def _of_split(config: Config, paths: Sequence[str], split: str) -> Iterator:
    for document in InputDocuments(config.corpus).read_documents(paths):
        if split_of(document.text, config.corpus.eval_fraction) == split:
            yield document


def _of_files(config: Config, entries: tuple[str, ...]) -> Iterator[bytes]:
    if paths := file_entries(entries):
        for document in InputDocuments(config.corpus.of_texts).read_documents(paths):
            yield document.text
