"""The loss that a ladder expects of a training, beside published laws, in rows and words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenmill.contracts.ladder import Constants, Interval, LadderLoss, PublishedLaw
from tokenmill.number_format import decimal

CONSTANTS = ("e", "a", "b", "alpha", "beta", "gamma")


def span(interval: Interval, places: int = 2) -> str:
    """Write the ends of an interval: [0.31, 0.52]."""
    return f"[{interval.low:.{places}f}, {interval.high:.{places}f}]"


def author(law: PublishedLaw) -> str:
    """Return authors and year of a published law."""
    return law.source.split(" (")[0]


def ladder_rows(loss: LadderLoss) -> Iterator[tuple[str, str]]:
    """Yield label and words: the expected loss, and the laws side by side."""
    if loss.bits_per_byte is None:
        yield "by the ladder", loss.words
    else:
        expected = loss.bits_per_byte
        yield (
            "by the ladder",
            f"{expected.value:.3f} bits per byte, {loss.level:.0%} {span(expected, 3)}; "
            + ", ".join(f"{law.bits_per_byte:.3f} by {author(law)}" for law in loss.published)
            + "".join(
                f". Of the published laws {law.note}" for law in loss.published[:1] if law.note
            ),
        )
    if loss.constants is not None:
        law = loss.constants
        others = "; ".join(
            f"{law.alpha:.2f}, {law.beta:.2f} {author(law)}" for law in loss.published
        )
        yield (
            "exponents of N, D",
            f"{law.alpha.value:.2f} {span(law.alpha)}, {law.beta.value:.2f} {span(law.beta)}; "
            f"{others}",
        )


def constant_rows(
    constants: Constants, published: Sequence[PublishedLaw]
) -> Iterator[tuple[str, ...]]:
    """Yield a row a constant: its name, its value, its interval, the published ones."""
    for name in CONSTANTS:
        found: Interval = getattr(constants, name)
        yield (
            name,
            decimal(found.value, 4),
            f"{decimal(found.low)} to {decimal(found.high)}",
            *(decimal(getattr(law, name), 4) for law in published),
        )
