"""The sweep over vocabularies, and the tokenizer beside a SavedModel."""

import dataclasses
import inspect
import json
import random

import pytest
from click.testing import CliRunner

from components.tokenize.config import TokenizerConfig
from components.tokenize.sweep import MAX_UNUSED, predicted_vocab_size, recommend, sweep
from components.tokenize.training import train_sentencepiece
from pipeline.cli import cli
from tokenmill.cost.flops import flops_per_token
from tokenmill.errors import TokenmillError
from tokenmill.export.tokenizer_assets import read_tokenizer_asset, write_tokenizer_assets
from tokenmill.model.shape import ModelShape

SHAPE = ModelShape(
    layers=2, d_model=64, heads=2, d_ff=256, vocab_size=1, sequence_length=64,
    positions="rope", norm="layer", use_bias=True, mlp="gelu", tie_embeddings=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def documents():
    texts = [inspect.getdoc(v) or "" for m in (random, inspect, json) for v in vars(m).values()]
    texts = [text for text in texts if len(text) > 60]
    return [(b"%d" % i, (b"a", b"b")[i % 2], text.encode()) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def result(documents):
    settings = TokenizerConfig(sample_bytes=10**9)
    return sweep(documents, [500, 900, 500_000], ["bpe", "unigram"], settings, SHAPE, "float32", 4)


def test_what_the_text_does_not_support_is_told_and_the_rest_measured(result):
    assert [(c.model_type, c.vocab_size) for c in result.candidates] == [
        ("bpe", 500), ("bpe", 900), ("unigram", 500), ("unigram", 900),
    ]  # fmt: skip
    assert [(t, size) for t, size, _ in result.impossible] == [
        ("bpe", 500_000), ("unigram", 500_000),
    ]  # fmt: skip
    assert all("at most" in reason for _, _, reason in result.impossible)


def test_figures_fit_together(result, documents):
    assert result.corpus_bytes == sum(len(text) for _, _, text in documents)
    for c in result.candidates:
        shape = dataclasses.replace(SHAPE, vocab_size=c.vocab_size)
        tokens = result.corpus_bytes / c.bytes_per_token
        assert c.training_flops == pytest.approx(flops_per_token(shape).training * tokens)
        assert c.embedding_params == c.vocab_size * SHAPE.d_model
        assert set(c.tokens_per_word_by_source) == {"a", "b"}
        sizes = result.held_out_bytes_by_language
        assert sum(sizes.values()) == result.held_out_bytes
        tokens = [sizes[code] / ratio for code, ratio in c.bytes_per_token_by_language.items()]
        assert sum(tokens) == pytest.approx(result.held_out_bytes / c.bytes_per_token)
        assert 0 < c.vocabulary_memory_fraction < 1
    small, large = result.candidates[:2]
    assert large.bytes_per_token > small.bytes_per_token > 1
    assert large.unused_fraction > small.unused_fraction
    assert 8 > small.unigram_bits_per_byte > large.unigram_bits_per_byte > 1
    cheapest = result.candidates[result.cheapest]
    assert cheapest.training_flops == min(c.training_flops for c in result.candidates)


def test_the_used_one_nearest_to_the_predicted_size_is_recommended(result):
    used = dataclasses.replace(
        result.candidates[0], vocab_size=1000, unused_fraction=0.1, training_flops=5.0
    )
    cheaper = dataclasses.replace(used, training_flops=4.0)
    larger = dataclasses.replace(used, vocab_size=4000, training_flops=9.0)
    wasteful = dataclasses.replace(used, unused_fraction=MAX_UNUSED + 0.1, training_flops=1.0)
    assert recommend([used, cheaper, larger, wasteful], 1500)[0] == 1
    best, reason = recommend([used, cheaper, larger, wasteful], 2500)
    assert best == 2
    assert "2,500" in reason
    assert recommend([wasteful, dataclasses.replace(wasteful, unused_fraction=0.9)], 1000)[0] == 0


def test_the_predicted_size_is_that_of_the_paper_and_grows_slower_than_the_model():
    """Tao et al. 2024: 43K for 3B parameters of d_model 3,200 (their table, with 2.87B others)."""
    large = dataclasses.replace(
        SHAPE, layers=36, d_model=3200, heads=32, d_ff=8512, mlp="swiglu", use_bias=False,
        norm="rms",
    )  # fmt: skip
    parts = large.params_by_part()
    others = large.params_total - parts["token_embedding"]
    exact = 3_145_728 * (others / 33e6) ** 0.8354 / 3200
    assert predicted_vocab_size(large) == round(exact)
    sparse = dataclasses.replace(large, experts=8, experts_per_token=1)
    # Its vocabulary is weighed against what a token passes: one expert and a router.
    assert predicted_vocab_size(sparse) == pytest.approx(predicted_vocab_size(large), rel=0.001)
    deeper = dataclasses.replace(large, layers=72)
    assert 1 < predicted_vocab_size(deeper) / predicted_vocab_size(large) < 2


def test_processes_find_what_one_finds(documents, result):
    settings = TokenizerConfig(sample_bytes=10**9)
    parallel = sweep(
        documents, [500, 900, 500_000], ["bpe", "unigram"], settings, SHAPE, "float32", 4, workers=2
    )
    assert parallel == result


def test_command_prints_writes_and_plots(tmp_path, documents):
    corpus = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": text.decode()}) for _, _, text in documents]
    corpus.write_text("\n".join(lines))
    arguments = ["tokenizer", "sweep", str(corpus), "--sizes", "400,600", "--model-types", "bpe"]
    outputs = ["--json", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.png")]
    done = CliRunner().invoke(cli, [*arguments, *outputs])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "s.json").read_text())
    best = found["candidates"][found["recommended"]]
    assert f"tokenizer.vocab_size={best['vocab_size']}" in done.output
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    wrong = CliRunner().invoke(cli, [*arguments[:4], "many"])
    assert wrong.exit_code == 1
    assert "--sizes" in wrong.output


GERMAN = "Der Ausschuss hat beschlossen, die Sitzung auf die nächste Woche zu verschieben; {} Tage."
CHINESE = "委员会决定将会议推迟到下个星期，第{}天，因为大家都没有时间参加。"


def test_each_candidate_says_what_a_token_holds_of_each_language(tmp_path):
    corpus = tmp_path / "texts.jsonl"
    texts = [(GERMAN if i % 3 else CHINESE).format(i) * 3 for i in range(180)]
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    arguments = ["tokenizer", "sweep", str(corpus), "--sizes", "320,400", "--model-types", "bpe"]
    done = CliRunner().invoke(cli, [*arguments, "--json", str(tmp_path / "s.json")])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "s.json").read_text())
    assert set(found["held_out_bytes_by_language"]) == {"de", "zh"}
    table = done.output.partition("Bytes per token, by language")[2].splitlines()
    for code in ("de", "zh"):
        ratios = [c["bytes_per_token_by_language"][code] for c in found["candidates"]]
        (line,) = [line for line in table if line.startswith(f"{code} ")]
        assert line.split()[1:] == [f"{ratio:.2f}" for ratio in ratios]


