"""value.json: what variants of a text are worth, measured by paired small trainings.

`tokenmill value` writes it; the ledger reads what was measured of its own configuration.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ConfigDict, Field

from tokenmill.contracts.base import Document, Part, key, read_document, write_document

VALUE_NAME = "value.json"
VALUE_SCHEMA: Final = "tokenmill-value-1"

Verdict = Literal["better", "worse", "equal", "undecided"]


class HeldOutText(Part):
    """A set of held-out documents."""

    documents: int = key("Documents.", ge=0)
    bytes: int = key("UTF-8 bytes of their text.", ge=0)
    origin: str = key("Where they come from.")


class Proxy(Part):
    """The small model that stands for the large one, and the large one."""

    params_total: int = key("All its parameters.", gt=0)
    params_active: int | None = key(
        "Those that a token passes: all but the experts that it is not sent to.", default=None
    )
    layers: int = key("Its layers.", gt=0)
    d_model: int = key("Features of a token between them.", gt=0)
    sequence_length: int = key("Tokens of a row.", gt=0)
    target_params_total: int = key("All parameters of the configuration's own model.", gt=0)
    target_params_active: int | None = key("Those of them that a token passes.", default=None)


class Preparation(Part):
    """The text of a variant, and what preparing it cost."""

    documents: int = key("Documents after curation, training split.", ge=0)
    bytes: int = key("Bytes of their text.", ge=0)
    unique_tokens: int = key("Loss tokens of one pass over the rows.", ge=0)
    cpu_seconds: float = key(
        "From reading to packing, core seconds; when it ran, if it is from the cache.", ge=0
    )
    usd: float = key("The same at the price of a core, USD.", ge=0)


class ProxyRun(Part):
    """One small training at the number of tokens where variants are compared."""

    seed: int = key("Of weights and the order of rows.", ge=0)
    loss_tokens: int = key("Loss tokens that it read.", ge=0)
    seconds: float = key("How long it took, seconds.", ge=0)
    usd: float = key("At the configuration's price, USD.", ge=0)
    bits_per_byte: dict[str, float] = key("Loss on each set of held-out documents.")


class Difference(Part):
    """A variant less the reference, bits per byte; below 0 the variant is better."""

    mean: float = key("The mean of all seeds.")
    low: float = key("Lower end of its interval, at the confidence of all looks together.")
    high: float = key("Upper end.")
    seeds: int = key("Pairs of trainings.", ge=1)
    documents: int = key("Held-out documents.", ge=1)


class Multiplier(Part):
    """How many tokens of the reference a token is worth: the ratio of tokens for equal loss."""

    value: float | None = key("The ratio; null outside of what the reference's tokens could tell.")
    low: float | None = key("Lower end of its interval, at most `most`; null below `least`.")
    high: float | None = key("Upper end, at least `least`; null above `most`.")
    least: float = key("The least ratio that could have been told.")
    most: float = key("The greatest.")


class PriceOfGain(Part):
    """What a variant costs more to prepare, and saves at equal loss; USD per million tokens."""

    preparation_usd: float = key("Of preparing a million loss tokens of it, USD.", ge=0)
    more_preparation_usd: float = key("The same less the reference's, USD.")
    training_usd: float = key(
        "Of training the configuration's own model on a million positions, USD.", ge=0
    )
    saved_usd: float | None = key(
        "Training that the reference would need more for the same loss, USD; null without a ratio."
    )
    saved_usd_low: float | None = key("By the ratio's lower end, USD.")
    saved_usd_high: float | None = key("By its upper end, USD.")
    net_usd: float | None = key("Saved less what the preparation costs more, USD.")


class VariantValue(Part):
    """One variant: what it is, what it cost and what it is worth against the reference."""

    name: str = key("Its name.")
    changes: list[str] = key("What it sets otherwise than the configuration, as for --set.")
    data_fingerprint: str = key(
        "Of the sections that decide what is trained on; empty where a source is left out."
    )
    preparation: Preparation
    epochs: float = key("Passes over its rows of each training.", ge=0)
    steps: int = key("Optimizer steps of each.", gt=0)
    runs: list[ProxyRun] = key("Its trainings, a seed each.")
    differences: dict[str, Difference] = key(
        "By set of held-out documents; empty of the reference. A set of one document has none."
    )
    verdict: Verdict | None = key("By the set `all`; null of the reference.")
    multiplier: Multiplier | None = key("By the set `all`; null where multiplier_note says why.")
    multiplier_note: str = key("Why there is no ratio, or why it has an open end; else empty.")
    price: PriceOfGain | None = key("Null of the reference.")


class CurvePoint(Part):
    """The reference after so many tokens."""

    loss_tokens: float = key("Loss tokens.", gt=0)
    bits_per_byte: float = key("Loss on the set `all`, mean of all seeds.", ge=0)
    standard_error: float | None = key("From seed to seed; null of a single one.")


class Curve(Part):
    """The reference's loss L(D) = e + b / D^beta, in bits per byte."""

    e: float = key("What no number of tokens avoids at this size.", ge=0)
    b: float = key("Factor of the term in tokens.", ge=0)
    beta: float = key("Its exponent.", gt=0)


