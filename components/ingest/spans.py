"""Spans: corpora that come in numbered portions (data/{SPAN}/*.jsonl), read one at a time."""

import re
from collections.abc import Iterable, Mapping

from apache_beam.io.filesystem import FileSystem

from tokenmill.errors import TokenmillError

SPAN_SPEC = "{SPAN}"  # TFX's own


def span_tokens(pattern: str, paths: Iterable[str], option: str) -> dict[int, list[str]]:
    """Find the spans among `paths`, and how their numbers are written (7, 007).

    Args:
        pattern: A glob with {SPAN} in it.
        paths: Files that the pattern matches with any span.
        option: Where the user gave the pattern, for messages.

    Raises:
        TokenmillError: The pattern holds {SPAN} more than once, or nothing matches it.
    """
    if pattern.count(SPAN_SPEC) != 1:
        raise TokenmillError(
            f"{option} {pattern}: {SPAN_SPEC} stands in it {pattern.count(SPAN_SPEC)} times.",
            "Write it once, where the number of the span is.",
        )
    head, tail = pattern.rstrip("/").split(SPAN_SPEC)
    # A whole number: the wildcard of part*{SPAN} must not take its first digits.
    matcher = re.compile(rf"{_regex(head)}(?<!\d)(\d+)(?!\d){_regex(tail)}(?:/.*)?", re.DOTALL)
    found: dict[int, set[str]] = {}
    for path in paths:
        match = matcher.fullmatch(path)
        if match:
            found.setdefault(int(match[1]), set()).add(match[1])
    if not found:
        raise TokenmillError(
            f"{option} {pattern}: no file matches it with a number for {SPAN_SPEC}.",
            "tokenmill ingest preview PATTERN shows what a pattern finds.",
        )
    return {span: sorted(tokens) for span, tokens in found.items()}


def choose_span(
    tokens: Mapping[str, Mapping[int, list[str]]], wanted: int | None, option: str
) -> int | None:
    """Choose the span to read: `wanted`, or the newest that every pattern has.

    Args:
        tokens: By pattern, what `span_tokens` found.
        wanted: corpus.span.
        option: Where the user gave the patterns, for messages.

    Raises:
        TokenmillError: That span, or a common one, is not there.
    """
    if not tokens:
        if wanted is not None:
            raise TokenmillError(
                f"corpus.span = {wanted}, but no {option} holds {SPAN_SPEC}.",
                f"Put {SPAN_SPEC} where the number is, as in data/{SPAN_SPEC}/*.jsonl, "
                "or leave corpus.span out.",
            )
        return None
    common = set.intersection(*(set(spans) for spans in tokens.values()))
    if wanted is None and common:
        return max(common)
    if wanted in common:
        return wanted
    there = "; ".join(f"{pattern}: {_shown(spans)}" for pattern, spans in tokens.items())
    if wanted is None:
        raise TokenmillError(
            f"{option}: no span is there for every pattern. Found {there}.",
            "Wait for the delivery that is missing, or leave its pattern out.",
        )
    raise TokenmillError(
        f"corpus.span = {wanted}: not there. Found {there}.", "Name one of these, or none."
    )


def _shown(spans: Iterable[int]) -> str:
    ordered = sorted(spans, reverse=True)
    return ", ".join(map(str, ordered[:5])) + (", ..." if len(ordered) > 5 else "")


def _regex(glob: str) -> str:
    """Translate a pattern as Beam does, without the flags and the anchor that it puts around."""
    return FileSystem.translate_pattern(glob).removeprefix("(?ms)").removesuffix(r"\Z")
