"""The interface is what docs/interface.txt says: a change of it shows in review."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_commands_flags_and_keys_are_those_of_the_frozen_file():
    printed = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "interface.py")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    assert len(printed.splitlines()) > 300
    frozen = (ROOT / "docs" / "interface.txt").read_text(encoding="utf-8")
    assert printed == frozen, "to accept: .venv/bin/python tools/interface.py > docs/interface.txt"
