"""Texts beside the input: benchmarks, which are not trained on, examples, and a general text."""

import hashlib
import os
from collections.abc import Iterator, Sequence

from components.curate.quality.config import ExampleFiles, QualityConfig, file_entries
from components.ingest.config import CorpusConfig
from components.ingest.manifest import list_inputs
from components.ingest.readers import read_file
from components.ingest.records import Document
from tokenmill.benchmark_tasks import find_tasks
from tokenmill.contracts.ingest import BadRecord
from tokenmill.errors import TokenmillError
from tokenmill.records.documents import document_batch, encode_documents
from tokenmill.records.tfrecord import write_tfrecords

_GENERAL_TEXT = "evaluate.forgetting_input"


def read_benchmarks(
    inputs: Sequence[str], settings: CorpusConfig, tasks: Sequence[str] = ()
) -> tuple[str, ...]:
    """Read the texts of all records of files, given as for corpus.input, then those of tasks.

    Args:
        inputs: Files, directories or globs (curate.benchmark_files).
        settings: How files are read.
        tasks: Benchmark tasks (curate.benchmark_tasks).

    Raises:
        TokenmillError: A file is missing or a record cannot be read: a benchmark that is only
            half guarded against is worse than a stop.
    """
    found = read_texts(inputs, "curate.benchmark_files", settings)
    texts = (text for task in find_tasks(tasks, "curate.benchmark_tasks") for text in task.texts())
    return (*(text.decode() for text in found), *texts)


def read_texts(inputs: Sequence[str], option: str, settings: CorpusConfig) -> Iterator[bytes]:
    """Yield the texts of all records of files, given as for corpus.input.

    Args:
        inputs: Files, directories or globs.
        option: What named them, for messages.
        settings: How files are read.

    Raises:
        TokenmillError: A file is missing or a record cannot be read.
    """
    return (document.text for document in _read(inputs, option, settings))


def pin_general_text(path: str, settings: CorpusConfig, directory: str) -> str:
    """Write the documents of evaluate.forgetting_input into a file named by its content.

    So TFX's cache sees a change, and no step needs the user's files.

    Args:
        path: A file, directory or glob.
        settings: How files are read.
        directory: Where the file goes; all workers must see it.

    Returns:
        The path of a TFRecord file of documents.

    Raises:
        TokenmillError: A file is missing, a record cannot be read, or there is no document.
    """
    return _pin([path], _GENERAL_TEXT, settings, os.path.join(directory, "general-text"))


def pin_examples(config: QualityConfig, settings: CorpusConfig, directory: str) -> ExampleFiles:
    """Write the documents of the files that [curate.quality] names into files by their content.

    Args:
        config: Names the files of positive and negative examples.
        settings: How files are read.
        directory: Where the files go; all workers must see it.

    Raises:
        TokenmillError: As for `pin_general_text`.
    """
    pinned = {}
    for name in ExampleFiles._fields:
        paths = [] if config.classifier else file_entries(getattr(config, name))
        if paths:
            target = os.path.join(directory, f"{name}-examples")
            pinned[name] = _pin(paths, f"curate.quality.{name}", settings, target)
    return ExampleFiles(**pinned)


def _pin(paths: Sequence[str], option: str, settings: CorpusConfig, target: str) -> str:
    """Write the documents of files into a TFRecord file named by its content; return its path.

    Args:
        paths: Files, directories or globs.
        option: The key that names them, for messages.
        settings: How files are read.
        target: What the path begins with.

    Raises:
        TokenmillError: As for `pin_general_text`.
    """
    digest, documents = hashlib.sha256(), 0
    for record in _records(paths, option, settings):
        digest.update(len(record).to_bytes(8, "little"))
        digest.update(record)
        documents += 1
    if not documents:
        raise TokenmillError(
            f"{option} = {', '.join(paths)}: there is no document in it.",
            "Expected text, read as corpus.input is; leave the key out if there is none.",
        )
    pinned = f"{target}-{digest.hexdigest()[:16]}.tfrecord.gz"
    write_tfrecords(pinned, _records(paths, option, settings), gzip=True)
    return pinned


def _records(paths: Sequence[str], option: str, settings: CorpusConfig) -> Iterator[bytes]:
    for document in _read(paths, option, settings):
        batch = document_batch([document.doc_id], [document.source], [document.text])
        yield from (record for _, record in encode_documents(batch))


def _read(inputs: Sequence[str], option: str, settings: CorpusConfig) -> Iterator[Document]:
    for file in list_inputs(inputs, option) if inputs else ():
        for item in read_file(file, settings):
            if isinstance(item, BadRecord):
                raise TokenmillError(
                    f"{option}: {item.file}:{item.record}: {item.reason}: {item.detail}.",
                    "Correct the record, or leave it out.",
                )
            if isinstance(item, Document):
                yield item
