"""The texts that a model continues together: their cache, and one step of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

SLOT_BLOCK = 64
"""Slots that a cache grows by: each growth copies it."""


class SamplerArrays(NamedTuple):
    """Settings of the sampler for each text; each of shape [texts].

    Attributes:
        step: int32, tokens generated before.
        temperature: float32.
        top_k: int32.
        top_p: float32.
        seed: int32.
    """

    step: np.ndarray
    temperature: np.ndarray
    top_k: np.ndarray
    top_p: np.ndarray
    seed: np.ndarray


class Steps(Protocol):
    """A batch of texts with their cache of keys and values; used by one thread at a time."""

    def change(
        self, kept: Sequence[int], prompts: Sequence[Sequence[int]], slots: int
    ) -> np.ndarray:
        """Let texts leave and join.

        Args:
            kept: Rows that stay, in order; the others leave.
            prompts: Ids of texts that join, behind those that stay.
            slots: How many tokens of each text the cache has to hold from now on.

        Returns:
            The logits after each prompt, float32 [prompts, vocabulary].
        """

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Read one token of each text: int32 [texts] twice -> logits [texts, vocabulary]."""

    def sample(self, logits: np.ndarray, sampler: SamplerArrays) -> np.ndarray:
        """Choose the next tokens: float32 [texts, vocabulary] -> int32 [texts]."""

    def clear(self) -> None:
        """Forget all texts."""


def pad_prompts(prompts: Sequence[Sequence[int]], padding: int) -> np.ndarray:
    """Put prompts into one array, int32 [prompts, longest], filled up at the right."""
    longest = max(map(len, prompts))
    padded = np.full([len(prompts), longest], padding, np.int32)
    for row, prompt in enumerate(prompts):
        padded[row, : len(prompt)] = prompt
    return padded


def whole_blocks(tokens: int, context_length: int) -> int:
    """Round a number of slots up to whole blocks, at most those of the context."""
    return min(-(-tokens // SLOT_BLOCK) * SLOT_BLOCK, context_length)
