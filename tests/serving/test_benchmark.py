"""lm-evaluation-harness, for real, against the gateway; its numbers computed without it, too."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from tests.serving.conftest import TEXTS, export_models

CONTEXT_LENGTH = 160  # some texts are longer, and are scored in several windows
# Ids that the harness sends at most: the context holds begin and a generated token, too.
LONGEST = CONTEXT_LENGTH - 2
RELATIVE = 1e-6


class Independent:
    """Log-likelihoods from the signatures of the SavedModel, added up in float64."""

    def __init__(self, exported):
        import sentencepiece

        self.signatures = exported.loaded.signatures
        self.processor = sentencepiece.SentencePieceProcessor(model_file=exported.tokenizer)

    def ids(self, text):
        return self.processor.encode(text)

    def log_probabilities(self, ids):
        """Of each id behind the first, float64; begin (2) in front, unless it is there."""
        import tensorflow as tf

        ids = ids if ids[0] == 2 else [2, *ids]
        logits = self.signatures["logits_ids"](token_ids=tf.constant([ids], tf.int32))["logits"]
        logits = logits.numpy()[0].astype(np.float64)
        total = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
        found = logits[np.arange(len(ids) - 1), ids[1:]] - total[:-1]
        return found, logits[:-1].argmax(-1) == ids[1:]

    def continuation(self, context, text):
        """Log-likelihood of a text behind a context, and whether each token is the likeliest."""
        whole, before = self.ids(context + text), self.ids(context)
        length = len(whole) - len(before)
        found, likeliest = self.log_probabilities(whole[-LONGEST:])
        return found[-length:].sum(), bool(likeliest[-length:].all())

    def text(self, text):
        """Log-likelihood of a text, without its end, in the harness's windows."""
        ids, window = self.ids(text), LONGEST - 1
        total = self.log_probabilities([2, *ids[:window]])[0].sum()
        for start in range(window, len(ids), window):
            end = min(start + window, len(ids))
            total += self.log_probabilities(ids[end - window - 1 : end])[0][start - end :].sum()
        return total


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_models(tmp_path_factory.mktemp("exported"), CONTEXT_LENGTH)


@pytest.fixture(scope="module")
def independent(exported):
    return Independent(exported)


