"""The documents of files that a command is given, read as the ingest step reads them."""

from collections.abc import Iterator, Sequence

from components.ingest.config import CorpusConfig
from components.ingest.manifest import list_inputs
from components.ingest.readers import read_file
from components.ingest.records import Document
from tokenmill.contracts.ingest import BadRecord


class InputDocuments:
    """Reads files as the ingest step does, and counts.

    Args:
        corpus: The [corpus] section.
    """

    def __init__(self, corpus: CorpusConfig):
        self._corpus = corpus
        self.files = self.read = self.bad = 0
        self.first_bad = ""

    def read_documents(self, paths: Sequence[str]) -> Iterator[Document]:
        """Yield each document of the files."""
        files = list_inputs(paths, "PATH")
        self.files = len(files)
        for file in files:
            for item in read_file(file, self._corpus):
                if isinstance(item, BadRecord):
                    self.bad += 1
                    self.first_bad = self.first_bad or str(item)
                elif isinstance(item, Document):
                    self.read += 1
                    yield item
