"""What is read: the files of corpus.input, or the embedded corpus, as a manifest for ingest."""

import os
from collections import Counter

from pipeline.config import Config
from pipeline.embedded_corpus import build_embedded_corpus
from pipeline.report.console import RunConsole
from tokenmill.errors import TokenmillError
from tokenmill.number_format import byte_size, count


def prepare_inputs(config: Config, screen: RunConsole) -> str:
    """Write the manifest; the embedded corpus is built if it is the input.

    Args:
        config: The resolved configuration.
        screen: Where the building is shown, and what is left out.

    Returns:
        The directory of the manifest.

    Raises:
        TokenmillError: There is no input, and the embedded corpus does not fit the task.
    """
    inputs = config.corpus.input
    if not inputs:
        if config.corpus.holds_conversations:
            raise TokenmillError(
                f"there is no input, and the embedded corpus has no conversations "
                f"(a field {config.corpus.content_fields[0]!r}).",
                "Give a file of conversations with --input.",
            )
        screen.step_started("embedded corpus")
        corpus = build_embedded_corpus(
            on_progress=lambda done, total: screen.step_progress(done, total, "")
        )
        screen.step_finished(
            "embedded corpus",
            [
                f"{count(corpus.documents)} documents, {byte_size(corpus.text_bytes)}",
                f"docstrings of {len(corpus.packages)} packages",
            ],
            cached=False,
        )
        inputs = (str(corpus.path),)
    from components.ingest.manifest import describe_left_out, list_inputs, write_manifest

    left_out: Counter[str] = Counter()
    files = list_inputs(inputs, span=config.corpus.span, left_out=left_out)
    if sentence := describe_left_out(left_out):
        screen.note(sentence)
    return write_manifest(
        files,
        os.path.abspath(os.path.join(config.output_dir, "inputs")),
    )
