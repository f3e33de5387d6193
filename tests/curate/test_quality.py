"""The learned score: its features, its training, what it never sees, and who goes for it."""

import io
import json
import os

import numpy as np
import pytest
from rich.console import Console

from components.artifacts import Examples, QualityModel
from components.curate.config import CurateConfig
from components.curate.quality.classifier import find_classifier
from components.curate.quality.component import QualityTrainer, QualityTrainerExecutor
from components.curate.quality.config import ExampleFiles, QualityConfig
from components.curate.quality.examples import (
    MAX_CLASS_BYTES,
    MIN_EXAMPLES,
    TrainDocument,
    gather_examples,
)
from components.curate.quality.features import NGRAM_BYTES, mean_weights, ngram_shares
from components.curate.quality.scorer import read_scorer
from components.curate.quality.selection import top_share_threshold
from components.curate.quality.training import train_linear, train_on
from pipeline.dag import create_components
from pipeline.loader import ConfigError, load_config
from pipeline.report.curation_scores import print_scores
from tests.curate.test_curator_executor import curate, files_under, records_in, write_examples
from tokenmill.contracts.curation import read_curation, read_dropped
from tokenmill.contracts.quality_model import read_quality_model, read_weights
from tokenmill.errors import TokenmillError
from tokenmill.records.documents import decode_documents, read_documents
from tokenmill.records.splits import split_directory

NOUNS = ("river", "stone", "lamp", "garden", "letter", "window", "engine", "paper", "bridge")
VERBS = ("carries", "follows", "holds", "turns", "opens", "leaves", "meets", "keeps")
SPAM = ("cheap", "buy", "now", "click", "free", "win", "bonus", "casino", "offer", "deal", "$$$")
NO_FILES = ExampleFiles()


def prose(i):
    """A document of its own words: no run of 13 is in another."""
    draw = np.random.default_rng(i)
    sentences = [
        f"The {draw.choice(NOUNS)} {draw.choice(VERBS)} the {draw.choice(NOUNS)} of day {n}{i}."
        for n in range(12)
    ]
    return " ".join(sentences)


def spam(i):
    draw = np.random.default_rng(10_000 + i)
    return " ".join(f"{word}{draw.integers(10**6)}" for word in draw.choice(SPAM, 60))


def both(count, first=0):
    """(id, source, text): as much prose as spam, both in each source."""
    return [
        (f"{kind.__name__}-{i}", f"source-{i % 2}", kind(i))
        for i in range(first, first + count)
        for kind in (prose, spam)
    ]


def train(home, splits, positive, negative=(), files=NO_FILES, benchmarks=(), **changed):
    """Runs the executor as the component calls it; returns the artifact."""
    examples = write_examples(str(home / "ingested"), splits)
    config = CurateConfig(quality={"positive": positive, "negative": negative}, **changed)
    node = QualityTrainer(_channel(), config, files, tuple(benchmarks))
    artifact = QualityModel()
    artifact.uri = str(home / "quality")
    os.makedirs(artifact.uri)
    QualityTrainerExecutor().Do(
        {"examples": [examples]}, {"quality_model": [artifact]}, dict(node.exec_properties)
    )
    return artifact


def _channel():
    from tfx.types import channel_utils

    return channel_utils.as_channel([Examples()])


def pin(home, texts, name="examples"):
    """A file of documents, as pipeline/other_texts.py pins them."""
    uri = str(home / name)
    rows = [(f"e{i}", "file", text) for i, text in enumerate(texts)]
    write_examples(uri, {"train": rows})
    return os.path.join(split_directory(uri, "train"), "part-0.gz")


def naive_mean(text, weights):
    """Mean weight of all n-grams, one at a time, in Python's whole numbers."""
    total = count = 0
    for number, length in enumerate(NGRAM_BYTES):
        for place in range(len(text) - length + 1):
            gram = int.from_bytes(text[place : place + length], "little") << (64 - 8 * length)
            total += int(weights[number][(gram * 0x9E3779B97F4A7C15) % 2**64 >> 46])
            count += 1
    return total / max(1, count)


