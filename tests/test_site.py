"""`make docs`: the site has every page, shows what GitHub shows, and fetches nothing."""

import json
import pathlib
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import yaml
from markdown_it import MarkdownIt

ROOT = pathlib.Path(__file__).resolve().parents[1]
SITE = ROOT / "build" / "site"
PAGES = ROOT / "build" / "site-pages"
MAKE = ["make", "-o", "setup", "docs", f"BIN={pathlib.Path(sys.executable).parent}"]
pytestmark = pytest.mark.slow  # an environment of its own takes the package index
# What a browser fetches as it shows a page, by element. A link is followed by the reader alone.
FETCHED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "link": "href"}
COUNTED = ("table", "tr", "td", "pre", "li", "blockquote", "img", "h1", "h2", "h3")


class Page(HTMLParser):
    """Counts the elements of a page's article and gathers what it fetches."""

    def __init__(self, html):
        super().__init__()
        self.counts, self.fetched, self.inside = dict.fromkeys(COUNTED, 0), [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.inside |= tag == "article"
        if self.inside and tag in self.counts:
            self.counts[tag] += 1
        if FETCHED.get(tag) in attributes and attributes.get("rel") not in ("canonical", "next"):
            self.fetched.append(attributes[FETCHED[tag]])

    def handle_endtag(self, tag):
        self.inside &= tag != "article"


@pytest.fixture(scope="module")
def site():
    """Build it; strict: a warning is an error."""
    done = subprocess.run(MAKE, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.relative_to(SITE).as_posix(): path for path in SITE.rglob("*.html")}


def test_every_page_is_there_and_in_the_navigation(site):
    text = re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w/]+\.md", json.dumps(yaml.safe_load(text)["nav"])))
    pages = {path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.md")}
    assert {name.replace(".md", ".html") for name in pages} | {"404.html"} == set(site)
    docs = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert docs <= listed <= pages


def test_nothing_is_fetched_from_elsewhere(site):
    elsewhere = {}
    for name, path in site.items():
        for address in Page(path.read_text(encoding="utf-8")).fetched:
            if re.match("[a-z]+:", address) and not address.startswith("data:"):
                elsewhere[name] = address
    for path in SITE.rglob("*.css"):
        for address in re.findall(r"url\(.?(https?:[^)]*)", path.read_text(encoding="utf-8")):
            elsewhere[path.name] = address
    assert not elsewhere


def test_pages_have_the_tables_lists_and_blocks_that_they_have_on_github(site):
    """Markdown is not read the same by all: a list that follows a line is none to the site."""
    different = {}
    for name, path in site.items():
        source = PAGES / name.replace(".html", ".md")
        if name == "404.html" or name.startswith("reference/library"):
            continue
        shown = Page(path.read_text(encoding="utf-8")).counts
        text = MarkdownIt("commonmark").enable("table").render(source.read_text(encoding="utf-8"))
        expected = Page(f"<article>{text}</article>").counts
        if shown != expected:
            different[name] = {
                k: (shown[k], expected[k]) for k in COUNTED if shown[k] != expected[k]
            }
    assert not different


def test_the_search_knows_keys_commands_and_functions(site):
    index = json.loads((SITE / "search" / "search_index.json").read_text(encoding="utf-8"))
    texts = {document["location"]: document["text"] for document in index["docs"]}
    for location, words in {
        "reference/configuration.html#budget": "max_usd",
        "reference/commands.html#tokenmill-gc": "--keep-versions",
        "reference/library/tokenmill.html#tokenmill.errors.TokenmillError": "stack trace",
        "sign_off.html": "budget",
    }.items():
        assert any(words in text for at, text in texts.items() if at.startswith(location)), location


@pytest.mark.parametrize("link", ["[x](nowhere.md)", "[x](cost.md#nowhere)", "[x](nowhere.png)"])
def test_a_link_to_nowhere_fails(site, tmp_path, link):
    """By the Makefile's own command: with --quiet, --strict counts no warning."""
    dry = subprocess.run([*MAKE, "-n"], cwd=ROOT, capture_output=True, text=True, check=True)
    (command,) = [line for line in dry.stdout.splitlines() if "mkdocs build" in line]
    page = PAGES / "scale.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(f"{text}\n{link}\n", encoding="utf-8")
    try:
        done = subprocess.run(
            f"{command} --site-dir {tmp_path}",
            cwd=ROOT, shell=True, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        page.write_text(text, encoding="utf-8")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
