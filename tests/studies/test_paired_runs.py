"""Planted differences, found by real trainings of a very small model."""

import dataclasses
import os

import numpy as np
import pytest
import sentencepiece
from made_documents import TokenizedDocument, in_columns

from components.pack.job import PackJob
from components.pack.transforms import pack_shard, write_manifest
from pipeline.loader import load_config
from pipeline.studies.held_out import HeldOutEvaluator, HeldOutSet
from pipeline.studies.ladder_plan import target_of
from pipeline.studies.paired_runs import CURVE, Arm, PairedRuns
from pipeline.studies.proxy_runs import ProxyRuns
from pipeline.studies.value_corpora import HeldOutTexts, VariantCorpus
from pipeline.studies.value_document import ValueWriter
from pipeline.studies.value_plan import Plan
from pipeline.studies.variants import Variant
from tests.studies.made_text import texts
from tokenmill.cost.paired_comparison import LEAST_SEEDS
from tokenmill.errors import TokenmillError
from tokenmill.text.tokenizers.load import read_tokenizer
from tokenmill.text.vocabulary import CONTROL_TOKENS

LENGTH, STEPS, DOCUMENTS = 32, 96, 600
NAMES = ("one", "other", "single")
HELD_OUT = tuple(
    HeldOutSet(name, tuple(t.encode() for t in texts(documents, seed=documents)))
    for name, documents in zip(NAMES, (20, 15, 1), strict=True)
)
MARGIN = 0.05  # of bits per byte that are as few as the grammar is simple


@pytest.fixture(scope="module")
def words_path(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("words") / "tokenizer")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts(300, noise=0.3, seed=9)), model_prefix=path, vocab_size=420,
        byte_fallback=True, model_type="bpe", hard_vocab_limit=False, minloglevel=2, pad_id=0,
        unk_id=1, bos_id=2, eos_id=3, control_symbols=list(CONTROL_TOKENS[4:]),
    )  # fmt: skip
    return f"{path}.model"


@pytest.fixture(scope="module")
def study(words_path, shape, corpus, tmp_path_factory):
    """Makes an arm of texts; all of them share a tokenizer and held-out texts."""
    tokenizer = read_tokenizer(words_path)
    small = dataclasses.replace(
        shape, vocab_size=tokenizer.vocab_size, sequence_length=LENGTH, d_model=32, d_ff=64
    )
    train = load_config("demo").train.model_copy(
        update={"global_batch_size": 8, "learning_rate": 5e-3, "decay_fraction": 0.2}
    )
    proxies = str(tmp_path_factory.mktemp("proxies"))

    def arm(name, documents, source=b"text", first=0):
        uri = str(tmp_path_factory.mktemp("rows"))
        settings = PackJob(
            sequence_length=LENGTH, vocab_size=tokenizer.vocab_size, shards=1,
            source_weights={source.decode(): 1.0},
        )  # fmt: skip
        for split, chosen in (("train", documents), ("eval", documents[:2])):
            made = [
                TokenizedDocument(
                    b"%s-%05d" % (source, first + i), source, len(t),
                    tokenizer.tokenize([t]).flat_values.numpy().astype(np.int32),
                )
                for i, t in enumerate(chosen)
            ]  # fmt: skip
            directory = os.path.join(uri, f"Split-{split}")
            flags = np.zeros(tokenizer.vocab_size, np.uint8)
            shard = pack_shard((0, [in_columns(made)]), directory, settings, flags)
            write_manifest([shard], directory, settings, flags)
        evaluator = HeldOutEvaluator(HELD_OUT, words_path, LENGTH)
        rows = dataclasses.replace(corpus, rows_uri=uri)
        runs = ProxyRuns(proxies, rows, evaluator)
        made = Arm(name, runs, small, train, STEPS, {source.decode(): 1.0})
        made.runs_corpus = dataclasses.replace(
            rows, rows_by_source={source.decode(): rows.train.rows}
        )
        return made

    return arm


def compare(arms, seeds=5, **options):
    paired = PairedRuns(arms, ["one", "other"], range(seeds), MARGIN, **options)
    seen = []
    paired.run(lambda number, arm: seen.append((number, arm.name)), lambda number: None)
    return paired, seen


@pytest.fixture(scope="module")
def planted(study):
    documents = texts(DOCUMENTS)
    order = np.random.default_rng(5).permutation(DOCUMENTS)
    return compare(
        [
            study("clean", documents),
            study("noisy", texts(DOCUMENTS, noise=0.3)),
            # The same texts under other names, and so in other rows and another order.
            study("copy", [documents[i] for i in order], b"copy", first=777),
        ],
        seeds=8,
    )


def test_noise_comes_out_below_clean_text(planted):
    paired, _ = planted
    found = paired.comparisons["noisy"].differences["all"]
    assert found.verdict(paired.margin) == "worse"
    assert found.low > 0


def test_a_copy_under_another_name_comes_out_equal(planted):
    paired, _ = planted
    found = paired.comparisons["copy"].differences["all"]
    assert found.verdict(paired.margin) == "equal", found
    # It was trained on other batches: the losses are near, not the same.
    first = paired.reference.compared[0], paired.others[1].compared[0]
    assert paired.loss(first[0]) != paired.loss(first[1])


