"""Gathers clean text in twelve languages and English from Debian's documentation packages.

    python benchmarks/languages/sources.py WORK_DIR [--courses DIR]

Downloads the packages with apt-get (or takes them from WORK_DIR/debs), unpacks them into
WORK_DIR/docs, reads the pages with tokenmill's own extractor and writes WORK_DIR/pool.jsonl: id,
language, source, text. No documentation package has Hindi or Thai, and little is in Arabic: for
these three `--courses` names a directory with bare clones of COURSES, whose Markdown was translated
by machine.

A page is cut into documents of 1 to 5 kB at its blank lines. Program listings and tables are left
out; so is a paragraph that another page of the language has, that was left in English, or that says
that the page was translated by machine.
"""

import argparse
import glob
import hashlib
import itertools
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator

from components.ingest.formats.extraction_process import extract_page

LANGUAGES = ("en", "de", "fr", "es", "pt", "ru", "el", "ar", "hi", "ja", "zh", "ko", "th")

PACKAGES = (
    *(f"debian-faq{s}" for s in ("", "-de", "-fr", "-ja", "-ko", "-pt", "-ru", "-zh-cn")),
    *(f"debian-reference-{s}" for s in ("de", "en", "es", "fr", "ja", "pt", "zh-cn")),
    *(
        f"libreoffice-help-{s}"
        for s in ("de", "el", "en-us", "es", "fr", "ja", "ko", "pt", "ru", "zh-cn")
    ),
    "debian-handbook",
    "installation-guide-amd64",
)  # fmt: skip

COURSES = ("microsoft/Security-101", "microsoft/edgeai-for-beginners")
"""Licenses: CC0-1.0 and MIT."""
DISCLAIMER = "Co-op Translator"

# Names of a language in the packages: LibreOffice's directory, the handbook's, the others'.
_NAMES = {
    "en": ("en-US", "en-US", "en"),
    "de": ("de", "de-DE", "de"),
    "fr": ("fr", "fr-FR", "fr"),
    "es": ("es", "es-ES", "es"),
    "pt": ("pt", "", "pt"),
    "ru": ("ru", "ru-RU", "ru"),
    "el": ("el", "", "el"),
    "ar": ("", "ar-MA", "ar"),
    "ja": ("ja", "ja-JP", "ja"),
    "zh": ("zh-CN", "zh-CN", "zh_CN"),
    "ko": ("ko", "", "ko"),
}

# Ranges of characters of the scripts that tell a language from English.
SCRIPTS = {
    "ru": "\u0400-\u04ff",
    "el": "\u0370-\u03ff\u1f00-\u1fff",
    "ar": "\u0600-\u06ff",
    "hi": "\u0900-\u097f",
    "ja": "\u3040-\u30ff\u4e00-\u9fff",
    "zh": "\u4e00-\u9fff",
    "ko": "\uac00-\ud7af",
    "th": "\u0e00-\u0e7f",
}
_ENGLISH = frozenset(("the", "of", "and", "to", "is", "for", "that", "this", "with", "are", "you"))

_MIN_BYTES, _MAX_BYTES = 1_000, 5_000
_LISTING = re.compile(rb"<(pre|table|script|style)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
_BLANK_LINES = re.compile(r"\n\s*\n")


def download(work: str) -> str:
    """Download and unpack the packages; return the directory of their /usr/share."""
    debs, docs = os.path.join(work, "debs"), os.path.join(work, "docs")
    os.makedirs(debs, exist_ok=True)
    have = {os.path.basename(path).split("_")[0] for path in glob.glob(f"{debs}/*.deb")}
    if missing := [name for name in PACKAGES if name not in have]:
        subprocess.run(["apt-get", "download", "-qq", *missing], cwd=debs, check=True)
    for path in sorted(glob.glob(f"{debs}/*.deb")):
        subprocess.run(["dpkg-deb", "-x", path, docs], check=True)
    return os.path.join(docs, "usr", "share")


def html_pages(share: str, language: str) -> Iterator[tuple[str, str]]:
    """Yield (source, text) of each page of the documentation packages in a language."""
    if language not in _NAMES:
        return
    office, handbook, other = _NAMES[language]
    tag = other.replace("_", "-").lower()
    patterns = {
        "debian-handbook": f"doc/debian-handbook/html/{handbook or '-'}/*.html",
        "installation-guide": f"doc/installation-guide-amd64/{other}/*.html",
        "debian-reference": f"doc/debian-reference-{tag}/docs/*.{tag}.html",
        "debian-faq": f"doc/debian/FAQ/**/*.{tag}.html",
        "libreoffice-help": f"libreoffice/help/{office or '-'}/text/**/*.html",
    }
    for source, pattern in patterns.items():
        for path in sorted(glob.glob(os.path.join(share, pattern), recursive=True)):
            with open(path, "rb") as page:
                yield source, extract_page(_LISTING.sub(b"", page.read()), "utf-8").text


def course_pages(courses: str, language: str) -> Iterator[tuple[str, str]]:
    """Yield (source, text) of each Markdown page of the courses in a language, as plain text."""
    for name in COURSES:
        git = ["git", f"--git-dir={courses}/{name.replace('/', '+')}/repo"]
        folder = f"translations/{language}/"
        listed = subprocess.run(
            [*git, "ls-tree", "-r", "--name-only", "HEAD", folder], check=True, capture_output=True
        )
        for path in listed.stdout.decode().splitlines():
            if path.endswith(".md") and not path.endswith(("AGENTS.md", "CHANGELOG.md")):
                page = subprocess.run(
                    [*git, "show", f"HEAD:{path}"], check=True, capture_output=True
                )
                yield name, plain_text(page.stdout.decode())


_MARKUP = (
    (re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE), ""),
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"^\s*\|.*$", re.MULTILINE), ""),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"<[^>\n]+>"), ""),
    (re.compile(r"^#+ *|^> ?|\*\*|`", re.MULTILINE), ""),
)