def test_one_language_has_no_table(tmp_path):
    corpus = tmp_path / "texts.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": GERMAN.format(i)}) for i in range(90)))
    arguments = ["tokenizer", "sweep", str(corpus), "--sizes", "320", "--model-types", "bpe"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "by language" not in done.output


def test_records_that_cannot_be_read_are_said_and_left_out(tmp_path):
    corpus = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": GERMAN.format(i)}) for i in range(90)]
    arguments = ["tokenizer", "sweep", str(corpus), "--sizes", "320", "--model-types", "bpe"]
    corpus.write_text("\n".join([*lines, "no JSON"]))
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "1 records cannot be read" in done.output
    corpus.write_text("no JSON")
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert "no document can be read from" in done.output
    assert "texts.jsonl:1: invalid_json" in done.output


def test_the_tokenizer_beside_a_model_is_checked_by_its_hash(documents, tmp_path):
    texts = [text.decode() for _, _, text in documents]
    model = train_sentencepiece(texts, TokenizerConfig(vocab_size=400, sample_bytes=10**9))
    (tmp_path / "own.model").write_bytes(model)
    write_tokenizer_assets(str(tmp_path / "own.model"), str(tmp_path / "saved"))
    assert read_tokenizer_asset(str(tmp_path / "saved")) == model
    (tmp_path / "saved" / "assets.extra" / "tokenizer.model").write_bytes(b"other")
    with pytest.raises(TokenmillError, match="not the file"):
        read_tokenizer_asset(str(tmp_path / "saved"))
