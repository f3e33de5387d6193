"""Makes the texts of the benchmark tasks in data/benchmarks from this project's own documentation.

Own text, so that the license is ours and the embedded corpus, docstrings of other packages, does
not hold it. Read from one commit, so that every call makes the same files:

    .venv/bin/python tools/benchmark_tasks.py [DIRECTORY]   (default: data/benchmarks)
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

SOURCE_COMMIT = "18b79f71e48f88df6b426340503bb5f7505b2f0a"
_FOLDERS = ("tokenmill", "components", "serving", "pipeline", "data")
_FEWEST_WORDS, _MOST_WORDS = 18, 120
_CLOZE, _CONTINUATION = 200, 150
"""Items of a task; what is left of the passages is the third's."""
_CHOICES, _CHOICE_WORDS = 4, 10
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
# What a passage of prose does not hold: tables, code, addresses.
_NOT_PROSE = re.compile(r"[|{}\[\]<>=\\#]|://|::|--")


def passages() -> dict[str, list[str]]:
    """Collect passages of prose by the file that they stand in, each once."""
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for path in _git("ls-tree", "-r", "--name-only", SOURCE_COMMIT).splitlines():
        folder, _, name = path.partition("/")
        if path.endswith(".md") and path != "CHANGELOG.md":
            texts = _paragraphs(_git("show", f"{SOURCE_COMMIT}:{path}"))
        elif name.endswith(".py") and folder in _FOLDERS:
            texts = _of_docstrings(_git("show", f"{SOURCE_COMMIT}:{path}"))
        else:
            continue
        for text in texts:
            prose = " ".join(_LINK.sub(r"\1", text).replace("`", "").replace("**", "").split())
            prose = prose.removeprefix("- ")
            words = len(prose.split(" "))
            fits = _FEWEST_WORDS <= words <= _MOST_WORDS and prose[-1] in ".!?"
            if fits and not _NOT_PROSE.search(prose) and prose not in seen:
                seen.add(prose)
                found.setdefault(path, []).append(prose)
    return found


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout


def _paragraphs(text: str) -> Iterator[str]:
    outside_code = re.split(r"^```.*?^```\s*$", text, flags=re.MULTILINE | re.DOTALL)
    for part in outside_code:
        yield from re.split(r"\n\s*\n|\n(?=- )", part)


def _of_docstrings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            # What follows "Args:" and the like is indented.
            for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring or "")):
                if paragraph and not re.search(r"^\w+:$|^ ", paragraph, re.MULTILINE):
                    yield paragraph


def write_tasks(directory: Path) -> dict[str, int]:
    """Write the texts of the three tasks; return the number of items by task."""
    # A passage is in one task only (but ten words of one may be a wrong choice elsewhere). By its
    # hash: neighbors of a file are not neighbors here.
    ordered = sorted(
        ((path, text) for path, texts in passages().items() for text in texts),
        key=lambda item: hashlib.sha256(item[1].encode()).hexdigest(),
    )
    cloze, rest = _take(ordered, _CLOZE, lambda _, text: _cloze(text))
    halves = {text: _halves(text) for _, text in rest}
    continuation, rest = _take(
        rest, _CONTINUATION, lambda path, text: _continuation(path, text, halves, rest)
    )
    items = {
        "cloze": cloze,
        "continuation": continuation,
        "bits_per_byte": [{"text": text} for _, text in rest],
    }
    for name, rows in items.items():
        lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows]
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return {name: len(rows) for name, rows in items.items()}


def _take(
    ordered: list[tuple[str, str]], count: int, make: Callable[[str, str], dict[str, Any] | None]
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Make items of the first passages that one can be made of; return them and the others."""
    items: list[dict[str, Any]] = []
    left = []
    for path, text in ordered:
        item = make(path, text) if len(items) < count else None
        if item is None:
            left.append((path, text))
        else:
            items.append(item)
    return items, left


def _cloze(text: str) -> dict[str, Any] | None:
    """Cut a passage before its last long word that it has used before (as most of LAMBADA's are).

    So the word can be known from what stands before it, by whoever reads all of it.
    """
    words = text.split(" ")
    bare = [re.sub(r"\W+$", "", word) for word in words]
    for place in range(len(words) - 1, _FEWEST_WORDS - 5, -1):
        if re.fullmatch(r"[a-z]{5,}", bare[place]) and bare[place] in bare[:place]:
            return {"context": " ".join(words[:place]), "word": bare[place]}
    return None


def _halves(text: str) -> tuple[str, str] | None:
    """Cut a passage in the middle; the second part has as many words in every passage."""
    words = text.split(" ")
    middle = len(words) // 2
    if len(words) - middle < _CHOICE_WORDS:
        return None
    return " ".join(words[:middle]), " ".join(words[middle : middle + _CHOICE_WORDS])


def _continuation(
    path: str,
    text: str,
    halves: dict[str, tuple[str, str] | None],
    pool: list[tuple[str, str]],
) -> dict[str, Any] | None:
    """Put the true second half of a passage among those of passages from other files."""
    if (own := halves[text]) is None:
        return None
    random = Random(text)
    others = [cut[1] for other, each in pool if other != path and (cut := halves[each])]
    choices = [own[1], *random.sample(others, _CHOICES - 1)]
    random.shuffle(choices)
    return {"context": own[0], "choices": choices, "answer": choices.index(own[1])}


def main() -> None:
    """Write the texts, and print how many items there are and what chance scores."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "data" / "benchmarks"
    print(write_tasks(directory))
    lines = (directory / "cloze.jsonl").read_text(encoding="utf-8").splitlines()
    (word, count), *_ = Counter(json.loads(line)["word"] for line in lines).most_common(1)
    print(f"cloze: always {word!r} scores {count / len(lines):g}")


if __name__ == "__main__":
    main()