def test_mean_weights_are_those_of_a_loop_over_ngrams():
    weights = np.random.default_rng(0).integers(-30_000, 30_000, (2, 1 << 18)).astype(np.int16)
    texts = [
        b"",
        b"a",
        b"abc",
        b"abcdefg",
        "日本語のテキスト".encode(),
        b"x" * 40_000 + b"end",
        b"zz",
    ]
    found = mean_weights(texts, weights)
    assert found.tolist() == [naive_mean(text, weights) for text in texts]
    # The same to the bit whatever is beside it.
    assert [mean_weights([text], weights)[0] for text in texts] == found.tolist()
    for text, mean in zip(texts, found, strict=True):
        places, shares = ngram_shares(text)
        assert (shares @ weights.reshape(-1)[places]) == pytest.approx(mean)


def test_a_scorer_tells_prose_from_spam_and_is_the_same_every_time(tmp_path):
    splits = {"train": both(200), "eval": both(10, 5_000)}
    config = {"positive": ["source:prose"]}
    splits["train"] = [(i, i.split("-")[0], text) for i, _, text in splits["train"]]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    artifact = train(tmp_path / "a", splits, **config)
    again = train(tmp_path / "b", {**splits, "train": splits["train"][::-1]}, **config)
    assert files_under(artifact.uri) == files_under(again.uri)
    document = read_quality_model(artifact.uri)
    assert document.positive.documents == document.negative.documents == 200
    assert 20 < document.positive.held_out < 60
    assert document.held_out.roc_auc > 0.99
    assert all(point.precision > 0.95 for point in document.held_out.points)
    assert sum(document.held_out.positive_histogram) == document.positive.held_out
    unseen = read_scorer(artifact.uri).score([prose(9_000).encode(), spam(9_000).encode()])
    assert unseen[0] > 0.9
    assert unseen[1] < 0.1


def test_labels_that_mean_nothing_are_told_to_be_worth_nothing():
    """The measure can fail: with classes drawn by lot, precision is one half."""
    draw = np.random.default_rng(1)
    train_split = [
        TrainDocument("s", "good" if draw.random() < 0.5 else "bad", prose(i).encode())
        for i in range(600)
    ]
    quality = QualityConfig(positive=("label:good",), negative=("label:bad",))
    examples = gather_examples(train_split, [], [], [], (), CurateConfig(quality=quality))
    document, _ = train_on(examples)
    assert 0.35 < document.held_out.roc_auc < 0.65
    assert 0.4 < document.held_out.points[-1].precision < 0.6


@pytest.mark.parametrize("leak", ["whole", "passage", "benchmark", "short text"])
def test_the_scorer_never_sees_evaluation_text(tmp_path, leak):
    """With evaluation text among the examples it is the same to the bit as without."""
    splits = {
        "train": [(i, i.split("-")[0], text) for i, _, text in both(100)],
        "eval": both(10, 5_000),
    }
    held_out = prose(5_003)
    benchmarks = (prose(8_000), "a river of seven stone lamps")
    clean = [prose(i) for i in range(300, 340)]
    words = " ".join(held_out.split()[20:40])
    leaked = {
        "whole": held_out.upper(),
        "passage": f"An example of its own, which quotes what is held out: {words} and goes on.",
        "benchmark": f"Quoted: {' '.join(benchmarks[0].split()[5:25])}",
        "short text": f"What is this? {benchmarks[1]}!",
    }[leak]
    reason = "held_out_text" if leak in ("whole", "passage") else "benchmark_text"
    models = {}
    for name, texts in (("clean", clean), ("leaky", [*clean, leaked])):
        home = tmp_path / name
        home.mkdir()
        files = ExampleFiles(positive=pin(home, texts))
        artifact = train(home, splits, ["good/*.txt"], ["source:spam"], files, benchmarks)
        models[name] = artifact.uri
    assert np.array_equal(*map(read_weights, models.values()))
    documents = {name: read_quality_model(uri) for name, uri in models.items()}
    assert documents["clean"].linear == documents["leaky"].linear
    assert documents["clean"].left_out[reason] == 0
    assert documents["leaky"].left_out[reason] == 1
    # And an example that shares nothing would have been seen.
    home = tmp_path / "other"
    home.mkdir()
    files = ExampleFiles(positive=pin(home, [*clean, *(prose(i) for i in range(400, 410))]))
    other = train(home, splits, ["good/*.txt"], ["source:spam"], files, benchmarks)
    assert not np.array_equal(read_weights(other.uri), read_weights(models["clean"]))


