"""What a training tells of itself: telemetry.json, and the names of its phases."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any, Literal

from tokenmill.contracts.base import Document, Part, key, read_document, write_document

TELEMETRY_NAME = "telemetry.json"


class Phase(str, Enum):
    """A part of a training's wall time; the phases add up to all of it."""

    START = "start"
    BUILD = "build"
    RESTART = "restart"
    EVALUATE_BEFORE = "evaluate_before"
    COMPILE = "compile"
    INPUT = "input"
    STEPS = "steps"
    EVALUATE = "evaluate"
    TELEMETRY = "telemetry"
    SAMPLES = "samples"
    CHECKPOINT = "checkpoint"
    LOST = "lost"
    EVALUATE_AFTER = "evaluate_after"
    EXPORT = "export"
    OTHER = "other"

    __str__ = str.__str__


STEADY_PHASES = (Phase.STEPS, Phase.INPUT)
"""Phases in which steps run at the steady rate: waiting for input is part of a step."""


class Losses(Part):
    """Loss of the evaluation split at one time."""

    nll_sum: float = key("Negative log-likelihood, nats.")
    loss_tokens: float = key("Tokens that it is summed over; of a classifier examples.", ge=0)
    loss: float = key("Nats a loss token.")
    perplexity: float | None = key("exp(loss); not of a classifier.", default=None)
    bits_per_byte: float | None = key("Of causal-lm: bits a byte of text.", default=None)
    accuracy: float | None = key("Of a classifier: share of hits, 0 to 1.", default=None)


class Resume(Part):
    """An attempt after the first."""

    from_step: int = key("Steps done before it.", ge=0)
    lost_steps: int = key("Steps of the last attempt that are done again.", ge=0)
    lost_seconds: float = key("Wall seconds that those had taken.", ge=0)
    changed: dict[str, tuple[Any, Any]] = key("Settings that differ: before and now.")


class ExpertLoad(Part):
    """How busy the experts of a layer are on the first held-out rows."""

    layer: int = key("Number of the layer, from 0.", ge=0)
    load_shares: list[float] = key("Share of the layer's load that each expert has; they sum to 1.")
    max_load: float = key("The largest load, in means: 1 where all experts are equally busy.", ge=0)
    dead_experts: list[int] = key(
        "Numbers, from 0, of the experts that have under a hundredth of the mean load."
    )
    router_entropy_nats: float = key(
        "Mean entropy of the router's distributions, nats; at most ln(experts).", ge=0
    )

    @property
    def loads(self) -> list[float]:
        """Return the load of each expert, in means."""
        return [share * len(self.load_shares) for share in self.load_shares]


class ExpertLoads(Document):
    """A line of metrics.jsonl: the load of all layers' experts after a step."""

    event: Literal["expert_load"] = key("What kind of line it is.")
    step: int = key("Steps done.", ge=0)
    seconds: float = key("Of the training until then, over all attempts, seconds.", ge=0)
    layers: list[ExpertLoad] = key("Each layer that has experts, from the bottom.", min_length=1)


class Rewind(Part):
    """A loss spike, and where training went back to."""

    spike_step: int = key("Step of the spike, from 1.", gt=0)
    loss: float = key("Its loss, nats a loss token.")
    to_step: int = key("Step whose checkpoint was taken.", ge=0)
    skipped_steps: int = key("Steps whose rows were left out.", gt=0)


class Machine(Part):
    """What the chief's process had of its machine."""

    processor: str = key("Instruction set, such as x86_64.")
    vcpus: int = key("Cores that it might use.", ge=1)
    memory_bytes: int = key("Memory that it might use, bytes.", gt=0)
    accelerators: list[str] = key("Name of each accelerator that TensorFlow saw.", default=[])


