"""ledger.json, the estimate before training: every key with its unit and meaning.

docs/ledger.md and docs/ledger.schema.json are made from it (tools/contract_docs.py).
"""

from __future__ import annotations

import os
from typing import Literal

from pydantic import ConfigDict, Field

from tokenmill.contracts.base import Document, Number, Part, key, read_document, write_document
from tokenmill.contracts.calibration import Calibration
from tokenmill.contracts.ingest import Amount, Quarantined
from tokenmill.contracts.ladder import LadderLoss
from tokenmill.contracts.packed_rows import SourceCounts
from tokenmill.contracts.training import Phase
from tokenmill.contracts.value import Difference, Multiplier, SourceValue
from tokenmill.cost.devices import MfuSource

LEDGER_NAME = "ledger.json"
LEDGER_SCHEMA = "tokenmill-ledger-4"

StageName = Literal[
    "raw", "valid", "curated", "tokenized", "packed", "loss_tokens", "answer_tokens", "unique",
    "repetition_discounted",
]  # fmt: skip


class Stage(Part):
    """One stage of the funnel."""

    stage: StageName = key(
        "The stage. packed counts both splits, the later ones the training split; from unique on "
        "they count what training reads at least once, below one epoch a share of everything."
    )
    documents: int = key("Documents that reached it.", ge=0)
    bytes: int = key("Bytes of their text (UTF-8; from curated on, after normalization).", ge=0)
    tokens: Number = key(
        "Tokens; from packed on in causal-lm with one end of text a document, from loss_tokens on "
        "in masked-lm the hidden ones. Of conversations packed has all tokens of the rows, and "
        "answer_tokens, which stands for loss_tokens, those of answers.",
        ge=0,
    )
    tokens_are: Literal["counted", "estimated"] = key(
        "Whether the tokens were made and counted, or estimated: from bytes per token, in "
        "masked-lm from the share that is hidden."
    )
    documents_lost: dict[str, int] = key("Documents that the stage before lost here, by reason.")


class EstimatedText(Amount):
    """Text that was not tokenized, both splits."""

    tokens_estimated: float = key("Tokens by the source's bytes per token.", ge=0)


class CuratedText(Part):
    """Documents that curation kept."""

    documents: int = key("Documents.", ge=0)
    bytes: int = key("Bytes after normalization.", ge=0)
    raw_bytes: int = key("Bytes before it.", ge=0)
    tokens: int = key("Tokens, counted.", ge=0)


class TrainingText(SourceCounts):
    """Counts of the packed training split, and the effective tokens of training on it."""

    effective_tokens: float = key("Loss tokens, discounted for repetition.", ge=0)

    @property
    def loss_name(self) -> str:
        """Return what its loss tokens are called: of conversations answer tokens."""
        return "answer tokens" if "answer_bytes" in self.model_fields_set else "loss tokens"


class SourceFunnel(Part):
    """One source, or all."""

    stages: list[Stage] = key("The funnel in order.")
    raw: EstimatedText = key("Documents as ingested (valid).")
    dropped: dict[str, EstimatedText] = key("What curation dropped, by reason.")
    curated: CuratedText = key("What curation kept.")
    bytes_per_token: float = key("Bytes of kept text a token.", ge=0)
    train: TrainingText = key("Packing of the training split.")
    eval: SourceCounts = key("Packing of the evaluation split.")


class Funnel(Part):
    """Where the text went."""

    total: SourceFunnel = key("All sources.")
    by_source: dict[str, SourceFunnel] = key("Each source.")
    quarantined: Quarantined = key("Records that ingest could not read; they have no source.")


class LanguageText(Part):
    """Text of one language, and its part of the cost of training."""

    train: SourceCounts = key("Packing of the training split.")
    eval: SourceCounts = key("Packing of the evaluation split.")
    bytes_per_token: float = key("Bytes of kept text a token, both splits.", ge=0)
    token_share: float = key("Share of the training split's tokens, a fraction.", ge=0, le=1)
    cost_share: float = key(
        "Share of the loss tokens that training reads, repetitions counted, a fraction.", ge=0, le=1
    )
    compute_usd: float = key("This share of cost.compute_usd, USD.", ge=0)


