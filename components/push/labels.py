"""The run's numbers as labels of a Google Cloud resource.

A label's key is a lower-case letter and up to 62 of [a-z0-9_-], its value up to 63 of [a-z0-9_-],
and a resource has at most 64 (Google Cloud, "Requirements for labels"). There is no point and no
capital letter, so that every number is a whole one in a unit small enough to lose nothing that
matters: microdollars, millionths, seconds.
"""

import hashlib
import math
import re

from tokenmill.contracts.cost_report import CostReport
from tokenmill.contracts.ledger import Ledger
from tokenmill.cost.pricing import SECONDS_PER_HOUR

MAX_LABELS = 64
_MAX_CHARACTERS = 63
_MILLION = 1e6
# Counts that the ledger's numbers say already.
_COUNTS = "evaluated_"


def label_text(text: str) -> str:
    """Return a text as a label's value; one that is cut ends with the start of its SHA-256."""
    allowed = re.sub(r"[^a-z0-9_-]", "-", text.lower())
    if len(allowed) <= _MAX_CHARACTERS:
        return allowed
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{allowed[: _MAX_CHARACTERS - 9]}-{digest}"


def label_key(text: str) -> str:
    """Return a text as a label's key, which begins with a letter."""
    key = label_text(text)
    return key if "a" <= key[:1] <= "z" else label_text(f"x{key}")


def label_number(value: float, factor: float = 1.0) -> str | None:
    """Return `value * factor`, rounded to a whole number; None if it is not finite."""
    scaled = value * factor
    return str(round(scaled)) if math.isfinite(scaled) else None


def _active(ledger: Ledger) -> dict[str, tuple[float, float]]:
    """Return the parameters that a token passes where these are not all."""
    total, active = ledger.model.params_total, ledger.model.params_active
    return {} if active is None or active == total else {"active_parameters": (active, 1.0)}


def run_labels(run_name: str, ledger: Ledger, report: CostReport) -> dict:
    """Return what a model was made of and what it cost, as labels.

    Args:
        run_name: `run.name`.
        ledger: ledger.json.
        report: cost_report.json.

    Returns:
        Values by key. `_microusd` is 1e-6 USD, `_millionths` 1e-6 of the measure's unit,
        `_seconds` are of wall time; the rest are counts.
    """
    total, training = ledger.funnel.total, ledger.training
    cost, actual = ledger.cost, report.actual
    numbers = {
        "raw_documents": (total.raw.documents, 1.0),
        "curated_documents": (total.curated.documents, 1.0),
        "train_tokens": (total.train.tokens, 1.0),
        "effective_tokens": (training.effective_tokens, 1.0),
        "training_steps": (training.steps, 1.0),
        "parameters": (ledger.model.params_total, 1.0),
        **_active(ledger),
        "training_flops": (actual.total_flops, 1.0),
        "chips": (ledger.hardware.chips, 1.0),
        "chip_seconds": (actual.chip_hours, SECONDS_PER_HOUR),
        "price_microusd_per_chip_hour": (ledger.price.usd_per_chip_hour, _MILLION),
        "compute_microusd_estimated": (cost.compute_usd, _MILLION),
        "compute_microusd": (actual.compute_usd, _MILLION),
    }
    for name, value in sorted(report.quality.evaluation.total.items()):
        if not name.startswith(_COUNTS):
            numbers[f"{name}_millionths"] = (value, _MILLION)
    labels = {"run": label_text(run_name), "chip": label_text(ledger.hardware.chip)}
    for name, (value, factor) in numbers.items():
        text = label_number(value, factor)
        if text is not None and len(labels) < MAX_LABELS:
            labels[label_key(name)] = text
    return labels
