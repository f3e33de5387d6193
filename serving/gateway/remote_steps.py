"""Steps of a model behind gRPC: the gateway keeps the cache and sends it with each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from serving.gateway.steps import SamplerArrays, pad_prompts
from tokenmill.export.step_signatures import cache_names
from tokenmill.model.shape import ModelShape

Call = Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]]
"""Calls a signature of a server."""


class RemoteSteps:
    """Texts that a server's model continues, which itself keeps nothing between two requests.

    Args:
        call: Calls a signature.
        shape: Sizes of the model.
        padding: Fills ids up.
    """

    def __init__(self, call: Call, shape: ModelShape, padding: int):
        self._call, self._padding = call, padding
        self._names = cache_names(shape.layers)
        self._empty = np.zeros([0, shape.key_value_heads, 0, shape.head_width], np.float32)
        self.clear()

    def change(
        self, kept: Sequence[int], prompts: Sequence[Sequence[int]], slots: int
    ) -> np.ndarray:
        """Let texts leave and join; the logits after each prompt."""
        logits = np.zeros([0, 0], np.float32)
        joined = dict.fromkeys(self._names, self._empty)
        if prompts:
            ids = pad_prompts(prompts, self._padding)
            joined = self._call("prefill_ids", {"token_ids": ids})
            logits = joined.pop("logits")
        for name in self._names:
            stays = _fit(self._cache[name][list(kept)], slots)
            self._cache[name] = np.concatenate([stays, _fit(joined[name], slots)])
        return logits

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Read one token of each text; the logits after it."""
        inputs = {"token_ids": tokens, "positions": positions, **self._cache}
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
        self._cache = dict.fromkeys(self._names, self._empty)


def _fit(cache: np.ndarray, slots: int) -> np.ndarray:
    """Cut a cache at the right, or fill it up, to have `slots` slots."""
    cut = cache[:, :, :slots]
    return np.pad(cut, [(0, 0), (0, 0), (0, slots - cut.shape[2]), (0, 0)])
