"""Steps by calls of a model's signatures, which keep nothing between two calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from serving.gateway.steps import SamplerArrays, pad_prompts
from tokenmill.export.step_signatures import cache_names
from tokenmill.model.shape import ModelShape

Call = Callable[[str, Mapping[str, Any]], dict[str, np.ndarray]]
"""Calls a signature on its inputs."""


class SignatureSteps:
    """Texts whose cache lies here, and goes with each call.

    Args:
        call: Calls a signature of the model.
        shape: Sizes of the model.
        padding: Fills ids up.
        empty: Makes an array of zeros.
        shared: Returns what `call` is given in an array's place. What is written into the array
            later must be in it.
    """

    def __init__(
        self,
        call: Call,
        shape: ModelShape,
        padding: int,
        empty: Callable[[Sequence[int]], np.ndarray] = lambda shape: np.zeros(shape, np.float32),
        shared: Callable[[np.ndarray], Any] = lambda array: array,
    ):
        self._call, self._padding = call, padding
        self._zeros, self._shared = empty, shared
        self._names = cache_names(shape.layers)
        self._heads, self._width = shape.key_value_heads, shape.head_width
        self.clear()

    def change(
        self, kept: Sequence[int], prompts: Sequence[Sequence[int]], slots: int
    ) -> np.ndarray:
        """Let texts leave and join; the logits after each prompt."""
        logits, joined = np.zeros([0, 0], np.float32), {}
        if prompts:
            ids = pad_prompts(prompts, self._padding)
            joined = self._call("prefill_ids", {"token_ids": ids})
            logits = joined.pop("logits")
        shape = [len(kept) + len(prompts), self._heads, slots, self._width]
        for name in self._names:
            changed = self._zeros(shape)
            if len(kept):
                old = self._cache[name][list(kept), :, :slots]
                changed[: len(kept), :, : old.shape[2]] = old
            if prompts:
                new = joined[name][:, :, :slots]
                changed[len(kept) :, :, : new.shape[2]] = new
            self._cache[name], self._inputs[name] = changed, self._shared(changed)
        return logits

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Read one token of each text; the logits after it."""
        inputs = {"token_ids": tokens, "positions": positions, **self._inputs}
        outputs = self._call("decode_ids", inputs)
        rows = np.arange(len(tokens))
        for name in self._names:
            self._cache[name][rows, :, positions] = outputs[name]
        return outputs["logits"]

    def sample(self, logits: np.ndarray, sampler: SamplerArrays) -> np.ndarray:
        """Choose the next tokens."""
        return self._call("sample", {"logits": logits, **sampler._asdict()})["token_ids"]

    def clear(self) -> None:
        """Forget all texts."""
        self._cache: dict[str, np.ndarray] = {}
        self._inputs: dict[str, Any] = {}
