"""ladder.json: a text's own scaling law, and the small trainings that it was fitted to."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ConfigDict, Field

from tokenmill.contracts.base import Document, Part, key, read_document, write_document
from tokenmill.errors import TokenmillError

LADDER_NAME = "ladder.json"
LADDER_SCHEMA: Final = "tokenmill-ladder-2"

TrunkPurpose = Literal[
    "ladder", "other seed", "larger batch", "half the learning rate", "twice the learning rate"
]


class Interval(Part):
    """A number with its interval of the document's level."""

    value: float = key("What is most likely.")
    low: float = key("Lower end.")
    high: float = key("Upper end.")


class LadderText(Part):
    """The text that small and large trainings read."""

    unique_tokens: int = key("Loss tokens of one pass over the training split.", ge=1)
    bytes_per_token: float = key("Bytes of text a loss token.", gt=0)
    train_bytes: int = key("Bytes of it.", ge=1)
    prepare_seconds: float = key("Of the steps up to the packed rows, seconds.", ge=0)
    prepare_usd: float = key("Their cost, USD.", ge=0)


class LadderHeldOut(Part):
    """The held-out text that losses are of."""

    documents: int = key("Documents.", ge=1)
    bytes: int = key("Bytes.", ge=1)
    unigram_bits_per_byte: float = key("Of the frequencies of tokens, on the eval split.", gt=0)


class LadderSpending(Part):
    """What the ladder was given, and what it took."""

    max_usd: float | None = key("Limit, USD; null for none.")
    max_seconds: float | None = key("Limit, seconds; null for none.")
    usd: float = key("All small trainings, those of earlier calls too, USD.", ge=0)
    seconds: float = key("The same, seconds.", ge=0)
    new_seconds: float = key("Trained in this call, seconds.", ge=0)
    usd_per_hour: float = key("Of this machine, USD.", ge=0)


class LadderPoint(Part):
    """A small training that was decayed and evaluated."""

    trunk: str = key("Trainings of one trunk share weights and rows up to their decays.")
    purpose: TrunkPurpose = key("What it is for.")
    layers: int = key("Layers.", ge=1)
    d_model: int = key("Width.", ge=1)
    params: int = key("N: parameters in matrix products.", ge=1)
    steps: int = key("Steps.", ge=1)
    tokens: int = key("D: loss tokens read, repetitions counted.", ge=1)
    effective_tokens: float = key("The same, discounted for repetition.", gt=0)
    comparable_tokens: float = key(
        "As many at the batch size of the configured training are worth as much: D of the law.",
        gt=0,
    )
    batch_rows: int = key("Rows a step.", ge=1)
    learning_rate: float = key("Peak.", gt=0)
    seed: int = key("Of weights and data order.")
    flops: float = key("Of its positions, exact.", gt=0)
    bits_per_byte: float = key("On all held-out text.", gt=0)
    bits_per_byte_by_set: dict[str, float] = key("On each held-out set.")
    fitted_bits_per_byte: float | None = key("By the fit; null without one, or if left out.")
    left_out: str = key("Why it is no part of the fit; empty if it is one.")


class Constants(Part):
    """The law: L = e + ((a / N^alpha)^(1/gamma) + (b / D^beta)^(1/gamma))^gamma, bits per byte."""

    e: Interval = key("What no model and no data avoid.")
    a: Interval = key("Factor of the term in parameters.")
    b: Interval = key("Factor of the term in tokens.")
    alpha: Interval = key("Exponent of parameters.")
    beta: Interval = key("Exponent of tokens.")
    gamma: Interval = key(
        "How the two terms join: 1 adds them, as published laws do; the less it is, the more the "
        "larger of the two decides."
    )


class LadderFit(Part):
    """The fit, with all that a prediction by it needs."""

    constants: Constants
    replicates: list[tuple[float, float, float, float, float, float]] = key(
        "Fits to points drawn anew: e, a, b, alpha, beta, gamma of each."
    )
    trunk_noise: float = key("Deviation that a trunk's points share, a share of the loss.", ge=0)
    point_noise: float = key("Deviation of each point, a share of the loss.", ge=0)
    degrees: float = key("Degrees of freedom that the noise is known by.", gt=0)
    misfit: float = key(
        "Deviation of what the form misses, a share of the loss for each factor of e in compute "
        "beyond the points.",
        ge=0,
    )
    misfit_degrees: float = key("Degrees of freedom that it is known by.", gt=0)
    largest_compute: float = key("6 N D of the largest point, FLOPs.", gt=0)
    target_batch: float = key(
        "Loss tokens a step of the trainings that the law is of; 0 where all are alike.", ge=0
    )
    critical_batch: Interval | None = key("Loss tokens a step; null where batches are alike.")


