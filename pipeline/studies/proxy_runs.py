"""The proxy runs of a study: what they cost, and that none is paid for twice.

A result is kept under a fingerprint of all that decides it, so that a study that was killed, or is
asked again with a larger budget, goes on where it was.
"""

import dataclasses
import hashlib
import json
import os
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.train import fingerprint
from components.train.config import TrainConfig
from components.train.distributed.strategy import has_accelerator
from components.train.gradient_noise import GradientNoise
from components.train.proxy import ProxyTrainer
from pipeline.config import Config
from pipeline.studies.corpus import StudyCorpus
from pipeline.studies.held_out import HeldOutEvaluator, HeldOutLoss
from tokenmill.cost.flops import flops_per_token
from tokenmill.cost.pricing import SECONDS_PER_HOUR
from tokenmill.errors import TokenmillError
from tokenmill.files import AtomicFile
from tokenmill.machine import vcpus
from tokenmill.model.shape import ModelShape
from tokenmill.rows.packed_split import PackedSplit
from tokenmill.stack import stack_versions

_SECONDS_PER_MINUTE = 60.0


def study_usd_per_hour(config: Config) -> float:
    """Return what an hour of this machine costs: its cores, or the configured chips if it has any.

    Args:
        config: Whose section [cost] has the prices.
    """
    job = config.ledger_job()
    if has_accelerator():
        return job.price.usd_per_chip_hour * job.chips
    return job.vcpu_price_usd_per_hour * vcpus()


@dataclass(frozen=True)
class StudyBudget:
    """What a study may take; the tighter of both counts.

    Attributes:
        max_usd: USD of machine time; None for any.
        max_seconds: Wall seconds; None for any.
    """

    max_usd: float | None = None
    max_seconds: float | None = None

    @classmethod
    def of_limits(cls, max_usd: float | None, max_minutes: float | None) -> "StudyBudget":
        """Return the budget of a command's --max-usd and --max-minutes; None for any."""
        return cls(max_usd, None if max_minutes is None else max_minutes * _SECONDS_PER_MINUTE)

    def seconds(self, usd_per_hour: float) -> float:
        """Return the wall seconds that the budget buys at a price; infinite without a limit."""
        limits = [float("inf") if self.max_seconds is None else self.max_seconds]
        if self.max_usd is not None and usd_per_hour > 0:
            limits.append(self.max_usd / usd_per_hour * SECONDS_PER_HOUR)
        return min(limits)


@dataclass(frozen=True)
class ProxyJob:
    """A trunk with its branches.

    Attributes:
        shape: The small model.
        train: The section [train] for it: batch size, learning rate, decay.
        steps: Counts of steps of the decayed models.
        seed: Of weights and data order.
        source_weights: Share of the rows of each source; None for those of the rows' manifest.
    """

    shape: ModelShape
    train: TrainConfig
    steps: tuple[int, ...]
    seed: int
    source_weights: Mapping[str, float] | None = None


@dataclass(frozen=True)
class ProxyResult:
    """A decayed small model.

    Attributes:
        shape: Of the model.
        steps: Steps from random weights to the end of the decay.
        loss_tokens: Loss tokens that it read: D.
        slots: Positions that were computed for it, padding included.
        flops: Training FLOPs of those positions, exact.
        losses: By held-out set; `all` for all documents.
    """

    shape: ModelShape
    steps: int
    loss_tokens: int
    slots: int
    flops: float
    losses: Mapping[str, HeldOutLoss]

    def bits_per_byte(self, held_out: str = "all") -> float:
        """Return the loss on a set, bits per byte."""
        return self.losses[held_out].bits_per_byte


@dataclass(frozen=True)
class ProxyOutcome:
    """What a job left.

    Attributes:
        results: One for each count of steps, ascending.
        seconds: Wall time, compilation and evaluation included.
        step_seconds: Mean wall time of a step that did not compile; None without one.
        noise: Of the trunk's gradients; None where it cannot be told.
        is_new: Whether it was trained now; an earlier study's costs nothing more.
    """

    results: list[ProxyResult]
    seconds: float
    step_seconds: float | None
    noise: GradientNoise | None
    is_new: bool