def test_examples_are_of_the_training_split_alone(tmp_path):
    splits = {
        "train": [(i, i.split("-")[0], text) for i, _, text in both(60)],
        "eval": [(f"p-{i}", "prose", prose(i)) for i in range(5_000, 5_100)],
    }
    document = read_quality_model(train(tmp_path, splits, ["source:prose"]).uri)
    assert document.positive.documents == document.negative.documents == 60


def test_too_few_examples_are_an_error_that_says_why():
    quality = QualityConfig(positive=("source:prose",))
    split = [TrainDocument("prose", "", prose(i).encode()) for i in range(MIN_EXAMPLES - 1)]
    split += [TrainDocument("spam", "", spam(i).encode()) for i in range(100)]
    with pytest.raises(TokenmillError, match=r"positive: 19 examples .* at least 20"):
        gather_examples(split, [], [], [], (), CurateConfig(quality=quality))
    files = [text.text for text in split[-100:]] + [prose(i).encode() for i in range(100)]
    with pytest.raises(TokenmillError, match=r"negative: 0 examples .*100 in_both"):
        gather_examples(split[-100:], files, [], [], (), CurateConfig(quality={"positive": ["f"]}))


@pytest.mark.parametrize("key", ["positive", "negative"])
@pytest.mark.parametrize("name", ["source:pros", "label:pros"])
def test_a_source_or_label_that_is_not_there_is_an_error(key, name):
    split = [TrainDocument("prose", "spam", prose(i).encode()) for i in range(50)]
    files = [spam(i).encode() for i in range(50)]
    named = {"positive": ("source:prose", "f"), "negative": ("g",)}
    quality = QualityConfig(**{**named, key: (*named[key], name)})
    there = "source:prose" if name.startswith("source") else "label:spam"
    with pytest.raises(TokenmillError, match=rf"quality\.{key}: {name}: .* {there}\."):
        gather_examples(split, files, files, [], (), CurateConfig(quality=quality))


@pytest.mark.parametrize(("roc_auc", "is_said"), [(0.476, True), (0.55, True), (0.62, False)])
def test_a_preview_says_where_guessing_does_as_well(roc_auc, is_said):
    counts = {"documents": 300, "bytes": 9, "held_out": 60}
    empty = {"documents": [0] * 20, "bytes": [0] * 20}
    found = {
        "kind": "linear", "positive": counts, "negative": counts, "left_out": {},
        "roc_auc": roc_auc, "scored": {"documents": 0, "bytes": 0}, "histogram": empty,
        "thresholds": [], "top_shares": {},
    }  # fmt: skip
    stream = io.StringIO()
    print_scores(Console(file=stream, width=100), found)
    assert ("guessing does as well" in stream.getvalue()) == is_said


