"""The pages made for the site: nothing of the code is missing, links lead where they did."""

import importlib
import json
import re
import sys
from pathlib import Path

import click
import pytest

from pipeline.cli import cli
from pipeline.config import Config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tools():
    sys.path.insert(0, str(ROOT))
    yield {
        name: importlib.import_module(f"tools.site_{name}")
        for name in ("pages", "reference", "errors")
    }
    sys.path.remove(str(ROOT))


def test_every_key_has_a_row_with_its_default(tools):
    text = tools["reference"].configuration_page()
    sections = re.split(r"^## \[(.*)\]$", text, flags=re.MULTILINE)
    pages = dict(zip(sections[1::2], sections[2::2], strict=True))
    for section, values in Config().model_dump(mode="json", by_alias=True).items():
        rows = re.findall(r"^\| `(\w+)` \| ", pages[section], re.MULTILINE)
        assert rows == list(values), section
    assert "| `max_usd` | number ≥ `0` | not set | Most that training may cost, USD of" in text
    assert '`on_overrun` | `"warn"`, `"stop"` | `"warn"` |' in text
    assert "Documents below it are dropped (reason too_few_words). Rule sets: web 50" in text


def test_every_key_says_what_it_is(tools):
    text = tools["reference"].configuration_page()
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    assert len(rows) > 200
    assert not [key for key, meaning in rows if len(meaning.split()) < 2]


def leaves(command, path):
    if not isinstance(command, click.Group):
        yield path
        return
    for name, inner in command.commands.items():
        yield from leaves(inner, f"{path} {name}")


def test_every_command_has_its_help(tools):
    text = tools["reference"].commands_page()
    assert not [path for path in leaves(cli, "tokenmill") if f"\n## {path}\n" not in text]
    assert "Usage: tokenmill gc [OPTIONS]" in text
    assert text.count("```text\n") == text.count("Usage: tokenmill")


def test_messages_are_those_that_a_user_sees(tools):
    found = {(message.text, message.hint) for message in tools["errors"].messages()}
    assert ("there is no preset {preset}.", "Presets: {..}.") in found
    assert len(found) > 200
    assert not [text for text, _ in found if not re.search("[a-z]", re.sub("{.*?}", "", text))]


def test_links_are_moved_to_the_pages_of_the_site(tools):
    known = frozenset({"README.md", "docs/cost.md", "docs/training.md", "benchmarks/gpu/a.md"})

    def moved(text, path):
        return tools["pages"].move_links(text, path, known)

    assert moved("[c](docs/cost.md#a)", "README.md") == "[c](cost.md#a)"
    assert moved("[r](../README.md)", "docs/cost.md") == "[r](index.md)"
    assert moved("[a](../benchmarks/gpu/a.md)", "docs/cost.md") == "[a](benchmarks/gpu/a.md)"
    assert moved("[c](../../docs/cost.md)", "benchmarks/gpu/a.md") == "[c](../../cost.md)"
    assert moved("see docs/training.md.", "docs/cost.md") == "see [training.md](training.md)."
    assert moved("[dag](pipeline/dag.py)", "README.md") == "dag (`pipeline/dag.py`)"
    for same in (
        "[a](#b)",
        "[n](nowhere.md)",
        "[h](https://a.b/c)",
        "`docs/cost.md`",
        "```\n[c](docs/cost.md)\n```",
    ):
        assert moved(same, "README.md") == same


def test_the_notebook_is_a_page(tools):
    path = ROOT / "notebooks" / "a_run.ipynb"
    text = tools["pages"].notebook_page(path)
    assert text.startswith("# Look into a run\n")
    assert '```python\nRUN = "../runs/demo"' in text
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert text.count("```python\n") == sum(cell["cell_type"] == "code" for cell in cells) > 5