class Packing(Part):
    """Rows of a split: slots = loss_tokens + context_slots + padding_slots."""

    rows: int = key("Rows.", ge=0)
    slots: int = key("Positions: rows x sequence length, or x a classifier's bucket widths.", ge=0)
    padding_slots: int = key("Empty positions.", ge=0)
    context_slots: int = key("Positions read again as context, without loss.", ge=0)
    loss_tokens: int = key(
        "Positions whose prediction bears a loss; in masked-lm those that can be hidden.", ge=0
    )
    segments: int = key("Parts of documents.", ge=0)
    stored_bytes: int = key("Size of the files, bytes.", ge=0)
    tokens: int = key("Tokens without control tokens.", ge=0)


class Model(Part):
    """Parameters."""

    params_total: int = key("All parameters of the model, a tied matrix once.", gt=0)
    params_active: int | None = key(
        "Parameters that a token passes: all but the experts that it is not sent to.", default=None
    )
    params_by_part: dict[str, int] = key("All parameters by part.")
    params_trained: int | None = key(
        "Parameters that training changes: all, or with LoRA those of adapters and of a "
        "classifier's head.",
        default=None,
    )
    params_trained_by_part: dict[str, int] = key(
        "The same by part; with LoRA attention and mlp are their adapters.", default={}
    )
    embedding_share: float = key("Token embedding's share of them, a fraction.", ge=0, le=1)


class StrategyFit(Part):
    """A way to spread a model over devices."""

    strategy: str = key("data, zero1, zero2, zero3, tensor, tensor-zero3 or expert.")
    bytes_per_chip: int = key("Bytes a device.", ge=0)
    fits: bool | None = key("Whether they fit; null if the capacity is unknown.")
    smallest_chips: int | None = key("Least devices that fit; null if none is known to.")
    runnable: bool = key("Whether `tokenmill run` can train so; else it is for planning only.")
    sent_bytes_per_step: int = key(
        "Bytes that a device sends in a step, as rings do it, by formula.", ge=0
    )
    between_machines_bytes_per_step: int | None = key(
        "Those of them that go to devices of other machines; null if the catalog does not say how "
        "many a machine has.",
        default=None,
        ge=0,
    )


class Memory(Part):
    """Memory of training on one device: its tensors, on a CPU the whole process."""

    strategy: str = key("train.strategy: all copy weights and gradients to each device.")
    zero: int = key("train.zero: 1 where AdamW's moments are split over the devices.", default=0)
    expert_parallel: bool = key(
        "train.expert_parallel: whether experts are spread over the devices.", default=False
    )
    precision: str = key("Of weights and computation.")
    recompute: str = key("Activations computed again: full with train.rematerialize, else none.")
    devices: int = key("Copies of the model; the cores of a CPU share one.", ge=1)
    sequences_per_device: int = key("Of a step, or of a part of it (accumulation).", ge=1)
    bytes_by_part: dict[str, int] = key("Bytes a device by part.")
    bytes_per_device: int = key("Their sum.", ge=0)
    capacity_bytes: float | None = key("Memory of a device; null if unknown.")
    reserved_share: float = key("Share of it kept for allocator and runtime.", ge=0, le=1)
    process_bytes: int | None = key(
        "Of a CPU, measured: the most that the Calibrator's process held, with libraries and "
        "compiler. `fits` goes by it. Null without a measurement.",
        default=None,
    )
    checkpoint_copy_bytes: int | None = key(
        "Copy of trained weights and moments in the memory of the chief's machine while a "
        "checkpoint is written. On a CPU that is the device's own memory: it comes on top of the "
        "other bytes, and `fits` counts it.",
        default=None,
        ge=0,
    )
    fits: bool | None = key("Whether the bytes fit; null if the capacity is unknown.")
    smallest_device_count: int | None = key(
        "Least devices on which the run fits, each with its share of the batch; null if none."
    )
    by_strategy: list[StrategyFit] = key("For comparison: other ways to spread the model.")
    kv_cache_bytes_per_token: int | None = key(
        "Serving: keys and values of each token of a text that the pushed model continues "
        "(float32); null if it continues none.",
        default=None,
    )


