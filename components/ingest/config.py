"""The section [corpus]: what is read and how it is split."""

import io
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tokenmill.config_model import Fraction, PositiveInt, Section


class CorpusConfig(Section):
    """Ingest: what is read and how it is split."""

    input: tuple[str, ...] = ()
    """Files, directories or globs; empty means the embedded corpus. {SPAN} stands for a number."""
    span: Annotated[int, Field(ge=0)] | None = None
    """Which span to read where the input holds {SPAN}; None means the newest, the greatest."""
    format: Literal[
        "auto", "jsonl", "text", "csv", "parquet", "tfrecord",
        "html", "warc", "mediawiki", "mbox", "eml",
    ] = "auto"  # fmt: skip
    """The format of all files; "auto" goes by their names, whatever is unknown being text."""
    text_unit: Literal["file", "paragraph"] = "file"
    """What is a document in a text file: all of it, or what stands between blank lines."""
    text_field: str = "text"
    """The key (JSON), column (CSV, Parquet, Arrow) or feature (tf.Example) that holds the text; of
    JSON, Parquet and Arrow also one within others, payload.body."""
    messages_field: str | None = None
    """Conversations instead of texts: the field that holds a list of turns, each with role and
    content (or ShareGPT's from and value), in JSON, Parquet, or as JSON in a column. The model
    learns the answers alone, the turns of the role assistant."""
    prompt_field: str | None = None
    """Conversations of one turn each: the field of the user's text; with completion_field."""
    completion_field: str | None = None
    """The field of the answer to it."""
    id_field: str = "id"
    """The one that holds a unique id; records without it are named file:offset."""
    source_field: str = "source"
    """The one that names where a record came from; without it, the file's directory or name."""
    label_field: str | None = None
    """The one that holds the class of a record, a string or a whole number; for the task
    classification, which leaves out records without it."""
    title_field: str = "title"
    """The one that holds a title; this and those below are left out where they are not there."""
    url_field: str = "url"
    """The one that holds where a text was found."""
    date_field: str = "date"
    """The one that holds a date, as text, a number or a timestamp."""
    license_field: str = "license"
    """The one that holds a license: its SPDX id (CC-BY-SA-4.0), its URL, ..."""
    language_field: str = "language"
    """The one that holds a language tag: de, deu, de-DE, .."""
    csv_delimiter: Annotated[str, Field(pattern='^[^\\r\\n"]$')] = ","
    """What parts the columns of .csv files; .tsv files have tabs."""
    encoding: str | None = None
    """What text that is not UTF-8 is in, by Python's name for it: shift_jis, euc_kr, koi8_r,
    gb18030, ..; None takes UTF-8, and what repair_encoding repairs."""
    repair_encoding: bool = True
    """Repair UTF-16, Windows-1252 and mojibake where safe; false quarantines such bytes."""
    eval_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Share of documents held out for evaluation, chosen by a hash of the text."""
    max_document_bytes: PositiveInt = 10_000_000
    """A longer document is quarantined."""
    max_quarantine_fraction: Fraction = 0.05
    """The run stops if a larger share of the records, of their bytes, of the files or of the
    files' bytes cannot be read."""
    shards: PositiveInt = 4
    """Files per split; a worker sorts one shard in memory."""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str | None) -> str | None:
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        except LookupError:
            raise ValueError(
                "Python knows no text encoding of this name; it knows shift_jis, euc_jp, "
                "iso2022_jp, euc_kr, gb18030, big5, koi8_r, cp1251, iso8859_2, utf_16_le, .."
            ) from None
        return encoding

    @model_validator(mode="after")
    def _check_conversations(self) -> "CorpusConfig":
        if (self.prompt_field is None) != (self.completion_field is None):
            raise ValueError("prompt_field and completion_field go together: set both, or none")
        if self.messages_field is not None and self.prompt_field is not None:
            raise ValueError("set messages_field, or prompt_field and completion_field, not both")
        return self

    @property
    def holds_conversations(self) -> bool:
        """Whether records are conversations, of which the answers are learned."""
        return self.messages_field is not None or self.prompt_field is not None

    @property
    def content_fields(self) -> tuple[str, ...]:
        """Return the fields that hold what is read of a record; it has to have all of them."""
        if self.messages_field is not None:
            return (self.messages_field,)
        if self.prompt_field is not None and self.completion_field is not None:
            return (self.prompt_field, self.completion_field)
        return (self.text_field,)

    @property
    def of_texts(self) -> "CorpusConfig":
        """Return the same for files of plain texts, such as benchmarks."""
        none = dict.fromkeys(("messages_field", "prompt_field", "completion_field"))
        return self.model_copy(update=none)

    @property
    def max_record_bytes(self) -> int:
        """Bytes of a record (a JSON line, a CSV row, a tf.Example) that is looked at at all.

        Three times the document for the escapes (a Cyrillic letter of 2 bytes is 6 in JSON) and
        some for what is around the text; the text itself is checked when it is known.
        """
        return 3 * self.max_document_bytes + 65_536
