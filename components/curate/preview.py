"""What the rules would do to a corpus: judged on a sample of documents, without a run.

Language, masking and the rules look at a document alone, so a sample tells what they do. Copies
and overlaps need all documents; they are found in a run only.
"""

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from components.curate.config import CurateConfig
from components.curate.conversations import CHAT_TEMPLATE, drop_refused, tidy_conversations
from components.curate.counts import KEPT, OutcomeCounts, summarize
from components.curate.decision import EMPTY, WRONG_LANGUAGE, judge_texts
from components.curate.lists import LIST_REASONS, lists_of
from components.curate.losses import curation_remarks
from components.curate.mask import mask
from components.curate.quality.scorer import Scorer
from components.curate.quality.selection import LOW_QUALITY
from components.curate.rules import RULES, is_in_use, limits_of, thresholds_of
from components.curate.rules.lines import remove_lines
from components.curate.rules.rule import Rule
from tokenmill.records.document_metadata import decode_metadata
from tokenmill.text.chat import Chat
from tokenmill.text.normalize import normalize
from tokenmill.text.text_columns import TextColumns

REASONS = (
    EMPTY,
    *LIST_REASONS,
    WRONG_LANGUAGE,
    *(rule.reason for rule in RULES),
    LOW_QUALITY,
    CHAT_TEMPLATE,
)
QUANTILES = (1, 5, 25, 50, 75, 95, 99)
EXCERPT_CHARACTERS = 200

_BATCH_DOCUMENTS = 512


class SampledDocument(NamedTuple):
    """A document as read."""

    doc_id: str
    source: str
    text: str
    language: str = ""
    metadata: str = ""
    messages: str = ""


class Example(NamedTuple):
    """A dropped document, to be looked at."""

    doc_id: str
    source: str
    value: float
    threshold: float
    excerpt: str
    metadata: dict[str, str]
    matched: str


@dataclass
class Preview:
    """What became of the sample.

    Attributes:
        documents: How many were judged.
        raw_bytes: Their bytes, as read.
        kept: (documents, bytes as read) that no rule drops.
        dropped: (documents, bytes as read) by reason, in the order of REASONS.
        masked: How many of each kind were masked.
        removed_lines: (lines, bytes) by the rule for lines that removed them.
        examples: Some dropped documents by reason.
        values: float64 [documents] by the setting of each rule in use.
        limits: What they are held against, likewise; NaN where the rule is off for the language.
        sizes: int64 [documents], bytes as read.
        languages: Of each document, UNDETERMINED where it is not known.
        reasons: Of the documents that are dropped, by their place.
        scores: float32 [documents], NOT_SCORED where something else than the score drops them.
        sources: Of each document.
        remarks: Sentences that a person has to see.
    """

    documents: int = 0
    raw_bytes: int = 0
    kept: tuple[int, int] = (0, 0)
    dropped: dict[str, tuple[int, int]] = field(default_factory=dict)
    masked: dict[str, int] = field(default_factory=dict)
    removed_lines: dict[str, tuple[int, int]] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    limits: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    languages: list[str] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    sources: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def sample(documents: Iterable[tuple[bytes, ...]], size: int) -> list[SampledDocument]:
    """Choose the `size` documents with the least hash of id and text: the same every time.

    A document is (id, source, text, declared language, metadata, messages). In the order of their
    hashes, so that the first few are a sample, too.
    """

    def keyed() -> Iterable[tuple[bytes, int, tuple[bytes, ...]]]:
        for number, document in enumerate(documents):
            digest = hashlib.blake2b(document[0], digest_size=8)
            digest.update(b"\0" + document[2])
            yield digest.digest(), number, document

    least = heapq.nsmallest(size, keyed(), key=lambda item: item[:2])
    return [SampledDocument(*(value.decode() for value in item[2])) for item in least]