class Training(Part):
    """The plan."""

    steps: int = key("Optimizer steps.", gt=0)
    epochs: float = key("Passes over the rows.", gt=0)
    slots: int = key("Positions computed in all steps, padding included.", gt=0)
    loss_tokens: float = key("Loss tokens of all steps, repetitions counted.", ge=0)
    effective_tokens: float = key(
        "Loss tokens after curation, discounted for repetition: U + U R* (1 - exp(-R/R*)).",
        ge=0,
    )


class Flops(Part):
    """Model FLOPs of training."""

    per_token_6n: float = key("6 N with all parameters, FLOPs a token.")
    per_token_6n_in_products: float = key("6 N without embedding look-ups, FLOPs a token.")
    per_token_exact: float = key("Forward and backward matrix products, FLOPs a token.")
    per_token_forward: float = key("Forward, FLOPs a token.")
    per_token_backward: float = key("Backward (twice forward), FLOPs a token.")
    per_token_rematerialized: float = key("Recomputed activations, FLOPs a token.")
    per_token_hardware: float = key("Exact and recomputed, FLOPs a token.")
    forward_per_token_by_part: dict[str, float] = key("Forward by part, FLOPs a token.")
    causal_half: bool = key("Whether only the unmasked half of the scores was counted: false.")
    per_token_exact_causal_half: float | None = key("The same with half the scores.")
    per_token_trained: float | None = key(
        "Exact, less the blocks of causal scores that are masked as a whole and not computed: from "
        "256 positions on, without dropout. FLOPs a token.",
        default=None,
    )
    total_6n: float = key("6 N of all slots, FLOPs.")
    total_exact: float = key("Exact count of all slots, FLOPs.")
    note: str = key("What is counted.")


class Chips(Part):
    """The chips that a run computes on, at what rate and price."""

    chip: str = key("Slug in data/catalog/hardware.csv.")
    chips: int = key("Number of chips (of a CPU: cores).", ge=1)
    peak_flops_per_second: float = key("Peak of one chip, FLOP/s.", gt=0)
    mfu: float = key("Model FLOPs utilization of the steps, a fraction.", gt=0, le=1)
    goodput: float = key("cost.goodput: share of the time not lost to failures.", gt=0, le=1)
    price_usd_per_chip_hour: float = key("USD.", ge=0)


class Hardware(Chips):
    """Chips of the run, and where their utilization comes from."""

    mfu_source: MfuSource = key("Where it comes from.")
    mfu_low: float = key("The worst of the published runs; else as mfu.", gt=0, le=1)
    mfu_high: float = key("The best of the published runs; else as mfu.", gt=0, le=1)
    mfu_basis: str = key("Which published runs; empty where the MFU is not of them.")
    mfu_runs: list[str] = key("Their names.")
    hfu: float = key("With recomputation counted, a fraction.", gt=0)
    calibration: Calibration | None = key("calibration.json; null without a measurement.")


class LedgerPrice(Part):
    """The price and its source."""

    usd_per_chip_hour: float = key("USD for one chip for one hour.", ge=0)
    provider: str = key("Who asks it.")
    region: str = key("Where; empty if unknown.")
    date: str = key("When; empty if the user gave none.")
    source: str = key("Where it stands.")
    notes: str = key("How it was derived, cautions.")
    dated: bool = key("False flags a price without a date.")
    vcpu_usd_per_hour: float = key("USD for a core for an hour, for steps on CPUs.", ge=0)


class Forecast(Part):
    """Where the trainer's time will go."""

    seconds_by_phase: dict[Phase, float] = key(
        "steps = FLOPs / (chips x peak x MFU); the others as calibration timed them; lost = what "
        "cost.goodput takes. Seconds."
    )
    training_seconds: float = key("Steps and compilation, seconds.", ge=0)
    total_seconds: float = key("All phases, seconds.", ge=0)
    goodput: float = key("Steps over all phases, a fraction.", gt=0, le=1)