class Pruning(Part):
    """Magnitude pruning: which weights became 0, when, and what they save on disk."""

    target: float = key("Share of zeros that was asked for (train.prune_sparsity).", gt=0, le=1)
    pattern: str = key("unstructured or 2:4 (train.prune_pattern).")
    params: int = key("Parameters of the matrices that are pruned.", gt=0)
    zeros: int = key("Zeros among them after the last step, counted.", ge=0)
    first_step: int = key("Steps that were trained dense.", ge=0)
    last_step: int = key("Step after which no more weights were pruned.", gt=0)
    eval_before: Losses | None = key(
        "Of the dense weights after first_step, while the learning rate was still higher; null if "
        "an earlier attempt did not measure it.",
        default=None,
    )
    weight_bytes: int | None = key(
        "Size of the pushed model's weight files; null where no model was exported.", default=None
    )
    compressed_bytes: int | None = key("The same files deflated, as gzip -1 does.", default=None)

    @property
    def sparsity(self) -> float:
        """Share of zeros of the matrices that are pruned, a fraction."""
        return self.zeros / self.params


class Telemetry(Document):
    """telemetry.json: the totals of a training over all its attempts."""

    params_total: int = key("Parameters of the model.", gt=0)
    params_trained: int | None = key(
        "Parameters that training changed: with LoRA those of adapters and of a classifier's head.",
        default=None,
    )
    base_model: str | None = key(
        "Directory of the weights that it started from; null for random ones.", default=None
    )
    new_variables: list[str] = key(
        "Variables that model.base_model lacks, which began at random: of another head.", default=[]
    )
    steps: int = key("Steps of the run.", gt=0)
    epochs: float = key("Passes over the rows.", gt=0)
    global_batch_size: int = key("Rows a step, over all replicas.", gt=0)
    replicas: int = key("Devices that share a batch.", gt=0)
    collective_bytes_per_step: dict[str, int] = key(
        "Bytes that a replica hands to the others in a step, as the step was traced: all_reduce "
        "(sums of gradients), all_gather (weights, with train.zero). Empty for one replica.",
        default_factory=dict,
    )
    trained_slots: int = key("Slots computed, padding included.", ge=0)
    trained_loss_tokens: int = key(
        "Tokens with a loss that the weights have learnt from; of a classifier examples.", ge=0
    )
    seconds: dict[Phase, float] = key("Wall seconds by phase; `lost` are of steps done again.")
    cpu_seconds: dict[Phase, float] = key(
        "CPU seconds of the chief's process by phase, all its threads.", default={}
    )
    peak_process_bytes: int | None = key(
        "The most memory that the chief's process held, export included, bytes.", default=None
    )
    total_seconds: float = key("Sum of the wall seconds.", ge=0)
    tokens_per_second: float | None = key(
        "Slots a second of steps that do not compile; null without such a step."
    )
    examples_per_second: float | None = key("The same in examples; classification.", default=None)
    loss_curve: list[tuple[int, float]] = key("Step and its mean loss, nats; some 200 points.")
    eval_before: Losses = key("Before the first step.")
    eval_after: Losses = key("After the last step.")
    eval_losses: list[tuple[int, float]] = key("Step and eval loss in between, nats.")
    resumes: list[Resume] = key("Attempts after the first.")
    rewinds: list[Rewind] = key("Spikes that training went back before.")
    overflows: int = key("Steps that the loss scale left out.", ge=0)
    pruning: Pruning | None = key("Magnitude pruning; null where nothing was pruned.", default=None)
    training_directory: str | None = key("Directory of its checkpoints; null if none were kept.")
    versions: dict[str, str] = key(
        "Versions of Python and the libraries, by name; stack and lock name the set of them.",
        default={},
    )
    machine: Machine | None = key(
        "What it computed on; null if an older release trained.", default=None
    )


def read_telemetry(uri: str) -> Telemetry:
    """Read telemetry.json of a ModelRun artifact."""
    return read_document(os.path.join(uri, TELEMETRY_NAME), Telemetry)


def write_telemetry(uri: str, telemetry: Telemetry) -> None:
    """Write telemetry.json into a ModelRun artifact."""
    write_document(os.path.join(uri, TELEMETRY_NAME), telemetry)
