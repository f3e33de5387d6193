"""README.md of an exported model: a model card whose numbers are the run's own."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.benchmark import BENCHMARK_COLUMNS, benchmark_rows
from pipeline.report.page.content import shorten
from pipeline.report.pruning import describe_pruning
from pipeline.report.quality import describe_forgetting, describe_quality
from tokenmill.contracts.benchmark import BenchmarkTaskResult
from tokenmill.contracts.cost_report import Metrics, Quality
from tokenmill.contracts.ledger import Ledger, TrainingText
from tokenmill.contracts.served_model import ServedModel
from tokenmill.contracts.training import Losses
from tokenmill.metadata.lineage import Lineage
from tokenmill.number_format import active_params, decimal, power_of_ten, usd
from tokenmill.visible import visible

_SLICES_SHOWN = 20
_CELL_CHARACTERS = 500
# What begins a column, code, a link or an image; a `<` is written as an entity.
_MARKUP = re.compile(r"[\\|`\[\]]")


def model_card(model: ServedModel, architecture: str, traced: Lineage | None) -> str:
    """Write the card.

    Args:
        model: What was exported.
        architecture: The class of transformers that it is one of.
        traced: The run that pushed it; None where it is not at hand.

    Returns:
        Markdown behind a YAML header, as Hugging Face's hub reads it. What only a person knows
        (license, intended use) is left to be filled in.
    """
    return "\n".join([*_header(model), *_what(model, architecture), *_body(traced)]) + "\n"


def adapter_card(
    model: ServedModel, adapter_config: Mapping[str, Any], traced: Lineage | None
) -> str:
    """Write the card of adapters alone, as `model_card` does of a whole model.

    Args:
        model: The pushed model, which has the adapters merged.
        adapter_config: Content of PEFT's adapter_config.json.
        traced: The run that pushed it; None where it is not at hand.
    """
    base_model = adapter_config["base_model_name_or_path"]
    header = _header(model, f"library_name: peft\nbase_model: {json.dumps(base_model)}")
    what = [
        "# LoRA adapters trained with tokenmill\n",
        f"Adapters for PEFT of rank {adapter_config['r']} (alpha {adapter_config['lora_alpha']:g}) "
        f"beside the weights of {cell(base_model)}; texts of up to "
        f"{model.model_shape.sequence_length:,} tokens.\n",
    ]
    return "\n".join([*header, *what, *_body(traced)]) + "\n"


def _header(model: ServedModel, library: str = "library_name: transformers") -> Iterator[str]:
    tags = {"lm": "text-generation", "mlm": "fill-mask", "classifier": "text-classification"}
    yield "---"
    yield library
    yield f"pipeline_tag: {tags[model.model_shape.head]}"
    yield "license: other  # to be filled in: what the license of the training text allows"
    yield "license_name: to-be-filled-in"
    yield "tags:\n- tokenmill"
    yield "---"


def _what(model: ServedModel, architecture: str) -> Iterator[str]:
    shape = model.model_shape
    active = active_params(shape.params_total, shape.params_active, "{:,}".format)
    yield "# Model trained with tokenmill\n"
    yield (
        f"{architecture}: {model.parameters:,} parameters{active}, {shape.layers} layers of width "
        f"{shape.d_model:,}, vocabulary {shape.vocab_size:,}, texts of up to "
        f"{shape.sequence_length:,} tokens.\n"
    )


def _body(traced: Lineage | None) -> Iterator[str]:
    yield "## Intended use\n\nTo be filled in.\n"
    yield "## Training text\n"
    if traced is None:
        yield (
            "Not known: the run that pushed this model was not at hand when it was exported.\n\n"
            "## License\n\nTo be filled in."
        )
        return
    yield from sources(traced.ledger)
    cost = traced.cost_report
    yield "## Quality on held-out text\n"
    yield from quality(cost.quality)
    yield from benchmarks(traced.benchmarks)
    yield "## Cost of training\n"
    yield (
        f"{usd(cost.actual.compute_usd)} for {decimal(cost.actual.chip_hours)} chip-hours, "
        f"{power_of_ten(cost.actual.total_flops)} FLOPs; run {traced.run_id}.\n"
    )
    yield "## License\n\nTo be filled in."


def sources(ledger: Ledger) -> Iterator[str]:
    """Say how much text there was and how much training read of it, with a table by source."""
    total, training = ledger.funnel.total, ledger.training
    yield (
        f"{total.raw.documents:,} documents ({total.raw.bytes:,} bytes), of which "
        f"{total.curated.documents:,} ({total.curated.bytes:,} bytes) were kept by curation; "
        f"{total.train.tokens:,} tokens to train on, of which training read "
        f"{training.effective_tokens:,.0f} effective tokens (discounted for repetition)"
        f"{_of_answers(total.train)}.\n"
    )
    yield from _table(
        ("source", "documents", "bytes", "tokens"),
        [
            (source, f"{of.curated.documents:,}", f"{of.curated.bytes:,}", f"{of.train.tokens:,}")
            for source, of in sorted(
                ledger.funnel.by_source.items(), key=lambda item: -item[1].train.tokens
            )
        ],
    )


def quality(found: Quality) -> Iterator[str]:
    """Describe the quality on held-out text, before training too, and by source and language."""
    yield f"{describe_quality(found.evaluation.total)}.\n"
    if found.base_model is not None:
        yield (
            f"Trained from {cell(found.base_model)}, which has on the same text: "
            f"{_describe_start(found.eval_before)}.\n"
        )
    if found.evaluation.forgetting is not None:
        yield f"{describe_forgetting(found.evaluation.forgetting)}\n"
    if found.pruning is not None:
        yield f"{describe_pruning(found.pruning)}\n"
    for name, slices in (
        ("source", found.evaluation.by_source),
        ("language", found.evaluation.by_language),
    ):
        if len(slices) > 1:
            yield from _table((name, "documents", "quality"), list(_quality_rows(slices)))


def benchmarks(tasks: Mapping[str, BenchmarkTaskResult]) -> Iterator[str]:
    """Write the part on benchmark tasks; nothing where none was asked for."""
    if tasks:
        yield "## Benchmarks\n"
        yield "By lm-evaluation-harness; chance is what guessing scores.\n"
        yield from _table(BENCHMARK_COLUMNS, list(benchmark_rows(tasks)))


def _describe_start(losses: Losses) -> str:
    if losses.accuracy is not None:
        return f"accuracy {losses.accuracy:.1%} (its head is new)"
    if losses.bits_per_byte is not None:
        return f"{losses.bits_per_byte:.3f} bits per byte"
    return f"masked-token perplexity {losses.perplexity:,.1f}"


def _of_answers(train: TrainingText) -> str:
    if train.loss_name != "answer tokens":
        return ""
    return f"; of conversations answers alone are learned, {train.loss_tokens:,} answer tokens"


def _quality_rows(slices: dict[str, Metrics]) -> Iterator[tuple[str, ...]]:
    for name, metrics in slices.items():
        yield name, f"{metrics.get('evaluated_documents', 0):,.0f}", describe_quality(metrics)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows[:_SLICES_SHOWN]:
        yield f"| {' | '.join(cell(value) for value in row)} |"
    if len(rows) > _SLICES_SHOWN:
        yield f"| and {len(rows) - _SLICES_SHOWN:,} more |{' |' * (len(heads) - 1)}"
    yield ""


def cell(value: str) -> str:
    """Return a text from outside on one line of Markdown, cut off: no table, markup or link."""
    line = shorten(visible(" ".join(value.split())), _CELL_CHARACTERS)
    return _MARKUP.sub(r"\\\g<0>", line).replace("<", "&lt;")