class ProxyRuns:
    """Trains proxy runs on a corpus and evaluates them on held-out sets.

    Attributes:
        usd_per_hour: What this machine costs.
        new_seconds: Wall time of what was trained now.
        seconds: Wall time of all that was asked for, also of what was there.

    Args:
        directory: Where results are kept.
        corpus: The rows.
        held_out: The sets, tokenized by the corpus' tokenizer.
    """

    def __init__(self, directory: str, corpus: StudyCorpus, held_out: HeldOutEvaluator):
        self._directory, self._held_out = directory, held_out
        self._rows = PackedSplit(corpus.rows_uri, "train")
        self._trainers: dict[str, tuple[ProxyTrainer, Any]] = {}
        self.usd_per_hour = study_usd_per_hour(corpus.config)
        self.seconds = self.new_seconds = 0.0

    @property
    def usd(self) -> float:
        """Price of all that was asked for."""
        return self.seconds / SECONDS_PER_HOUR * self.usd_per_hour

    def run(self, job: ProxyJob) -> ProxyOutcome:
        """Train a job, or return what an earlier study left of the same.

        Raises:
            TokenmillError: The training diverged, the rows do not suffice, or an earlier result
                was damaged.
        """
        settings = self._settings(job)
        path = os.path.join(self._directory, f"{fingerprint.directory_name(settings)}.npz")
        outcome = self._read(path, job)
        if outcome is None:
            started = time.perf_counter()
            outcome = self._train(job)
            self.new_seconds += time.perf_counter() - started
            self._write(path, outcome, settings)
        self.seconds += outcome.seconds
        return outcome

    def has(self, job: ProxyJob) -> bool:
        """Return whether a job was trained before."""
        name = fingerprint.directory_name(self._settings(job))
        return os.path.exists(os.path.join(self._directory, f"{name}.npz"))

    def _settings(self, job: ProxyJob) -> dict[str, Any]:
        """Return all that decides a job's results, flat."""
        weights = (
            self._rows.manifest.source_weights
            if job.source_weights is None
            else (job.source_weights)
        )
        return fingerprint.flatten(
            {
                "shape": dataclasses.asdict(job.shape),
                "train": job.train.model_dump(mode="json"),
                "steps": list(job.steps),
                "seed": job.seed,
                "source_weights": json.dumps(dict(weights), sort_keys=True),
                "rows": fingerprint.rows_fingerprint(self._rows),
                "held_out": self._held_out.fingerprint,
                "stack": stack_versions(),
            }
        )

    def _train(self, job: ProxyJob) -> ProxyOutcome:
        name = hashlib.sha256(
            (repr(job.shape) + job.train.model_dump_json(exclude={"learning_rate"})).encode()
        ).hexdigest()
        if name not in self._trainers:
            trainer = ProxyTrainer(job.shape, job.train, self._rows)
            self._trainers = {name: (trainer, self._held_out.bind(trainer.model))}
        trainer, evaluate = self._trainers[name]
        try:
            curve = trainer.train(
                job.steps, job.seed, evaluate, job.train.learning_rate, job.source_weights
            )
        except BaseException:
            del self._trainers[name]  # what diverged takes no step any more
            raise
        flops = flops_per_token(job.shape).training
        return ProxyOutcome(
            [
                ProxyResult(
                    job.shape, point.steps, point.loss_tokens, point.slots, flops * point.slots,
                    dict(sorted(point.result.items())),  # as they are read back
                )
                for point in curve.points
            ],
            curve.seconds,
            curve.step_seconds,
            curve.noise,
            True,
        )  # fmt: skip

    def _write(self, path: str, outcome: ProxyOutcome, settings: Mapping[str, Any]) -> None:
        arrays: dict[str, np.ndarray] = {}
        points = []
        for i, result in enumerate(outcome.results):
            points.append(
                {
                    "steps": result.steps,
                    "loss_tokens": result.loss_tokens,
                    "slots": result.slots,
                    "flops": result.flops,
                }
            )
            for j, (_, loss) in enumerate(sorted(result.losses.items())):
                arrays[f"nll_{i}_{j}"], arrays[f"bytes_{j}"] = loss.nll, loss.bytes
        text = json.dumps(
            {
                "points": points,
                "sets": sorted(outcome.results[0].losses),
                "seconds": outcome.seconds,
                "step_seconds": outcome.step_seconds,
                "noise": outcome.noise and dataclasses.asdict(outcome.noise),
                "settings": dict(settings),
            }
        )
        os.makedirs(self._directory, exist_ok=True)
        with AtomicFile(path) as out:
            np.savez(out, document=np.frombuffer(text.encode(), np.uint8), **arrays)

    def _read(self, path: str, job: ProxyJob) -> ProxyOutcome | None:
        if not os.path.exists(path):
            return None
        try:
            return self._read_stored(path, job)
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise TokenmillError(
                f"{path}: a proxy run's result that cannot be read ({type(error).__name__}): it "
                "was damaged after it was written.",
                "Delete the file: the same command trains it anew.",
            ) from error

    def _read_stored(self, path: str, job: ProxyJob) -> ProxyOutcome:
        with np.load(path) as stored:
            document = json.loads(stored["document"].tobytes())
            sets = document["sets"]
            results = [
                ProxyResult(
                    shape=job.shape,
                    **point,
                    losses={
                        name: HeldOutLoss(stored[f"nll_{i}_{j}"], stored[f"bytes_{j}"])
                        for j, name in enumerate(sets)
                    },
                )
                for i, point in enumerate(document["points"])
            ]
        noise = document["noise"]
        return ProxyOutcome(
            results,
            document["seconds"],
            document["step_seconds"],
            noise and GradientNoise(**noise),
            False,
        )
