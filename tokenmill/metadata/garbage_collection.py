"""Removal of what no kept run and no served model needs: artifacts, trainings, versions, logs.

Looks at ML Metadata and the output directory only; imports no TFX and no TensorFlow.
"""

import datetime
import glob
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import ml_metadata as mlmd
import tomli
from ml_metadata.proto import metadata_store_pb2

from tokenmill.contracts.training import TELEMETRY_NAME
from tokenmill.errors import TokenmillError
from tokenmill.library_logs import LOG_TIME_FORMAT
from tokenmill.metadata.output_directory import RunMetadata
from tokenmill.metadata.step_records import CONFIG_PROPERTY, outputs_of

_LIVE, _DELETED = metadata_store_pb2.Artifact.LIVE, metadata_store_pb2.Artifact.DELETED
_ENDED_WELL = (metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED)
# A directory that is being removed has another name: it is there whole or not at all.
_REMOVING = ".removing"


@dataclass(frozen=True)
class Garbage:
    """What no kept run refers to.

    Attributes:
        artifact_ids: Ids of the artifacts in ML Metadata.
        directories: Directories of these artifacts, of old trainings, pushed versions and logs,
            and what a call that was killed has left.
        size_bytes: Size of all files in these directories.
    """

    artifact_ids: list[int]
    directories: list[str]
    size_bytes: int


@dataclass(frozen=True)
class _Push:
    """A run that came to its end, and where its model is; None where none was pushed."""

    run_id: int
    destination: str | None


def find_garbage(
    metadata: RunMetadata, run_directory: str, keep: int, keep_versions: int | None = None
) -> Garbage:
    """Find what neither the newest runs nor the runs of pushed versions use.

    Kept are the `keep` newest runs that came to their end, all runs since the oldest of these
    (stopped or failed, they may be continued), the newest run that pushed a model, and the runs of
    the versions that are there.

    Args:
        metadata: Metadata of the runs in this directory.
        run_directory: Output directory; only its `artifacts`, `training` and `logs` are searched,
            and where its runs pushed to.
        keep: Number of newest finished runs that keep all their artifacts.
        keep_versions: Number of newest versions that stay in a directory of versions, besides
            those that rollout.json or models.config there name; None keeps all.
    """
    store, runs = metadata.store, metadata.runs()
    pushes = _pushes(metadata)
    newest = _newest_runs(runs, {push.run_id for push in pushes}, keep)
    versions = _old_versions(pushes, keep_versions)
    kept = {run.id for run in newest}
    pushed = [push for push in pushes if push.destination]
    kept |= {push.run_id for push in pushed[-1:]}
    kept |= {p.run_id for p in pushed if p.destination not in versions and _is_there(p)}
    executions = [e.id for run in kept for e in store.get_executions_by_context(run)]
    used = {event.artifact_id for event in store.get_events_by_execution_ids(executions)}
    root = os.path.abspath(run_directory)
    artifacts = store.get_artifacts()
    # A directory may stand in ML Metadata twice: it is used if either is.
    needed = {artifact.uri for artifact in artifacts if artifact.id in used}
    unused = [
        artifact
        for artifact in artifacts
        if artifact.uri.startswith(os.path.join(root, "artifacts") + os.sep)
        and artifact.uri not in needed
        and (artifact.state == _LIVE or os.path.isdir(artifact.uri))
    ]
    directories = sorted({a.uri for a in unused if os.path.isdir(a.uri)})
    directories += _find_old_trainings(store, root, newest, kept, needed)
    directories += versions
    if len(newest) < len(runs):
        directories += _old_logs(root, newest)
    directories += _left_over(root, pushed)
    return Garbage(
        [artifact.id for artifact in unused], directories, sum(map(_size_bytes, directories))
    )


def _pushes(metadata: RunMetadata) -> list[_Push]:
    """Return the runs of this directory that ended with the Pusher's step, the oldest first."""
    found = []
    for execution in metadata.executions("Pusher"):
        if execution.last_known_state not in _ENDED_WELL:
            continue
        contexts = metadata.store.get_contexts_by_execution(execution.id)
        run_id = next(context.id for context in contexts if context.type == "pipeline_run")
        destinations = [
            model.custom_properties["pushed_destination"].string_value
            for model in outputs_of(metadata.store, execution.id).get("pushed_model", ())
        ]
        found.append(_Push(run_id, next(filter(None, destinations), None)))
    return found


def _newest_runs(
    runs: Sequence[metadata_store_pb2.Context], finished: set[int], keep: int
) -> Sequence[metadata_store_pb2.Context]:
    """Return the runs from the `keep`th newest finished one on; all, if there are fewer."""
    starts = [i for i, run in enumerate(runs) if run.id in finished]
    return runs[starts[-keep] :] if len(starts) >= keep else runs


def _is_there(push: _Push) -> bool:
    return push.destination is not None and os.path.isdir(push.destination)


def _old_versions(pushes: Iterable[_Push], keep: int | None) -> list[str]:
    """Return the versions that these runs pushed and that nobody is served by."""
    if keep is None:
        return []
    there = {push.destination for push in pushes if push.destination and _is_there(push)}
    old = []
    for base in sorted({os.path.dirname(version) for version in there}):
        numbers = sorted((name for name in os.listdir(base) if name.isdigit()), key=int)
        stay = {*numbers[-keep:], *map(str, _named_versions(base))}
        old += [path for name in numbers if name not in stay and
                (path := os.path.join(base, name)) in there]  # fmt: skip
    return old


