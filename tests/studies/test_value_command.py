"""`tokenmill value` as a user calls it, on real text with planted noise and a planted copy."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.embedded_corpus import build_embedded_corpus
from tests.studies.made_text import KINDS
from tokenmill.contracts.value import VALUE_NAME, Value

SMALL = [
    "--set", "curate.rules=none", "--set", "tokenizer.vocab_size=1024", "--params", "60000",
    "--max-minutes", "60", "--json",
]  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Documents of several packages, the same with 30 % noise, the same under other names."""
    root = tmp_path_factory.mktemp("planted")
    with open(build_embedded_corpus().path, encoding="utf-8") as lines:
        documents = [json.loads(line) for i, line in enumerate(lines) if i % 5 == 0]
    documents = [document for document in documents if len(document["text"]) < 6000]
    rng = np.random.default_rng(1)
    noisy = [
        {**d, "text": KINDS[i % len(KINDS)](rng, d["text"])} if i % 10 < 3 else d
        for i, d in enumerate(documents)
    ]
    copied = [
        {"id": f"other {i}", "source": "elsewhere", "text": documents[i]["text"]}
        for i in rng.permutation(len(documents))
    ]
    for name, made in (("clean", documents), ("noisy", noisy), ("copied", copied)):
        lines = [json.dumps(document) for document in made]
        (root / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def value(root, *arguments):
    """The document that a call prints; standard output has nothing else."""
    command = [
        sys.executable, "-m", "pipeline.cli", "value", *arguments, *SMALL,
        "--output-dir", str(root / "run"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Value.model_validate_json(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_planted_noise_is_worth_less_and_a_planted_copy_as_much(planted):
    given = ["--input", str(planted / "clean.jsonl"), "--steps", "400", "--margin", "2"]
    given += ["--preset", "demo"]
    variants = ["base", f"noisy:{planted}/noisy.jsonl", f"copy:{planted}/copied.jsonl"]
    found = value(planted, *variants, *given)
    noisy, copy = found.variant("noisy"), found.variant("copy")
    assert noisy.verdict == "worse"
    assert copy.verdict == "equal"
    assert noisy.multiplier is not None, noisy.multiplier_note
    assert (noisy.multiplier.high or noisy.multiplier.most) < 1
    assert copy.multiplier.low < 1 < (copy.multiplier.high or copy.multiplier.most)
    assert {"numpy", "noisy/numpy"} <= set(found.held_out)
    assert "copy/elsewhere" not in found.held_out  # the same texts as the base's

    # What is there costs nothing a second time, and gives the same numbers.
    again = value(planted, *variants, *given)
    for first, second in zip(found.variants, again.variants, strict=True):
        assert second.runs == first.runs  # with the seconds that they took when they ran
        assert second.differences == first.differences
        assert second.multiplier == first.multiplier

    # The ledger of the same configuration knows it.
    studies = planted / "run" / "studies" / "value"
    newest = studies / sorted(os.listdir(studies))[-1] / VALUE_NAME
    result = subprocess.run(
        [
            sys.executable, "-m", "pipeline.cli", "run", "--preset", "demo", "--estimate",
            "--input", str(planted / "clean.jsonl"), *SMALL[:4],
            "--set", f"cost.value={newest}", "--set", "cost.mfu=0.4", "--output-dir",
            str(planted / "run"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_sources_and_mixture_of_a_text(planted):
    given = ["--input", str(planted / "clean.jsonl"), "--steps", "64", "--seeds", "3"]
    found = value(planted, "--sources", *given)
    assert sum(source.share for source in found.sources.values()) == pytest.approx(1)
    measured = [s for s in found.sources.values() if s.verdict is not None]
    assert len(measured) == len(found.variants) - 1 >= 2
    assert found.variants[1].changes[0].startswith("without the source ")

    found = value(planted, "--mixture", *given)
    assert len(found.mixture.runs) == 32
    assert sum(found.mixture.natural.values()) == pytest.approx(1)
    if found.mixture.verdict is None:
        assert "nothing is proposed" in found.mixture.note
    else:
        weights = f"pack.source_weights={json.dumps(found.mixture.proposed)}"
        assert found.variants[1].changes == [weights]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to compare"),
        (["base", "--sources"], "studies of their own"),
        (["--sources", "--mixture"], "studies of their own"),
        (["a:curate.rules=none", "--set", "train.task=masked-lm"], 'train.task = "masked-lm"'),
        (["base", "--config", "nowhere.toml"], "cannot read the config"),
    ],
)
def test_what_cannot_be_measured_is_told_at_once(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["value", *arguments])
    assert result.exit_code == 1
    assert words in result.output
    assert not os.listdir(tmp_path)
