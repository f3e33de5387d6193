"""The section [curate.quality]: what a scorer learns from, and what its scores decide."""

from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tokenmill.config_model import Fraction, Section

SOURCE_SIGN, LABEL_SIGN = "source:", "label:"

Share = Annotated[float, Field(gt=0.0, le=1.0)]


def _are_named(given: tuple[str, ...]) -> tuple[str, ...]:
    """Raise ValueError for a sign without a name behind it."""
    for entry in given:
        if entry in (SOURCE_SIGN, LABEL_SIGN, ""):
            raise ValueError(f"{entry!r}: expected a file, source:NAME or label:NAME")
    return given


class ExampleFiles(NamedTuple):
    """The pinned texts of the files of examples, by class; empty for none."""

    positive: str = ""
    negative: str = ""


def _as_list(given: Any) -> Any:
    """Take one entry for a list of one."""
    return (given,) if isinstance(given, str) else given


Examples = Annotated[tuple[str, ...], BeforeValidator(_as_list), AfterValidator(_are_named)]


class QualityConfig(Section):
    """A score of documents that is learned from examples, and what it decides."""

    positive: Examples = ()
    """Examples of what is wanted: files as for corpus.input, or documents of the training split
    by source:NAME or label:NAME. With classifier: the labels that are wanted, label:NAME."""
    negative: Examples = ()
    """Examples of what is not, likewise; without it, all other documents of the training split."""
    classifier: str | None = None
    """A classifier to score with instead of training a linear model: the directory of a version
    that a run with train.task = classification pushed."""
    min_score: Fraction | None = None
    """Drop documents with a lower score (reason low_quality); the score is from 0 to 1."""
    top_share: Share | None = None
    """Keep of each source the documents with the best scores that make up this share of its bytes
    (reason low_quality)."""
    source_top_shares: dict[str, Share] = {}
    """The same for single sources, before top_share; 1 keeps a source whole."""

    @model_validator(mode="after")
    def _check(self) -> "QualityConfig":
        """Raise for examples that are not enough, and for decisions without a score."""
        if self.classifier is not None:
            wrong = [entry for entry in self.positive if not entry.startswith(LABEL_SIGN)]
            if wrong or not self.positive or self.negative:
                raise ValueError(
                    f"curate.quality.classifier = {self.classifier}: expected the classifier's "
                    'labels that are wanted in curate.quality.positive, as ["label:good"], and no '
                    "curate.quality.negative"
                )
        elif self.negative and not self.positive:
            raise ValueError(
                "curate.quality.negative: expected curate.quality.positive beside it, examples of "
                "what is wanted"
            )
        for name in ("min_score", "top_share", "source_top_shares"):
            if (value := getattr(self, name)) and not self.is_used:
                raise ValueError(
                    f"curate.quality.{name} = {value}: expected examples in "
                    "curate.quality.positive, or a curate.quality.classifier, that give a score"
                )
        return self

    @property
    def is_used(self) -> bool:
        """Whether documents are scored."""
        return bool(self.positive) or self.classifier is not None

    @property
    def selects_share(self) -> bool:
        """Whether some source keeps a share of the best alone."""
        return self.top_share is not None or bool(self.source_top_shares)

    def share_of(self, source: str) -> float:
        """Return which share of a source's bytes stays, 1 for all."""
        default = 1.0 if self.top_share is None else self.top_share
        return self.source_top_shares.get(source, default)

    def __hash__(self) -> int:
        """Hash what cannot change; a dict, which pydantic would hash, has no hash."""
        return hash((self.positive, self.negative, self.classifier, self.min_score, self.top_share))


def file_entries(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return those entries of `positive` or `negative` that are files."""
    return tuple(e for e in entries if not e.startswith((SOURCE_SIGN, LABEL_SIGN)))
