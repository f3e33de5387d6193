"""A masked language model through the real pipeline: config to pushed model."""

import subprocess
import sys

import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)

from components.train.telemetry.metrics_log import read_metrics

pytestmark = pytest.mark.slow  # a training of its own, beside the one that most tests share

# Few tokens and many hidden tokens: an encoder this small then learns from context in a minute.
MASK_RATE = 0.4
SETTINGS = (
    "--set", "run.name=masked",
    "--set", "train.task=masked-lm",
    "--set", f"pack.mask_rate={MASK_RATE}",
    "--set", "tokenizer.vocab_size=500",
    "--set", "train.global_batch_size=16",
    "--set", "train.max_steps=1200",
    "--set", "train.epochs=100",
    "--set", "train.learning_rate=3e-3",
    "--set", "cost.mfu=0.4",
    "--set", "execution.evaluate_steps=100",
)  # fmt: skip


def _version(home):
    (version,) = (home / "serving_model").iterdir()
    return version


@pytest.fixture(scope="module")
def masked_run(workspace):
    run = workspace.run("--output-dir", str(workspace.root / "masked"), *SETTINGS)
    run.home = workspace.root / "masked"
    assert run.exit_code == 0, run.output
    return run


def test_it_learns_more_than_token_frequencies(masked_run):
    quality = masked_run.report()["cost_report"]["quality"]
    total = quality["evaluation"]["total"]
    assert total["masked_perplexity"] < 0.9 * quality["unigram_perplexity"]
    assert total["masked_perplexity"] < 0.5 * quality["eval_before"]["perplexity"]
    assert quality["eval_after"]["perplexity"] < 0.9 * quality["unigram_perplexity"]
    assert 0.0 < total["masked_token_accuracy"] < total["masked_token_accuracy_top5"] < 1.0
    assert not [name for name in total if "bits_per_byte" in name]


def test_rows_and_raw_text_give_the_same_loss_up_to_the_draw(masked_run):
    """The trainer hides other tokens of the same held-out text than the exported model does."""
    quality = masked_run.report()["cost_report"]["quality"]
    total, rows = quality["evaluation"]["total"], quality["eval_after"]
    width = total["masked_perplexity_ci95_high"] - total["masked_perplexity_ci95_low"]
    assert abs(total["masked_perplexity"] - rows["perplexity"]) < 1.5 * width
    assert total["evaluated_tokens"] == pytest.approx(rows["loss_tokens"], rel=0.1)


def test_the_books_count_the_hidden_tokens(masked_run):
    ledger = masked_run.report()["ledger"]
    tokens = ledger["funnel"]["total"]["train"]["tokens"]
    training = ledger["training"]
    assert training["loss_tokens"] == pytest.approx(MASK_RATE * tokens * training["epochs"])
    packing = ledger["packing"]["train"]
    assert packing["loss_tokens"] == tokens


def test_live_telemetry_counts_as_the_ledger_does(masked_run):
    """Effective tokens are those of the hidden tokens."""
    (metrics,) = (masked_run.home / "artifacts").glob("Trainer/model_run/*/metrics.jsonl")
    last = read_metrics(str(metrics))[-1]
    training = masked_run.report()["ledger"]["training"]
    assert last["effective_tokens"] == pytest.approx(training["effective_tokens"], rel=0.02)
    assert last["trained_loss_tokens"] == pytest.approx(training["loss_tokens"], rel=0.02)


def test_the_screen_names_the_measure(masked_run):
    assert "masked-token perplexity" in masked_run.output
    assert masked_run.said.count("bits per byte") == 1
    assert "evaluate.max_bits_per_byte does not apply" in masked_run.said
    assert "tokenmill generate" not in masked_run.output


def test_the_pushed_model_embeds(masked_run):
    model = tf.saved_model.load(str(_version(masked_run.home)))
    assert "score" not in model.signatures
    texts = ["Returns the sum of a tensor.", "Returns a sum of the tensors.", "Café"]
    answer = model.signatures["serving_default"](text=tf.constant(texts))
    vectors = tf.linalg.l2_normalize(answer["embedding"], axis=-1).numpy()
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert (answer["token_count"].numpy() > 0).all()


def test_a_threshold_of_the_hidden_tokens_keeps_it_back(workspace, masked_run):
    run = workspace.run(
        "--output-dir", str(masked_run.home), *SETTINGS, "--set", "evaluate.max_perplexity=1.5"
    )
    assert run.exit_code == 1
    assert "masked_perplexity is" in run.said


def test_it_goes_on_from_a_pushed_model(workspace, masked_run):
    """With the pushed model's weights and tokenizer, training starts where that one ended."""
    pushed = str(_version(masked_run.home))
    home = workspace.root / "continued"
    run = workspace.run(
        "--output-dir", str(home), *SETTINGS,
        "--set", f"model.base_model={pushed}",
        "--set", f"tokenizer.path={pushed}/assets.extra/tokenizer.model",
        "--set", "train.max_steps=2", "--set", "train.learning_rate=1e-6",
        "--set", "evaluate.require_improvement=false",  # there is next to none
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    run.home = home
    first, second = (r.report()["cost_report"]["quality"] for r in (masked_run, run))
    before, ended = (q["perplexity"] for q in (second["eval_before"], first["eval_after"]))
    assert before == pytest.approx(ended, rel=1e-3)
    # The draw depends on the text and the tokenizer only, so both were asked for the same tokens.
    old, new = (q["evaluation"]["total"] for q in (first, second))
    assert new["evaluated_tokens"] == old["evaluated_tokens"]
    assert new["masked_perplexity"] == pytest.approx(old["masked_perplexity"], rel=1e-2)


@pytest.mark.parametrize("preset", ["bert-base", "bert-large"])
def test_the_presets_run_when_made_small(workspace, preset):
    """On this machine instead of TPUs; everything else as the preset has it."""
    small = {
        "corpus.eval_fraction": 0.1, "corpus.shards": 1, "pack.shards": 1,
        "corpus.max_quarantine_fraction": 0.5,  # one of four files is noise
        "curate.max_drop_fraction": 1,  # the German documents repeat themselves
        "tokenizer.vocab_size": 600, "model.layers": 2, "model.d_model": 32, "model.heads": 2,
        "model.d_ff": 64, "model.sequence_length": 64, "train.strategy": "default",
        "train.global_batch_size": 16, "train.max_steps": 2, "cost.chip": "cpu-vcpu",
        "cost.chips": "auto", "cost.mfu": 0.4, "evaluate.require_improvement": "false",
        "evaluate.beat_baseline": "false",
    }  # fmt: skip
    home = workspace.root / preset
    arguments = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    command = (sys.executable, "-m", "pipeline.cli", "run", "--preset", preset, *arguments)
    paths = ("--input", str(workspace.corpus), "--output-dir", str(home))
    result = subprocess.run(
        [*command, *paths], capture_output=True, text=True, timeout=400, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert _version(home).is_dir()


def test_bits_per_byte_cannot_be_asked_of_it(workspace):
    run = workspace.run(*SETTINGS, "--set", "evaluate.max_source_bits_per_byte=2.0")
    assert run.exit_code != 0
    assert "evaluate.max_source_bits_per_byte" in run.output
    assert "evaluate.max_perplexity" in run.output