class LadderBacktest(Part):
    """A larger run of the ladder, predicted from the smaller ones alone."""

    params: float = key("N.", gt=0)
    tokens: float = key("D, discounted for repetition.", gt=0)
    times_compute: float = key("Its compute over that of the largest run of the fit.", gt=0)
    predicted: Interval = key("Bits per byte.")
    measured: float = key("Bits per byte.", gt=0)


class RateCheck(Part):
    """The same small training at half and twice the learning rate."""

    params: int = key("N.", ge=1)
    steps: int = key("Steps.", ge=1)
    learning_rate: float = key("By the rule.", gt=0)
    bits_per_byte: float = key("At that rate.", gt=0)
    bits_per_byte_half: float | None = key("At half of it; null if it diverged.")
    bits_per_byte_twice: float | None = key("At twice of it; null if it diverged.")
    words: str = key("What that says of the rule.")


class CriticalBatch(Part):
    """The batch at which gradient noise and gradient are equal (McCandlish et al. 2018)."""

    params: int = key("N of the training that the noise was measured in.", ge=1)
    tokens: float = key("By the noise of its gradients, loss tokens a step.", gt=0)
    standard_error: float = key("Of it, loss tokens.", ge=0)
    fitted: Interval | None = key(
        "By the losses of trainings with other batch sizes, loss tokens a step; null without a fit."
    )
    target_batch: float = key("Of the configured training, loss tokens a step.", gt=0)
    words: str = key("What that says of the configured batch size.")


class LadderPrediction(Part):
    """What is expected of the training that the configuration asks for."""

    params: int = key("N.", ge=1)
    params_total: int = key("All parameters.", ge=1)
    params_active: int | None = key(
        "Those that a token passes: all but the experts that it is not sent to.", default=None
    )
    tokens: float = key("Loss tokens that it reads.", gt=0)
    epochs: float = key("Passes over the text.", gt=0)
    effective_tokens: float = key("Loss tokens, discounted for repetition.", gt=0)
    flops: float = key("Training FLOPs, exact.", gt=0)
    usd: float = key("Compute, USD.", ge=0)
    seconds: float = key("Of its steps, seconds.", ge=0)
    times_compute: float | None = key("6 N D over that of the largest point; null without a fit.")
    bits_per_byte: Interval | None = key("On the held-out text; null where no fit says it.")
    words: str = key("Why there is no number; empty if there is one.")

    @property
    def is_sparse(self) -> bool:
        """Return whether it is of a mixture of experts."""
        return self.params_active is not None and self.params_active < self.params_total


class LadderBestPlan(Part):
    """The model and tokens that a sum trains best on this text."""

    usd: float = key("The sum: compute of the configured training, USD.", ge=0)
    params: float = key("N.", gt=0)
    params_low: float = key("Smallest N that the points leave open.", gt=0)
    params_high: float = key("Largest.", gt=0)
    tokens: float = key("Loss tokens to read.", gt=0)
    epochs: float = key("Passes over the text.", gt=0)
    bits_per_byte: Interval = key("What is expected of it.")


class LadderPurchase(Part):
    """One thing to double, from the configured training on."""

    name: Literal["larger model", "more epochs", "more text"] = key("What.")
    usd: float = key("What it adds: compute, and preparing text, but not its price; USD.")
    gain: Interval = key("By how much bits per byte fall.")
    gain_per_usd: float = key("The same for a dollar.")
    wins: float = key("Share of the replicates in which it gains most for a dollar.", ge=0, le=1)


