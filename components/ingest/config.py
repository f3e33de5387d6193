"""The section [corpus]: what is read and how it is split."""

from typing import Annotated, Literal

from pydantic import Field

from tokenmill.config_model import Fraction, PositiveInt, Section


class CorpusConfig(Section):
    """Ingest: what is read and how it is split."""

    input: tuple[str, ...] = ()
    """Files, directories or globs; empty means the embedded corpus. {SPAN} stands for a number."""
    span: Annotated[int, Field(ge=0)] | None = None
    """Which span to read where the input holds {SPAN}; None means the newest, the greatest."""
    format: Literal["auto", "jsonl", "text", "csv", "parquet", "tfrecord"] = "auto"
    """The format of all files; "auto" goes by their names, whatever is unknown being text."""
    text_unit: Literal["file", "paragraph"] = "file"
    """What is a document in a text file: all of it, or what stands between blank lines."""
    text_field: str = "text"
    """The key (JSON), column (CSV, Parquet) or feature (tf.Example) that holds the text."""
    id_field: str = "id"
    """The one that holds a unique id; records without it are named file:offset."""
    source_field: str = "source"
    """The one that names where a record came from; without it, the file's directory or name."""
    label_field: str | None = None
    """The one that holds the class of a record, a string or a whole number; for the task
    classification, which leaves out records without it."""
    csv_delimiter: Annotated[str, Field(pattern='^[^\\r\\n"]$')] = ","
    """What parts the columns of .csv files; .tsv files have tabs."""
    repair_encoding: bool = True
    """Repair UTF-16, Windows-1252 and mojibake where safe; false quarantines such bytes."""
    eval_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Share of documents held out for evaluation, chosen by a hash of the text."""
    max_document_bytes: PositiveInt = 10_000_000
    """A longer document is quarantined."""
    max_quarantine_fraction: Fraction = 0.05
    """The run stops if a larger share of the records cannot be read."""
    shards: PositiveInt = 4
    """Files per split; a worker sorts one shard in memory."""

    @property
    def max_record_bytes(self) -> int:
        """Bytes of a record (a JSON line, a CSV row, a tf.Example) that is looked at at all.

        Three times the document for the escapes (a Cyrillic letter of 2 bytes is 6 in JSON) and
        some for what is around the text; the text itself is checked when it is known.
        """
        return 3 * self.max_document_bytes + 65_536
