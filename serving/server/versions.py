"""Versions of a server: watches the base directory, loads, switches, drains.

A new version is loaded beside the old one; when it is ready, one assignment switches all new
requests to it; the old one is dropped when the last request that holds it is answered. A version
that cannot be loaded is reported and changes nothing.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serving.rollout import Rollout, read_rollout
from serving.saved_model import list_versions
from serving.server.config import ServerConfig
from serving.server.errors import Code, RequestError
from serving.server.metrics import ServerMetrics
from serving.server.model import LoadedModel

_LOAD_ATTEMPTS = 3
_LOG = logging.getLogger("tokenmill.serve")


@dataclass
class VersionStatus:
    """State of a version.

    Attributes:
        state: As TensorFlow Serving calls it: START, LOADING, AVAILABLE, UNLOADING or END.
        error: Message of the last failure to load it.
        attempts: Number of failures in a row.
    """

    state: str = "START"
    error: str = ""
    attempts: int = 0


@dataclass(frozen=True)
class _Served:
    """Loaded versions and the rollout that requests see; replaced as a whole."""

    models: dict[int, LoadedModel]
    rollout: Rollout | None


class VersionManager:
    """Loads and drops versions: the newest, or those that a rollout names.

    Args:
        config: Directory and name of the model.
        metrics: Counts loads and served versions.
    """

    def __init__(self, config: ServerConfig, metrics: ServerMetrics):
        self._config, self._metrics = config, metrics
        self.status: dict[int, VersionStatus] = {}
        self._served = _Served({}, None)
        self._draining: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Return whether any version is served."""
        return bool(self._served.models)

    @property
    def rollout(self) -> Rollout | None:
        """Return the rollout that requests are assigned by."""
        return self._served.rollout

    async def watch(self) -> None:
        """Look for changes until it is cancelled."""
        while True:
            try:
                await self.refresh()
            except Exception as error:  # such as a directory that is gone for a moment
                _LOG.exception("version_watch_failed", extra={"reason": str(error)})
            await asyncio.sleep(self._config.poll_seconds)

    async def refresh(self) -> None:
        """Load the versions that the directory asks for, and drop the others."""
        base = self._config.model_dir
        on_disk = list_versions(base)
        rollout = read_rollout(base)
        if rollout is not None:
            wanted = {v for v in (rollout.stable, rollout.canary) if v in on_disk}
        else:
            wanted = set(on_disk[-1:])
        models = dict(self._served.models)
        for version in sorted(wanted - set(models), reverse=True):
            model = await self._load(version)
            if model is not None:
                models[version] = model
        if not wanted & set(models):
            return  # nothing better than what is served
        kept = {v: m for v, m in models.items() if v in wanted}
        gone = [m for v, m in models.items() if v not in wanted]
        self._served = _Served(kept, rollout)
        for version in kept:
            self.status[version].state = "AVAILABLE"
            self._metrics.available.labels(str(version)).set(1)
        for model in gone:
            task = asyncio.ensure_future(self._drain(model))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
        for version in set(self.status) - set(on_disk) - set(kept):
            del self.status[version]

    async def _load(self, version: int) -> LoadedModel | None:
        status = self.status.setdefault(version, VersionStatus())
        if status.state == "UNLOADING" or status.attempts >= _LOAD_ATTEMPTS:
            return None
        status.state, status.attempts = "LOADING", status.attempts + 1
        directory = os.path.join(self._config.model_dir, _directory_name(self._config, version))
        try:
            model = await asyncio.to_thread(LoadedModel, directory, version)
        except Exception as error:  # a damaged model fails in any way
            status.state = "END"
            status.error = f"{type(error).__name__}: {error}"[:500]
            self._metrics.loads.labels("failed").inc()
            _LOG.error("version_failed", extra={"version": version, "reason": status.error})
            return None
        status.attempts, status.error = 0, ""
        self._metrics.loads.labels("loaded").inc()
        _LOG.info("version_loaded", extra={"version": version})
        return model

    async def _drain(self, model: LoadedModel) -> None:
        version = model.version
        self.status[version].state = "UNLOADING"
        self._metrics.available.labels(str(version)).set(0)
        while model.in_flight:
            await asyncio.sleep(0.02)
        if version in self.status:
            self.status[version].state = "END"
        _LOG.info("version_unloaded", extra={"version": version})

    @contextmanager
    def hold(
        self, version: int | None, label: str | None, user_key: str | None
    ) -> Iterator[tuple[LoadedModel, str]]:
        """Hold a model for a request; yield it and the label that the request is counted under.

        Raises:
            RequestError: No such version or label is served.
        """
        served = self._served
        if not served.models:
            raise RequestError(Code.UNAVAILABLE, "no version is ready")
        model, label = _choose(served, version, label, user_key)
        model.in_flight += 1
        try:
            yield model, label
        finally:
            model.in_flight -= 1


def _choose(
    served: _Served, version: int | None, label: str | None, user_key: str | None
) -> tuple[LoadedModel, str]:
    """Return the model for a request, and the label that the request is counted under."""
    rollout, newest = served.rollout, max(served.models)
    labels = {"stable": newest}
    if rollout is not None:
        labels = {"stable": rollout.stable}
        if rollout.canary is not None:
            labels["canary"] = rollout.canary
    if version is not None:
        if version not in served.models:
            raise RequestError(Code.NOT_FOUND, f"version {version} is not served")
        named = {v: k for k, v in labels.items()}
        return served.models[version], named.get(version, "")
    if label is not None and label not in labels:
        known = ", ".join(sorted(labels))
        raise RequestError(Code.NOT_FOUND, f"no label {label!r:.80}; there is {known}")
    if label is None:
        label = rollout.assign(user_key) if rollout is not None else "stable"
    model = served.models.get(labels[label])
    if model is None:  # a canary that could not be loaded must not cost its users their answers
        label = "stable"
        model = served.models.get(labels[label], served.models[newest])
    return model, label


def _directory_name(config: ServerConfig, version: int) -> str:
    names = [n for n in os.listdir(config.model_dir) if n.isascii() and n.isdigit()]
    return next((name for name in names if int(name) == version), str(version))
