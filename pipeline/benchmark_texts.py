"""Reads benchmark files, whose text must not occur in the training split."""

from collections.abc import Sequence

from components.ingest.config import CorpusConfig
from components.ingest.manifest import list_inputs
from components.ingest.readers import read_file
from components.ingest.records import Document
from tokenmill.contracts.ingest import BadRecord
from tokenmill.errors import TokenmillError


def read_benchmarks(inputs: Sequence[str], settings: CorpusConfig) -> tuple[str, ...]:
    """The texts of all records of files as for corpus.input.

    Raises:
        TokenmillError: A file is missing or a record cannot be read: a benchmark that is only
            half guarded against is worse than a stop.
    """
    texts = []
    for file in list_inputs(inputs, "curate.benchmark_files") if inputs else ():
        for item in read_file(file, settings):
            if isinstance(item, BadRecord):
                raise TokenmillError(
                    f"curate.benchmark_files: {item.file}:{item.record}: {item.reason}: "
                    f"{item.detail}."
                )
            if isinstance(item, Document):
                texts.append(item.text.decode())
    return tuple(texts)
