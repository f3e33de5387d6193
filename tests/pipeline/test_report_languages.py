"""Tokens, money and quality by language, as a person reads them."""

import io

import pytest
from complete_model import complete
from rich.console import Console

from pipeline.report.languages import language_quality_table, languages_table
from tokenmill.contracts.cost_report import CostReport
from tokenmill.contracts.ledger import Ledger


def lines_of(table):
    """The lines of a table, below its heading, as words."""
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    return [line.split() for line in out.getvalue().splitlines()[1:]]


def ledger_of(tokens):
    """A ledger of languages with so many tokens each, of 3 bytes a token, at $2 a token."""
    total = sum(tokens.values())
    by_language = {
        code: {
            "train": {"documents": 1, "bytes": 3 * n, "tokens": n},
            "eval": {"documents": 0, "bytes": 0, "tokens": 0},
            "token_share": n / total,
            "cost_share": n / total,
            "compute_usd": 2.0 * n,
        }
        for code, n in tokens.items()
    }
    return complete(Ledger, {"by_language": by_language})


def cost_of(by_language, usd=1.0):
    evaluation = {"total": {"bits_per_byte": 1.0}, "by_language": by_language}
    actual = {"compute_usd": usd}
    return complete(CostReport, {"quality": {"evaluation": evaluation}, "actual": actual})


def test_the_largest_languages_have_a_line_and_the_others_are_added_up():
    tokens = {f"l{i:02}": i for i in range(1, 31)}
    table = lines_of(languages_table(ledger_of(tokens), None))
    assert [line[0] for line in table] == [f"l{i}" for i in range(30, 22, -1)] + ["22", "all"]
    others = sum(range(1, 23))
    assert table[8] == ["22", "others", "22", str(3 * others), "bytes", str(others), "3.00",
                        f"{others / 465:.1%}", f"${2 * others}.00"]  # fmt: skip
    assert table[9][-2:] == ["100.0%", "$930.00"]


def test_what_was_paid_is_divided_as_what_was_estimated():
    table = lines_of(languages_table(ledger_of({"de": 30, "und": 10}), cost_of({}, usd=8.0)))
    dollars = [[float(cell.strip("$")) for cell in line[-2:]] for line in table]
    assert dollars == [[60, 6], [20, 2], [80, 8]]
    assert table[1][:2] == ["not", "known"]


def test_one_language_needs_no_table():
    assert languages_table(ledger_of({"en": 5}), None) is None
    assert language_quality_table(cost_of({"en": {"evaluated_documents": 3.0}})) is None


@pytest.mark.parametrize(("languages", "shown"), [(2, 2), (9, 9), (10, 8), (90, 8)])
def test_quality_by_language_names_the_largest_and_counts_the_rest(languages, shown):
    metrics = {
        f"l{i:02}": {"evaluated_documents": float(i), "bits_per_byte": i / 100}
        for i in range(languages)
    }
    lines = lines_of(language_quality_table(cost_of(metrics)))
    last = languages - 1
    assert lines[0] == [f"l{last:02}", str(last), f"{last / 100:.3f}"]
    if shown < languages:
        others = sum(range(languages - shown))
        assert lines[-1] == [str(languages - shown), "others", f"{others:,}"]
        lines = lines[:-1]
    assert len(lines) == shown
