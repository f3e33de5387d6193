"""`make audit` does not take silence for safety."""

import importlib.util
import pathlib

import pytest

spec = importlib.util.spec_from_file_location(
    "audit", pathlib.Path(__file__).parents[1] / "tools" / "audit.py"
)
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

SAFE = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([SAFE], 0, "1 of 1 packages were audited"),
        ([SAFE, BAD], 1, "b 2: PYSEC-1, fixed in 3"),
        ([SAFE, SKIPPED], 2, "NOT AUDITED: c (not found on PyPI)"),
        ([BAD, SKIPPED], 1, "NOT AUDITED: c"),
        ([], 2, "NOT AUDITED: all"),
    ],
)
def test_the_exit_code_says_what_is_known(packages, code, words):
    found, lines = audit.verdict(packages)
    assert found == code
    assert words in "\n".join(lines)
