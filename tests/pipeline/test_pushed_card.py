"""The model card in a pushed version: the numbers of the page, and text that is not obeyed."""

import hashlib
import re

import pytest
from complete_model import complete
from test_report_page import HOSTILE, LONG, cost, run_of

from pipeline.report.pushed_card import CARD_NAME, pushed_card, write_pushed_card
from tokenmill.contracts.cost_report import CostReport
from tokenmill.contracts.served_model import ServedModel, write_served_model
from tokenmill.model.shape import ModelShape

SHAPE = ModelShape(
    layers=1, d_model=16, heads=2, d_ff=32, vocab_size=300, sequence_length=1024,
    positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
)  # fmt: skip
MODEL = ServedModel(model_shape=SHAPE, parameters=1000, quantization="float32")


def test_the_card_has_the_numbers_of_the_page():
    run = run_of(pushed_to="/runs/demo/serving_model/1795")
    card = pushed_card(run, MODEL)
    for found in (
        "1,234,567",  # effective tokens
        "$1.00", "estimated $",
        "unigram 2.900", "untrained 3.500", "2.500 ± 0.500 bits per byte",
        "at most 1,024 tokens", "| plain |", "## License\n\nTo be filled in",
        f"Run `{run.run_id}`, pushed as version 1795.",
        hashlib.sha256(run.config_toml.encode()).hexdigest(),
    ):  # fmt: skip
        assert found in card, found
    assert "None" not in card
    assert "Benchmarks" not in card
    assert "$" not in pushed_card(run_of(cost_report=None, ledger=None), MODEL)


def test_benchmarks_and_what_is_rough_are_told():
    values = cost().to_json()
    evaluation = values["quality"]["evaluation"]
    number = {"value": 0.5, "standard_error": 0.1, "chance": 0.25, "higher_is_better": True}
    evaluation["benchmarks"] = {"arc": {"items": 7, "metrics": {"acc": number}}}
    evaluation["few_documents"] = ["source tiny"]
    report = complete(CostReport, values)
    card = pushed_card(run_of(cost_report=report), MODEL)
    assert re.search(r"\| arc \| acc \| 0\.5 \| 0\.1 \| 0\.25 \| 7 \|", card)
    assert "have source tiny" in card


@pytest.mark.parametrize("text", [f"{HOSTILE}|![a](http://b)`c`\n# d", LONG])
def test_names_are_shown_and_never_obeyed(text):
    card = pushed_card(run_of(text), MODEL)
    assert not re.search(r"<\w", card)
    assert not re.search(r"(?<!\\)\[", card)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", card)
    assert "\n# d" not in card
    assert len(card) < 50_000
    for line in card.splitlines():
        if line.startswith("| ") and "---" not in line:
            assert len(re.findall(r"(?<!\\)\|", line)) in (4, 5), line


def test_the_card_lies_beside_the_model_and_in_no_version_that_is_gone(tmp_path):
    version = tmp_path / "7"
    run = run_of(pushed_to=str(version))
    assert write_pushed_card(run) is None
    assert not version.exists()
    (version / "assets.extra").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"")
    write_served_model(str(version), MODEL)
    assert write_pushed_card(run) == str(version / CARD_NAME)
    assert (version / CARD_NAME).read_text() == pushed_card(run, MODEL)
    assert sorted(p.name for p in version.iterdir()) == [
        "README.md", "assets.extra", "saved_model.pb",
    ]  # fmt: skip
    assert write_pushed_card(run_of(pushed_to="")) is None
