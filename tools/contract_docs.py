"""Documents made from the models of tokenmill/contracts: docs/ledger.md, docs/*.schema.json.

Usage: python tools/contract_docs.py [DIRECTORY]   (default: docs)
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pydantic.json_schema import models_json_schema  # noqa: E402

from components.train.distributed.rendezvous import Rendezvous  # noqa: E402
from tokenmill import contracts  # noqa: E402
from tokenmill.contracts.base import Document  # noqa: E402
from tokenmill.contracts.cost_report import CostReport  # noqa: E402
from tokenmill.contracts.ledger import Ledger  # noqa: E402

# What stands above it in docs/ledger.md is written by hand.
MARKER = "<!-- from here on written by tools/contract_docs.py -->"
SCHEMAS = {
    "ledger.schema.json": Ledger,
    "cost_report.schema.json": CostReport,
}


def documents() -> dict[str, str]:
    """Make the files' texts by name."""
    schemas = {name: model.model_json_schema(by_alias=True) for name, model in SCHEMAS.items()}
    others = [(model, "validation") for model in contract_models() if model not in SCHEMAS.values()]
    # One file for all: a document's schema is #/$defs/ with its model's name.
    _, schemas["contracts.schema.json"] = models_json_schema(others, by_alias=True)
    texts = {name: json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}
    _seen.clear()
    head = (ROOT / "docs" / "ledger.md").read_text("utf-8").partition(MARKER)[0]
    tables = [_tables(model.model_json_schema(by_alias=True)) for model in SCHEMAS.values()]
    return {**texts, "ledger.md": f"{head}{MARKER}\n\n" + "\n".join(tables)}


def contract_models() -> list[type[Document]]:
    """Find the models of all documents, by their names."""
    found: set[type[Document]] = {Rendezvous}  # beside the code that alone reads and writes it
    for module in pkgutil.iter_modules(contracts.__path__, f"{contracts.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Document) and value is not Document:
                found.add(value)
    return sorted(found, key=lambda model: model.__name__)


def _tables(schema: dict[str, Any]) -> str:
    lines = [f"## {schema['title']}", ""]
    lines += _rows("", schema, schema["$defs"])
    return "\n".join(lines) + "\n"


def _rows(prefix: str, part: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    """List one part's keys as a table, then a table for each part inside it."""
    title = prefix.rstrip(".")
    lines = [f"### `{title}`", "", part.get("description", "").split("\n")[0], ""] if title else []
    lines += ["| key | meaning |", "| --- | --- |"]
    inner: list[str] = []
    for name, value in part["properties"].items():
        reference, path = _reference(value), f"{prefix}{name}"
        meaning = value.get("description", "")
        if reference:
            target = parts[reference]
            suffix = "[]" if value.get("type") == "array" else ""
            suffix = "{}" if "additionalProperties" in value else suffix
            first = target.get("description", "").split("\n")[0]
            meaning = meaning or first
            if reference not in _seen:
                _seen.add(reference)
                inner += ["", *_rows(f"{path}{suffix}.", target, parts)]
        lines.append(f"| `{name}` | {meaning.replace('|', '/')} |")
    return lines + inner


_seen: set[str] = set()


def _reference(value: dict[str, Any]) -> str | None:
    for candidate in (value, value.get("items", {}), value.get("additionalProperties") or {}):
        if isinstance(candidate, dict) and "$ref" in candidate:
            return candidate["$ref"].rsplit("/", 1)[1]
    return None


def main() -> None:
    """Write the files."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    for name, text in documents().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
