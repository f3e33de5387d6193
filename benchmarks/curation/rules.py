"""What each rule of each set drops of the embedded corpus, with ten samples of each for eyes.

    python benchmarks/curation/rules.py > benchmarks/curation/rules-DATE.md

A rule's documents "by itself" are those beyond its threshold whatever other rules say; "first" are
those for which it gives the reason. Samples are the ten documents (or lines) with the least hash.
"""

import heapq
from collections.abc import Iterator

import numpy as np
from corpus import embedded_documents

from components.curate.config import CurateConfig
from components.curate.rules import LINE_RULES, RULE_SETS, RULES, judge, thresholds_of
from components.curate.rules.lines import remove_lines
from components.curate.rules.rule import Rule
from tokenmill.records.keys import stable_hash
from tokenmill.text.normalize import normalize
from tokenmill.text.text_columns import TextColumns

SAMPLES = 10
EXCERPT_CHARACTERS = 90
BATCH = 512

SIGNS = {"below": "<", "above": ">"}


class Tally:
    """What one rule drops, and some of it."""

    def __init__(self) -> None:
        self.count = self.bytes = self.first = 0
        self._least: list[tuple[int, str]] = []

    def add(self, name: str, value: float, text: str) -> None:
        self.count += 1
        self.bytes += len(text.encode())
        excerpt = " ".join(text[: 2 * EXCERPT_CHARACTERS].split())[:EXCERPT_CHARACTERS]
        shown = f"{name}, {value:.3g}: `{excerpt.replace('`', ' ')}`"
        item = (-stable_hash(f"{name}\0{text}".encode()), shown)
        if len(self._least) < SAMPLES:
            heapq.heappush(self._least, item)
        else:
            heapq.heappushpop(self._least, item)

    def samples(self) -> list[str]:
        return [shown for _, shown in sorted(self._least, reverse=True)]


def beyond(rule: Rule, columns: TextColumns, threshold: float) -> Iterator[tuple[int, float]]:
    """(document or line, value) of each that the rule drops by itself."""
    values = rule.measure(columns)
    drops = values < threshold if rule.drop_if == "below" else values > threshold
    for place in np.flatnonzero(drops).tolist():
        yield place, float(values[place])


def tally(
    documents: list[dict], texts: list[str], thresholds: dict[str, float]
) -> tuple[dict[str, Tally], int]:
    """What each rule drops, and how many documents end as empty."""
    found = {rule.setting: Tally() for rule in (*LINE_RULES, *RULES)}
    empty = 0
    for start in range(0, len(texts), BATCH):
        ids = [document["id"] for document in documents[start : start + BATCH]]
        columns = TextColumns(texts[start : start + BATCH])
        lines = columns.lines
        for rule in LINE_RULES:
            if rule.setting in thresholds:
                for i, value in beyond(rule, columns, thresholds[rule.setting]):
                    document = int(lines.document[i])
                    text, first = columns.texts[document], int(columns.first[document])
                    line = text[int(lines.start[i]) - first : int(lines.end[i]) - first]
                    found[rule.setting].add(ids[document], value, line)
        removed = remove_lines(list(columns.texts), thresholds)
        for rule in LINE_RULES:
            found[rule.setting].first += removed.by_reason.get(rule.reason, (0, 0))[0]
        left = [(i, text) for i, text in zip(ids, removed.texts, strict=True) if text]
        empty += len(ids) - len(left)
        columns = TextColumns([text for _, text in left])
        for rule in RULES:
            if rule.setting in thresholds:
                for i, value in beyond(rule, columns, thresholds[rule.setting]):
                    found[rule.setting].add(left[i][0], value, left[i][1])
        for number in judge(columns, thresholds).rule.tolist():
            if number >= 0:
                found[RULES[number].setting].first += 1
    return found, empty


def main() -> None:
    documents = embedded_documents()
    texts = [normalize(document["text"]) for document in documents]
    size = sum(len(text.encode()) for text in texts)
    print(
        "# What each rule drops of the embedded corpus\n\n"
        f"`python benchmarks/curation/rules.py`; {len(texts):,} documents, {size:,} bytes after\n"
        'normalization. "By itself": beyond the threshold whatever other rules say. "First": the\n'
        "rule gives the reason (for rules called line_..., lines). Rules for documents see what\n"
        "the rules for lines left. Samples: id, value, how the text begins; chosen by a hash."
    )
    for rule_set in RULE_SETS:
        thresholds = thresholds_of(CurateConfig(rules=rule_set))
        if not thresholds:
            continue
        found, empty = tally(documents, texts, thresholds)
        used = [rule for rule in (*LINE_RULES, *RULES) if rule.setting in thresholds]
        gone = empty + sum(found[rule.setting].first for rule in RULES)
        print(
            f"\n## {rule_set}\n\n{gone:,} of {len(texts):,} documents are dropped "
            f"({gone / len(texts):.1%}), {empty:,} of them because no line is left.\n\n"
            "| rule | drops if | by itself | of all bytes | first |\n"
            "| --- | --- | --- | --- | --- |"
        )
        for rule in used:
            it = found[rule.setting]
            print(
                f"| {rule.reason} | {SIGNS[rule.drop_if]} {thresholds[rule.setting]:,g} | "
                f"{it.count:,} | {it.bytes / size:.1%} | {it.first:,} |"
            )
        for rule in used:
            if found[rule.setting].count:
                sign = f"{SIGNS[rule.drop_if]} {thresholds[rule.setting]:,g}"
                print(f"\n### {rule_set}: {rule.reason} ({sign})\n")
                print("\n".join(f"- {shown}" for shown in found[rule.setting].samples()))


if __name__ == "__main__":
    main()
