"""The account of curation: what was kept, what was dropped, and why."""

import heapq
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tokenmill.files import list_files, write_json
from tokenmill.records.documents import SPLITS
from tokenmill.records.keys import stable_hash
from tokenmill.records.tfrecord import read_tfrecords

KEPT = "kept"
COUNTS = "counts"
MASKED = "masked"
REMOVED_LINES = "removed_lines"

# Of a rejected document, as many characters stay in the record.
_EXCERPT_CHARACTERS = 200


class DroppedDocument(NamedTuple):
    """A document that was dropped, and why; `kept_copy` is the id of the copy that stays."""

    split: str
    doc_id: bytes
    source: bytes
    excerpt: str
    raw_bytes: int
    reason: str
    value: float
    threshold: float
    kept_copy: bytes

    def shortened(self) -> "DroppedDocument":
        """The same with the beginning of the text only."""
        return self._replace(excerpt=self.excerpt[:_EXCERPT_CHARACTERS])

    def as_json(self) -> bytes:
        """One line of the rejected-documents file."""
        record = self._asdict()
        for key in ("doc_id", "source", "kept_copy"):
            record[key] = record[key].decode()
        return json.dumps(record, ensure_ascii=False, sort_keys=True).encode()


def read_rejected(directory: str) -> Iterator[dict[str, Any]]:
    """The records of an artifact of rejected documents, as `DroppedDocument.as_json` wrote them."""
    for path in list_files(directory, "dropped-*.gz"):
        yield from map(json.loads, read_tfrecords(path))


def samples_by_reason(
    records: Iterable[dict[str, Any]], reason: str | None, source: str | None, limit: int
) -> dict[str, list[dict[str, Any]]]:
    """Up to `limit` records of each reason (or of one, or of one source): least hash first."""
    least: dict[str, list[tuple[int, int, dict[str, Any]]]] = {}
    for number, record in enumerate(records):
        if reason in (None, record["reason"]) and source in (None, record["source"]):
            heap = least.setdefault(record["reason"], [])
            item = (-stable_hash(record["doc_id"].encode()), -number, record)
            if len(heap) < limit:
                heapq.heappush(heap, item)
            else:
                heapq.heappushpop(heap, item)
    return {
        reason: [record for *_, record in sorted(heap, key=lambda item: item[:2], reverse=True)]
        for reason, heap in sorted(least.items())
    }


class OutcomeCounts(NamedTuple):
    """Documents and bytes of one (split, source, outcome); outcome is KEPT or a drop reason.

    Attributes:
        documents: How many.
        raw_bytes: Bytes as they came in.
        kept_bytes: Bytes of what is kept; 0 for a drop reason.
        removed_bytes: Bytes of the lines that were removed from what is kept, else 0.
    """

    documents: int
    raw_bytes: int
    kept_bytes: int
    removed_bytes: int


def add_outcomes(outcomes: Iterable[OutcomeCounts]) -> OutcomeCounts:
    """Their sum."""
    totals = [0, 0, 0, 0]
    for outcome in outcomes:
        for i, value in enumerate(outcome):
            totals[i] += value
    return OutcomeCounts(*totals)


def summarize(
    counts: Iterable[tuple[tuple[str, str, str], OutcomeCounts]],
    masked: Iterable[tuple[str, int]] = (),
    removed_lines: Iterable[tuple[str, tuple[int, int]]] = (),
) -> dict:
    """Counts as one JSON document: per split, per source, in = kept + dropped by reason.

    Bytes of dropped documents are as they came in; a kept document has `bytes` after
    normalization and `raw_bytes` before; of the difference, `removed_line_bytes` stood in lines
    that were removed (without indentation and line feeds).

    Args:
        counts: Outcomes by (split, source, outcome).
        masked: How many of each kind were masked.
        removed_lines: (reason, (lines, bytes)), over all documents, also those that are dropped.
    """
    splits: dict[str, dict] = {split: {"by_source": {}} for split in SPLITS}
    total: dict = _empty_account()
    for (split, source, outcome), numbers in sorted(counts):
        by_source = splits[split]["by_source"].setdefault(source, _empty_account())
        for account in (total, by_source):
            account["in"]["documents"] += numbers.documents
            account["in"]["bytes"] += numbers.raw_bytes
            if outcome == KEPT:
                account["kept"]["documents"] += numbers.documents
                account["kept"]["bytes"] += numbers.kept_bytes
                account["kept"]["raw_bytes"] += numbers.raw_bytes
                account["removed_line_bytes"] += numbers.removed_bytes
            else:
                dropped = account["dropped"].setdefault(outcome, {"documents": 0, "bytes": 0})
                dropped["documents"] += numbers.documents
                dropped["bytes"] += numbers.raw_bytes
    removed = {
        reason: {"lines": lines, "bytes": size} for reason, (lines, size) in sorted(removed_lines)
    }
    return {
        "total": total,
        "splits": splits,
        "masked": dict(sorted(masked)),
        REMOVED_LINES: removed,
    }


def write_report(
    counts: Iterable[tuple[tuple[str, str, str], OutcomeCounts]],
    masked: Iterable[tuple[str, int]],
    removed_lines: Iterable[tuple[str, tuple[int, int]]],
    path: str,
) -> None:
    """Writes what `summarize` gives."""
    write_json(path, summarize(counts, masked, removed_lines))


def dropped_by_reason(report: dict, source: str | None = None) -> dict[str, tuple[int, int]]:
    """(documents, bytes) by reason of all sources or one, from what `summarize` gave."""
    totals: dict[str, tuple[int, int]] = {}
    for split in report["splits"].values():
        for name, account in split["by_source"].items():
            if source in (None, name):
                for reason, numbers in account["dropped"].items():
                    documents, size = totals.get(reason, (0, 0))
                    totals[reason] = (documents + numbers["documents"], size + numbers["bytes"])
    return dict(sorted(totals.items()))


def _empty_account() -> dict:
    return {
        "in": {"documents": 0, "bytes": 0},
        "kept": {"documents": 0, "bytes": 0, "raw_bytes": 0},
        "removed_line_bytes": 0,
        "dropped": {},
    }