def preview(
    documents: Sequence[SampledDocument],
    config: CurateConfig,
    examples: int,
    chat: Chat | None = None,
    scorer: Scorer | None = None,
) -> Preview:
    """Judge documents as the Curator does before it looks for copies.

    Args:
        documents: The sample.
        config: Thresholds, languages and masks.
        examples: How many dropped documents to keep of each reason.
        chat: Writes conversations; None where documents are texts.
        scorer: Of quality; None for none.
    """
    result = Preview(documents=len(documents))
    lists = lists_of(config.lists)
    rules = in_use(config)
    values: dict[str, list[np.ndarray]] = {rule.setting: [np.zeros(0)] for rule in rules}
    scores = [np.zeros(0, np.float32)]
    sizes: list[int] = []
    masked: Counter[str] = Counter()
    tallies: Counter[tuple[str, ...]] = Counter()
    for start in range(0, len(documents), _BATCH_DOCUMENTS):
        batch = documents[start : start + _BATCH_DOCUMENTS]
        refused: dict[int, str] = {}
        if chat is not None:
            messages = [document.messages.encode() for document in batch]
            texts, _, refused = tidy_conversations(messages, config.mask, masked, chat)
        else:
            texts = [normalize(document.text) for document in batch]
            for i, text in enumerate(texts):
                texts[i], counts = mask(text, config.mask)
                masked.update(counts)
            removed = remove_lines(texts, thresholds_of(config))
            texts = removed.texts
            for reason, (lines, size) in removed.by_reason.items():
                before = result.removed_lines.get(reason, (0, 0))
                result.removed_lines[reason] = (before[0] + lines, before[1] + size)
        columns = TextColumns(texts)
        for rule in rules:
            values[rule.setting].append(rule.measure(columns))
        sizes += [len(document.text.encode()) for document in batch]
        judged = judge_texts(
            texts,
            config,
            [document.language for document in batch],
            [document.metadata.encode() for document in batch],
            lists,
            scorer,
        )
        scores.append(judged.scores)
        drop_refused(judged, refused)
        tallies.update(judged.tallies())
        result.languages += judged.languages
        for i, (reason, value, threshold) in sorted(judged.dropped.items()):
            result.reasons[start + i] = reason
            found = result.examples.setdefault(reason, [])
            if len(found) < examples:
                document = batch[i]
                found.append(
                    Example(
                        document.doc_id,
                        document.source,
                        value,
                        threshold,
                        texts[i][:EXCERPT_CHARACTERS],
                        decode_metadata(document.metadata.encode()),
                        judged.matched.get(i, ""),
                    )
                )
    result.sizes = np.array(sizes, np.int64)
    result.raw_bytes = sum(sizes)
    result.scores = np.concatenate(scores)
    result.sources = [document.source for document in documents]
    totals = {reason: (0, 0) for reason in REASONS}
    for place, reason in result.reasons.items():
        totals[reason] = (totals[reason][0] + 1, totals[reason][1] + sizes[place])
    result.dropped = {reason: total for reason, total in totals.items() if total[0]}
    gone = [sum(total[i] for total in result.dropped.values()) for i in (0, 1)]
    result.kept = (len(documents) - gone[0], result.raw_bytes - gone[1])
    result.masked = dict(sorted(masked.items()))
    result.values = {setting: np.concatenate(parts) for setting, parts in values.items()}
    result.limits = {rule.setting: limits_of(rule, config, result.languages) for rule in rules}
    result.remarks = _remarks(documents, sizes, result, tallies, config)
    return result


def _remarks(
    documents: Sequence[SampledDocument],
    sizes: Sequence[int],
    result: Preview,
    tallies: Counter[tuple[str, ...]],
    config: CurateConfig,
) -> list[str]:
    """Say what a run would stop for or remark on, had it these documents."""
    outcomes: dict[tuple[str, str, str], list[int]] = {}
    for i, document in enumerate(documents):
        account = outcomes.setdefault(
            ("train", document.source, result.reasons.get(i, KEPT)), [0, 0]
        )
        account[0] += 1
        account[1] += sizes[i]
    counts = [
        (name, OutcomeCounts(number, size, 0, 0)) for name, (number, size) in outcomes.items()
    ]
    curation = summarize(counts, (), result.removed_lines.items(), tallies.items())
    return curation_remarks(curation, config.max_drop_fraction)


