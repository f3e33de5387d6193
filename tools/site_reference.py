"""Makes the site's reference pages from the code: configuration, commands, the library.

Nothing in them is written by hand: keys and their docstrings are of the models of the
configuration, commands of click, and the library's pages name modules for mkdocstrings to read.
"""

import ast
import inspect
import json
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import click
from click.testing import CliRunner
from pydantic import BaseModel

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from components.curate.config import CurateConfig  # noqa: E402
from components.curate.quality.config import QualityConfig  # noqa: E402
from components.curate.rules import LINE_RULES, RULES  # noqa: E402
from pipeline.cli import cli  # noqa: E402
from pipeline.config import Config, StepResources  # noqa: E402
from tools.site_errors import errors_page  # noqa: E402

SIGNS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "minLength": "length ≥",
    "pattern": "matching",
}


def reference_pages() -> dict[str, str]:
    """Make the texts of all generated pages, by their paths on the site."""
    pages = {
        "reference/configuration.md": configuration_page(),
        "reference/commands.md": commands_page(),
        "reference/json.md": json_page(),
        "reference/errors.md": errors_page(),
    }
    return {**pages, **dict(library_pages())}


def configuration_page() -> str:
    """List every key of the configuration: type, default and docstring, a table a section."""
    lines = [
        "# Configuration",
        "",
        "A key is set in a TOML file, `[section]` and `key = value`, or by "
        "`--set section.key=value`. `tokenmill run` starts from a preset, whose values are not "
        "these defaults.",
    ]
    fields = Config.model_fields
    sections = {fields[name].alias or name: type(value) for name, value in Config()}
    sections["curate.quality"] = QualityConfig
    sections["engine.resources.STEP"] = StepResources
    for name, model in sections.items():
        lines += ["", f"## [{name}]", "", *_section(model)]
    return "\n".join(lines) + "\n"


def _section(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema(by_alias=True)
    defaults = model().model_dump(mode="json", by_alias=True)
    meanings = docstrings_of_fields(model)
    if model is CurateConfig:
        meanings |= meanings_of_thresholds()
    yield linked(schema.get("description", ""))
    yield ""
    yield "| key | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for key, part in schema["properties"].items():
        default = defaults[key]
        shown = "not set" if default is None else f"`{json.dumps(default, ensure_ascii=False)}`"
        kind = type_words(part, schema.get("$defs", {}))
        if isinstance(getattr(model(), key, None), BaseModel):
            shown, kind = "see there", "section"
        cells = (f"`{key}`", kind, shown, linked(meanings.get(key, "")))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def meanings_of_thresholds() -> dict[str, str]:
    """Say for each key of a quality rule what it drops, for what reason, and in which rule sets."""
    found = {}
    for what, rules in (("documents", RULES), ("lines", LINE_RULES)):
        for rule in rules:
            sets = ", ".join(f"{name} {value:g}" for name, value in rule.thresholds.items())
            found[rule.setting] = (
                f"{what.capitalize()} {rule.drop_if} it are dropped (reason {rule.reason}). "
                f"Rule sets: {sets or 'none'}. {rule.source}."
            )
    return found


def docstrings_of_fields(model: type[BaseModel]) -> dict[str, str]:
    """Read the string below each field of a model, from its source."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


def _definition(part: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """Return what a part of a JSON schema refers to, or itself."""
    return parts[part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part


def type_words(part: dict[str, Any], parts: dict[str, Any]) -> str:
    """Say which values a key takes, from its JSON schema; a key that may be unset says no null."""
    part = _definition(part, parts)
    if "anyOf" in part:
        kinds = [each for each in part["anyOf"] if each.get("type") != "null"]
        return " or ".join(type_words(each, parts) for each in kinds)
    if "enum" in part or "const" in part:
        values = part.get("enum", [part.get("const")])
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    kind = part.get("type", "any")
    if kind == "array":
        inner = part.get("items") or {}
        return f"list of {type_words(inner, parts)}" if inner else "list"
    if kind == "object":
        inner = part.get("additionalProperties")
        return f"table of {type_words(inner, parts)}" if isinstance(inner, dict) else "table"
    limits = [f"{sign} `{part[name]}`" for name, sign in SIGNS.items() if name in part]
    return " ".join([kind, ", ".join(limits)]).strip()


def linked(text: str) -> str:
    """Turn the names of pages of docs/ into links from reference/, and escape what is no HTML."""
    text = " ".join(text.split()).replace("<", "&lt;")
    return re.sub(r"\bdocs/(\w+\.md)", r"[\1](../\1)", text)


def commands(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    """Yield each command's path and what `--help` prints, in a terminal as wide as a page."""
    name, *arguments = path.split()
    arguments = [*arguments, "--help"]
    yield path, CliRunner().invoke(cli, arguments, prog_name=name, terminal_width=84).output
    if isinstance(command, click.Group):
        for inner in sorted(command.commands):
            yield from commands(command.commands[inner], f"{path} {inner}")


def commands_page() -> str:
    """Show the help of every command."""
    lines = ["# Commands", "", "What `--help` prints of each."]
    for path, text in commands(cli, "tokenmill"):
        lines += ["", f"## {path}", "", "```text", text.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def json_page() -> str:
    """List the documents of the contracts, each with where its schema is."""
    lines = [
        "# JSON",
        "",
        "Every JSON file that one step leaves for another, or a run for you, has a schema. "
        "[The ledger](../ledger.md#ledgerjson) and [the cost report](../ledger.md#cost_reportjson) "
        "are explained key by key. Schemas: [ledger.json](../ledger.schema.json), "
        "[cost_report.json](../cost_report.schema.json) and "
        "[all others](../contracts.schema.json), a document's at `#/$defs/` with its name:",
        "",
        "| document | what it is |",
        "| --- | --- |",
    ]
    # Loaded late: the models of the contracts import much.
    from tools.contract_docs import contract_models

    for model in contract_models():
        words = (model.__doc__ or "").split("\n\n")[0]
        lines.append(f"| `{model.__name__}` | {linked(words).replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def library_pages() -> Iterator[tuple[str, str]]:
    """Yield a page for each package of the library, its modules read by mkdocstrings."""
    folder = ROOT / "tokenmill"
    packages = sorted({path.parent for path in folder.rglob("*.py")})
    contents = ["# Library", "", "`import tokenmill` needs no TFX. By package:", ""]
    for package in packages:
        modules = sorted(path for path in package.glob("*.py") if path.stem != "__init__")
        dotted = ".".join(package.relative_to(ROOT).parts)
        lines = [f"# {dotted}", ""]
        for module in modules:
            name = f"{dotted}.{module.stem}"
            lines += [f"::: {name}", ""]
        if not modules:
            continue
        yield f"reference/library/{dotted}.md", "\n".join(lines)
        contents.append(f"- [{dotted}](library/{dotted}.md): {len(modules)} modules")
    yield "reference/library.md", "\n".join(contents) + "\n"