class SourceValue(Part):
    """A source: its text, its cost, and what it is worth among the others."""

    documents: int = key("Documents after curation, training split.", ge=0)
    bytes: int = key("Bytes of their text.", ge=0)
    unique_tokens: int = key("Loss tokens of one pass over its rows.", ge=0)
    share: float = key("Of all loss tokens, a fraction.", ge=0, le=1)
    preparation_usd: float = key("Its share of the preparation, by bytes, USD.", ge=0)
    training_usd: float = key("Of one pass of the configuration's own model over it, USD.", ge=0)
    without: Difference | None = key(
        "Trained without it on as many tokens, less trained with it; above 0 it helps."
    )
    verdict: Literal["helps", "hurts", "no difference", "undecided"] | None = key(
        "By the set `all`; null where nothing could be measured."
    )
    worth: Multiplier | None = key(
        "What one of its tokens is worth, in tokens of the mixture: (1 - (1 - share) m) / share, "
        "m the ratio of the text without it; null without that."
    )


class MixtureRun(Part):
    """A small training over random weights."""

    weights: dict[str, float] = key("Share of each source; they sum to 1.")
    seed: int = key("Of weights and the order of rows.", ge=0)
    bits_per_byte: float = key("Loss on the set `all`.", ge=0)


class MixtureSearch(Part):
    """Weights of sources that a regression over small trainings proposes."""

    natural: dict[str, float] = key("Share of each source in the rows as they are.")
    proposed: dict[str, float] = key("What the search proposes: pack.source_weights.")
    runs: list[MixtureRun] = key("The trainings that the regression is of.")
    regression: str = key("Its form.")
    cross_validated_error: float = key(
        "Root mean square of what it predicts of runs that it has not seen, bits per byte.", ge=0
    )
    mean_error: float = key("The same of predicting their mean, bits per byte.", ge=0)
    predicted: float = key("Proposed less natural by the regression, bits per byte.")
    check: Difference | None = key("The same by paired trainings of fresh seeds.")
    verdict: Verdict | None = key("By those; null where none was made.")
    note: str = key("What the proposal is worth, in words.")


class Value(Document):
    """value.json: what variants of a text are worth."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), title="value.json")
    schema_: Literal["tokenmill-value-1"] = Field(
        alias="schema", description="Name and version of this format."
    )
    reference: str = key("Name of the variant that the others are compared with.")
    equal: Literal["tokens", "usd"] = key("What is the same in all trainings.")
    proxy: Proxy
    held_out: dict[str, HeldOutText] = key("The sets of held-out documents; `all` decides.")
    seeds: list[int] = key("Seeds that all variants were trained with.")
    looks: list[int] = key("After how many seeds the study could look, fixed before the first.")
    confidence: float = key("Of an interval, over all looks together.", gt=0, le=1)
    margin: float = key("The largest difference that counts as none, bits per byte.", ge=0)
    stopped: Literal["clear", "budget", "seeds"] = key(
        "Why no further seed was trained: all verdicts were clear, the budget was spent, or the "
        "last planned look was had."
    )
    curve_points: list[CurvePoint] = key("The reference after several numbers of tokens.")
    curve: Curve | None = key("Through them; null where they lie on none.")
    variants: list[VariantValue] = key("All of them, the reference first.")
    sources: dict[str, SourceValue] = key("Each source, with --sources; else empty.")
    mixture: MixtureSearch | None = key("With --mixture; else null.")
    seconds: float = key("Of all small trainings, seconds.", ge=0)
    usd: float = key("Of all small trainings, USD.", ge=0)

    def variant(self, name: str) -> VariantValue:
        """Return a variant by its name."""
        return next(variant for variant in self.variants if variant.name == name)


def read_value(path: str) -> Value:
    """Read a value.json.

    Raises:
        TokenmillError: It is no such document.
    """
    return read_document(path, Value)


def write_value(path: str, value: Value) -> None:
    """Write a value.json."""
    write_document(path, value)
