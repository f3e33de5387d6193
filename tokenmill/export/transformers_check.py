"""An exported directory, loaded by transformers itself where that is installed.

It runs in a process of its own, as PyTorch and TensorFlow in one process take the memory of both:

    python -m tokenmill.export.transformers_check DIRECTORY EXPECTED.npz
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tokenmill.errors import TokenmillError

_NEEDED = ("torch", "transformers")
_CLASSES = {
    "lm": "AutoModelForCausalLM",
    "mlm": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
}
_MINUTES = 30

CHECKED_TEXTS = (
    "Returns the sum of the elements of a tensor over an axis.",
    "  two blanks,\ttabs\n\n    def f(x): return {'a': 1_000}  # 3.14\r\n",
    "Größe, naïve, São Paulo; Съешь же ещё; 日本語の文章; 한국어; ภาษาไทย; العربية",
    "👩‍👩‍👧 🇩🇪 <s> </s> <mask> [CLS] [SEP] <|endoftext|> \u2581 \x00\x7f",
)
"""Texts whose ids are compared: blanks, numbers, scripts, emoji, what looks like control tokens."""


class TransformersCheck(NamedTuple):
    """What transformers computes of an exported directory.

    Attributes:
        version: Of transformers.
        largest_difference: Of its logits (of a classifier probabilities) from the expected ones.
        other_ids: Of how many of `CHECKED_TEXTS` AutoTokenizer gives other ids.
    """

    version: str
    largest_difference: float
    other_ids: int


def is_installed() -> bool:
    """Return whether transformers and PyTorch can be imported here."""
    return all(importlib.util.find_spec(name) is not None for name in _NEEDED)


def check_with_transformers(
    directory: str, head: str, ids: np.ndarray, expected: np.ndarray, texts: Sequence[Sequence[int]]
) -> TransformersCheck:
    """Load a directory with AutoModel and AutoTokenizer and compare what they compute.

    Args:
        directory: What was exported.
        head: Of the model: lm, mlm or classifier.
        ids: int32 [1, tokens], what the model is given.
        expected: float32 [1, tokens, vocabulary] logits, of which those that are not above -1e9 are
            not compared; of a classifier probabilities [1, classes].
        texts: The ids of each of `CHECKED_TEXTS`, without control tokens around them.

    Raises:
        TokenmillError: transformers cannot load it.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = os.path.join(temporary, "expected.npz")
        np.savez(
            path,
            head=head,
            ids=ids,
            expected=expected,
            text_ids=np.concatenate([np.asarray(t, np.int64) for t in texts]),
            text_ends=np.cumsum([len(t) for t in texts]),
        )
        done = subprocess.run(
            [sys.executable, "-m", __name__, directory, path],
            capture_output=True,
            text=True,
            timeout=60 * _MINUTES,
            check=False,
        )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise TokenmillError(
            f"{directory} is written, but transformers cannot load it: {last}",
            "Try another version of transformers, or leave the comparison out: --no-check",
        )
    return TransformersCheck(**json.loads(lines[-1]))


def _compare(directory: str, path: str) -> TransformersCheck:
    import torch
    import transformers

    known = np.load(path)
    head, expected = str(known["head"]), known["expected"]
    model: Any = getattr(transformers, _CLASSES[head]).from_pretrained(
        directory, dtype=torch.float32
    )
    with torch.no_grad():
        logits = model.eval()(torch.tensor(known["ids"].astype("int64"))).logits
        computed = (torch.softmax(logits, -1) if head == "classifier" else logits).numpy()
    # What looks like a control token in a text is text.
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, split_special_tokens=True)
    theirs = [tokenizer(text, add_special_tokens=False).input_ids for text in CHECKED_TEXTS]
    ours = np.split(known["text_ids"], known["text_ends"][:-1])
    return TransformersCheck(
        transformers.__version__,
        float(np.abs(computed - expected)[expected > -1e9].max()),
        sum(a != b.tolist() for a, b in zip(theirs, ours, strict=True)),
    )


if __name__ == "__main__":
    print(json.dumps(_compare(*sys.argv[1:])._asdict()))
