"""The rules of curation as a table, and a document that they dropped."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from components.curate import fineweb2
from components.curate.conversations import CHAT_TEMPLATE
from components.curate.quality.selection import LOW_QUALITY
from components.curate.rules import LINE_RULES, RULE_SETS, RULES
from pipeline.report.tables import escape, plain_table, stdout_console
from tokenmill.errors import TokenmillError
from tokenmill.nearest import did_you_mean
from tokenmill.text.language import LANGUAGES
from tokenmill.visible import visible

_SHOWN_TOGETHER = ("web", "technical-prose", "code-docs")


def print_rules(rule_set: str | None, language: str | None = None) -> None:
    """Print all rules, or those of one set, as they are for all languages or for one.

    Raises:
        TokenmillError: There is no such set or language.
    """
    check_choice("--rules", rule_set, RULE_SETS, "There are")
    check_choice("--language", language, sorted(LANGUAGES), "There are")
    console = stdout_console()
    # Columns for c4 and fineweb-2 do not fit: the one is a part of web, and one rule.
    sets = list(_SHOWN_TOGETHER) if rule_set is None else [rule_set]
    headers = [s.replace("-", "-\n") for s in sets]
    table = plain_table("reason", "setting (curate.)", *headers, left=2)
    source = ""
    for rule in (*LINE_RULES, *RULES):
        if rule_set is not None and rule_set not in rule.thresholds:
            continue
        if rule.source != source:
            source = rule.source
            table.add_row("", f"[dim]{source}[/]")
        sign = "<" if rule.drop_if == "below" else ">"
        thresholds = dict(rule.thresholds)
        if rule_set == fineweb2.RULE_SET and language:
            of_language = fineweb2.thresholds_by_language().get(language, {})
            thresholds[rule_set] = of_language.get(rule.setting, thresholds[rule_set])
        shown = [f"{sign} {number(thresholds[s])}" if s in thresholds else "off" for s in sets]
        table.add_row(rule.reason, rule.setting, *shown)
    console.print(table)
    console.print(
        '\n"< 50" drops documents with less than 50, "> 0.3" those with more than 0.3. A document '
        "is\ndropped for the first rule, in this order, that drops it; before, the rules called "
        "line_... remove\nsingle lines. The set c4 has the rules of Raffel et al. only (--rules c4 "
        "lists them), fineweb-2 those\nof Penedo et al. 2025, with thresholds for each language "
        "(--rules fineweb-2 --language de; without\na language: those for English, and for text "
        "whose language is not known); none has none."
    )


def check_choice(option: str, value: str | None, allowed: Sequence[str], there_are: str) -> None:
    """Raise a TokenmillError that names the nearest if a value is given that is not allowed."""
    if value is None or value in allowed:
        return
    shown = ", ".join(allowed[:40]) + (f" and {len(allowed) - 40} more" if allowed[40:] else "")
    raise TokenmillError(
        f"{option} {value}: there is no such one{did_you_mean(value, allowed)}.",
        f"{there_are}: {shown or 'none'}.",
    )


def number(value: float | None) -> str:
    """Write a number in three digits; a dash if there is none."""
    if value is None:
        return "–"
    if abs(value) >= 10_000:
        return f"{value / 1000:,.3g}k"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def print_document(console: Console, record: dict[str, Any], reason: str) -> None:
    """Print which document was dropped, why, and how its text begins."""
    signs = {rule.reason: "<" if rule.drop_if == "below" else ">" for rule in RULES}
    signs |= {"wrong_language": "<", LOW_QUALITY: "<", "contaminated": ">", "near_duplicate": ">="}
    why = []
    if reason in signs:  # the numbers of other reasons say nothing
        why.append(f"{number(record['value'])} {signs[reason]} {number(record['threshold'])}")
    if record.get("matched"):
        is_refused = reason == CHAT_TEMPLATE
        why.append(record["matched"] if is_refused else f"“{record['matched']}” is on the list")
    if record.get("shared"):
        why.append(f"shares “{' '.join(record['shared'].split())}” with {record['kept_copy']}")
    elif record.get("kept_copy"):
        why.append(f"copy of {record['kept_copy']}")
    where = f"{record['source']}, {record['split']}" if "split" in record else record["source"]
    console.print(escape(f"  {record['doc_id']}  ({where})"), soft_wrap=True)
    known = [record["metadata"][name] for name in ("title", "url") if name in record["metadata"]]
    if known:
        console.print(escape(f"    {', '.join(known)}"), soft_wrap=True)
    if why:
        console.print(escape(f"    {', '.join(why)}"), soft_wrap=True)
    excerpt = Text("    " + visible(" ".join(record["excerpt"].split())), style="dim")
    excerpt.truncate(console.width, overflow="ellipsis")
    console.print(excerpt)
