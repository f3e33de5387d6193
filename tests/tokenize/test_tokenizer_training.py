"""The tokeniser: lossless, the same bytes every time, trained on a sample of the train split."""

import hashlib
import importlib
import inspect
import json
import os
import random

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.artifacts import Examples, Tokenizer
from components.documents import (
    document_batch,
    encode_documents,
    split_directory,
    write_tfrecords,
)
from components.errors import TokenmillError
from components.tokenize.component import (
    DESCRIPTION_NAME,
    MODEL_NAME,
    TokenizerTrainerExecutor,
)
from components.tokenize.preprocessing import (
    TOKENIZER_PATH_KEY,
    load_tokenizer,
    preprocessing_fn,
)
from components.tokenize.training import (
    TokenizerSettings,
    sample_documents,
    train_sentencepiece,
)
from components.tokenize.vocabulary import (
    BOS_ID,
    CLS_ID,
    CONTROL_COUNT,
    CONTROL_TOKENS,
    EOS_ID,
    FIRST_RESERVED_ID,
    MASK_ID,
    PAD_ID,
    RESERVED_PIECES,
    SEP_ID,
    UNK_ID,
)

VOCAB_SIZE = 600
CONTROL_IDS = set(range(CONTROL_COUNT))
MODEL_TYPES = ["bpe", "unigram"]


@pytest.fixture(scope="module")
def docstrings() -> list[str]:
    """Some hundred docstrings of the standard library."""
    found = set()
    for name in ("argparse", "email.message", "inspect", "logging", "pathlib", "random", "typing"):
        module = importlib.import_module(name)
        for value in vars(module).values():
            text = inspect.getdoc(value) if callable(value) else None
            if text and len(text) > 80:
                found.add(text)
    assert len(found) > 100
    return sorted(found)


@pytest.fixture(scope="module")
def models(docstrings) -> dict[str, bytes]:
    """A trained model of each type."""
    return {
        t: train_sentencepiece(docstrings, TokenizerSettings(t, VOCAB_SIZE, 1)) for t in MODEL_TYPES
    }


@pytest.fixture(scope="module")
def tokenizers(models, tmp_path_factory):
    """The tf.text op of each model."""
    loaded = {}
    for model_type, model in models.items():
        path = tmp_path_factory.mktemp("models") / f"{model_type}.model"
        path.write_bytes(model)
        loaded[model_type] = load_tokenizer(str(path))
    return loaded


def decode(tokenizer, ids) -> bytes:
    return tokenizer.detokenize(ids).numpy().tolist()


