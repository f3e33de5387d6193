"""Package descriptions of this Debian machine with their sections, as JSON lines.

    python benchmarks/adapt/packages.py OUT.jsonl

A text is the one-line description of a package in `apt-cache dumpavail`; the class is its section
without the archive area (contrib/sound is sound). Descriptions of several sections are left out,
of equal ones one is taken. Each section has the same number, which SHA-256 chooses.
"""

import hashlib
import json
import subprocess
import sys
from collections import defaultdict

SECTIONS = (
    "admin", "editors", "games", "graphics", "mail", "math", "net", "science", "sound", "text",
    "utils", "web",
)  # fmt: skip
DOCUMENTS_EACH = 320


def read_descriptions() -> dict[str, set[str]]:
    """Return the descriptions of each section, without those that stand in several."""
    answer = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True)
    sections = defaultdict(set)
    for block in answer.stdout.decode().split("\n\n"):
        lines = (line.split(": ", 1) for line in block.split("\n") if not line.startswith(" "))
        fields = dict(line for line in lines if len(line) == 2)
        if "Description" in fields and "Section" in fields:
            sections[fields["Description"]].add(fields["Section"].rsplit("/", 1)[-1])
    descriptions = defaultdict(set)
    for description, found in sections.items():
        if len(found) == 1:
            descriptions[found.pop()].add(description)
    return descriptions


def main(path: str) -> None:
    """Write the documents, in an order that depends on their text only."""
    descriptions = read_descriptions()
    chosen = []
    for section in SECTIONS:
        ranked = sorted((hashlib.sha256(x.encode()).hexdigest(), x) for x in descriptions[section])
        if len(ranked) < DOCUMENTS_EACH:
            sys.exit(f"section {section} has {len(ranked)} descriptions: run apt-get update")
        chosen += [(digest, text, section) for digest, text in ranked[:DOCUMENTS_EACH]]
    with open(path, "w", encoding="utf-8") as out:
        for digest, text, section in sorted(chosen):
            record = {"id": digest[:16], "text": text, "label": section, "source": "debian"}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"{len(chosen)} descriptions of {len(SECTIONS)} sections")


if __name__ == "__main__":
    main(sys.argv[1])