def in_use(config: CurateConfig) -> list[Rule]:
    """Return the rules with a threshold, in the order in which they judge."""
    return [rule for rule in RULES if is_in_use(rule, config)]


def tuning(result: Preview, rule: Rule) -> dict[str, Any]:
    """Return a rule's values over the sample, and what its threshold and those beside it drop.

    Shares are of all documents of the sample, whatever other rules say; quantiles of those that
    the rule has a measure for, None if it has for none. A threshold that differs by language is
    None, and has none beside it.
    """
    values = result.values[rule.setting]
    judged = values[~np.isnan(values)]
    quantiles = (
        np.percentile(judged, QUANTILES).tolist() if len(judged) else [None] * len(QUANTILES)
    )
    limits = result.limits[rule.setting]
    numbers = set(limits[~np.isnan(limits)].tolist())
    threshold = numbers.pop() if len(numbers) == 1 else None
    looser, stricter = (None, None) if threshold is None else neighbors(rule, threshold)
    return {
        "reason": rule.reason,
        "setting": rule.setting,
        "drop_if": rule.drop_if,
        "quantiles": {str(q): value for q, value in zip(QUANTILES, quantiles, strict=True)},
        "threshold": {"value": threshold, **_dropped_alone(result, rule, limits)},
        **{
            name: {"value": value, **_dropped_alone(result, rule, value)}
            if value is not None
            else None
            for name, value in (("looser", looser), ("stricter", stricter))
        },
    }


def _dropped_alone(result: Preview, rule: Rule, threshold: float | np.ndarray) -> dict[str, float]:
    drops = rule.drops(result.values[rule.setting], threshold)
    return {
        "documents": float(drops.mean()),
        "bytes": float(result.sizes[drops].sum() / max(1, result.raw_bytes)),
    }


def neighbors(rule: Rule, threshold: float) -> tuple[float | None, float | None]:
    """Return (looser, stricter): the next numbers of one significant digit on either side.

    None where there is none: no count or share is below 0, no share above 1.
    """
    is_share = "fraction" in rule.setting or rule.setting.endswith("characters")
    is_count = not is_share and "per_word" not in rule.setting
    least = 1.0 if is_count else 0.01
    if threshold < least:
        below = None if threshold == 0 else 0.0
        above = least
    else:
        power = 10.0 ** math.floor(math.log10(threshold) + 1e-9)
        digit = threshold / power
        above = _rounded((math.floor(digit + 1e-9) + 1) * power)
        lower = math.ceil(digit - 1e-9) - 1
        below = _rounded(lower * power if lower else 0.9 * power)
        if below < least:
            below = 0.0
    upper = None if is_share and above > 1 else above
    return (below, upper) if rule.drop_if == "below" else (upper, below)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def as_json(result: Preview, config: CurateConfig, reason: str | None) -> dict[str, Any]:
    """Return all of a preview; with `reason`, the examples and the tuning of that reason only."""
    return {
        "sample": {"documents": result.documents, "bytes": result.raw_bytes},
        "kept": {"documents": result.kept[0], "bytes": result.kept[1]},
        "dropped": {
            name: {"documents": documents, "bytes": size}
            for name, (documents, size) in result.dropped.items()
        },
        "remarks": result.remarks,
        "masked": result.masked,
        "removed_lines": {
            name: {"lines": lines, "bytes": size}
            for name, (lines, size) in sorted(result.removed_lines.items())
        },
        "examples": {
            name: [example._asdict() for example in result.examples[name]]
            for name in result.dropped
            if reason in (None, name)
        },
        "tuning": [
            tuning(result, rule) for rule in in_use(config) if reason in (None, rule.reason)
        ],
    }