def plain_text(markdown: str) -> str:
    """Remove the marks of Markdown, listings, tables and pictures."""
    for pattern, replacement in _MARKUP:
        markdown = pattern.sub(replacement, markdown)
    return markdown


def is_in(text: str, language: str) -> bool:
    """Say whether a paragraph is in its language, by its script or by English function words."""
    if script := SCRIPTS.get(language):
        letters = sum(map(str.isalpha, text))
        return len(re.findall(f"[{script}]", text)) >= max(1, 0.5 * letters)
    words = text.lower().split()
    return language == "en" or sum(word in _ENGLISH for word in words) <= 0.1 * len(words)


def documents(pages: Iterable[tuple[str, str]], language: str) -> Iterator[dict[str, str]]:
    """Cut pages into documents; their size is drawn by the hash of their first paragraph."""
    seen: set[str] = set()
    number = 0
    for source, text in pages:
        part: list[str] = []
        size = wanted = 0
        for paragraph in _BLANK_LINES.split(text):
            paragraph = paragraph.strip()
            key = " ".join(paragraph.lower().split())
            if not key or key in seen or DISCLAIMER in paragraph or not is_in(paragraph, language):
                continue
            seen.add(key)
            if not part:
                wanted = _drawn_size(paragraph)
            part.append(paragraph)
            size += len(paragraph.encode()) + 2
            if size >= wanted:
                yield _document(language, number, source, part)
                number, part, size = number + 1, [], 0
        if size >= _MIN_BYTES:
            yield _document(language, number, source, part)
            number += 1


def _drawn_size(paragraph: str) -> int:
    drawn = int.from_bytes(hashlib.blake2b(paragraph.encode(), digest_size=4).digest(), "big")
    return _MIN_BYTES + drawn % (_MAX_BYTES - _MIN_BYTES)


def _document(language: str, number: int, source: str, part: list[str]) -> dict[str, str]:
    return {
        "id": f"{language}/{number}",
        "language": language,
        "source": source,
        "text": "\n\n".join(part),
    }


def read_pool(path: str) -> dict[str, list[dict[str, str]]]:
    """Read pool.jsonl: the documents by language."""
    pool: dict[str, list[dict[str, str]]] = {language: [] for language in LANGUAGES}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)
            pool[document["language"]].append(document)
    return pool


def main() -> None:
    """Write the pool and print what it holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work")
    parser.add_argument("--courses", help="directory of OWNER+NAME/repo bare clones")
    arguments = parser.parse_args()
    share = download(arguments.work)
    with open(os.path.join(arguments.work, "pool.jsonl"), "w", encoding="utf-8") as out:
        for language in LANGUAGES:
            totals: dict[str, list[int]] = {}
            pages = html_pages(share, language)
            if arguments.courses and language in ("ar", "hi", "th"):
                pages = itertools.chain(pages, course_pages(arguments.courses, language))
            for document in documents(pages, language):
                out.write(json.dumps(document, ensure_ascii=False) + "\n")
                total = totals.setdefault(document["source"], [0, 0])
                total[0] += 1
                total[1] += len(document["text"].encode())
            for source, (count, size) in totals.items():
                print(f"{language} {source}: {count:,} documents, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