# What is lossless: every text that UTF-8 can hold, but for U+2581, "▁".
TEXT = st.text(max_size=30).map(lambda text: text.replace("\u2581", ""))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_decoding_what_was_encoded_gives_the_text(tokenizers, model_type):
    tokenizer = tokenizers[model_type]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(TEXT, min_size=1, max_size=20))
    def lossless(texts):
        ids = tokenizer.tokenize(texts)
        assert decode(tokenizer, ids) == [text.encode() for text in texts]
        flat = ids.flat_values.numpy()
        assert not CONTROL_IDS & set(flat.tolist())
        assert flat.size == 0 or flat.max() < VOCAB_SIZE

    lossless()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  two leading, two trailing  ",
        "\n",
        "\n\n\tindented\n    deeper\r\n",
        "\x00",
        "nul \x00 inside",
        "e\u0301 is not é, ﬁ is not fi",
        "\ufeffmark",
        "</s> <s> <unk> <pad> <0x41>",
        "<mask><cls> <sep> <reserved_0>",
        "\u2047\u2585\uffff\u2028",
        "😀漢字ж",
        "12345",
    ],
)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_lossless_where_tokenisers_often_are_not(tokenizers, model_type, text):
    ids = tokenizers[model_type].tokenize([text])
    assert decode(tokenizers[model_type], ids) == [text.encode()]
    assert not CONTROL_IDS & set(ids.flat_values.numpy().tolist())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_only_the_blank_mark_is_not_lossless(tokenizers, model_type):
    """SentencePiece writes a blank as U+2581; a U+2581 in the text comes back as a blank."""
    tokenizer = tokenizers[model_type]
    assert decode(tokenizer, tokenizer.tokenize(["a\u2581b \u2581"])) == [b"a b  "]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_learned_vocabulary_shortens_text(tokenizers, docstrings, model_type):
    """Not bytes all the way: training did something."""
    count = tokenizers[model_type].tokenize(docstrings).flat_values.shape[0]
    assert count < sum(len(text.encode()) for text in docstrings) / 2


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_digits_are_single_tokens_however_often_they_come_together(
    docstrings, tmp_path, model_type
):
    texts = [*docstrings[:100], *["in the year 2024"] * 300]
    model = train_sentencepiece(texts, TokenizerSettings(model_type, 500, 1))
    (tmp_path / "digits.model").write_bytes(model)
    ids = load_tokenizer(str(tmp_path / "digits.model")).tokenize(["2024"])
    assert len(ids.to_list()[0]) == 4


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_training_twice_gives_the_same_bytes(models, docstrings, model_type):
    again = train_sentencepiece(iter(docstrings), TokenizerSettings(model_type, VOCAB_SIZE, 1))
    assert again == models[model_type]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_special_ids_and_size_are_as_asked(tokenizers, model_type):
    tokenizer = tokenizers[model_type]
    assert int(tokenizer.vocab_size()) == VOCAB_SIZE
    pieces = [tokenizer.id_to_string(i).numpy() for i in range(RESERVED_PIECES)]
    assert pieces[:CONTROL_COUNT] == [piece.encode() for piece in CONTROL_TOKENS]
    assert pieces[CONTROL_COUNT:] == [b"<0x%02X>" % i for i in range(256)]
    named = dict(zip(CONTROL_TOKENS, range(CONTROL_COUNT), strict=True))
    assert (named["<pad>"], named["<unk>"], named["<s>"], named["</s>"]) == (
        PAD_ID, UNK_ID, BOS_ID, EOS_ID,
    )  # fmt: skip
    assert (named["<mask>"], named["<cls>"], named["<sep>"]) == (MASK_ID, CLS_ID, SEP_ID)
    assert named["<reserved_0>"] == FIRST_RESERVED_ID


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("texts", [[], [""], ["a"], ["too little text for so many pieces"]])
def test_too_small_a_corpus_is_an_error_with_the_size_asked_for(model_type, texts):
    with pytest.raises(TokenmillError) as error:
        train_sentencepiece(texts, TokenizerSettings(model_type, 8192, 1))
    message = str(error.value)
    assert "8,192" in message
    assert model_type in message
    assert "tokenizer.vocab_size" in message


# --- the sample -------------------------------------------------------------------------------

DOCUMENTS = [(b"doc-%d" % i, b"%05d" % i + b"x" * (i % 200)) for i in range(5000)]
TOTAL = sum(len(text) for _, text in DOCUMENTS)


@given(st.integers(), st.integers(1, 2 * TOTAL))
@settings(max_examples=10, deadline=None)
def test_sample_does_not_depend_on_the_order(seed, size):
    shuffled = DOCUMENTS.copy()
    random.Random(seed).shuffle(shuffled)
    expected = sorted(sample_documents(DOCUMENTS, TOTAL, size))
    assert sorted(sample_documents(shuffled, TOTAL, size)) == expected


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_sample_has_about_the_size_asked_for(share):
    sample = list(sample_documents(DOCUMENTS, TOTAL, int(share * TOTAL)))
    assert sum(map(len, sample)) == pytest.approx(share * TOTAL, rel=0.15)
    assert len(set(sample)) == len(sample)


def test_small_corpus_is_the_sample():
    everything = [text.decode() for _, text in DOCUMENTS]
    assert list(sample_documents(DOCUMENTS, TOTAL, TOTAL)) == everything
    assert list(sample_documents(DOCUMENTS, TOTAL, 10 * TOTAL)) == everything


