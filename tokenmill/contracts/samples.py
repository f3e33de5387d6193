"""What a model makes of held-out text while it is trained: samples.json."""

from __future__ import annotations

import os

from tokenmill.contracts.base import Document, Part, find_document, key, write_document

SAMPLES_NAME = "samples.json"


class HeldOutSample(Part):
    """What the model makes of one held-out text."""

    prompt: str = key(
        "What it is given: a text's beginning; in masked-lm a text with hidden words."
    )
    output: str = key(
        "What it puts there, the likeliest token each time: how the text goes on, the answer of a "
        "conversation, or the hidden tokens, parted by blanks."
    )
    expected: str = key("What stands there in the held-out text, up to as many tokens.")


class SamplePoint(Part):
    """What the model makes of the held-out texts at one time of the training."""

    step: int = key("Steps done.", ge=0)
    samples: list[HeldOutSample] = key("The texts, the same at each time.")


class LayerAttention(Part):
    """The attention of one layer to the tokens of one text."""

    layer: int = key("Number from 0.", ge=0)
    heads: list[list[list[float]]] = key(
        "By head, or the mean over them, a matrix: row t has the weights with which token t looks "
        "at each token, rounded to four digits; they sum to 1."
    )


class TextAttention(Part):
    """The trained model's attention in one held-out text."""

    tokens: list[str] = key("The text's first tokens; blanks and line ends are shown as signs.")
    is_mean: bool = key("Whether `heads` holds the mean over all heads only: the model is large.")
    layers: list[LayerAttention] = key("The layers; of a deep model some, evenly spaced.")


class Samples(Document):
    """samples.json: what the model makes of held-out texts at some times of its training."""

    points: list[SamplePoint] = key(
        "Before the first step, half way and after the last; empty of a classifier."
    )
    attention: TextAttention | None = key(
        "After the last step, of one text; null where the held-out rows have none.", default=None
    )


def find_samples(uri: str) -> Samples | None:
    """Read samples.json of a ModelRun artifact; None if none were taken (`execution.samples`)."""
    return find_document(os.path.join(uri, SAMPLES_NAME), Samples)


def write_samples(uri: str, samples: Samples) -> None:
    """Write samples.json into a ModelRun artifact."""
    write_document(os.path.join(uri, SAMPLES_NAME), samples)