def _named_versions(base: str) -> set[int]:
    """Return the versions that a rollout or TensorFlow Serving's configuration names.

    Raises:
        TokenmillError: The file of the rollout is damaged.
    """
    named: set[int] = set()
    path = os.path.join(base, "rollout.json")
    if os.path.exists(path):
        try:
            with open(path, encoding="utf-8") as source:
                rollout = json.load(source)
            versions = (rollout["stable"], rollout["canary"], rollout.get("previous"))
            named |= {int(version) for version in versions if version is not None}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise TokenmillError(
                f"{path} is damaged, so that nobody knows which versions are served.",
                "Restore it, or delete it to serve the newest version.",
            ) from None
    path = os.path.join(base, "models.config")
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as source:
            named |= {int(n) for n in re.findall(r"(?:value|versions)\s*:\s*(\d+)", source.read())}
    return named


def _old_logs(root: str, newest: Sequence[metadata_store_pb2.Context]) -> list[str]:
    """Return the directories of logs that were begun before the oldest kept run's."""
    directory = os.path.join(root, "logs")
    begun = {}
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        try:
            time = datetime.datetime.strptime(name, LOG_TIME_FORMAT)
        except ValueError:
            continue  # not ours
        begun[name] = time.replace(tzinfo=datetime.timezone.utc).timestamp()
    started = newest[0].create_time_since_epoch / 1000
    own = max((time for time in begun.values() if time <= started), default=0.0)
    return [os.path.join(directory, name) for name in sorted(begun) if begun[name] < own]


def _left_over(root: str, pushed: Iterable[_Push]) -> list[str]:
    """Return what a call that was killed had begun to remove."""
    places = {os.path.dirname(push.destination) for push in pushed if push.destination}
    places |= {os.path.join(root, "training"), os.path.join(root, "logs")}
    patterns = [os.path.join(glob.escape(place), "*" + _REMOVING) for place in sorted(places)]
    patterns.append(os.path.join(glob.escape(root), "artifacts", "*", "*", "*" + _REMOVING))
    return [path for pattern in patterns for path in sorted(glob.glob(pattern))]


def _find_old_trainings(
    store: mlmd.MetadataStore,
    root: str,
    newest_runs: Sequence[metadata_store_pb2.Context],
    kept: set[int],
    needed: Iterable[str],
) -> list[str]:
    """Return the training directories that no kept run made, reads or can still continue.

    Args:
        store: The metadata store.
        root: Output directory; trainings lie under its `training`.
        newest_runs: Contexts of the newest runs, the oldest of them first.
        kept: Context ids of all runs that are kept.
        needed: Directories of the artifacts that kept runs use.
    """
    # By name, a hash of all that decides what is trained: the directory may have been moved since.
    referred: set[str] = set()
    for uri in needed:
        path = os.path.join(uri, TELEMETRY_NAME)
        if os.path.exists(path):
            try:
                with open(path, encoding="utf-8") as source:
                    training = json.load(source)["training_directory"]
            except (ValueError, KeyError, TypeError):
                raise TokenmillError(
                    f"{path} is damaged, so that nobody knows which training is used.",
                    "Restore it, or delete the run's directory as a whole.",
                ) from None
            if training:
                referred.add(os.path.basename(training))
    for run in store.get_contexts_by_id(kept):
        config = tomli.loads(run.custom_properties[CONFIG_PROPERTY].string_value)
        resumed = config.get("train", {}).get("resume_from")
        if resumed:  # <training>/checkpoints
            referred.add(os.path.basename(os.path.dirname(os.path.abspath(resumed))))
    # A training that has not ended is named nowhere yet; a kept run has written into it.
    started = newest_runs[0].create_time_since_epoch / 1000 if newest_runs else 0.0
    directory = os.path.join(root, "training")
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    return [
        path
        for name in names
        if name not in referred
        and not name.endswith(_REMOVING)
        and os.path.isdir(path := os.path.join(directory, name))
        and _last_written(path) < started
    ]


def _last_written(directory: str) -> float:
    """Return when the newest file was written, seconds since 1970."""
    return max(map(os.path.getmtime, [directory, *_files(directory)]))


def _size_bytes(directory: str) -> int:
    return sum(map(os.path.getsize, _files(directory)))


def _files(directory: str) -> list[str]:
    """Return the paths of all files below a directory."""
    return [os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names]


def collect_garbage(store: mlmd.MetadataStore, garbage: Garbage) -> None:
    """Mark the artifacts as deleted in ML Metadata, which keeps them; remove the directories.

    A step whose outputs are gone runs anew when it is needed. What a call that is killed leaves,
    the next one finds.
    """
    artifacts = store.get_artifacts_by_id(garbage.artifact_ids)
    for artifact in artifacts:
        artifact.state = _DELETED
    store.put_artifacts(artifacts)
    for directory in garbage.directories:
        begun = directory if directory.endswith(_REMOVING) else directory + _REMOVING
        # What a killed call left of an older directory of this name would be in the way.
        if os.path.isdir(begun):
            shutil.rmtree(begun)
        if begun != directory:
            os.rename(directory, begun)
            shutil.rmtree(begun)
