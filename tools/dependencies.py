"""Writes versions and dates in docs/dependencies.md anew, from the locks and the package index.

    python tools/dependencies.py

Asks the index about each dependency that the page names; where it does not answer, the date of the
newest release stays as it was, and the exit code is 1.
"""

import json
import pathlib
import re
import sys
import urllib.error
import urllib.request

from packaging.version import InvalidVersion, Version

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
LOCKS = ("requirements.lock", "requirements-py310.lock")


def pins(lock: str) -> dict[str, str]:
    """Return the version of each package of a lock."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([^ ]+)", text, re.MULTILINE))


def newest_release(name: str) -> str:
    """Return version and date of the newest final release; OSError if the index has no answer."""
    with urllib.request.urlopen(f"https://pypi.org/pypi/{name}/json", timeout=60) as answer:
        releases = json.load(answer)["releases"]
    found = []
    for text, files in releases.items():
        try:
            version = Version(text)
        except InvalidVersion:
            continue
        if not version.is_prerelease and any(not file["yanked"] for file in files):
            found.append((version, min(file["upload_time"] for file in files)[:10]))
    version, date = max(found)
    return f"{version}, {date}"


def main() -> int:
    """Run the command; return its exit code."""
    modern, old = map(pins, LOCKS)
    unanswered = []

    def row(match: re.Match[str]) -> str:
        name, purpose, licence, newest = match.groups()
        try:
            newest = newest_release(name)
        except (OSError, ValueError) as error:
            unanswered.append(f"{name}: {error}")
        cells = (f"`{name}`", purpose, licence, modern.get(name, "-"), old.get(name, "-"), newest)
        return f"| {' | '.join(cells)} |"

    cell = r" *([^|]*?) *\|"
    pattern = rf"^\| `([^`]+)` \|{cell}{cell}[^|]*\|[^|]*\|{cell}$"
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(pattern, row, text, flags=re.MULTILINE), encoding="utf-8")
    for line in unanswered:
        print(f"not asked about its newest release: {line}", file=sys.stderr)
    return 1 if unanswered else 0


if __name__ == "__main__":
    sys.exit(main())
