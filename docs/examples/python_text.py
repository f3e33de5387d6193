"""Writes the text of the guides: a table of texts that every Python has.

    python3 python_text.py manual    # manual.csv: Python's language reference, some 450 kB
    python3 python_text.py library   # library.csv: docstrings of the standard library, some 600 kB

Columns: id, source (the chapter or module), text.
"""

import ast
import csv
import pathlib
import sys
from collections.abc import Iterator
from pydoc_data.topics import topics


def manual() -> Iterator[tuple[str, str, str]]:
    """Yield the language reference in sections of 600 characters and more."""
    for chapter, text in sorted(topics.items()):
        section, number = "", 0
        for paragraph in text.split("\n\n"):
            section += paragraph + "\n\n"
            if len(section) > 600:
                yield f"{chapter}-{number}", chapter, section.strip()
                section, number = "", number + 1


def library() -> Iterator[tuple[str, str, str]]:
    """Yield the docstrings of 300 characters and more of the library's modules, without tests."""
    directory = pathlib.Path(ast.__file__).parent
    for path in sorted(directory.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                if len(text) > 300:
                    name = getattr(node, "name", "module")
                    line = getattr(node, "lineno", 0)
                    yield f"{path.stem}.{name}-{line}", path.stem, text


def main() -> None:
    """Run the command."""
    texts = {"manual": manual, "library": library}
    if len(sys.argv) != 2 or sys.argv[1] not in texts:
        sys.exit(__doc__)
    with open(f"{sys.argv[1]}.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "source", "text"])
        table.writerows(texts[sys.argv[1]]())


if __name__ == "__main__":
    main()
