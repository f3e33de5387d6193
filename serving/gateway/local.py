"""The gateway's models in this process: those of `tokenmill serve`."""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import AsyncIterator

import numpy as np

from serving.gateway.backend import HeldVersion
from serving.gateway.engine import make_thread
from serving.gateway.local_call import local_steps, warm_up
from serving.gateway.model_assets import ModelAssets
from serving.gateway.version import GatewayVersion
from serving.server.model import LoadedModel
from serving.server.service import Service


class LocalBackend:
    """Versions that `tokenmill serve` has loaded.

    Those that are loaded from now on are opened before they are served: one whose files are damaged
    takes no other's place.

    Args:
        service: The server.
    """

    def __init__(self, service: Service):
        self._service = service
        self.model_name = service.config.model_name
        self._versions: weakref.WeakKeyDictionary[LoadedModel, GatewayVersion] = (
            weakref.WeakKeyDictionary()
        )
        self._opening = asyncio.Lock()
        service.versions.prepare = self._prepare

    @contextlib.asynccontextmanager
    async def hold(self, user_key: str | None) -> AsyncIterator[HeldVersion]:
        """Hold the version that serves a user until the context ends."""
        with self._service.versions.hold(None, None, user_key) as (model, _):
            if model not in self._versions:
                async with self._opening:  # its tokenizer takes a moment, and once is enough
                    if model not in self._versions:
                        self._versions[model] = await asyncio.to_thread(self._open, model)
            yield self._versions[model]

    def _prepare(self, model: LoadedModel) -> None:
        self._versions[model] = self._open(model)

    def _open(self, model: LoadedModel) -> GatewayVersion:
        service, assets = self._service, ModelAssets(model.directory)
        # What the dictionary holds must not hold its key, or no version were ever dropped.
        held = weakref.ref(model)
        # Requests that were let in wait here: they would fill the queue, and shed each other.
        places = {
            "one": asyncio.Semaphore(max(1, service.config.max_queued_rows // 2)),
            "several": asyncio.Semaphore(1),
        }

        async def compute(signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            model = held()
            assert model is not None, "used without being held"
            rows = len(next(iter(inputs.values())))
            async with places["one" if rows == 1 else "several"]:
                deadline = time.monotonic() + service.config.deadline_seconds
                return await service.batcher.compute(model, signature, inputs, deadline)

        version = GatewayVersion(model.version, model.signatures, assets, compute)
        if "decode_ids" in model.signatures:
            thread = make_thread()
            weakref.finalize(model, thread.shutdown, wait=False)
            steps = local_steps(model.functions, assets.shape, assets.padding)
            warm_up(steps, assets.control_ids.need("eos"))
            version.continue_by(steps, thread, service.config, service.metrics)
        return version
