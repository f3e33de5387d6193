"""The gateway's models in this process: those of `tokenmill serve`."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import numpy as np

from serving.gateway.backend import GeneratedToken, SamplingConfig, TokenScore
from serving.gateway.decoding import Decoding
from serving.gateway.engine import Engine, make_thread
from serving.gateway.local_steps import LocalSteps
from serving.gateway.model_assets import ModelAssets
from serving.gateway.steps import pad_prompts
from serving.server.model import LoadedModel
from serving.server.service import Service
from tokenmill.cost.memory import kv_cache_bytes


class LocalVersion:
    """A version in this process.

    Args:
        model: The version, loaded.
        service: Whose batcher computes what is no generation.
    """

    def __init__(self, model: LoadedModel, service: Service):
        config = service.config
        # The model holds this, and not the other way round, so that both go when it is unloaded.
        self._model, self._service = weakref.ref(model), service
        self._assets = assets = ModelAssets(model.directory)
        self.version = model.version
        self.context_length = assets.shape.sequence_length
        self.control_ids = assets.control_ids
        self.token_bytes: Sequence[bytes | None] = assets.token_bytes
        self.chat_format = assets.chat_format
        self.signatures = frozenset(model.signatures)
        slots = config.kv_cache_bytes // kv_cache_bytes(assets.shape, tokens=1)
        self.max_texts = min(slots // self.context_length, config.max_streams)
        self._engine: Engine | None = None
        if "decode_ids" in self.signatures:
            tokens = min(len(self.token_bytes), assets.shape.vocab_size)
            steps = LocalSteps(model.functions, assets.shape, assets.padding)
            decoding = Decoding(steps, self.context_length, tokens, slots, config.max_streams)
            thread = make_thread()
            weakref.finalize(model, thread.shutdown, wait=False)
            most = config.max_streams + config.max_queued_rows
            self._engine = Engine(decoding, thread, most, service.metrics)

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
        outputs = await self._compute("log_probabilities_ids", [ids])
        return token_scores(ids, {name: value[0] for name, value in outputs.items()}, likeliest)

    async def embed(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the vector of each text of ids."""
        return (await self._compute("embed_ids", texts))["embedding"].tolist()

    async def _compute(
        self, signature: str, texts: Sequence[Sequence[int]]
    ) -> dict[str, np.ndarray]:
        model = self._model()
        assert model is not None, "used without being held"
        deadline = time.monotonic() + self._service.config.deadline_seconds
        inputs = {"token_ids": pad_prompts(texts, self._assets.padding)}
        return await self._service.batcher.compute(model, signature, inputs, deadline)


def token_scores(
    ids: Sequence[int], outputs: dict[str, np.ndarray], likeliest: int
) -> list[TokenScore]:
    """Return what log_probabilities_ids says of a text.

    Args:
        ids: The text.
        outputs: Of the signature, [width] and [width, MOST_LIKELIEST].
        likeliest: How many of the likeliest to name.
    """
    scores = [TokenScore(ids[0])]
    chosen = outputs["log_probabilities"].tolist()
    named = outputs["likeliest_ids"][:, :likeliest].tolist()
    values = outputs["likeliest_log_probabilities"][:, :likeliest].tolist()
    for place in range(1, len(ids)):
        best = tuple((i, v) for i, v in zip(named[place], values[place], strict=True) if i >= 0)
        scores.append(TokenScore(ids[place], chosen[place], best))
    return scores


class LocalBackend:
    """Versions that `tokenmill serve` has loaded.

    Args:
        service: The server.
    """

    def __init__(self, service: Service):
        self._service = service
        self.model_name = service.config.model_name
        self._versions: weakref.WeakKeyDictionary[LoadedModel, LocalVersion] = (
            weakref.WeakKeyDictionary()
        )
        self._opening = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def hold(self, user_key: str | None) -> AsyncIterator[LocalVersion]:
        """Hold the version that serves a user until the context ends."""
        with self._service.versions.hold(None, None, user_key) as (model, _):
            if model not in self._versions:
                async with self._opening:  # its tokenizer takes a moment, and once is enough
                    if model not in self._versions:
                        self._versions[model] = await asyncio.to_thread(
                            LocalVersion, model, self._service
                        )
            yield self._versions[model]
