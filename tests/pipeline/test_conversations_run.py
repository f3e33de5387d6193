"""Conversations through all steps: answer tokens, the pushed model's chat, and its export."""

import json
import os
import random

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the SentencePiece ops)
from command_line import tokenmill
from rich.console import Console
from tokenizers import Tokenizer

from pipeline.loader import load_config, load_run_config
from pipeline.report.curation import print_document
from tokenmill.contracts.chat import read_chat_format
from tokenmill.contracts.evaluation import WHOLE, read_metrics
from tokenmill.contracts.ledger import read_ledger
from tokenmill.contracts.training import read_telemetry
from tokenmill.text.chat import Chat
from tokenmill.text.chat_template import ChatTemplate

TURNS = (1, 2, 3)
RUN = (
    "corpus.messages_field=messages", "tokenizer.vocab_size=384", "model.layers=1",
    "model.d_model=64", "model.heads=2", "model.d_ff=128", "model.sequence_length=192",
    "train.epochs=20", "train.global_batch_size=8", "train.learning_rate=4e-3",
    "corpus.eval_fraction=0.1", "cost.mfu=0.4", "curate.decontaminate=off",
)  # fmt: skip


def talks(count):
    """Small talk about sums; every 50th is too long for a row."""
    rng = random.Random(3)
    for number in range(count):
        turns = [{"role": "system", "content": "You add."}] if number % 3 == 0 else []
        for _ in range(TURNS[number % 3]):
            first, second = rng.randrange(50), rng.randrange(50)
            asked = f"Mail x{number}@example.org: how much are {first} and {second} together?"
            turns.append({"role": "user", "content": asked})
            answer = f"They are {first + second}, says the abacus."
            turns.append({"role": "assistant", "content": answer * (60 if not number % 50 else 1)})
        yield {"id": f"t{number}", "messages": turns}


