"""Ingest as Beam transforms: files in, batches of documents by split and bad records out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import pyarrow as pa

from components.curate.normalise import content_key
from components.documents import BATCH_DOCUMENTS, SPLITS, document_batch, stable_hash
from components.ingest.manifest import InputFile
from components.ingest.readers import BadRecord, Document, ReadSettings, read_file

BAD_RECORDS = "bad_records"
REPAIRED = "repaired"

# A work item is about this much to read: many small files share a batch, a large one stands alone.
_GROUP_BYTES = 16 << 20
_GROUP_FILES = 4096  # opening a file counts, however small
# A batch is passed on when it has BATCH_DOCUMENTS or this much text.
_BATCH_BYTES = 16 << 20


def group_files(files: Iterable[InputFile]) -> Iterator[list[InputFile]]:
    """Groups files, in order, into work items of about `_GROUP_BYTES`, or `_GROUP_FILES`."""
    group: list[InputFile] = []
    size = 0
    for file in files:
        full = size + file.size_bytes > _GROUP_BYTES or len(group) == _GROUP_FILES
        if group and full:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size_bytes
    if group:
        yield group


def split_of(text: bytes, eval_fraction: float) -> str:
    """Train or eval, by a hash of the text without blanks and case.

    Copies of a document fall into the same split, wherever they come from and whatever they are
    called, so that no evaluation text is trained on under another name.
    """
    return "eval" if stable_hash(content_key(text)) < eval_fraction * 2**64 else "train"


class ReadCorpus(beam.PTransform):
    """Reads groups of files.

    Outputs (a dict): "train" and "eval", PCollections of pa.RecordBatch; BAD_RECORDS, one of
    BadRecord; REPAIRED, one of (kind, documents).
    """

    def __init__(self, files: Sequence[InputFile], settings: ReadSettings):
        super().__init__()
        self._groups = list(group_files(files))
        self._settings = settings

    def expand(self, pipeline: beam.Pipeline) -> dict[str, beam.PCollection]:
        """Pipeline -> {"train", "eval", BAD_RECORDS, REPAIRED}."""
        tags = (*SPLITS, BAD_RECORDS, REPAIRED)
        outputs = (
            pipeline
            | "Files" >> beam.Create(self._groups)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_read_group, self._settings).with_outputs(*tags)
        )
        return {tag: outputs[tag] for tag in tags}


def _read_group(
    files: Iterable[InputFile], settings: ReadSettings
) -> Iterator[beam.pvalue.TaggedOutput]:
    pending: dict[str, list[Document]] = {split: [] for split in SPLITS}
    pending_bytes = dict.fromkeys(SPLITS, 0)
    repaired: Counter[str] = Counter()
    for file in files:
        for item in read_file(file, settings):
            if isinstance(item, BadRecord):
                yield beam.pvalue.TaggedOutput(BAD_RECORDS, item)
                continue
            split = split_of(item.text, settings.eval_fraction)
            documents = pending[split]
            documents.append(item)
            pending_bytes[split] += len(item.text)
            if item.repaired:
                repaired.update(item.repaired)
            if len(documents) >= BATCH_DOCUMENTS or pending_bytes[split] >= _BATCH_BYTES:
                yield beam.pvalue.TaggedOutput(split, _batch(documents))
                pending[split] = []
                pending_bytes[split] = 0
    for split in SPLITS:
        if pending[split]:
            yield beam.pvalue.TaggedOutput(split, _batch(pending[split]))
    for count in repaired.items():
        yield beam.pvalue.TaggedOutput(REPAIRED, count)


def _batch(documents: list[Document]) -> pa.RecordBatch:
    return document_batch(
        [d.doc_id for d in documents],
        [d.source for d in documents],
        [d.text for d in documents],
        [d.label for d in documents],
    )
