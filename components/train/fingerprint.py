"""Which training a checkpoint belongs to, and what may differ when it is continued.

A job's settings and the rows it reads, flat: `train.learning_rate`, `shape.d_model`, `rows`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from components.train.config import TrainConfig, TrainingJob
from tokenmill.checkpoints.base_model import weights_fingerprint
from tokenmill.errors import TokenmillError
from tokenmill.model.shape import EXPERT_KEYS, ModelShape
from tokenmill.rows.packed_split import PackedSplit

# These say how the numbers are computed, not which: a training goes on under another value, with
# the same losses to rounding. They do not tell one training from another.
_HOW = frozenset(
    {
        "train.strategy",
        "train.zero",
        "train.expert_parallel",
        "train.resume_from",
        "train.jit_compile",
        "train.accumulation_steps",
        "train.rematerialize",
        "quantization",  # how the SavedModel stores them: a finished training is only exported anew
    }
)
_LORA_KEYS = "train.lora_"
_PRUNE_KEYS = "train.prune_"
# What adapters are trained beside: a hash, as their checkpoints do not hold it.
_BASE_WEIGHTS = "base_weights"
_START_WEIGHTS = "start_weights"
# These decide what a weight or a data position means: a checkpoint is of no use under another.
_FIXED = (
    "shape.",
    "rows",
    "train.global_batch_size",
    "seed",
    "train.task",
    _LORA_KEYS,
    _BASE_WEIGHTS,
)


def settings_of(job: TrainingJob) -> dict[str, Any]:
    """Return a job's settings under dotted names, and a hash of the weights that it starts from."""
    settings = flatten(job.model_dump(mode="json", exclude={"base_weights"}))
    if job.train.lora is None:
        settings = {k: value for k, value in settings.items() if not k.startswith(_LORA_KEYS)}
    if not job.train.prune_sparsity:
        settings = {k: value for k, value in settings.items() if not k.startswith(_PRUNE_KEYS)}
    if not job.train.zero:  # a training from before there was the key has not changed
        settings.pop("train.zero", None)
    if not job.train.expert_parallel:
        settings.pop("train.expert_parallel", None)
    if job.shape.experts == 1:  # a dense training is what it was before there were experts
        without = {f"shape.{key}" for key in EXPERT_KEYS}
        settings = {k: value for k, value in settings.items() if k not in without}
    if job.base_model is not None:
        # A checkpoint without adapters holds all weights, and goes on wherever they came from.
        name = _START_WEIGHTS if job.train.lora is None else _BASE_WEIGHTS
        settings[name] = weights_fingerprint(job.base_model)
    return settings


def flatten(job: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in job.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


_DEFAULTS = flatten(TrainConfig().model_dump(mode="json"), "train.") | {
    f"shape.{field.name}": field.default
    for field in dataclasses.fields(ModelShape)
    if field.default is not dataclasses.MISSING
}


def rows_fingerprint(split: PackedSplit) -> str:
    """Return a hash of the rows' own checksums, and of how their quality weighs."""
    digests = [shard.sha256 for shard in split.manifest.shards]
    if split.manifest.by_bucket:
        means = [(bucket.name, bucket.mean_score) for bucket in split.manifest.by_bucket]
        digests.append(json.dumps([split.manifest.quality_weighting, means]))
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:32]


def mixture_of(split: PackedSplit) -> dict[str, Any]:
    """Return by what the sources of rows are read, under dotted names; nothing where all alike.

    The rows are the same whatever the weights; a training goes on under others only where it is
    told to, by train.resume_from.
    """
    manifest = split.manifest
    found: dict[str, Any] = {}
    if manifest.source_weights:
        found["mixture.source_weights"] = dict(sorted(manifest.source_weights.items()))
    if manifest.max_repetitions is not None:
        found["mixture.max_repetitions"] = manifest.max_repetitions
    return found


def directory_name(job: Mapping[str, Any]) -> str:
    """Return a name for the training that a flat job describes; the same for the same training."""
    distinguishing = {name: value for name, value in job.items() if name not in _HOW}
    return hashlib.sha256(json.dumps(distinguishing, sort_keys=True).encode()).hexdigest()[:16]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose values differ, with both values.

    A key that a side lacks has its default there: settings_of leaves out what decides nothing, and
    an older checkpoint knows no newer key.
    """
    # Through JSON, as the older side has been: tuples are lists there.
    before, now = (json.loads(json.dumps(_DEFAULTS | dict(job))) for job in (before, now))
    return {
        name: (before.get(name), now.get(name))
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and name != "train.resume_from"
    }


def describe(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return the changes in words."""
    return ", ".join(f"{name} from {a!r} to {b!r}" for name, (a, b) in changed.items())


def check_changes(changed: Mapping[str, tuple[Any, Any]], where: str) -> None:
    """Check that a training may go on under changed settings.

    Raises:
        TokenmillError: A changed key makes the checkpoint useless.
    """
    fatal = {name: pair for name, pair in changed.items() if name.startswith(_FIXED)}
    if fatal:
        raise TokenmillError(
            f"the checkpoint in {where} cannot be continued with {describe(fatal)}.",
            "Everything but the model's shape, the rows, the batch size, the seed, LoRA's keys and "
            "the weights of model.base_model beside adapters may change.",
        )
