import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def texts():
    return runpy.run_path(str(ROOT / "tools" / "ledger_docs.py"))["documents"]()


def test_docs_and_schemas_are_those_of_the_code(texts):
    for name, text in texts.items():
        written = (ROOT / "docs" / name).read_text("utf-8")
        assert written == text, f"docs/{name} is old: run python tools/ledger_docs.py"


def test_every_key_has_a_meaning(texts):
    for name in ("ledger.schema.json", "cost_report.schema.json"):
        schema = json.loads(texts[name])
        for part in (schema, *schema["$defs"].values()):
            for key, value in part.get("properties", {}).items():  # an enum has none
                inner = [value, value.get("items", {}), value.get("additionalProperties")]
                refers = any(isinstance(v, dict) and "$ref" in v for v in inner)
                assert value.get("description") or refers, f"{name}: {part['title']}.{key}"