# What is the likeliest is never asked for by the shipped tasks, of a model of random weights.
LIKELIEST = """
task: likeliest
dataset_path: json
dataset_kwargs: {data_files: {test: likeliest.jsonl}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""
GENERATE = """
task: repeat
dataset_path: json
dataset_kwargs: {data_files: {test: repeat.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "{{answer}}"
generation_kwargs: {max_gen_toks: 8, until: ["\\n\\n"], temperature: 0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def write_items(path, items):
    lines = [json.dumps({"text": text, "answer": answer}) + "\n" for text, answer in items]
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def scored(exported, tmp_path_factory):
    """The command, with the shipped tasks and one of the user's own, which generates."""
    from serving.saved_model import call

    own = tmp_path_factory.mktemp("own")
    (own / "repeat.yaml").write_text(GENERATE)
    texts = ["Returns the sum", "A layer that adds", "Raises ValueError if"]
    options = dict(max_new_tokens=8, temperature=0.0, top_k=0, top_p=1.0, seed=0)
    answers = [
        call(exported.loaded, "generate", text, truncate_prompt=False, **options)["text"]
        for text in texts
    ]
    answers[-1] = "something else"  # so that not all is right
    write_items(own / "repeat.jsonl", zip(texts, answers, strict=True))
    (own / "likeliest.yaml").write_text(LIKELIEST)
    contexts = [" ".join(text.split()[:n]) for text in TEXTS[:4] for n in range(2, 12)]
    options["max_new_tokens"] = 1
    next_tokens = [call(exported.loaded, "generate", text, truncate_prompt=False, **options)["text"]
                   for text in contexts]  # fmt: skip
    write_items(own / "likeliest.jsonl", zip(contexts, next_tokens, strict=True))
    output = own / "output"
    arguments = ["benchmark", str(exported.base / "1"), "--tasks", str(own / "repeat.yaml")]
    arguments += ["--tasks", str(own / "likeliest.yaml")]
    arguments += ["--tasks", "cloze,continuation,bits_per_byte", "--output", str(output)]
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return output, result


def samples(output, task):
    lines = (output / f"samples_{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted(map(json.loads, lines), key=lambda sample: sample["doc_id"])


def metric(output, task, name):
    report = json.loads((output / "benchmark.json").read_text(encoding="utf-8"))
    return report["tasks"][task]["metrics"][name]


@pytest.mark.slow
def test_cloze_is_what_the_logits_say(scored, independent):
    output, _ = scored
    found, right = [], []
    for sample in samples(output, "cloze"):
        value, likeliest = independent.continuation(
            sample["doc"]["context"], f" {sample['doc']['word']}"
        )
        assert float(sample["resps"][0][0][0]) == pytest.approx(value, rel=RELATIVE)
        assert str(sample["resps"][0][0][1]) == str(likeliest)
        found.append(value)
        right.append(likeliest)
    assert len(found) == 200
    perplexity = math.exp(-np.mean(found))
    assert metric(output, "cloze", "perplexity")["value"] == pytest.approx(perplexity, rel=1e-6)
    assert metric(output, "cloze", "acc")["value"] == pytest.approx(np.mean(right))
    assert metric(output, "cloze", "acc")["chance"] == 0.025


@pytest.mark.slow
def test_continuation_is_what_the_logits_say(scored, independent):
    output, _ = scored
    right = []
    for sample in samples(output, "continuation"):
        item = sample["doc"]
        values = [independent.continuation(item["context"], f" {x}")[0] for x in item["choices"]]
        for value, response in zip(values, sample["resps"], strict=True):
            assert float(response[0][0]) == pytest.approx(value, rel=RELATIVE)
        right.append(int(np.argmax(values)) == item["answer"])
    assert len(right) == 150
    accuracy = metric(output, "continuation", "acc")
    assert accuracy["value"] == pytest.approx(np.mean(right))
    error = np.std(right, ddof=1) / math.sqrt(len(right))
    assert accuracy["standard_error"] == pytest.approx(error)


@pytest.mark.slow
def test_bits_per_byte_is_what_logits_and_score_say(scored, independent, exported):
    from serving.saved_model import call

    output, _ = scored
    total = size = short = 0
    for sample in samples(output, "bits_per_byte"):
        text = sample["doc"]["text"]
        value = independent.text(text)
        assert float(sample["resps"][0][0]) == pytest.approx(value, rel=RELATIVE)
        total, size = total + value, size + len(text.encode())
        ids = independent.ids(text)
        if len(ids) < LONGEST:  # one row of `score`, which counts the end (3), too
            short += 1
            end = independent.log_probabilities([*ids, 3])[0][-1]
            likelihood = call(exported.loaded, "score", text)["log_likelihood"]
            assert likelihood == pytest.approx(value + end, rel=RELATIVE)
    assert short
    bits = -total / math.log(2) / size
    assert metric(output, "bits_per_byte", "bits_per_byte")["value"] == pytest.approx(
        bits, rel=1e-6
    )


@pytest.mark.slow
def test_what_is_the_likeliest_is_right(scored, independent):
    output, _ = scored
    right = []
    for sample in samples(output, "likeliest"):
        item = sample["doc"]
        if not (set(item["answer"]) - {" "}) or item["answer"].isspace():
            continue  # the harness moves blanks
        value, likeliest = independent.continuation(item["text"], item["answer"])
        assert float(sample["resps"][0][0][0]) == pytest.approx(value, rel=RELATIVE)
        assert str(sample["resps"][0][0][1]) == str(likeliest)
        right.append(likeliest)
    assert sum(right) > 5
    assert not all(right)  # one token's text behind another's may be a third


@pytest.mark.slow
def test_generation_is_the_signatures(scored):
    output, _ = scored
    assert metric(output, "repeat", "exact_match")["value"] == pytest.approx(2 / 3)
    assert len(samples(output, "repeat")) == 3


@pytest.mark.slow
def test_the_command_prints_a_table_and_says_that_no_run_has_the_model(scored):
    output, result = scored
    lines = {tuple(line.split()[:2]): line.split() for line in result.stdout.splitlines()}
    assert lines["cloze", "acc"][-2:] == ["0.025", "200"]
    assert lines["bits_per_byte", "bits_per_byte"][-2:] == ["8", "263"]
    assert "not recorded in ML Metadata" in result.stderr
    assert str(output / "benchmark.json") in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("context_length", "tasks", "message"),
    [
        (32, "continuation", "of an item is longer than the model's context, 32 tokens"),
        (CONTEXT_LENGTH, "cloze,no_such_task", "no_such_task"),
    ],
)
def test_why_the_harness_failed_is_said(tmp_path, exported, context_length, tasks, message):
    if context_length != CONTEXT_LENGTH:
        exported = export_models(tmp_path, context_length)
    command = [sys.executable, "-m", "pipeline.cli", "benchmark", str(exported.base / "1")]
    command += ["--tasks", tasks, "--output", str(tmp_path / "output")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert message in result.stderr
    assert "lm_eval.log has more" in result.stderr
    assert "Traceback" not in result.stderr