class PublishedLaw(Part):
    """A published law, in nats per token of its own vocabulary and data."""

    source: str = key("Where it stands.")
    e: float = key("E.")
    a: float = key("A.")
    b: float = key("B.")
    alpha: float = key("alpha.")
    beta: float = key("beta.")
    gamma: float = key("gamma: 1, the terms are added.")
    note: str = key(
        "How it was applied to a mixture of experts; empty for a dense model.", default=""
    )
    nats_per_token: float = key("Of the configured training by it.", gt=0)
    bits_per_byte: float = key("The same over this text's bytes per token: an order.", gt=0)


class LadderLaw(Part):
    """What other documents take of a ladder: its law, and the text that it is of."""

    file: str = key("Where the ladder lies.")
    level: float = key("Coverage of every interval, a fraction.", gt=0, le=1)
    vocab_size: int = key("Of the tokenizer.", ge=1)
    bytes_per_token: float = key("Bytes of text a loss token.", gt=0)
    sparse: bool = key("Whether it is of mixtures of experts.", default=False)
    fit: LadderFit | None = key("Null where the points bore none.")
    problems: list[str] = key("Why there is none; sentences.")


class LadderLoss(Part):
    """The loss that a ladder expects of a training, with the laws behind it."""

    file: str = key("Where the ladder lies.")
    level: float = key("Coverage of every interval, a fraction.", gt=0, le=1)
    params: float = key("N: parameters in matrix products.", gt=0)
    times_compute: float | None = key(
        "6 N D over that of the ladder's largest point; null without a fit."
    )
    bits_per_byte: Interval | None = key("On its held-out text; null where no fit says it.")
    words: str = key("Why there is no number; empty if there is one.")
    constants: Constants | None = key("The fitted law; null without one.")
    published: list[PublishedLaw] = key("Laws of others' runs.")


class Ladder(Document):
    """ladder.json: the fit of small trainings on a text, and what follows from it."""

    model_config = ConfigDict(
        extra="forbid", protected_namespaces=(), allow_inf_nan=False, title="ladder.json"
    )
    schema_: Literal["tokenmill-ladder-2"] = Field(
        alias="schema", description="Name and version of this format."
    )
    level: float = key("Coverage of every interval, a fraction.", gt=0, le=1)
    text: LadderText
    held_out: LadderHeldOut
    spending: LadderSpending
    vocab_size: int = key("Of the tokenizer: losses by tokens of another are no guide.", ge=1)
    usd_per_flop: float = key("Of the configured training, USD.", ge=0)
    flops_overhead: float = key("Exact FLOPs of the configured training over 6 N D.", gt=0)
    points: list[LadderPoint] = key("The small trainings.")
    fit: LadderFit | None = key("Null where the points bear none.")
    problems: list[str] = key("Why there is no fit; sentences.")
    cautions: list[str] = key("What weakens it; sentences.")
    backtests: list[LadderBacktest] = key("Larger runs predicted from smaller ones.")
    rate_check: RateCheck | None = key("Null where the budget did not reach for it.")
    critical_batch: CriticalBatch | None = key("Null where the noise could not be told.")
    prediction: LadderPrediction
    best_plan: LadderBestPlan | None = key("Null without a fit.")
    purchases: list[LadderPurchase] = key("The best for its money first.")
    text_usd_per_megabyte: float | None = key(
        "Up to this price a megabyte of new text pays more than any other purchase; null where it "
        "does not in any case."
    )
    published: list[PublishedLaw] = key("Laws of others' runs.")

    def law(self, file: str) -> LadderLaw:
        """Return what other documents take of it.

        Args:
            file: Where it lies.
        """
        return LadderLaw(
            file=file,
            level=self.level,
            vocab_size=self.vocab_size,
            bytes_per_token=self.text.bytes_per_token,
            sparse=self.prediction.is_sparse,
            fit=self.fit,
            problems=self.problems,
        )


def read_ladder(path: str, option: str = "cost.ladder") -> Ladder:
    """Read a ladder.json.

    Args:
        path: The file.
        option: What named it, for messages.

    Raises:
        TokenmillError: It cannot be read, or is no ladder.json of this version.
    """
    try:
        return read_document(path, Ladder)
    except OSError as error:
        raise TokenmillError(
            f"{option} = {path}: expected a ladder.json: {error.strerror}.",
            "Name the file that tokenmill ladder left.",
        ) from None


def write_ladder(path: str, ladder: Ladder) -> None:
    """Write a ladder.json."""
    write_document(path, ladder)
