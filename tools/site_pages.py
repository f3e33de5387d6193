"""Gathers the pages of the site: docs, the pages beside them, and the reference from the code.

    python tools/site_pages.py DIRECTORY

`make docs` gives them to MkDocs (mkdocs.yml), which knows no file outside its directory: a link is
changed to where its page is on the site, and a link to code is left as its text.
"""

import json
import os
import pathlib
import re
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.site_reference import reference_pages  # noqa: E402

# Where a page beside docs/ is on the site. MkDocs takes a README for a directory's index.
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "measurements.md",
}
ASSETS = ROOT / "tools" / "site_assets"
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(
    r"(?P<text>\[[^\[\]]*\])\((?P<target>[^()\s]+)\)"
    r"|`[^`]*`"  # code stays as it is
    r"|\bdocs/(?P<page>(?:\w+/)*\w+\.md)\b"  # a page that is named only
)


def site_path(path: str) -> str:
    """Return where a file of the repository is on the site, if it is there at all."""
    return BESIDE.get(path, path.removeprefix("docs/"))


def sources() -> dict[str, pathlib.Path]:
    """Find the repository's files that the site shows, by their path in the repository."""
    found = [path for path in (ROOT / "docs").rglob("*") if path.is_file()]
    found += [*(ROOT / "benchmarks").glob("*/*.md"), *(ROOT / name for name in BESIDE)]
    return {path.relative_to(ROOT).as_posix(): path for path in sorted(found)}


def move_links(text: str, path: str, known: frozenset[str]) -> str:
    """Change the relative links of a page to the site's paths, and link the pages that it names.

    Args:
        text: Markdown.
        path: The page's path in the repository.
        known: Paths in the repository of all files that the site shows.
    """
    here, there = os.path.dirname(path), os.path.dirname(site_path(path))

    def move(link: re.Match[str]) -> str:
        if link["page"] and f"docs/{link['page']}" in known:
            moved = os.path.relpath(link["page"], there or ".")
            return f"[{os.path.basename(moved)}]({moved})"
        target, hash_sign, anchor = (link["target"] or "").partition("#")
        if "://" in target or not target:
            return link[0]
        name = os.path.normpath(os.path.join(here, target))
        if name in known:
            moved = os.path.relpath(site_path(name), there or ".")
            return f"{link['text']}({moved}{hash_sign}{anchor})"
        if not (ROOT / name).exists():
            return link[0]  # MkDocs says so, and fails
        words = link["text"][1:-1]
        return f"`{name}`" if words in (name, target) else f"{words} (`{name}`)"

    pieces, end = [], 0
    for fence in FENCE.finditer(text):
        pieces += [LINK.sub(move, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, LINK.sub(move, text[end:])])


def notebook_page(path: pathlib.Path) -> str:
    """Write a notebook as a page: its text, and its code in blocks; it holds no outputs."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join(parts) + f"\n\nThe notebook: `{path.relative_to(ROOT)}`.\n"


def write_pages(directory: pathlib.Path) -> None:
    """Write all pages and what they show into a directory, which is made anew."""
    shutil.rmtree(directory, ignore_errors=True)
    known = sources()
    for path, file in known.items():
        target = directory / site_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            text = move_links(file.read_text(encoding="utf-8"), path, frozenset(known))
            target.write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(file, target)
    shutil.copytree(ASSETS, directory / "assets")
    notebook = notebook_page(ROOT / "notebooks" / "a_run.ipynb")
    for name, text in {**reference_pages(), "notebook.md": notebook}.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the command."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write_pages(pathlib.Path(sys.argv[1]))


if __name__ == "__main__":
    main()