def test_a_larger_sample_holds_the_smaller_one():
    smaller, larger = (set(sample_documents(DOCUMENTS, TOTAL, TOTAL // n)) for n in (10, 3))
    assert smaller < larger


# --- the steps --------------------------------------------------------------------------------


def train(home, train_texts, eval_texts, shards=2, sample_bytes=10**9):
    """Runs TokenizerTrainer's executor; returns its artifact."""
    total = 0
    for split, texts in (("train", train_texts), ("eval", eval_texts)):
        rows = [(b"%s-%04d" % (split.encode(), i), b"s", t.encode()) for i, t in enumerate(texts)]
        total += sum(len(row[2]) for row in rows)
        for shard in range(shards):
            columns = zip(*rows[shard::shards], strict=True)
            records = [record for _, record in encode_documents(document_batch(*columns))]
            path = os.path.join(split_directory(str(home / "examples"), split), f"{shard}.gz")
            write_tfrecords(path, records, gzip=True)
    examples, tokenizer = Examples(), Tokenizer()
    examples.uri, tokenizer.uri = str(home / "examples"), str(home / "tokenizer")
    examples.set_int_custom_property("bytes", total)
    context = TokenizerTrainerExecutor.Context(tmp_dir=str(home / "tmp"), unique_id="1")
    settings_json = {"model_type": "bpe", "vocab_size": 500, "sample_bytes": sample_bytes}
    TokenizerTrainerExecutor(context).Do(
        {"examples": [examples]},
        {"tokenizer": [tokenizer]},
        {"settings": json.dumps(settings_json)},
    )
    return tokenizer


def model_of(tokenizer) -> bytes:
    with open(os.path.join(tokenizer.uri, MODEL_NAME), "rb") as source:
        return source.read()


def test_trainer_describes_the_model_it_wrote(tmp_path, docstrings):
    tokenizer = train(tmp_path, docstrings[:150], docstrings[150:160])
    digest = hashlib.sha256(model_of(tokenizer)).hexdigest()
    with open(os.path.join(tokenizer.uri, DESCRIPTION_NAME), encoding="utf-8") as source:
        assert json.load(source) == {
            "model_type": "bpe",
            "vocab_size": 500,
            "sample_bytes": 10**9,
            "pieces": 500,
            "sha256": digest,
        }
    assert tokenizer.get_int_custom_property("pieces") == 500
    assert tokenizer.get_string_custom_property("sha256") == digest


def test_eval_text_does_not_shape_the_vocabulary(tmp_path, docstrings):
    a = train(tmp_path / "a", docstrings[:100], docstrings[100:120])
    b = train(tmp_path / "b", docstrings[:100], ["völlig anderer Text " * 50] * 20)
    c = train(tmp_path / "c", docstrings[20:120], docstrings[100:120])
    assert model_of(a) == model_of(b)
    assert model_of(a) != model_of(c)


def test_sample_bytes_limits_what_is_trained_on(tmp_path, docstrings):
    whole = train(tmp_path / "a", docstrings, docstrings[:10])
    total = sum(len(text.encode()) for text in docstrings)
    part = train(tmp_path / "b", docstrings, docstrings[:10], sample_bytes=total // 2)
    assert model_of(part) != model_of(whole)


def test_preprocessing_tokenises_and_passes_the_rest_through(models, tokenizers, tmp_path):
    path = tmp_path / MODEL_NAME
    path.write_bytes(models["bpe"])
    texts = ["Return the value.", "", "    a much longer, indented text\n"]
    inputs = {
        "text": tf.constant([[text] for text in texts]),
        "doc_id": tf.constant([["a"], ["b"], ["c"]]),
        "source": tf.constant([["s"]] * 3),
        "byte_count": tf.constant([[len(text)] for text in texts], tf.int64),
    }
    outputs = preprocessing_fn(dict(inputs), {TOKENIZER_PATH_KEY: str(path)})
    assert set(outputs) == {"token_ids", "doc_id", "source", "byte_count"}
    ids = tf.RaggedTensor.from_sparse(outputs["token_ids"])
    assert ids.to_list() == tokenizers["bpe"].tokenize(texts).to_list()
    for name in ("doc_id", "source", "byte_count"):
        assert tf.reduce_all(outputs[name] == inputs[name])
