import json
import runpy
from pathlib import Path

import pytest

# The keys of these are described beside them, where the configuration is.
CONFIGURATION = {"ModelShape", "TrainConfig", "TrainingJob"}
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def texts():
    return runpy.run_path(str(ROOT / "tools" / "contract_docs.py"))["documents"]()


def test_docs_and_schemas_are_those_of_the_code(texts):
    for name, text in texts.items():
        written = (ROOT / "docs" / name).read_text("utf-8")
        assert written == text, f"docs/{name} is old: run python tools/contract_docs.py"


def test_every_key_has_a_meaning(texts):
    for name in ("ledger.schema.json", "cost_report.schema.json", "contracts.schema.json"):
        schema = json.loads(texts[name])
        for part in (schema, *schema["$defs"].values()):
            for key, value in part.get("properties", {}).items():  # an enum has none
                if part["title"] in CONFIGURATION:
                    continue
                inner = [value, value.get("items", {}), value.get("additionalProperties")]
                refers = any(isinstance(v, dict) and "$ref" in v for v in inner)
                assert value.get("description") or refers, f"{name}: {part['title']}.{key}"
