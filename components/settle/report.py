"""Estimate against actual, as one JSON document; plain arithmetic."""

from collections.abc import Mapping
from typing import Any

from components.ledger.money import SECONDS_PER_HOUR, compute_usd, usd_per_million_tokens

SCHEMA = "tokenmill-cost-report-1"

# Phases of the trainer that are training proper; the rest is what goodput loses.
_TRAINING_PHASES = ("steps", "input", "compile")


def build_cost_report(
    ledger: Mapping[str, Any],
    telemetry: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    unigram_bits_per_byte: float,
) -> dict[str, Any]:
    """Compares the ledger's estimate with the trainer's telemetry.

    Actual FLOPs are the slots that training computed times the exact FLOPs a token; actual MFU is
    theirs over the peak of the chips and the seconds of the steps (compilation not counted, as in
    PaLM's definition); the bill is for all seconds of the trainer.

    Args:
        ledger: ledger.json.
        telemetry: telemetry.json of the trainer.
        evaluation: The Evaluator's summary.
        unigram_bits_per_byte: The baseline on the held-out text.
    """
    hardware, estimate = ledger["hardware"], ledger["cost"]
    seconds = telemetry["seconds"]
    training_seconds = sum(seconds.get(phase, 0.0) for phase in _TRAINING_PHASES)
    chip_hours = seconds["total"] * hardware["chips"] / SECONDS_PER_HOUR
    bill = compute_usd(chip_hours, estimate["price_usd_per_chip_hour"])
    flops = ledger["flops"]["per_token_exact"] * telemetry["trained_slots"]
    peak = hardware["peak_flops_per_second_per_chip"] * hardware["chips"]
    rate = telemetry["slots_per_second"]
    effective = ledger["training"]["effective_tokens"]
    return {
        "schema": SCHEMA,
        "estimated": {
            "training_seconds": estimate["wall_seconds"],
            "total_flops": estimate["total_flops"],
            "mfu": hardware["mfu"],
            "chip_hours": estimate["chip_hours"],
            "compute_usd": estimate["compute_usd"],
            "usd_per_million_effective_tokens": estimate["usd_per_million_effective_tokens"],
        },
        "actual": {
            "training_seconds": training_seconds,
            "total_seconds": seconds["total"],
            "seconds_by_phase": dict(seconds),
            "total_flops": flops,
            "mfu": rate * ledger["flops"]["per_token_exact"] / peak if rate else None,
            "goodput": training_seconds / seconds["total"],
            "chip_hours": chip_hours,
            "compute_usd": bill,
            "usd_per_million_effective_tokens": usd_per_million_tokens(bill, effective),
        },
        "training_seconds_actual_over_estimated": training_seconds / estimate["wall_seconds"],
        "quality": {
            "held_out_before": telemetry["held_out_before"],
            "held_out_after": telemetry["held_out_after"],
            "evaluation": evaluation,
            "unigram_bits_per_byte": unigram_bits_per_byte,
        },
        "effective_tokens": effective,
    }
