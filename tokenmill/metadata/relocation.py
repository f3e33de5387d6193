"""Output directories that were moved or copied: their paths in ML Metadata made true again.

TFX records absolute paths. Whoever only reads sees them through a `MovedStore`, which changes
nothing; the next run in the directory (and `gc`) corrects the records.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import ml_metadata as mlmd

_ARTIFACT_URI = re.compile(r"(.+)/artifacts/[^/]+/[^/]+/\d+", re.DOTALL)


@dataclass(frozen=True)
class Move:
    """Where an output directory was when its runs were recorded, and where it is now.

    Attributes:
        before: Absolute path, without a slash at the end.
        now: As `before`.
    """

    before: str
    now: str

    def text(self, value: str) -> str:
        """Return a path, or JSON with paths, with those below `before` put below `now`."""
        value = self._replaced(value, "^", self.before, self.now)
        # As JSON has it: a quotation mark is escaped, of some writers other letters, too.
        forms = {(_in_json(self.before, x), _in_json(self.now, x)) for x in (True, False)}
        for before, now in sorted(forms):
            value = self._replaced(value, '"', before, now)
        return value

    @staticmethod
    def _replaced(value: str, start: str, before: str, now: str) -> str:
        # A directory that went into itself: what is moved already stays.
        inside = now.removeprefix(before) if now.startswith(f"{before}/") else ""
        moved_already = rf'(?!{re.escape(inside)}(?=[/"]|$))' if inside else ""
        path = rf'({start}){re.escape(before)}{moved_already}(?=[/"]|$)'
        return re.sub(path, lambda found: found[1] + now, value)

    def record(self, record: Any) -> Any:
        """Change the paths in an artifact or execution of ML Metadata; return it."""
        if getattr(record, "uri", ""):
            record.uri = self.text(record.uri)
        for properties in (record.properties, record.custom_properties):
            for value in properties.values():
                if value.string_value:
                    value.string_value = self.text(value.string_value)
        return record


def _in_json(path: str, ascii_only: bool) -> str:
    return json.dumps(path, ensure_ascii=ascii_only)[1:-1]


class MovedStore:
    """A metadata store, read as if the output directory had always been where it is now."""

    def __init__(self, store: mlmd.MetadataStore, move: Move):
        self._store, self._move = store, move

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._store, name)
        if not name.startswith(("get_artifacts", "get_executions")):
            return method
        return lambda *args, **kwargs: [self._move.record(r) for r in method(*args, **kwargs)]


def read_as_moved(store: mlmd.MetadataStore, move: Move | None) -> mlmd.MetadataStore:
    """Return the store with the paths as they are now."""
    return cast(mlmd.MetadataStore, MovedStore(store, move)) if move else store


def recorded_directory(store: mlmd.MetadataStore) -> str | None:
    """Return the output directory that a store of one directory was last used in; None if empty."""
    roots = (
        _ARTIFACT_URI.fullmatch(a.uri) for a in store.get_artifacts(mlmd.ListOptions(limit=20))
    )
    return next((found[1] for found in roots if found), None)


def relocate(store: mlmd.MetadataStore, move: Move) -> None:
    """Correct the paths in ML Metadata; the caller holds the directory's lock.

    Artifacts come last: they tell where the directory was, so that a call that is killed is
    repeated by the next run.
    """
    for records, put in (
        (store.get_executions(), store.put_executions),
        (store.get_artifacts(), store.put_artifacts),
    ):
        before = [record.SerializeToString(deterministic=True) for record in records]
        changed = [
            record
            for record, bytes_before in zip(map(move.record, records), before, strict=True)
            if record.SerializeToString(deterministic=True) != bytes_before
        ]
        if changed:
            put(changed)
