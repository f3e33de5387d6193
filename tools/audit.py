"""`make audit`: a software bill of materials (SBOM), and known vulnerabilities of what is locked.

    python tools/audit.py ENVIRONMENT OUTPUT [LOCK]

ENVIRONMENT is the directory of a virtual environment with tools/audit.lock, LOCK the lock to audit
(by default requirements.lock, the modern stack), OUTPUT a directory:

    sbom.cdx.json     CycloneDX, of all packages in .venv, with licences and hashes
    pip-audit.json    what the index knows against each package of the lock

The exit code is 1 if a vulnerability is known, and 2 if the index could not be asked about every
package: pip-audit itself ends with 0 then, though it has audited nothing.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXIT_VULNERABLE, EXIT_NOT_AUDITED = 1, 2


def make_sbom(tools: pathlib.Path, output: pathlib.Path) -> int:
    """Writes the SBOM of .venv; returns how many packages it has."""
    path = output / "sbom.cdx.json"
    subprocess.run(
        [
            *(tools / "cyclonedx-py", "environment", "--output-reproducible"),
            *("--pyproject", ROOT / "pyproject.toml", "--of", "JSON", "-o", path),
            ROOT / ".venv" / "bin" / "python",
        ],
        check=True,
    )
    return len(json.loads(path.read_text(encoding="utf-8"))["components"])


def audit(tools: pathlib.Path, output: pathlib.Path, lock: pathlib.Path) -> list[dict[str, Any]]:
    """Asks the index about each locked package; returns pip-audit's account of each."""
    path = output / "pip-audit.json"
    path.unlink(missing_ok=True)
    result = subprocess.run(
        [
            *(tools / "pip-audit", "--requirement", lock),
            *("--require-hashes", "--disable-pip", "--progress-spinner", "off"),
            *("--timeout", "15", "--format", "json", "--output", path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if not path.exists():  # it gave up
        print(result.stderr[-2000:], file=sys.stderr)
        return []
    return json.loads(path.read_text(encoding="utf-8"))["dependencies"]


def verdict(packages: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """The exit code and what to print, from pip-audit's account."""
    lines, code = [], 0
    for package in packages:
        for found in package.get("vulns", ()):
            fixed = ", ".join(found["fix_versions"]) or "no release"
            lines.append(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
            code = EXIT_VULNERABLE
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    asked = len(packages) - len(skipped)
    lines.append(f"{asked} of {len(packages)} packages were audited.")
    if skipped or not packages:
        shown = ", ".join(skipped[:5]) + (" .." if skipped[5:] else "")
        why = next((p["skip_reason"] for p in packages if "skip_reason" in p), "pip-audit gave up")
        lines.append(f"NOT AUDITED: {shown or 'all'} ({why}).")
        lines.append(
            "The index in use has no vulnerability data; run it where the package index answers."
        )
        code = code or EXIT_NOT_AUDITED
    return code, lines


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environment", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    default = ROOT / "requirements.lock"
    parser.add_argument("lock", type=pathlib.Path, nargs="?", default=default)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    tools = arguments.environment.resolve() / "bin"
    print(f"{arguments.output}/sbom.cdx.json: {make_sbom(tools, arguments.output)} packages")
    code, lines = verdict(audit(tools, arguments.output, arguments.lock))
    print(f"{arguments.lock.name}:", "\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
