"""Text of HTML pages by several extractors, beside the same text as its authors wrote it.

    uv venv PEERS
    uv pip install --python PEERS/bin/python resiliparse trafilatura kreuzberg justext
    for p in debian-faq{,-de,-fr,-ru,-ja,-zh-cn} debian-reference-{de,ja,zh-cn} debian-policy; do
      apt-get download $p && dpkg-deb -x ${p}_*.deb DOCS; done
    PYTHONPATH=. PEERS/bin/python benchmarks/extraction/html_quality.py DOCS

The packages hold each manual as HTML pages, with navigation around them, and as one plain text.
What an extractor gives for all pages of a manual is compared with that text as multisets of words
(characters of scripts without blanks): recall is what it kept, precision what is no navigation.
Navigation is what stands on each page; the text has it once or not at all. Prints a line for each
extractor and manual, then a mean; speed is bytes of HTML a CPU second, of one thread.
"""

import collections
import glob
import gzip
import os
import re
import sys
import time
from collections.abc import Callable

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")


def manuals(root: str) -> dict[str, tuple[list[str], str]]:
    """Return by name the pages of each manual, in order of their names, and its plain text."""
    docs = os.path.join(root, "usr", "share", "doc")
    found = {}
    faq = os.path.join(docs, "debian", "FAQ")
    for code in ("en", "de", "fr", "ru", "ja", "zh-cn"):
        pages = glob.glob(f"{faq}/*.{code}.html") + glob.glob(f"{faq}/{code}/*.{code}.html")
        found[f"faq {code}"] = (pages, f"{faq}/debian-faq.{code}.txt.gz")
    for code in ("de", "ja", "zh-cn"):
        home = os.path.join(docs, f"debian-reference-{code}", "docs")
        pages = glob.glob(f"{home}/*.{code}.html")
        found[f"reference {code}"] = (pages, f"{home}/debian-reference.{code}.txt.gz")
    home = os.path.join(docs, "debian-policy")
    found["policy en"] = (glob.glob(f"{home}/policy.html/ch-*.html"), f"{home}/policy.txt.gz")
    return {
        name: (sorted(pages), text)
        for name, (pages, text) in found.items()
        if pages and os.path.exists(text)
    }


def words(text: str) -> collections.Counter[str]:
    """Count the words of a text, in lower case."""
    return collections.Counter(WORD.findall(text.lower()))


def extractors() -> dict[str, Callable[[bytes], str]]:
    """Return the extractors by name; each takes a page as UTF-8."""
    import justext
    import kreuzberg
    import trafilatura
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    from components.ingest.formats.extraction_process import extract_page

    config = kreuzberg.ExtractionConfig(use_cache=False)
    stop_words = frozenset().union(*map(justext.get_stoplist, ("English", "German", "French")))

    def resiliparse(main_content: bool) -> Callable[[bytes], str]:
        return lambda page: extract_plain_text(
            HTMLTree.parse_from_bytes(page, "utf-8"), main_content=main_content, alt_texts=False
        )

    def just(page: bytes) -> str:
        found = justext.justext(page, stop_words)
        return "\n".join(p.text for p in found if not p.is_boilerplate)

    return {
        "tokenmill": lambda page: extract_page(page, "utf-8").text,
        "resiliparse, all text": resiliparse(False),
        "resiliparse, main content": resiliparse(True),
        "trafilatura": lambda page: trafilatura.extract(page.decode()) or "",
        "trafilatura, recall": lambda page: (
            trafilatura.extract(page.decode(), favor_recall=True) or ""
        ),
        "trafilatura, fast": lambda page: trafilatura.extract(page.decode(), fast=True) or "",
        "justext": just,
        "kreuzberg": lambda page: kreuzberg.extract_bytes_sync(page, "text/html", config).content,
    }


def main() -> None:
    """Print recall, precision and speed of each extractor."""
    for name, extract in extractors().items():
        scores = []
        size = seconds = 0.0
        for manual, (pages, text_path) in manuals(sys.argv[1]).items():
            with gzip.open(text_path) as file:
                wanted = words(file.read().decode())
            contents = []
            for page in pages:
                with open(page, "rb") as file:
                    contents.append(file.read())
            started = time.process_time()
            texts = [extract(content) for content in contents]
            seconds += time.process_time() - started
            size += sum(map(len, contents))
            got = words("\n".join(texts))
            common = sum((wanted & got).values())
            recall, precision = common / sum(wanted.values()), common / max(1, sum(got.values()))
            f1 = 2 * recall * precision / max(1e-9, recall + precision)
            scores.append((recall, precision, f1))
            shown = f"recall {recall:.3f}  precision {precision:.3f}  F1 {f1:.3f}"
            print(f"  {name:26s} {manual:16s} {shown}")
        means = [sum(column) / len(scores) for column in zip(*scores, strict=True)]
        print(
            f"{name:28s} recall {means[0]:.3f}  precision {means[1]:.3f}  F1 {means[2]:.3f}  "
            f"{size / 1e6 / seconds:.2f} MB/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
