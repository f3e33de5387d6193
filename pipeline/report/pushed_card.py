"""README.md of a pushed version: a short model card of the same documents as the run's page."""

import hashlib
import logging
import os
from collections.abc import Iterator

import tensorflow as tf

from pipeline.report.languages import languages_by_tokens
from pipeline.report.model_card import benchmarks, cell, quality, sources
from pipeline.report.page.headline import headline
from pipeline.report.page.run_documents import RunDocuments
from pipeline.report.quality import quality_notes
from tokenmill.contracts.cost_report import CostReport
from tokenmill.contracts.ledger import Ledger
from tokenmill.contracts.served_model import ServedModel, read_served_model
from tokenmill.files import write_text
from tokenmill.number_format import decimal, duration, usd
from tokenmill.text.language import language_label

CARD_NAME = "README.md"
_LANGUAGES_NAMED = 12


def write_pushed_card(run: RunDocuments) -> str | None:
    """Write the card into the version that a run pushed; return its path.

    It lies beside saved_model.pb, where TensorFlow Serving looks at nothing that it does not know.
    The push itself is not put off for it: a new price writes the card anew, and pushes no version.

    Returns:
        None if nothing was pushed, or the version has been removed since.
    """
    if not run.pushed_to:
        return None
    if not tf.io.gfile.exists(os.path.join(run.pushed_to, "saved_model.pb")):
        logging.warning("%s has been removed: no model card is written there", run.pushed_to)
        return None
    path = os.path.join(run.pushed_to, CARD_NAME)
    write_text(path, pushed_card(run, read_served_model(run.pushed_to)))
    return path


def pushed_card(run: RunDocuments, model: ServedModel) -> str:
    """Return the card, Markdown; what a person alone knows is left to be filled in.

    Args:
        run: The run that pushed the model.
        model: What was pushed.
    """
    return "\n".join(_card(run, model)) + "\n"


def _card(run: RunDocuments, model: ServedModel) -> Iterator[str]:
    head, ledger, cost = headline(run), run.ledger, run.cost_report
    yield f"# {cell(head.name)}\n"
    # Not the sentence on the text: it has paths of this machine, and the version goes elsewhere.
    yield f"Trained with tokenmill. {cell(head.what[0]) if ledger is not None else ''}\n"
    for number in head.numbers:
        yield f"- {number.label}: **{cell(number.value)}** ({cell(number.beside)})"
    yield "\n## Intended use\n\nTo be filled in.\n"
    if ledger is not None:
        yield "## Training text\n"
        yield from sources(ledger)
        yield f"{_languages(ledger)}\n"
    if cost is not None:
        yield "## Quality on held-out text\n"
        yield from quality(cost.quality)
        yield from benchmarks(cost.quality.evaluation.benchmarks)
        yield "## Cost of training\n"
        yield f"{_cost(cost)}\n"
    yield "## Limits\n"
    yield from _limits(model, cost)
    yield "\n## Origin\n"
    yield from _origin(run)
    yield "\n## License\n\nTo be filled in: what the license of the training text allows."


def _languages(ledger: Ledger) -> str:
    """Say which languages training read, by their share of the tokens."""
    seen = [
        f"{cell(language_label(code))} {of.token_share:.1%}"
        for code, of in languages_by_tokens(ledger)
        if of.train.tokens
    ]
    if not seen:
        return "Its languages were not looked at."
    more = len(seen) - _LANGUAGES_NAMED
    named = ", ".join(seen[:_LANGUAGES_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    return f"Languages by tokens: {named}."


def _cost(cost: CostReport) -> str:
    estimated, actual = cost.estimated, cost.actual
    return (
        f"{usd(actual.compute_usd)} (estimated {usd(estimated.compute_usd)}) for "
        f"{decimal(actual.chip_hours)} chip-hours (estimated {decimal(estimated.chip_hours)}); "
        f"{duration(actual.total_seconds)} (estimated {duration(estimated.total_seconds)})."
    )


def _limits(model: ServedModel, cost: CostReport | None) -> Iterator[str]:
    yield f"- It reads at most {model.model_shape.sequence_length:,} tokens at a time."
    yield "- Languages and kinds of text that are not among those above were not trained on."
    for note in [] if cost is None else quality_notes(cost.quality.evaluation):
        yield f"- {cell(note)}"


def _origin(run: RunDocuments) -> Iterator[str]:
    version = cell(os.path.basename(run.pushed_to))
    if run.run_id:
        yield f"- Run `{run.run_id}`, pushed as version {version}."
    else:
        yield f"- Pushed as version {version}."
    digest = hashlib.sha256(run.config_toml.encode()).hexdigest()
    yield f"- SHA-256 of its configuration: `{digest}`."
    yield "- `tokenmill lineage VERSION` leads from here to each input file."
