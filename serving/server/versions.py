"""Versions of a server: watches the base directory, loads, switches, drains.

A new version is loaded beside the old one; when it is ready, one assignment switches all new
requests to it; the old one is dropped when the last request that holds it is answered. A version
that cannot be loaded is reported and changes nothing; it may be half copied, and is tried again
once its files have changed and come to rest.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from serving.rollout import Rollout, read_rollout
from serving.saved_model import version_names
from serving.server.config import ServerConfig
from serving.server.errors import Code, RequestError
from serving.server.metrics import ServerMetrics
from serving.server.model import LoadedModel

_LOAD_ATTEMPTS = 3
# Path, bytes and time of change of each file.
Files = tuple[tuple[str, int, int], ...]
_LOG = logging.getLogger("tokenmill.serve")


@dataclass
class VersionStatus:
    """State of a version.

    Attributes:
        state: As TensorFlow Serving calls it: START, LOADING, AVAILABLE, UNLOADING or END.
        error: Message of the last failure to load it.
        attempts: Number of failures in a row, with the same files.
        files: What lay in its directory before the last attempt.
        files_now: What lay there when it was looked at last.
    """

    state: str = "START"
    error: str = ""
    attempts: int = 0
    files: "Files" = ()
    files_now: "Files" = ()


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

    Attributes:
        status: State of each version.
        prepare: Called with each model on the thread that has loaded it, before it is served; what
            this raises is a failure to load it.
    """

    def __init__(self, config: ServerConfig, metrics: ServerMetrics):
        self.prepare: Callable[[LoadedModel], None] = lambda model: None
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
        failure = ""
        while True:
            try:
                await self.refresh()
                failure = ""
            except Exception as error:  # such as a directory that is gone for a moment
                if str(error) != failure:  # once, not at each look
                    failure = str(error)
                    _LOG.exception("version_watch_failed", extra={"reason": failure})
            await asyncio.sleep(self._config.poll_seconds)

    async def refresh(self) -> None:
        """Load the versions that the directory asks for, and drop the others.

        Raises:
            OSError: The directory cannot be read; what is served stays.
            TokenmillError: The rollout file is damaged; what is served stays.
        """
        base = self._config.model_dir
        on_disk = version_names(base)
        rollout = read_rollout(base)
        if rollout is not None:
            wanted = {v for v in (rollout.stable, rollout.canary) if v in on_disk}
        else:
            wanted = {max(on_disk)} if on_disk else set()
        models = dict(self._served.models)
        for version in sorted(wanted - set(models), reverse=True):
            model = await self._load(version, os.path.join(base, on_disk[version]))
            if model is not None:
                models[version] = model
        # Nothing better than what is served; but if all are deleted, so is what is served.
        if on_disk and not wanted & set(models):
            return
        kept = {v: m for v, m in models.items() if v in wanted}
        gone = [m for v, m in models.items() if v not in wanted]
        self._served = _Served(kept, rollout)
        for version, model in kept.items():
            self.status[version].state = "AVAILABLE"
            outputs = {name: s.outputs for name, s in model.signatures.items()}
            self._metrics.start_version(version, _labels_of(self._served, version), outputs)
        for model in gone:
            self.status[model.version].state = "UNLOADING"
            task = asyncio.ensure_future(self._drain(model, self.status[model.version]))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
        for version in set(self.status) - set(on_disk) - set(kept):
            if self.status[version].state != "UNLOADING":
                del self.status[version]

    async def _load(self, version: int, directory: str) -> LoadedModel | None:
        status = self.status.setdefault(version, VersionStatus())
        if status.state == "UNLOADING" or not _may_load(status, _files_in(directory)):
            return None
        status.state, status.attempts = "LOADING", status.attempts + 1
        try:
            model = await asyncio.to_thread(self._load_now, directory, version)
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

    def _load_now(self, directory: str, version: int) -> LoadedModel:
        model = LoadedModel(directory, version)
        self.prepare(model)
        return model

    async def _drain(self, model: LoadedModel, status: VersionStatus) -> None:
        while model.in_flight:
            await asyncio.sleep(0.02)
        status.state = "END"
        self._metrics.end_version(model.version)
        _LOG.info("version_unloaded", extra={"version": model.version})

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
    rollout, labels = served.rollout, _version_by_label(served)
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
        model = served.models.get(labels[label], served.models[max(served.models)])
    return model, label


def _version_by_label(served: _Served) -> dict[str, int]:
    if served.rollout is None:
        return {"stable": max(served.models)}
    labels = {"stable": served.rollout.stable}
    if served.rollout.canary is not None:
        labels["canary"] = served.rollout.canary
    return labels


def _labels_of(served: _Served, version: int) -> list[str]:
    return [label for label, number in _version_by_label(served).items() if number == version]


def _files_in(directory: str) -> Files:
    found = []
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            with suppress(OSError):  # deleted meanwhile
                stat = os.stat(path)
                found.append((path, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


def _may_load(status: VersionStatus, files: Files) -> bool:
    """Return whether to try: the first time, twice more, and anew with each change of the files."""
    at_rest = files == status.files_now
    status.files_now = files
    if status.attempts and files != status.files:
        if not at_rest:  # being copied
            return False
        status.attempts = 0
    status.files = files
    return status.attempts < _LOAD_ATTEMPTS