def test_the_reference_has_a_curve_and_variants_are_trained_as_far_as_compared(planted):
    paired, _ = planted
    steps = [round(part * STEPS) for part in CURVE]
    for number, outcome in enumerate(paired.reference.outcomes, start=1):
        expected = steps if number <= LEAST_SEEDS else [steps[0], STEPS]
        assert [result.steps for result in outcome.results] == expected
    losses = [paired.loss(result) for result in paired.reference.outcomes[0].results]
    assert losses == sorted(losses, reverse=True)
    assert [r.steps for r in paired.others[0].outcomes[0].results] == [steps[0], STEPS]


def test_what_is_clear_is_trained_no_further(planted):
    paired, seen = planted
    assert paired.looked[0] == LEAST_SEEDS
    assert set(paired.looked) <= set(paired.looks)
    noisy = [number for number, name in seen if name == "noisy"]
    assert noisy == list(range(1, paired.comparisons["noisy"].differences["all"].seeds + 1))
    assert len(noisy) == LEAST_SEEDS


def test_the_deciding_sets_decide_and_the_others_are_shown(planted):
    paired, _ = planted
    result = paired.reference.compared[0]
    found = paired.comparisons["noisy"].differences
    assert set(found) == {"all", "one", "other"}  # a single document has no interval
    assert found["all"].documents == found["one"].documents + found["other"].documents
    nll = sum(result.losses[name].nll.sum() for name in ("one", "other"))
    size = sum(result.losses[name].bytes.sum() for name in ("one", "other"))
    assert paired.loss(result) == pytest.approx(nll / size / np.log(2))


def test_a_budget_that_is_spent_ends_a_study(study):
    arms = [study("a", texts(100)), study("b", texts(100, noise=0.5))]
    with pytest.raises(TokenmillError, match="after 0 of at least 3 seeds") as error:
        compare(arms, deadline=-1.0)
    assert "--max-minutes" in error.value.hint


@pytest.fixture(scope="module")
def document(planted):
    """The document of the planted study, as if `noisy` and `copy` were read from files."""
    paired, _ = planted
    config = load_config("demo")
    corpora = []
    for arm in (paired.reference, *paired.others):
        variant = Variant(arm.name, config, () if arm.name == "clean" else ("corpus.input=[]",))
        made = dataclasses.replace(
            arm.runs_corpus,
            core_seconds={"Curator": 36.0, "TokenizerTrainer": 9.0},
            usd_per_core_hour=10.0 if arm.name == "noisy" else 5.0,
        )
        corpora.append(VariantCorpus(variant, made, dict(arm.source_weights)))
    held_out = HeldOutTexts(HELD_OUT[:2], HELD_OUT[2:], dict.fromkeys(NAMES, "made"))
    target = target_of(config, corpora[0].corpus)
    plan = Plan(paired.reference.shape, paired.reference.train, STEPS)
    writer = ValueWriter(config, corpora, held_out, plan, target, paired, "tokens", 0.1)
    return writer.document(seconds=10.0, usd=0.5)


def test_the_document_says_what_was_found(planted, document):
    paired, _ = planted
    clean, noisy, copy = document.variants
    assert (document.reference, clean.verdict) == ("clean", None)
    assert (noisy.verdict, copy.verdict) == ("worse", "equal")
    assert noisy.differences["all"].mean == paired.comparisons["noisy"].differences["all"].mean
    assert [run.seed for run in noisy.runs] == list(range(LEAST_SEEDS))
    assert len(document.curve_points) == len(CURVE)
    losses = [point.bits_per_byte for point in document.curve_points]
    assert losses == sorted(losses, reverse=True)
    assert document.held_out["all"].documents == 35
    assert document.held_out["single"].documents == 1


def test_what_a_token_is_worth_is_a_ratio_or_words(document):
    """Trainings so short may lie on no curve; then nobody is given a number."""
    clean, noisy, copy = document.variants
    assert (clean.multiplier, clean.multiplier_note) == (None, "")
    if document.curve is None:
        assert (noisy.multiplier, copy.multiplier) == (None, None)
        assert "a curve through all its points" in noisy.multiplier_note
        assert noisy.multiplier_note == copy.multiplier_note
    else:
        assert (noisy.multiplier.value or noisy.multiplier.least) < 1
        assert copy.multiplier.low < 1 < copy.multiplier.high


def test_the_price_is_that_of_preparing_without_the_shared_tokenizer(document):
    clean, noisy, _ = document.variants
    assert clean.preparation.cpu_seconds == 36.0
    assert clean.preparation.usd == pytest.approx(36 / 3600 * 5)
    million = 1e6 / noisy.preparation.unique_tokens
    assert noisy.price.preparation_usd == pytest.approx(36 / 3600 * 10 * million)
    assert noisy.price.more_preparation_usd > 0
    assert noisy.price.training_usd > 0
    if noisy.multiplier is None:
        assert noisy.price.saved_usd is None
