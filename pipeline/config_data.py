"""The configuration of the steps that work on text: ingest to packing."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Threshold = Annotated[float, Field(ge=0.0)] | Literal["off"] | None


class Section(BaseModel):
    """A section of the configuration: known keys only, never changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class CorpusSection(Section):
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


class ValidateSection(Section):
    """Data validation by TFDV."""

    schema_path: str | None = None
    """A pinned schema (schema.pbtxt); without it the schema is inferred from this run's data.

    `tokenmill schema freeze` makes one; docs/validation.md tells how."""
    previous_statistics: str = "off"
    """What to compare this run's data with, for drift: "off"; "latest", the newest run in this
    output directory that passed with other input files; another run's output directory; or a
    directory of statistics (a StatisticsGen artifact)."""
    language: bool = False
    """Identify each document's language for the statistics (some 70 microseconds each)."""


class CurateSection(Section):
    """Curation.

    A threshold left out is what the rule set says; "off" switches the rule off; zero is a
    threshold like any other. `tokenmill curate rules` lists rules, thresholds and sources.
    """

    rules: Literal["web", "technical-prose", "code-docs", "c4", "none"] = "technical-prose"
    """The set of quality rules: what the papers say for web text, or milder ones."""
    languages: tuple[str, ...] = ()
    """ISO 639 codes of the languages to keep (reason wrong_language); empty keeps all."""
    min_language_score: Fraction = 0.65
    """Least probability of one of these languages (FineWeb's threshold)."""
    mask: tuple[Literal["url", "email", "ip"], ...] = ()
    """Personal data to replace by <URL>, <EMAIL>, <IP>."""
    max_line_documents: PositiveInt | Literal["off"] = "off"
    """Remove lines (of 40 characters or more) that stand in more documents than this."""
    exact_duplicates: Literal["drop", "keep"] = "drop"
    """Copies that differ in blanks and case at most (reason exact_duplicate)."""
    near_duplicates: Literal["drop", "keep"] = "drop"
    """Copies with nearly the same word n-grams (reason near_duplicate)."""
    near_duplicate_min_jaccard: Fraction = 0.8
    near_duplicate_ngram_words: PositiveInt = 5
    near_duplicate_bands: PositiveInt = 14
    near_duplicate_rows: PositiveInt = 8
    decontaminate: Literal["held-out", "train", "off"] = "held-out"
    """Which split loses a document if both share a run of words (reason contaminated)."""
    decontaminate_ngram_words: PositiveInt = 13
    benchmark_files: tuple[str, ...] = ()
    """Texts that must not occur in train: files as for corpus.input."""

    max_line_word_characters: Threshold = None
    min_line_end_marks: Threshold = None
    min_line_words: Threshold = None
    max_line_javascript: Threshold = None
    max_line_policy_phrases: Threshold = None
    min_words: Threshold = None
    max_words: Threshold = None
    min_mean_word_length: Threshold = None
    max_mean_word_length: Threshold = None
    max_symbols_per_word: Threshold = None
    max_bullet_line_fraction: Threshold = None
    max_ellipsis_line_fraction: Threshold = None
    min_alphabetic_word_fraction: Threshold = None
    min_stop_words: Threshold = None
    min_letter_fraction: Threshold = None
    max_digit_fraction: Threshold = None
    min_sentences: Threshold = None
    max_curly_brackets: Threshold = None
    max_lorem_ipsum: Threshold = None
    min_punctuated_line_fraction: Threshold = None
    max_short_line_fraction: Threshold = None
    max_repeated_line_characters: Threshold = None
    max_line_feeds_per_word: Threshold = None
    max_duplicate_line_fraction: Threshold = None
    max_duplicate_paragraph_fraction: Threshold = None
    max_duplicate_line_character_fraction: Threshold = None
    max_duplicate_paragraph_character_fraction: Threshold = None
    max_top_2gram_character_fraction: Threshold = None
    max_top_3gram_character_fraction: Threshold = None
    max_top_4gram_character_fraction: Threshold = None
    max_duplicate_5gram_character_fraction: Threshold = None
    max_duplicate_6gram_character_fraction: Threshold = None
    max_duplicate_7gram_character_fraction: Threshold = None
    max_duplicate_8gram_character_fraction: Threshold = None
    max_duplicate_9gram_character_fraction: Threshold = None
    max_duplicate_10gram_character_fraction: Threshold = None


class TokenizerSection(Section):
    """The SentencePiece vocabulary."""

    model_type: Literal["bpe", "unigram"] = "bpe"
    vocab_size: Annotated[int, Field(ge=300, le=1_000_000)] = 8192
    """Pieces in all: 256 of them are bytes, 16 control tokens. `tokenmill tokenizer sweep` helps
    to choose."""
    sample_bytes: PositiveInt = 20_000_000
    """Train on at most about this much text."""
    source_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """How often text of a source is in the sample, in relation to others; 1 where not named."""
    user_symbols: tuple[str, ...] = ()
    """Strings that are always one token, such as "<URL>"; without white space."""
    path: str | None = None
    """An existing SentencePiece model (.model) to use instead of training one."""
    sampling_alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """Unigram: draw the split of each training document, by probability to the power of this
    (subword regularization; 0.1 is usual); None takes the best split."""
    bpe_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """BPE: probability to leave a merge out in a training document (0.1 is usual)."""

    @model_validator(mode="after")
    def _check_sampling(self) -> "TokenizerSection":
        if self.sampling_alpha is not None and self.model_type != "unigram":
            raise ValueError("sampling_alpha is for unigram models; set bpe_dropout for bpe")
        if self.bpe_dropout and self.model_type != "bpe":
            raise ValueError("bpe_dropout is for bpe models; set sampling_alpha for unigram")
        if self.path is not None and (self.source_weights or self.user_symbols):
            raise ValueError("with path nothing is trained: leave source_weights, user_symbols out")
        return self


class PackSection(Section):
    """Packing into fixed-length rows."""

    shards: PositiveInt | Literal["auto"] = "auto"
    """Files per split; a worker packs one shard in memory (docs/packing.md says how much). auto:
    one for each 8 million tokens, at least 1,000 rows each."""
    overlap_tokens: Annotated[int, Field(ge=0)] = 0
    """Context repeated, without a loss, before a piece that does not begin its document."""
    mask_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of the tokens that masked-lm hides and asks for."""
    whole_word: bool = False
    """Hide all pieces of a word together; masked-lm."""
    source_weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Share of the rows of each source, relative to each other; without it, sources share rows
    and weigh as much as they have. A source with weight 0 is left out."""
    max_repetitions: PositiveInt | None = None
    """How often a row is read at most; a source that comes to it leaves the mixture."""