def only(directory):
    (found,) = os.listdir(directory)
    return os.path.join(directory, found)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run: its home, the pushed model, all tables."""
    home = tmp_path_factory.mktemp("conversations")
    source = home / "talks.jsonl"
    lines = [json.dumps(talk) for talk in talks(300)]
    lines.insert(7, json.dumps({"messages": [{"role": "user", "content": "Nobody answers"}]}))
    source.write_text("\n".join(lines))
    settings = [word for setting in (*RUN, 'curate.mask=["email"]') for word in ("--set", setting)]
    result = tokenmill(
        "run", "--input", source, "--output-dir", home / "run", *settings, timeout=900
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (text,) = (home / "run" / "logs").glob("*/report.txt")
    return home / "run", only(home / "run" / "serving_model"), text.read_text()


def artifact(home, step, key):
    return only(home / "artifacts" / step / key)


def test_the_funnel_says_answer_tokens_and_balances(run):
    home, _, said = run
    ledger = read_ledger(artifact(home, "TokenLedger", "ledger"))
    funnel = ledger.funnel.total
    stages = {stage.stage: stage for stage in funnel.stages}
    assert "loss_tokens" not in stages
    assert ledger.funnel.quarantined.by_reason["invalid_messages"].documents == 1
    assert stages["curated"].documents == 300
    for split in (funnel.train, funnel.eval):
        assert split.tokens == (
            split.loss_tokens + split.prompt_tokens + split.truncated_tokens + split.dropped_tokens
        )
        assert split.loss_tokens < split.prompt_tokens
    # Six of 300 are too long: their first answer does not fit into a row.
    assert funnel.train.dropped_too_long + funnel.eval.dropped_too_long == 6
    assert stages["packed"].documents_lost["too_long"] == 6
    assert stages["answer_tokens"].tokens == funnel.train.loss_tokens
    assert "answer tokens" in said
    assert "6 conversations left out whose first answer does not fit" in said


def test_the_evaluator_measures_the_answers_that_training_measured(run):
    home, _, _ = run
    telemetry = read_telemetry(artifact(home, "Trainer", "model_run"))
    metrics = read_metrics(artifact(home, "Evaluator", "evaluation"))[WHOLE]
    assert metrics["bits_per_byte"] == pytest.approx(telemetry.eval_after.bits_per_byte, rel=1e-4)
    assert metrics["perplexity"] == pytest.approx(telemetry.eval_after.perplexity, rel=1e-4)
    assert metrics["evaluated_tokens"] == telemetry.eval_after.loss_tokens
    assert telemetry.eval_after.loss < 0.5 * telemetry.eval_before.loss


def test_the_pushed_model_answers(run):
    _, model, _ = run
    answer = tokenmill("generate", "how much are 3 and 4 together?", "--temperature", 0,
                       "--model", model)  # fmt: skip
    assert answer.returncode == 0
    # It ends its answer itself: at the token behind it, not at the limit.
    assert "says the abacus." in answer.stdout
    assert "abacus.They" not in answer.stdout
    loaded = tf.saved_model.load(model)
    chat = Chat(read_chat_format(os.path.join(model, "assets.extra")))
    prompts = [chat.prompt([{"role": "user", "content": text}]) for text in ("1 and 2?", "x")]
    chat_of = loaded.signatures["chat"]
    made = chat_of(prompt=tf.constant(prompts), **options(2))
    assert made["finish_reason"].numpy().tolist() == [b"stop", b"stop"]
    alone = chat_of(prompt=tf.constant(prompts[:1]), **options(1))
    assert alone["text"].numpy()[0] == made["text"].numpy()[0]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Chat"):
        chat_of(prompt=tf.constant(["1 and 2?"]), **options(1))


def options(count):
    return {
        "max_new_tokens": tf.fill([count], 40),
        "temperature": tf.zeros([count]),
        "top_k": tf.zeros([count], tf.int32),
        "top_p": tf.ones([count]),
        "seed": tf.zeros([count], tf.int32),
        "truncate_prompt": tf.fill([count], False),
    }


def test_the_export_writes_the_template_and_its_tokens(run, tmp_path):
    _, model, _ = run
    result = tokenmill("export", "hf", model, tmp_path / "hf")
    assert result.returncode == 0, result.stdout + result.stderr
    settings = json.loads((tmp_path / "hf/tokenizer_config.json").read_text())
    generation = json.loads((tmp_path / "hf/generation_config.json").read_text())
    chat_format = read_chat_format(os.path.join(model, "assets.extra"))
    assert settings["chat_template"] == chat_format.template
    assert settings["split_special_tokens"] is False
    assert generation["eos_token_id"] == [3, 8]
    # What transformers does with a template: the whole text, then the library's tokens.
    template = ChatTemplate(settings["chat_template"], (), {"bos_token": settings["bos_token"]})
    talk = next(talks(2))["messages"][:2]
    library = Tokenizer.from_file(str(tmp_path / "hf/tokenizer.json"))
    theirs = library.encode(template.text(talk, prompt=True), add_special_tokens=False).ids
    assert theirs[:2] == [2, 7]
    prompt = Chat(chat_format).prompt(talk)
    loaded = tf.saved_model.load(model)
    ours = loaded.signatures["chat"](prompt=tf.constant([prompt]), **options(1))
    assert len(theirs) == int(ours["prompt_tokens"][0])
    next_by_ids = loaded.signatures["logits_ids"](token_ids=tf.constant([theirs]))["logits"]
    first = library.decode([int(np.argmax(next_by_ids[0, -1]))])
    assert ours["text"].numpy()[0].decode().startswith(first)
    card = (tmp_path / "hf/README.md").read_text()
    assert "answer tokens" in card


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("corpus.messages_field=m", "train.task=masked-lm"), "causal-lm alone"),
        (("corpus.messages_field=m", "pack.overlap_tokens=8"), "pack.overlap_tokens"),
        (("corpus.messages_field=m", "tokenizer.bpe_dropout=0.1"), "bpe_dropout"),
        (("corpus.messages_field=m", "curate.max_line_documents=3"), "max_line_documents"),
        (("tokenizer.chat_template=chatml",), "corpus.messages_field"),
        (("corpus.prompt_field=q",), "go together"),
    ],
)
def test_settings_that_conversations_do_not_have_are_refused(settings, says):
    with pytest.raises(Exception, match=says):
        load_config("demo", None, settings)


def test_rules_for_texts_take_no_conversation_unless_asked_for(tmp_path):
    of_conversations = ("corpus.messages_field=messages",)
    assert load_config("demo", None, of_conversations).curate.rules == "none"
    assert load_config("demo").curate.rules != "none"
    asked = (*of_conversations, "curate.rules=web")
    assert load_config("demo", None, asked).curate.rules == "web"
    mine = tmp_path / "mine.toml"
    mine.write_text('[corpus]\nmessages_field = "messages"\n[curate]\nrules = "c4"\n')
    assert load_config("demo", str(mine)).curate.rules == "c4"
    source = tmp_path / "a.jsonl"
    source.write_text(json.dumps(next(talks(1))))
    chosen, said = load_run_config(None, None, of_conversations, [str(source)])
    assert (chosen.curate.rules, chosen.model.sequence_length) == ("none", 512)
    assert "conversations are not cut" in said


def test_the_preview_drops_what_the_chat_template_refuses(tmp_path):
    source, template = tmp_path / "talks.jsonl", tmp_path / "alternates.jinja"
    source.write_text("\n".join(json.dumps(talk) for talk in talks(9)))
    template.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    result = tokenmill(
        "curate", "preview", source, "--set", "corpus.messages_field=messages",
        "--set", f"tokenizer.chat_template={template}", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["kept"]["documents"] == 6
    assert found["dropped"]["chat_template"]["documents"] == 3
    example = found["examples"]["chat_template"][0]
    assert "no system" in example["matched"]
    console = Console(record=True)
    print_document(console, example, "chat_template")
    assert "is on the list" not in console.export_text()


def test_without_an_input_there_are_no_conversations(tmp_path):
    result = tokenmill("run", "--preset", "demo", "--set", "corpus.messages_field=messages",
                       "--output-dir", tmp_path)  # fmt: skip
    assert result.returncode == 1
    assert "has no conversations" in result.stdout + result.stderr
