"""The first screen of the page: what was trained on what, the verdict, three numbers."""

from dataclasses import dataclass
from typing import Any, Literal

import tomli

from pipeline.report.cost import a_parameter
from pipeline.report.measured import multiplier_words
from pipeline.report.page.content import words
from pipeline.report.page.run_documents import RunDocuments
from pipeline.report.quality import compared_measure, describe_quality, quality_notes
from tokenmill.contracts.cost_report import Quality
from tokenmill.contracts.ledger import Ledger
from tokenmill.number_format import byte_size, count, decimal, duration, usd

_INPUTS_NAMED = 3


@dataclass(frozen=True)
class BigNumber:
    """A number of the first screen: what it is, its value, and what to hold it against."""

    label: str
    value: str
    beside: str = ""


@dataclass(frozen=True)
class Headline:
    """The first screen.

    Attributes:
        name: Name of the run's pipeline.
        run_id: TFX's id of the run.
        what: Sentences: the model and the text.
        kind: How the verdict is to look.
        verdict: What became of the model, in a few words.
        reasons: Why it is so, a sentence each.
        numbers: Up to three large numbers; what is not known is absent.
    """

    name: str
    run_id: str
    what: list[str]
    kind: Literal["good", "bad", "open", "plain"]
    verdict: str
    reasons: list[str]
    numbers: list[BigNumber]


def headline(run: RunDocuments) -> Headline:
    """Say what the run trained on what, what came of it, and its largest numbers."""
    config = tomli.loads(run.config_toml)
    kind, verdict, reasons = _verdict(run)
    return Headline(
        name=config.get("run", {}).get("name", "run"),
        run_id=run.run_id,
        what=[text for text in (_model(run, config), _text(run, config)) if text],
        kind=kind,
        verdict=verdict,
        reasons=reasons,
        numbers=_numbers(run),
    )


def _model(run: RunDocuments, config: dict[str, Any]) -> str:
    """Say what is trained, and how long."""
    if run.ledger is None:
        return ""
    shape, train, plan = config.get("model", {}), config.get("train", {}), run.ledger.training
    parts = [f"{train['task']} model" if "task" in train else "A model"]
    parts.append(f"of {count(run.ledger.model.params_total)} parameters")
    active, end = run.ledger.model.params_active, ""
    if active not in (None, run.ledger.model.params_total):
        parts[-1] += f", of which a token passes {count(active)}"
        end = ","
    if "layers" in shape and "sequence_length" in shape:
        length = count(shape["sequence_length"])
        parts.append(f"({shape['layers']} layers, rows of {length} tokens)")
    parts[-1] += end
    done = "trained for" if run.telemetry else "planned:"
    parts.append(f"{done} {count(plan.steps)} steps, {decimal(plan.epochs)} epochs")
    sentence = " ".join(parts)
    return sentence[:1].upper() + sentence[1:] + "."


def _text(run: RunDocuments, config: dict[str, Any]) -> str:
    """Say where the text is from, and how much there is."""
    inputs = config.get("corpus", {}).get("input") or ["the embedded corpus"]
    named = ", ".join(map(str, inputs[:_INPUTS_NAMED]))
    if len(inputs) > _INPUTS_NAMED:
        named += f" and {len(inputs) - _INPUTS_NAMED:,} more"
    if run.ledger is None:
        return f"On {named}."
    total = run.ledger.funnel.total
    return (
        f"On {named}: {count(total.raw.documents)} documents, {byte_size(total.raw.bytes)}, of "
        f"which curation kept {count(total.curated.documents)}, {byte_size(total.curated.bytes)}."
    )


def _verdict(run: RunDocuments) -> tuple[Literal["good", "bad", "open"], str, list[str]]:
    if run.cost_report is None:
        if run.ended.startswith("ended after TokenLedger"):
            return "open", "Estimate only: nothing was trained", []
        if run.over_budget and run.ledger is not None:
            limits = run.ledger.budget.model_dump(exclude_none=True)
            named = ", ".join(f"budget.{key} = {value:g}" for key, value in limits.items())
            return "bad", "Over budget: nothing was trained", [f"The limits: {named}."]
        return "bad", f"No model: the run {run.ended or 'has no cost report'}", []
    evaluation = run.cost_report.quality.evaluation
    notes = quality_notes(evaluation)
    if evaluation.failures:
        return "bad", "Not blessed", [*evaluation.failures, *notes]
    if run.pushed_to:
        return "good", "Blessed and pushed", [f"Pushed to {run.pushed_to}.", *notes]
    why = [f"The run {run.ended}."] if run.ended else []
    return "good", "Blessed", [*why, *notes]


def _numbers(run: RunDocuments) -> list[BigNumber]:
    found = []
    if (ledger := run.ledger) is not None:
        tokens, chinchilla = ledger.training.effective_tokens, ledger.guidance.chinchilla
        found.append(
            BigNumber(
                "effective tokens",
                count(tokens),
                f"{_measured(ledger)}{decimal(chinchilla.tokens_per_param)} "
                f"{a_parameter(ledger)}; of "
                f"{count(ledger.funnel.total.train.loss_tokens)} "
                f"{ledger.funnel.total.train.loss_name} to train on",
            )
        )
        if run.cost_report is None:
            took = duration(ledger.forecast.total_seconds)
            found.append(
                BigNumber("estimated compute", usd(ledger.cost.compute_usd), f"for {took}")
            )
    if (cost := run.cost_report) is not None:
        trainer = run.records.get("Trainer")
        earlier = "; trained in an earlier run" if trainer and trainer.cached else ""
        estimated = usd(cost.estimated.compute_usd)
        found.append(
            BigNumber(
                "cost of training",
                usd(cost.actual.compute_usd),
                f"estimated {estimated}; took {duration(cost.actual.total_seconds)}{earlier}",
            )
        )
        if (number := _quality(cost.quality)) is not None:
            found.append(number)
    return found


def _measured(ledger: Ledger) -> str:
    """Say what the tokens are worth as they were measured; empty where they were not."""
    ratio = ledger.measured.multiplier if ledger.measured else None
    return f"measured {multiplier_words(ratio)}; " if ratio else ""


def _quality(quality: Quality) -> BigNumber | None:
    """Return the measure of the task, beside the baseline's and the untrained model's."""
    measure = compared_measure(quality)
    if measure is None:
        return None
    beside = [*measure.beside, describe_quality(quality.evaluation.total)]
    return BigNumber(words(measure.name), measure.value, "; ".join(beside))