def test_of_many_examples_those_with_the_least_hash_are_taken():
    texts = [f"{i} ".encode() * 4_000 for i in range(2 * MAX_CLASS_BYTES // 8_000)]
    quality = QualityConfig(positive=("f",), negative=("g",))
    spams = [spam(i).encode() for i in range(50)]
    config = CurateConfig(quality=quality)
    found = gather_examples([], texts, spams, [], (), config)
    again = gather_examples([], texts[::-1], spams[::-1], [], (), config)
    assert found.texts == again.texts
    assert 0.9 * MAX_CLASS_BYTES < found.counts(True).bytes <= MAX_CLASS_BYTES


CONFIG = {"rules": "none", "decontaminate": "off", "near_duplicates": "keep"}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """(artifact of a scorer of prose, the splits that it is to score)."""
    home = tmp_path_factory.mktemp("scorer")
    examples = {
        "train": [(i, i.split("-")[0], text) for i, _, text in both(150, 2_000)],
        "eval": both(5, 7_000),
    }
    return train(home, examples, ["source:prose"]), {"train": both(200), "eval": both(20, 5_000)}


def _curate(home, scored, files=1, shards=2, **quality):
    artifact, splits = scored
    home.mkdir(exist_ok=True)
    settings = CurateConfig(**CONFIG, quality={"positive": ["source:prose"], **quality})
    return curate(home, splits, files, shards, settings, quality_model=artifact)


def _kept(uri, split):
    batch = decode_documents(records_in(split_directory(uri, split), "documents-"))
    return {row["doc_id"].decode(): row for row in batch.to_pylist()}


def test_min_score_drops_what_scores_less_and_says_so(tmp_path, scored):
    curated, dropped = _curate(tmp_path / "a", scored, min_score=0.5)
    records = {r.doc_id.decode(): r for r in read_dropped(dropped.uri)}
    scorer = read_scorer(scored[0].uri)
    for split, rows in scored[1].items():
        kept = _kept(curated.uri, split)
        expected = dict(
            zip(rows, scorer.score([text.encode() for _, _, text in rows]), strict=True)
        )
        for (doc_id, _, _), score in expected.items():
            if score < 0.5:
                assert records[doc_id].reason == "low_quality"
                assert records[doc_id].value == pytest.approx(float(score))
                assert records[doc_id].threshold == 0.5
                assert doc_id not in kept
            else:
                assert kept[doc_id]["quality_score"] == score
    assert sum(doc_id.startswith("spam") for doc_id in records) > 200
    curation = read_curation(dropped.uri)
    assert curation.total.dropped["low_quality"].documents == len(records)
    assert curation.total.kept.documents + len(records) == curation.total.arrived.documents == 440
    assert {name: q.documents for name, q in curation.quality.items()} == dict.fromkeys(
        ("source-0", "source-1"), 220
    )
    again = _curate(tmp_path / "b", scored, files=3, min_score=0.5)
    assert files_under(again[0].uri) == files_under(curated.uri)


def test_a_top_share_is_one_of_each_source(tmp_path, scored):
    curated, dropped = _curate(
        tmp_path / "a", scored, top_share=0.3, source_top_shares={"source-1": 1.0}
    )
    kept = _kept(curated.uri, "train")
    sizes = {"source-0": [0, 0], "source-1": [0, 0]}
    scores = {}
    scorer = read_scorer(scored[0].uri)
    for doc_id, source, text in scored[1]["train"]:
        sizes[source][0] += len(text)
        sizes[source][1] += len(text) * (doc_id in kept)
        scores.setdefault((source, doc_id in kept), []).append(scorer.score([text.encode()])[0])
    assert sizes["source-1"][0] == sizes["source-1"][1]
    share = sizes["source-0"][1] / sizes["source-0"][0]
    assert 0.3 <= share < 0.32
    assert min(scores["source-0", True]) > max(scores["source-0", False])
    curation = read_curation(dropped.uri)
    assert not [remark for remark in curation.remarks if "source_top_shares" in remark]
    threshold = curation.quality["source-0"].threshold
    assert threshold == min(scores["source-0", True])
    assert curation.quality["source-1"].threshold is None
    # Held-out documents go by the same threshold.
    held_out = _kept(curated.uri, "eval")
    for doc_id, source, text in scored[1]["eval"]:
        stays = source == "source-1" or scorer.score([text.encode()])[0] >= threshold
        assert (doc_id in held_out) == stays
    again = _curate(
        tmp_path / "b", scored, files=3, top_share=0.3, source_top_shares={"source-1": 1.0}
    )
    assert files_under(again[0].uri) == files_under(curated.uri)
    assert files_under(again[1].uri) == files_under(dropped.uri)


def test_a_share_of_a_source_that_is_none_is_said(tmp_path, scored):
    _, dropped = _curate(tmp_path / "a", scored, source_top_shares={"sourec-1": 0.5})
    (said,) = (r for r in read_curation(dropped.uri).remarks if "source_top_shares" in r)
    assert "names sourec-1, which is no source here" in said
    assert "source-0, source-1" in said


def test_without_a_decision_documents_are_scored_and_stay(tmp_path, scored):
    curated, dropped = _curate(tmp_path / "a", scored)
    assert not list(read_dropped(dropped.uri))
    assert all(0 <= row["quality_score"] <= 1 for row in _kept(curated.uri, "train").values())


@pytest.mark.parametrize("share", [0.001, 0.25, 0.5, 0.999, 1.0])
def test_the_threshold_of_a_share_is_the_smallest_set_of_the_best(share):
    draw = np.random.default_rng(3)
    scores = draw.random(200).round(2).astype(np.float32)
    sizes = draw.integers(1, 5_000, 200)
    threshold = top_share_threshold(scores, sizes, share)
    kept = scores >= np.float32(threshold)
    assert sizes[kept].sum() >= share * sizes.sum()
    assert sizes[scores > np.float32(threshold)].sum() < share * sizes.sum()


def test_training_weighs_both_classes_the_same():
    texts = [prose(i).encode() for i in range(30)] + [spam(i).encode() for i in range(300)]
    scorer = train_linear(texts, np.arange(330) < 30)
    assert scorer.score([prose(999).encode()])[0] > 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["curate.quality.min_score=0.5"], "min_score = 0.5: expected examples"),
        (["curate.quality.top_share=0.5"], "top_share = 0.5: expected examples"),
        (['curate.quality.negative=["a.txt"]'], "expected curate.quality.positive beside it"),
        (['curate.quality.positive=["source:"]'], "expected a file, source:NAME or label:NAME"),
        (
            ["curate.quality.min_scor=0.5"],
            "key curate.quality.min_scor .did you mean min_score",
        ),
        (["curate.quality.classifier=x"], "the classifier's labels that are wanted"),
        (
            ['curate.quality.positive=["a"]', "corpus.messages_field=m"],
            "curate.quality = .*: the score is one of texts",
        ),
        (
            ['curate.quality.positive=["a"]', "curate.quality.min_score=2"],
            "curate.quality.min_score",
        ),
        (["pack.quality_weighting=1"], "pack.quality_weighting = 1.0: expected examples"),
        (
            ['curate.quality.positive=["a"]', "pack.quality_weighting=-1"],
            "pack.quality_weighting",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=values)


def test_a_classifier_that_is_none_is_refused(tmp_path):
    quality = QualityConfig(classifier=str(tmp_path), positive=("label:good",))
    with pytest.raises(TokenmillError, match="no model that tokenmill pushed"):
        find_classifier(quality)


def test_the_pipeline_trains_a_scorer_only_where_one_is_asked_for(tmp_path):
    """Its files are pinned by their content, and the cost report bills the step."""
    file = tmp_path / "good.txt"
    file.write_text(prose(1))
    options = [f"run.output_dir={tmp_path}/run", f'curate.quality.positive=["{file}"]']

    def steps(*overrides):
        config = load_config(overrides=overrides)
        return {node.id: node for node in create_components(config, str(tmp_path))}

    assert "QualityTrainer" not in steps(options[0])
    found = steps(*options)
    assert list(found).index("QualityTrainer") == list(found).index("Curator") - 1
    for user in ("Curator", "CostReport"):
        (channel,) = (c for name, c in found[user].inputs.items() if name == "quality_model")
        assert channel.producer_component_id == "QualityTrainer"
    pinned = json.loads(found["QualityTrainer"].exec_properties["files"])
    assert pinned["negative"] == ""
    (batch,) = read_documents(pinned["positive"])
    assert batch.column("text").to_pylist() == [prose(1).encode()]
    file.write_text(prose(2))
    again = json.loads(steps(*options)["QualityTrainer"].exec_properties["files"])
    assert again["positive"] != pinned["positive"]


def test_a_new_threshold_trains_nothing_anew():
    def properties(**quality):
        config = CurateConfig(quality={"positive": ["source:a"], **quality})
        return dict(QualityTrainer(_channel(), config, ExampleFiles(), ()).exec_properties)

    assert properties() == properties(min_score=0.5, top_share=0.3, source_top_shares={"b": 0.1})
    assert properties() != properties(negative=["source:b"])
    assert json.loads(properties()["config"])["quality"]["positive"] == ["source:a"]