class Cost(Part):
    """Time and money of the trainer."""

    total_flops: float = key("FLOPs.", ge=0)
    wall_seconds: float = key("From start to end, seconds.", ge=0)
    wall_hours: float = key("The same in hours.", ge=0)
    wall_hours_low: float = key("At hardware.mfu_high, hours.", ge=0)
    wall_hours_high: float = key("At hardware.mfu_low, hours.", ge=0)
    chip_hours_low: float = key("At hardware.mfu_high, hours.", ge=0)
    chip_hours_high: float = key("At hardware.mfu_low, hours.", ge=0)
    compute_usd_low: float = key("At hardware.mfu_high, USD.", ge=0)
    compute_usd_high: float = key("At hardware.mfu_low, USD.", ge=0)
    chip_hours: float = key("Wall time x chips, hours.", ge=0)
    compute_usd: float = key("Chip-hours x price, USD.", ge=0)
    hidden_usd_low: float = key("Storage, network, failed runs, people: low line, USD.", ge=0)
    hidden_usd_high: float = key("The same: high line, USD.", ge=0)
    total_usd_low: float = key("Compute and low hidden cost, USD.", ge=0)
    total_usd_high: float = key("Compute and high hidden cost, USD.", ge=0)
    usd_per_million_effective_tokens: float = key("Compute only, USD.", ge=0)
    stored_bytes: float = key("Text, rows, checkpoints kept and model, bytes.", ge=0)
    storage_usd: float = key("Their storage by rate; part of hidden cost, USD.", ge=0)
    network_usd: float = key("Moving them once by rate; part of hidden cost, USD.", ge=0)


class CheckpointPlan(Part):
    """Interval of checkpoints, and what saving and failures cost."""

    checkpoint_bytes: int = key("Trained weights and moments, bytes.", ge=0)
    write_seconds: float = key("Of one, seconds.", ge=0)
    mtbf_seconds: float = key("Mean time between failures of all chips together, seconds.", gt=0)
    young_seconds: float = key("sqrt(2 x write x MTBF) (Young 1974), seconds.", ge=0)
    daly_seconds: float = key("Daly 2006, eq. 37, seconds.", ge=0)
    interval_seconds: float = key("Daly's, or the whole run if that is shorter, seconds.", ge=0)
    checkpoints: int = key("How many the run writes.", ge=1)
    expected_failures: float = key("Steps' and lost time over MTBF.", ge=0)
    lost_seconds: float = key("Writing, work done again and restarts, seconds.", ge=0)
    writing_seconds: float = key("Writing checkpoints among it, seconds.", ge=0)
    goodput: float = key("What these leave, a fraction.", gt=0, le=1)
    disk_bytes: int = key("Checkpoints kept at a time, bytes.", ge=0)
    source: str = key("Of the formulas.")


class SavedByReason(Part):
    """Training that dropping for one reason saved; training split."""

    documents: int = key("Documents.", ge=0)
    bytes: int = key("Bytes.", ge=0)
    tokens_estimated: float = key("Tokens by bytes per token.", ge=0)
    chip_hours: float = key("Share of the chip-hours, by bytes.", ge=0)
    usd: float = key("USD.", ge=0)


class Saved(Part):
    """Training that curation avoided: the same plan on uncurated text, less the plan."""

    documents: int = key("Dropped from the training split.", ge=0)
    bytes: int = key("Bytes.", ge=0)
    tokens_estimated: float = key("Tokens by bytes per token.", ge=0)
    planned_epochs: float = key("Passes.", gt=0)
    steps: int = key("Steps avoided; 0 where train.max_steps ends the run anyway.", ge=0)
    steps_fixed: bool = key("Whether train.max_steps ends the run.")
    chip_hours: float = key("Chip-hours avoided.", ge=0)
    usd: float = key("At the run's price, USD.", ge=0)
    by_reason: dict[str, SavedByReason] = key("The same by reason.")


class Chinchilla(Part):
    """Compute-optimal amounts."""

    optimal_tokens_for_this_model: float = key("20 a parameter.", ge=0)
    optimal_params_for_this_compute: float = key("Parameters that these FLOPs train best.", ge=0)
    optimal_tokens_for_this_compute: float = key("Tokens that these FLOPs train best on.", ge=0)
    tokens_per_param: float = key("Effective tokens of the run a parameter.", ge=0)
    source: str = key("Of the amounts.")


