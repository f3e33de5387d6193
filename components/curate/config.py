"""The section [curate]: rules, thresholds, copies and decontamination."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from components.curate.list_entries import FILE_SIGN, ListFiles, parse_entry
from components.curate.quality.config import QualityConfig
from tokenmill.config_model import Fraction, PositiveInt, Section
from tokenmill.nearest import did_you_mean
from tokenmill.text.language import LANGUAGES

GivesWay = Literal["held-out", "train", "off"]


def _language_codes(value: Any) -> Any:
    """Take one code for a list of one; raise ValueError for what is no code that can be told."""
    codes = (value,) if isinstance(value, str) else value
    if isinstance(codes, list | tuple):
        for code in codes:
            if not isinstance(code, str) or code not in LANGUAGES:
                near = did_you_mean(str(code).lower()[:2], sorted(LANGUAGES))
                raise ValueError(
                    f"{code!r} is none of the ISO 639 codes that can be told, such as "
                    f'["en", "de"]{near}'
                )
    return codes


Limit = Annotated[float, Field(ge=0.0)] | Literal["off"]
Threshold = Limit | None


LINE_THRESHOLDS = (
    "max_line_word_characters",
    "min_line_end_marks",
    "min_line_words",
    "max_line_javascript",
    "max_line_policy_phrases",
)
"""Those of rules for lines, which come before a document's language is known."""


def _entries(key: str) -> BeforeValidator:
    """Return what takes one entry for a list of one, and raises ValueError for what is none."""

    def check(value: Any) -> Any:
        entries = (value,) if isinstance(value, str) else value
        for entry in entries if isinstance(entries, list | tuple) else ():
            if not isinstance(entry, str) or entry.startswith(FILE_SIGN):
                continue
            try:
                parse_entry(key, entry)
            except ValueError as error:
                raise ValueError(f"{entry!r}: expected {error}") from None
        return entries

    return BeforeValidator(check)


class CurateConfig(Section):
    """Curation.

    A threshold left out is what the rule set says; "off" switches the rule off; zero is a
    threshold like any other. `tokenmill curate rules` lists rules, thresholds and sources.
    """

    rules: Literal["web", "technical-prose", "code-docs", "c4", "fineweb-2", "none"] = (
        "technical-prose"
    )
    """The set of quality rules: what the papers say for web text, or milder ones; fineweb-2 has
    thresholds for each of 175 languages."""
    language_thresholds: dict[str, dict[str, Limit]] = {}
    """Thresholds of a language, by its ISO 639 code, before those for all: [curate
    .language_thresholds.de] with min_words = 20. `tokenmill curate calibrate` derives them."""
    languages: Annotated[tuple[str, ...], BeforeValidator(_language_codes)] = ()
    """ISO 639 codes of the languages to keep (reason wrong_language); empty keeps all."""
    min_language_score: Fraction = 0.65
    """Least probability of a language; below it the language is not known (FineWeb's threshold)."""
    unknown_language: Literal["keep", "drop"] = "keep"
    """What becomes of documents whose language is not known, if languages says what to keep."""
    urls: Annotated[tuple[str, ...], _entries("urls")] = ()
    """Keep only documents of these hosts (example.org, with its subdomains) or of URLs that begin
    so (example.org/blog/); "@FILE" stands for a file with one a line. Reasons: no_url,
    url_not_allowed; empty keeps all."""
    deny_urls: Annotated[tuple[str, ...], _entries("deny_urls")] = ()
    """Drop documents of these hosts, or of URLs that begin so (reason denied_url); likewise."""
    licenses: Annotated[tuple[str, ...], _entries("licenses")] = ()
    """Keep only documents whose license one of these patterns matches (MIT, CC-BY*), or "@FILE".
    Reasons: no_license, license_not_allowed; empty keeps all."""
    deny_licenses: Annotated[tuple[str, ...], _entries("deny_licenses")] = ()
    """Drop documents whose license one of these patterns matches (reason denied_license)."""
    deny_words: Annotated[tuple[str, ...], _entries("deny_words")] = ()
    """Drop documents with one of these words or phrases (reason denied_word), or of "@FILE"."""
    mask: tuple[Literal["url", "email", "key", "ip", "iban", "card", "phone"], ...] = ()
    """Personal data and secrets to replace by <URL>, <EMAIL>, <KEY> (of an API, or private), <IP>,
    <IBAN>, <CARD>, <PHONE>."""
    max_drop_fraction: Fraction = 0.5
    """The run stops if a quality rule drops a larger share of a source, a language or the whole.

    Of those with ten documents or more; a rule for lines: of the bytes of the whole."""
    max_line_documents: PositiveInt | Literal["off"] = "off"
    """Remove lines (of 40 characters or more) that stand in more documents than this."""
    exact_duplicates: Literal["drop", "keep"] = "drop"
    """Copies that differ in blanks and case at most (reason exact_duplicate)."""
    near_duplicates: Literal["drop", "keep"] = "drop"
    """Copies with nearly the same n-grams of words (reason near_duplicate)."""
    near_duplicate_min_jaccard: Fraction = 0.8
    """Documents at least this similar are copies of each other."""
    near_duplicate_ngram_words: PositiveInt = 5
    """Words of an n-gram; shorter documents are compared for exact copies only."""
    near_duplicate_bands: PositiveInt = 14
    """LSH bands."""
    near_duplicate_rows: PositiveInt = 8
    """MinHash values a band."""
    decontaminate: GivesWay = "held-out"
    """Which split loses a document if both share a run of words (reason contaminated)."""
    decontaminate_ngram_words: PositiveInt = 13
    """Words of a run (of scripts without blanks: pieces as long as words)."""
    decontaminate_max_documents: PositiveInt | Literal["auto"] = "auto"
    """A run of words that more documents have is boilerplate, and contaminates nothing.

    "auto": 10, or one in 10,000 if that is more; of few documents a fifth, but at least 3."""
    benchmark_files: tuple[str, ...] = ()
    """Texts that must not occur in train: files as for corpus.input.

    Those of fewer words than a run are looked for as a whole, if they have five words."""
    benchmark_tasks: tuple[str, ...] = ()
    """Benchmark tasks whose texts must not occur in train, either: bits_per_byte, cloze,
    continuation, or a task's YAML file with local texts, as for evaluate.benchmarks."""
    quality: QualityConfig = QualityConfig()
    """A score that is learned from examples: [curate.quality]."""

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """Return the lists of hosts, licenses and words, by key; an empty one is not in use."""
        return {key: getattr(self, key) for key in ListFiles._fields}

    @field_validator("language_thresholds")
    @classmethod
    def _are_thresholds(cls, given: dict[str, dict[str, Limit]]) -> dict[str, dict[str, Limit]]:
        _language_codes(tuple(given))
        names = [
            name
            for name, field in cls.model_fields.items()
            if field.annotation == cls.model_fields["min_words"].annotation
            and name not in LINE_THRESHOLDS
        ]
        for code, thresholds in given.items():
            for name in thresholds:
                if name not in names:
                    raise ValueError(
                        f"{code}.{name} is no threshold of a rule for documents"
                        f"{did_you_mean(name, names)}"
                    )
        return given

    def __hash__(self) -> int:
        """Hash what cannot change; a dict, which pydantic would hash, has no hash."""
        return hash((self.rules, self.languages))

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
    max_menu_character_fraction: Threshold = None
    max_replacement_character_fraction: Threshold = None
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
