"""Says which rule takes much of a language, a source or the whole, and stops the run for it.

Rules are made for one kind of text. Where one drops most of another (German text without English
stop words), what is left is no longer what the user gave, and nothing later would show it.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from components.curate.config import CurateConfig
from components.curate.conversations import CHAT_TEMPLATE
from components.curate.counts import CONTAMINATED, samples_by_reason
from components.curate.decision import EMPTY, WRONG_LANGUAGE
from components.curate.lists import LIST_REASONS
from components.curate.quality.selection import LOW_QUALITY
from components.curate.rules import LINE_RULES, RULES
from tokenmill.contracts.curation import Curation, DroppedDocument, read_dropped
from tokenmill.errors import TokenmillError
from tokenmill.text.language import UNDETERMINED
from tokenmill.visible import visible

# A rule that drops two of three documents says nothing about their source.
MIN_DOCUMENTS = 10

_SETTINGS = {rule.reason: rule.setting for rule in (*RULES, *LINE_RULES)}
KEEP_CONTAMINATED = {
    "eval": "To keep held-out documents that share words with train: "
    "--set curate.decontaminate=train (the train documents go) or off (both stay), "
    "--set curate.decontaminate_max_documents=3 (what four documents have is boilerplate), or "
    "--set curate.decontaminate_ngram_words=30 (only longer runs count). ",
    "train": "To keep train documents that share words with held-out or benchmark text: "
    "--set curate.decontaminate=held-out (the held-out documents go), "
    "--set curate.decontaminate_ngram_words=30 (only longer runs count), or less in "
    "curate.benchmark_files and curate.benchmark_tasks. ",
}
"""What to do when a split loses much to overlaps."""

# What is said, even if it is let pass.
_MUCH = 0.5
_ASKED_FOR = (WRONG_LANGUAGE, LOW_QUALITY, *LIST_REASONS)  # by name: they stop no run
_NOT_RULES = (EMPTY, CHAT_TEMPLATE, *_ASKED_FOR)
TOGETHER = "all rules together"
_GROUPS_SHOWN = 3
_RULES_SHOWN = 3
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 60


class Loss(NamedTuple):
    """What one rule takes of one group.

    Attributes:
        reason: The rule's drop reason.
        kind: whole, language or source.
        name: Of the language or source.
        dropped: Documents that it drops; of a rule for lines: bytes.
        arrived: Documents (bytes) of the group.
    """

    reason: str
    kind: str
    name: str
    dropped: int
    arrived: int

    @property
    def share(self) -> float:
        """What is dropped, of 1."""
        return self.dropped / self.arrived

    def __str__(self) -> str:
        group = "all" if self.kind == "whole" else f"{self.kind} {visible(self.name)}"
        unit = "bytes" if self.reason.startswith("line_") else "documents"
        return f"{self.share:.0%} of {group} ({self.dropped:,} of {self.arrived:,} {unit})"


def find_losses(curation: Curation, max_fraction: float) -> list[list[Loss]]:
    """Return what exceeds the share, a list for each rule: the whole first, then the most lost.

    A list of the reason TOGETHER has the groups of which no rule alone takes so much.
    """
    groups: dict[tuple[str, str], tuple[int, dict[str, int]]] = {
        ("language", code): (language.documents, language.dropped)
        for code, language in curation.languages.items()
        if code != UNDETERMINED
    }
    for split in curation.splits.values():
        for source, account in split.by_source.items():
            for group in (("whole", ""), ("source", source)):
                arrived, dropped = groups.setdefault(group, (0, {}))
                for reason, amount in account.dropped.items():
                    dropped[reason] = dropped.get(reason, 0) + amount.documents
                groups[group] = arrived + account.arrived.documents, dropped
    found = []
    for (kind, name), (arrived, dropped) in groups.items():
        if arrived < MIN_DOCUMENTS:
            continue
        by_rule = {r: count for r, count in dropped.items() if r in _SETTINGS or r in _NOT_RULES}
        much = {r: count for r, count in by_rule.items() if count > max_fraction * arrived}
        if not much and sum(by_rule.values()) > max_fraction * arrived:
            much = {TOGETHER: sum(by_rule.values())}
        found += [Loss(reason, kind, name, count, arrived) for reason, count in much.items()]
    size = curation.total.arrived.bytes
    found += [
        Loss(reason, "whole", "", lines.bytes, size)
        for reason, lines in curation.removed_lines.items()
        if reason in _SETTINGS and lines.bytes > max_fraction * size
    ]
    found.sort(key=lambda loss: (loss.kind != "whole", -loss.dropped, loss.kind, loss.name))
    by_reason: dict[str, list[Loss]] = {}
    for loss in found:
        by_reason.setdefault(loss.reason, []).append(loss)
    return list(by_reason.values())


def check_losses(curation: Curation, config: CurateConfig, dropped_uri: str) -> None:
    """Raise a TokenmillError if one rule takes too much; what the user's lists name may go.

    Args:
        curation: The counts.
        config: The thresholds.
        dropped_uri: The records of the dropped documents, of which some are shown.
    """
    lost = [
        losses
        for losses in find_losses(curation, config.max_drop_fraction)
        if losses[0].reason not in (*_ASKED_FOR, TOGETHER)
    ]
    arrived, contaminated, _ = _contaminated(curation, "train")
    if arrived >= MIN_DOCUMENTS and contaminated > config.max_drop_fraction * arrived:
        raise TokenmillError(
            f"{contaminated:,} of the {arrived:,} train documents share words with held-out or "
            f"benchmark text, more than curate.max_drop_fraction = {config.max_drop_fraction:g}"
            f"{say_overlaps(dropped_uri, 'train')}.",
            f"{KEEP_CONTAMINATED['train']}To let this pass: --set curate.max_drop_fraction=1.",
        )
    if not lost:
        return
    parts = []
    for losses in lost[:_RULES_SHOWN]:
        examples = ", ".join(_examples(losses[0], read_dropped(dropped_uri)))
        parts.append(f"{say_loss(losses)}, such as {examples}" if examples else say_loss(losses))
    if more := len(lost) - len(parts):
        parts.append(f"and {more} more rules do so")
    settings = [_SETTINGS.get(losses[0].reason) for losses in lost]
    switches = " ".join(f"--set curate.{setting}=off" for setting in settings if setting)
    remedy = f"To switch {'it' if len(lost) == 1 else 'them'} off: {switches} (or a threshold; "
    remedy += "tokenmill curate preview shows what each drops; --set curate.rules=none: no rule)."
    if any(losses[0].reason == CHAT_TEMPLATE for losses in lost):
        remedy = (
            "What the chat template says is under `matched` in the records of dropped documents; "
            "tokenizer.chat_template takes another."
        )
    elif not switches:
        remedy = (
            "Look at corpus.text_field: these texts are empty, or the rules for lines left none."
        )
    share = max(loss.share for losses in lost for loss in losses)
    raised = min(1.0, math.ceil(share * 100) / 100)
    raise TokenmillError(
        f"curation takes more than curate.max_drop_fraction = {config.max_drop_fraction:g} of a "
        f"language, a source or the whole: {'; '.join(parts)}.",
        f"{remedy} To let this pass: --set curate.max_drop_fraction={raised:g}.",
    )


def unknown_sources_remark(curation: Curation, names: Iterable[str]) -> list[str]:
    """Say which names in curate.quality.source_top_shares are no source; nothing if all are one."""
    sources = sorted({source for split in curation.splits.values() for source in split.by_source})
    unknown = sorted(set(names).difference(sources))
    if not unknown:
        return []
    return [
        f"curate.quality.source_top_shares names {', '.join(unknown)}, which is no source here "
        f"and does nothing; documents come from {', '.join(sources)}"
    ]


def curation_remarks(curation: Curation, max_fraction: float) -> list[str]:
    """Return sentences about what a person would not expect of curation."""
    max_fraction = min(max_fraction, _MUCH)
    remarks = [
        f"{say_loss(losses)} (tokenmill curate inspect shows them)"
        for losses in find_losses(curation, max_fraction)
    ]
    total = curation.total
    for reason in ("exact_duplicate", "near_duplicate"):
        amount = total.dropped.get(reason)
        if amount and amount.documents > max_fraction * total.arrived.documents:
            remarks.append(say_loss([
                Loss(reason, "whole", "", amount.documents, total.arrived.documents)
            ]))  # fmt: skip
    for split, name in (("eval", "held-out"), ("train", "train")):
        arrived, contaminated, kept = _contaminated(curation, split)
        if contaminated > max_fraction * arrived:
            remarks.append(
                f"{contaminated:,} of {arrived:,} {name} documents are contaminated, {kept:,} are "
                f"left. {KEEP_CONTAMINATED[split].strip()}"
            )
    if guard := curation.benchmarks:
        remarks.append(
            f"{guard.documents:,} train documents had a benchmark text and were dropped; benchmark "
            f"texts guarded: {guard.by_ngrams:,} by runs of words, {guard.as_a_whole:,} "
            f"shorter ones as a whole; not guarded: {guard.too_short:,} of fewer than five words, "
            f"{guard.too_common:,} short ones that many documents have"
        )
    if curation.not_judged:
        parts = []
        for reason, by_language in curation.not_judged.items():
            most = sorted(by_language, key=lambda code: (-by_language[code], code))
            codes = ", ".join(most[:_GROUPS_SHOWN]) + (", .." if most[_GROUPS_SHOWN:] else "")
            parts.append(f"{reason} {sum(by_language.values()):,} ({codes})")
        remarks.append(
            f"documents that a rule let pass, having no measure for them: {'; '.join(parts)}"
        )
    return remarks


def say_loss(losses: list[Loss]) -> str:
    """Say in words what one rule takes."""
    shown = [str(loss) for loss in losses[:_GROUPS_SHOWN]]
    if more := len(losses) - len(shown):
        shown.append(f"{more:,} more sources or languages")
    verb = "drop" if losses[0].reason == TOGETHER else "drops"
    return f"{losses[0].reason} {verb} {' and '.join(shown)}"


def say_overlaps(dropped_uri: str, split: str) -> str:
    """Show some words that dropped documents of a split share, and with whom."""
    records = (record for record in read_dropped(dropped_uri) if record.split == split)
    chosen = samples_by_reason(records, CONTAMINATED, None, _EXAMPLES).get(CONTAMINATED, [])
    shown = [
        f'{visible(record.doc_id.decode())} shares "{_beginning(record.shared)}" with '
        f"{visible(record.kept_copy.decode())}"
        for record in chosen
    ]
    return f", such as {', '.join(shown)}" if shown else ""


def _beginning(text: str) -> str:
    return visible(" ".join(text.split())[:_EXAMPLE_CHARACTERS])


def _examples(loss: Loss, records: Iterable[DroppedDocument]) -> Iterator[str]:
    of = {loss.kind: loss.name}
    chosen = samples_by_reason(
        records, loss.reason, of.get("source"), _EXAMPLES, of.get("language")
    )
    for record in itertools.chain.from_iterable(chosen.values()):
        yield f'{visible(record.doc_id.decode())} "{_beginning(record.excerpt)}"'


def _contaminated(curation: Curation, split: str) -> tuple[int, int, int]:
    """Return how many documents of the split arrived, were contaminated and stay."""
    accounts = curation.splits[split].by_source.values()
    lost = curation.dropped_by_reason(split=split)
    return (
        sum(account.arrived.documents for account in accounts),
        lost[CONTAMINATED].documents if CONTAMINATED in lost else 0,
        sum(account.kept.documents for account in accounts),
    )