class ExpectedLoss(Part):
    """Loss by published fits: an order of magnitude, no promise."""

    nats_per_token: float = key("By the fit of Besiroglu et al. 2024.")
    nats_per_token_hoffmann: float = key("By the fit of Hoffmann et al. 2022.")
    source: str = key("Of the fits.")


class Repetition(Part):
    """Worth of repeated text."""

    epochs: float = key("Passes of the run.", ge=0)
    limit_epochs: float = key("Passes up to which repeated text is worth about as much.", gt=0)
    over_limit: bool = key("Whether the run goes beyond them.")
    r_star_repetitions: float = key("Repetitions after which 1 - 1/e of the worth is gone.", gt=0)
    source: str = key("Of the fit.")


class GoalTokens(Part):
    """Tokens that the goal asks for, against those of the run."""

    goal: str = key("cost.goal.")
    minimum_tokens: float = key("Least that makes sense.", ge=0)
    usual_tokens: float = key("What such projects use.", ge=0)
    verdict: Literal["below_minimum", "enough", "usual"] = key("enough is at least the minimum.")
    message: str = key("The same for a person.")
    source: str = key("Of the amounts.")


class Guidance(Part):
    """Published fits applied to a plan, each with its source."""

    chinchilla: Chinchilla
    expected_loss: ExpectedLoss
    repetition: Repetition
    goal: GoalTokens | None = Field(None, description="Absent where no goal is given.")
    ladder: LadderLoss | None = Field(
        None, description="Loss by this text's own ladder; absent without cost.ladder."
    )


class BudgetLimits(Part):
    """The limits; null for none."""

    max_usd: float | None = key("USD of compute.")
    max_hours: float | None = key("Hours of wall time.")
    min_effective_tokens: float | None = key("Effective tokens.")
    max_epochs: float | None = key("Passes.")


class MeasuredValue(Part):
    """What `tokenmill value` measured of this configuration's text, by small trainings."""

    study: str = key("The value.json.")
    variant: str = key("Name of this configuration in it.")
    reference: str = key("What it was compared with.")
    proxy_params: int = key("Parameters of the small models.", gt=0)
    confidence: float = key("Of the intervals.", gt=0, le=1)
    difference: Difference | None = key(
        "Bits per byte less the reference's, at equal tokens; null of the reference itself."
    )
    multiplier: Multiplier | None = key("What one token is worth in tokens of the reference.")
    note: str = key("Why there is no ratio, or an open end; else empty.")
    sources: dict[str, SourceValue] = key("What each source is worth; empty if not measured.")


class MeasuredTokens(MeasuredValue):
    """The same with what it means for this training."""

    effective_tokens: float | None = key("Effective tokens x the ratio.")
    effective_tokens_low: float | None = key("By its lower end.")
    effective_tokens_high: float | None = key("By its upper end.")
    saved_usd: float | None = key(
        "Compute that the reference's text would need more for the same loss, USD; below 0 less."
    )
    saved_usd_low: float | None = key("By the ratio's lower end, USD.")
    saved_usd_high: float | None = key("By its upper end, USD.")


class Ledger(Document):
    """ledger.json: the estimate before training."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), title="ledger.json")
    schema_: str = Field(alias="schema", description="Name and version of this format.")
    funnel: Funnel
    by_language: dict[str, LanguageText] = key(
        "Each language that curation found (ISO 639; und: not known)."
    )
    packing: dict[Literal["train", "eval"], Packing]
    model: Model
    memory: Memory
    training: Training
    flops: Flops
    hardware: Hardware
    price: LedgerPrice
    forecast: Forecast
    cost: Cost
    checkpoints: CheckpointPlan | None = key(
        "How often to save; null where failures come faster than a checkpoint is written."
    )
    curation_saved: Saved
    guidance: Guidance
    budget: BudgetLimits
    measured: MeasuredTokens | None = key(
        "What the text is worth as it was measured, with cost.value; null without it.", default=None
    )


def read_ledger(uri: str) -> Ledger:
    """Read ledger.json of a Ledger artifact."""
    return read_document(os.path.join(uri, LEDGER_NAME), Ledger)


def write_ledger(uri: str, ledger: Ledger) -> None:
    """Write ledger.json into a Ledger artifact."""
    write_document(os.path.join(uri, LEDGER_NAME), ledger)
