"""A version of a model behind the gateway's API, wherever its signatures are called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from concurrent.futures import Executor

import numpy as np

from serving.gateway.backend import GeneratedToken, SamplingConfig, TokenScore
from serving.gateway.decoding import Decoding
from serving.gateway.engine import Engine
from serving.gateway.model_assets import ModelAssets
from serving.gateway.steps import Steps, pad_prompts
from serving.server.config import ServerConfig
from serving.server.metrics import ServerMetrics
from tokenmill.cost.memory import kv_cache_bytes

Compute = Callable[[str, dict[str, np.ndarray]], Awaitable[dict[str, np.ndarray]]]
"""Calls a signature on its inputs: each output has as many rows as the inputs."""


class GatewayVersion:
    """A version as the API sees it (`HeldVersion` of backend.py).

    Args:
        version: Its number.
        signatures: Names of its signatures.
        assets: Its files.
        compute: Calls those of its signatures that take a whole text.
    """

    def __init__(
        self, version: int, signatures: Collection[str], assets: ModelAssets, compute: Compute
    ):
        self._assets, self._compute = assets, compute
        self._engine: Engine | None = None
        self.version, self.signatures = version, frozenset(signatures)
        self.context_length = assets.shape.sequence_length
        self.control_ids = assets.control_ids
        self.token_bytes: Sequence[bytes | None] = assets.token_bytes
        self.chat_format = assets.chat_format
        self.max_texts = 0

    def continue_by(
        self, steps: Steps, thread: Executor, config: ServerConfig, metrics: ServerMetrics
    ) -> None:
        """Let texts be continued by a model's steps, called on a thread of their own."""
        shape = self._assets.shape
        slots = config.kv_cache_bytes // kv_cache_bytes(shape, tokens=1)
        self.max_texts = min(slots // self.context_length, config.max_streams)
        tokens = min(len(self.token_bytes), shape.vocab_size)
        decoding = Decoding(
            steps,
            self.context_length,
            tokens,
            self.control_ids.never_generated,
            slots,
            config.max_streams,
        )
        most = config.max_streams + config.max_queued_rows
        self._engine = Engine(decoding, thread, most, metrics)

    async def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts, without begin and end."""
        return await asyncio.to_thread(self._assets.tokenize, texts)

    async def chat_ids(self, prompt: str) -> list[int]:
        """Return the ids of a conversation."""
        return await asyncio.to_thread(self._assets.chat_ids, prompt)

    def generate(
        self, prompt: Sequence[int], sampling: SamplingConfig, stop_ids: Sequence[int] = ()
    ) -> AsyncGenerator[GeneratedToken, None]:
        """Continue a prompt, a token at a time."""
        assert self._engine is not None, "asked of a model that has no decode_ids"
        return self._engine.generate(prompt, sampling, [self.control_ids.need("eos"), *stop_ids])

    async def log_probabilities(self, ids: Sequence[int], likeliest: int) -> list[TokenScore]:
        """Score each id of a text."""
        outputs = await self._call("log_probabilities_ids", [ids])
        scores = [TokenScore(ids[0])]
        chosen = outputs["log_probabilities"][0].tolist()
        named = outputs["likeliest_ids"][0, :, :likeliest].tolist()
        values = outputs["likeliest_log_probabilities"][0, :, :likeliest].tolist()
        for place in range(1, len(ids)):
            best = tuple((i, v) for i, v in zip(named[place], values[place], strict=True) if i >= 0)
            scores.append(TokenScore(ids[place], chosen[place], best))
        return scores

    async def embed(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the vector of each text of ids."""
        return (await self._call("embed_ids", texts))["embedding"].tolist()

    async def _call(self, signature: str, texts: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        return await self._compute(
            signature, {"token_ids": pad_prompts(texts, self._assets.padding)}
        )
