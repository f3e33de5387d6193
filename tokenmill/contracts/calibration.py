"""How fast training is on the machine at hand: calibration.json."""

from __future__ import annotations

import os

from tokenmill.contracts.base import Document, key, read_document, write_document

CALIBRATION_NAME = "calibration.json"


class Calibration(Document):
    """calibration.json: what a short run of the true training loop measured."""

    tokens_per_second: float = key("Slots a second at the steady rate, all devices.", gt=0)
    achieved_flops_per_second: float = key("The same in FLOP/s of training.", gt=0)
    peak_flops_per_second: float | None = key(
        "What this machine's matrix products reach, FLOP/s; null of an accelerator."
    )
    steps: int = key("Steps that were timed.", gt=0)
    step_seconds: float = key("Seconds a step at the steady rate.", gt=0)
    step_cpu_seconds: float | None = key(
        "CPU seconds a step, all threads: over step_seconds the cores that the machine gave.",
        default=None,
    )
    start_seconds: float = key("Seconds until the process ran.", ge=0)
    build_seconds: float = key("Seconds of building the model.", ge=0)
    compile_seconds: float = key("Seconds of the steps that compile, those steps included.", ge=0)
    evaluate_batch_seconds: float = key("Seconds to evaluate a batch.", ge=0)
    evaluate_compile_seconds: float = key("Seconds to compile the evaluation.", ge=0)
    first_samples_seconds: float = key(
        "Seconds until held-out texts were continued the first time, tracing included; 0 without.",
        default=0.0,
        ge=0,
    )
    samples_seconds: float = key("Seconds to continue them once more.", default=0.0, ge=0)
    vcpus: int = key("Cores of this machine.", gt=0)
    memory_bytes: int = key("Its memory, bytes.", gt=0)
    runtime_bytes: int | None = key(
        "What the process held before there was a model: libraries, bytes.", default=None
    )
    peak_process_bytes: int | None = key(
        "The most that the process held, compiling, steps and evaluation, bytes.", default=None
    )
    total_seconds: float = key("Seconds that the measurement itself took.", ge=0)


def read_calibration(uri: str) -> Calibration:
    """Read calibration.json of a Calibration artifact."""
    return read_document(os.path.join(uri, CALIBRATION_NAME), Calibration)


def write_calibration(uri: str, calibration: Calibration) -> None:
    """Write calibration.json into a Calibration artifact."""
    write_document(os.path.join(uri, CALIBRATION_NAME), calibration)
