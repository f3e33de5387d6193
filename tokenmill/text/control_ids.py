"""Ids of a vocabulary's control tokens: tokens that stand for no text."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ConfigDict

from tokenmill.contracts.base import Part, key
from tokenmill.errors import TokenmillError
from tokenmill.text import vocabulary

_OTHER_PADDING = -1

_NEEDED = {
    "causal-lm": ("bos", "eos"),
    "masked-lm": ("mask", "cls", "sep"),
    "classification": ("cls", "sep"),
}
"""Control tokens that the rows of each training task hold."""


class ControlIds(Part):
    """Ids of the control tokens of a vocabulary; None where it has no such token.

    Two names may have one id: GPT-2 begins and ends a text with `<|endoftext|>`.
    """

    model_config = ConfigDict(frozen=True)

    pad: int | None = key("Fills rows up.", default=None, ge=0)
    unk: int | None = key("Stands for text that the vocabulary lacks.", default=None, ge=0)
    bos: int | None = key("Begins a text, in causal-lm.", default=None, ge=0)
    eos: int | None = key("Ends a text, in causal-lm.", default=None, ge=0)
    mask: int | None = key("Stands for a hidden token, in masked-lm.", default=None, ge=0)
    cls: int | None = key("Begins a text, in masked-lm and classification.", default=None, ge=0)
    sep: int | None = key("Ends a text, in masked-lm and classification.", default=None, ge=0)

    def by_name(self) -> dict[str, int]:
        """Return the id of each control token that there is."""
        return {name: value for name, value in self if value is not None}

    @property
    def padding(self) -> int:
        """The value that fills arrays of ids up: `pad`, or -1 if no token is padding alone."""
        others = {value for name, value in self.by_name().items() if name != "pad"}
        return _OTHER_PADDING if self.pad is None or self.pad in others else self.pad

    @property
    def never_generated(self) -> list[int]:
        """Padding, unknown and begin, which are no text; but not what ends a text, too (GPT-2)."""
        ids = (self.pad, self.unk, self.bos)
        return sorted({i for i in ids if i is not None and i != self.eos})

    def need(self, name: str) -> int:
        """Return the id of a control token that must be there.

        Raises:
            TokenmillError: The vocabulary has no such token.
        """
        value = getattr(self, name)
        if value is None:
            raise TokenmillError(
                f"the tokenizer has no {name} token (it has {_listed(self.by_name())}).",
                "Choose another train.task or another tokenizer.",
            )
        return value

    def check_task(self, task: str, origin: str) -> None:
        """Check that a training task's control tokens are there.

        Args:
            task: `causal-lm`, `masked-lm` or `classification`.
            origin: Where the tokenizer comes from, for the message.

        Raises:
            TokenmillError: One is missing; the message names it.
        """
        missing = [name for name in _NEEDED[task] if getattr(self, name) is None]
        if missing:
            raise TokenmillError(
                f"{origin}: train.task = {task} needs a {missing[0]} token, but the tokenizer has "
                f"{_listed(self.by_name())} only.",
                "Choose another train.task or another tokenizer.",
            )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "no control tokens"


TOKENMILL_CONTROL_IDS = ControlIds(
    pad=vocabulary.PAD_ID,
    unk=vocabulary.UNK_ID,
    bos=vocabulary.BOS_ID,
    eos=vocabulary.EOS_ID,
    mask=vocabulary.MASK_ID,
    cls=vocabulary.CLS_ID,
    sep=vocabulary.SEP_ID,
)
"""Of the vocabularies that tokenmill trains."""
