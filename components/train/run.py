"""One training run from packed rows to a SavedModel; what the Trainer component calls."""

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from components.documents import write_json
from components.model_shape import ModelShape
from components.pack.rows import PackedSplit
from components.train.export import export_model
from components.train.loop import LossSums, Trainer, TrainingRecord, TrainSettings, make_strategy
from components.train.models import build_model
from components.train.models.base_model import load_base_model
from components.train.plan import plan_steps
from components.train.weights import Weights

TELEMETRY_NAME = "telemetry.json"


@dataclass(frozen=True)
class TrainingJob:
    """All settings of a training run; the Trainer's one execution property, as JSON."""

    shape: dict[str, Any]
    settings: dict[str, Any]
    strategy: str
    precision: str
    global_batch_size: int
    epochs: float
    max_steps: int | None
    weights: Weights = "float32"
    dropout: float = 0.0
    rematerialize: bool = False
    base_model: str | None = None

    def to_json(self) -> str:
        """The same settings give the same text."""
        return json.dumps(asdict(self), sort_keys=True)


def train_and_export(
    job: TrainingJob,
    rows_uri: str,
    transform_graph_uri: str,
    tokenizer_path: str,
    model_directory: str,
    run_directory: str,
) -> dict[str, Any]:
    """Trains, writes the SavedModel and `telemetry.json`; returns the telemetry."""
    started = time.perf_counter()
    shape, settings = ModelShape(**job.shape), TrainSettings(**job.settings)
    train, held_out = PackedSplit(rows_uri, "train"), PackedSplit(rows_uri, "eval")
    plan = plan_steps(train.rows, job.global_batch_size, job.epochs, job.max_steps)
    strategy = make_strategy(job.strategy)
    with strategy.scope():
        model = build_model(shape, settings.seed, job.precision, job.dropout, job.rematerialize)
        if job.base_model is not None:
            load_base_model(model, job.base_model, tokenizer_path)
    trainer = Trainer(strategy, model, settings, plan, job.precision)
    built = time.perf_counter()
    record = trainer.fit(train, held_out)
    fitted = time.perf_counter()
    export_model(model, transform_graph_uri, tokenizer_path, model_directory, job.weights)
    record.seconds["build"] = built - started
    record.seconds["export"] = time.perf_counter() - fitted
    record.seconds["total"] = time.perf_counter() - started
    telemetry = _describe(record, job, train, held_out, model.count_params())
    write_json(os.path.join(run_directory, TELEMETRY_NAME), telemetry)
    return telemetry


def _describe(
    record: TrainingRecord, job: TrainingJob, train: PackedSplit, held_out: PackedSplit, params: int
) -> dict[str, Any]:
    assert record.eval_before is not None
    assert record.eval_after is not None
    held_out_bytes = held_out.manifest["bytes"]
    # The first step compiles; its tokens are not in the steady rate.
    steady_slots = (record.plan.steps - 1) * job.global_batch_size * train.sequence_length
    steady_seconds = record.seconds.get("steps", 0.0) + record.seconds.get("input", 0.0)
    return {
        "params_total": params,
        "steps": record.plan.steps,
        "epochs": record.plan.epochs,
        "global_batch_size": job.global_batch_size,
        "trained_slots": record.trained_slots,
        "trained_targets": record.trained_targets,
        "seconds": record.seconds,
        "slots_per_second": steady_slots / steady_seconds if steady_slots else None,
        "loss_curve": record.loss_curve,
        "held_out_before": _losses(record.eval_before, held_out_bytes),
        "held_out_after": _losses(record.eval_after, held_out_bytes),
    }


def _losses(sums: LossSums, text_bytes: int) -> dict[str, float]:
    """Per target and per byte of text; `text_bytes` is the held-out split's."""
    loss = sums.nll / sums.targets
    return {
        "nll_sum": sums.nll,
        "targets": sums.targets,
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": sums.nll / math.log(2) / text_bytes,
    }
