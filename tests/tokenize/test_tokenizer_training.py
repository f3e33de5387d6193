"""The tokenizer: lossless, the same bytes every time, trained on a sample of the train split."""

import hashlib
import importlib
import inspect
import io
import json
import os
import random
import re

import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.artifacts import Examples, Tokenizer
from components.tokenize.component import TokenizerTrainerExecutor
from components.tokenize.config import TokenizerConfig
from components.tokenize.import_model import check_imported_model, read_model
from components.tokenize.preprocessing import TOKENIZER_PATH_KEY, preprocessing_fn
from components.tokenize.training import (
    LONGEST_WORD,
    Sentences,
    check_user_symbols,
    sample_documents,
    sampling_rates,
    train_sentencepiece,
)
from tokenmill.contracts.tokenizer import DESCRIPTION_NAME, TOKENIZER_MODEL_NAME
from tokenmill.errors import TokenmillError
from tokenmill.records.documents import document_batch, encode_documents
from tokenmill.records.splits import split_directory
from tokenmill.records.tfrecord import write_tfrecords
from tokenmill.text.tokenization import load_tokenizer
from tokenmill.text.vocabulary import (
    BOS_ID,
    CLS_ID,
    CONTROL_COUNT,
    CONTROL_TOKENS,
    EOS_ID,
    FIRST_RESERVED_ID,
    MASK_ID,
    PAD_ID,
    SEP_ID,
    UNK_ID,
    UNLEARNED_TOKENS,
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
        t: train_sentencepiece(
            docstrings, TokenizerConfig(model_type=t, vocab_size=VOCAB_SIZE, sample_bytes=1)
        )
        for t in MODEL_TYPES
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


# Every text that UTF-8 can hold, with more of what SentencePiece and the escaping use themselves.
TEXT = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("\u2581\ue000.- \n\x00a1")), max_size=30
)


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
def test_lossless_where_tokenizers_often_are_not(tokenizers, model_type, text):
    ids = tokenizers[model_type].tokenize([text])
    assert decode(tokenizers[model_type], ids) == [text.encode()]
    assert not CONTROL_IDS & set(ids.flat_values.numpy().tolist())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_indentation_is_one_token(docstrings, tmp_path, model_type):
    texts = [*docstrings[:100], *["def f():\n        return x\n"] * 300]
    model = train_sentencepiece(
        texts, TokenizerConfig(model_type=model_type, vocab_size=500, sample_bytes=1)
    )
    (tmp_path / "indented.model").write_bytes(model)
    op = load_tokenizer(str(tmp_path / "indented.model"))
    tokens = [op.id_to_string(i).numpy().decode() for i in range(int(op.vocab_size()))]
    assert "\u2581" * 4 in tokens


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_model_does_not_depend_on_the_temporary_directory(
    docstrings, models, tmp_path, monkeypatch, model_type
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    again = train_sentencepiece(
        docstrings, TokenizerConfig(model_type=model_type, vocab_size=VOCAB_SIZE, sample_bytes=1)
    )
    assert again == models[model_type]
    assert str(tmp_path).encode() not in again


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
    model = train_sentencepiece(
        texts, TokenizerConfig(model_type=model_type, vocab_size=500, sample_bytes=1)
    )
    (tmp_path / "digits.model").write_bytes(model)
    ids = load_tokenizer(str(tmp_path / "digits.model")).tokenize(["2024"])
    assert len(ids.to_list()[0]) == 4


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_training_twice_gives_the_same_bytes(models, docstrings, model_type):
    again = train_sentencepiece(
        iter(docstrings),
        TokenizerConfig(model_type=model_type, vocab_size=VOCAB_SIZE, sample_bytes=1),
    )
    assert again == models[model_type]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_special_ids_and_size_are_as_asked(tokenizers, model_type):
    tokenizer = tokenizers[model_type]
    assert int(tokenizer.vocab_size()) == VOCAB_SIZE
    tokens = [tokenizer.id_to_string(i).numpy() for i in range(UNLEARNED_TOKENS)]
    assert tokens[:CONTROL_COUNT] == [token.encode() for token in CONTROL_TOKENS]
    assert tokens[CONTROL_COUNT:] == [b"<0x%02X>" % i for i in range(256)]
    named = dict(zip(CONTROL_TOKENS, range(CONTROL_COUNT), strict=True))
    assert (named["<pad>"], named["<unk>"], named["<s>"], named["</s>"]) == (
        PAD_ID, UNK_ID, BOS_ID, EOS_ID,
    )  # fmt: skip
    assert (named["<mask>"], named["<cls>"], named["<sep>"]) == (MASK_ID, CLS_ID, SEP_ID)
    assert named["<reserved_0>"] == FIRST_RESERVED_ID


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("texts", [[], [""]])
def test_no_text_is_an_error(model_type, texts):
    with pytest.raises(TokenmillError, match="no text"):
        train_sentencepiece(
            texts, TokenizerConfig(model_type=model_type, vocab_size=8192, sample_bytes=1)
        )


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_too_large_a_vocabulary_is_an_error_that_says_what_is_possible(docstrings, model_type):
    with pytest.raises(TokenmillError) as error:
        train_sentencepiece(
            docstrings, TokenizerConfig(model_type=model_type, vocab_size=500_000, sample_bytes=1)
        )
    assert "tokenizer.vocab_size = 500,000" in error.value.message
    possible = int(re.search("at most ([0-9,]+) ", error.value.message)[1].replace(",", ""))
    train_sentencepiece(
        docstrings, TokenizerConfig(model_type=model_type, vocab_size=possible, sample_bytes=1)
    )
    with pytest.raises(TokenmillError, match=f"at most {possible:,} "):
        train_sentencepiece(
            docstrings,
            TokenizerConfig(model_type=model_type, vocab_size=possible + 1, sample_bytes=1),
        )


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_too_small_a_vocabulary_is_an_error(docstrings, model_type):
    with pytest.raises(TokenmillError, match="reserved"):
        train_sentencepiece(
            docstrings, TokenizerConfig(model_type=model_type, vocab_size=UNLEARNED_TOKENS + 28)
        )


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_user_symbols_are_one_token_wherever_they_stand(docstrings, tmp_path, model_type):
    symbols = ("<URL>", "def")
    settings_ = TokenizerConfig(
        model_type=model_type, vocab_size=VOCAB_SIZE, sample_bytes=1, user_symbols=symbols
    )
    (tmp_path / "m.model").write_bytes(train_sentencepiece(docstrings, settings_))
    ids = load_tokenizer(str(tmp_path / "m.model")).tokenize(["see<URL>x undefined"]).to_list()[0]
    assert ids.count(CONTROL_COUNT) == ids.count(CONTROL_COUNT + 1) == 1


def long_words() -> dict[str, str]:
    """Texts of 70,000 and more characters without a blank."""
    draw = random.Random(1)
    pick = lambda characters: "".join(draw.choice(characters) for _ in range(100_000))  # noqa: E731
    return {
        "hex": pick("0123456789abcdef"),
        "word list": pick("abcdefgh\n"),
        "Japanese": pick("あいうえおかきくけこ日本語学校。、"),
        "one letter": "a" * 1_000_000,  # quadratic in one piece, for unigram
        "marks": "a\u0301\u0323" * 30_000,
    }


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("kind", list(long_words()))
def test_a_text_without_blanks_is_trained_on(docstrings, model_type, kind):
    text = long_words()[kind]
    sentences = Sentences([(b"1", b"s", t.encode()) for t in (f"see {text}", *docstrings)])
    asked = TokenizerConfig(model_type=model_type, vocab_size=400)
    model = sentencepiece.SentencePieceProcessor(model_proto=train_sentencepiece(sentences, asked))
    assert sentences.cut_words == 1
    ids = model.encode(text[:1000])
    assert model.decode(ids) == text[:1000]
    assert min(ids) >= UNLEARNED_TOKENS  # its characters were seen


@given(st.text(st.sampled_from("a \u2585é"), max_size=40))
def test_cutting_for_the_training_loses_reserved_characters_only(text):
    text = text.replace("a", "a" * 1500)
    parts = list(Sentences([(b"1", b"s", text.encode())]))
    assert "".join(parts) == text.replace("\u2585", "")
    assert max(map(len, parts)) <= LONGEST_WORD


def test_a_text_with_a_reserved_character_is_not_left_out():
    """SentencePiece skips a sentence that holds U+2585, as progress bars do."""
    texts = [f"\u2585 {number} percent of the way is done, wait" for number in range(500)]
    sentences = Sentences([(b"1", b"s", t.encode()) for t in texts])
    train_sentencepiece(sentences, TokenizerConfig(vocab_size=300))


def test_the_end_of_the_native_trainer_is_a_sentence():
    with pytest.raises(TokenmillError) as error:
        train_sentencepiece(["\t" * 1000], TokenizerConfig(model_type="unigram"))
    assert "unigram training ended with exit code 255" in error.value.message
    assert "model_type" in error.value.hint


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_a_tiny_text_supports(model_type):
    """No advice that the configuration would refuse."""
    with pytest.raises(TokenmillError, match=r"at most 2\d\d") as error:
        train_sentencepiece(["aaaa"], TokenizerConfig(model_type=model_type))
    assert "more text" in error.value.hint
    assert "--set" not in error.value.hint


@pytest.mark.parametrize("symbol", ["", "a b", "\u2581", "<pad>", "<0x41>", "<reserved_0>"])
def test_what_cannot_be_a_user_symbol(symbol):
    with pytest.raises(TokenmillError, match=r"tokenizer\.user_symbols"):
        check_user_symbols([symbol])
    with pytest.raises(TokenmillError, match="twice"):
        check_user_symbols(["x", "x"])


# --- the sample -------------------------------------------------------------------------------

DOCUMENTS = [
    (b"doc-%d" % i, (b"a", b"b")[i % 3 == 0], b"%05d" % i + b"x" * (i % 200)) for i in range(5000)
]
BYTES = {
    source.decode(): sum(len(t) for _, s, t in DOCUMENTS if s == source) for source in (b"a", b"b")
}
TOTAL = sum(BYTES.values())


def sample(documents, size, weights=None):
    return list(sample_documents(documents, sampling_rates(BYTES, size, weights or {})))


@given(st.integers(), st.integers(1, 2 * TOTAL))
@settings(max_examples=10, deadline=None)
def test_sample_does_not_depend_on_the_order(seed, size):
    shuffled = DOCUMENTS.copy()
    random.Random(seed).shuffle(shuffled)
    assert sorted(sample(shuffled, size)) == sorted(sample(DOCUMENTS, size))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_sample_has_about_the_size_asked_for(share):
    chosen = sample(DOCUMENTS, int(share * TOTAL))
    assert sum(len(text) for _, _, text in chosen) == pytest.approx(share * TOTAL, rel=0.15)
    assert len(set(chosen)) == len(chosen)


def test_small_corpus_is_the_sample():
    assert sample(DOCUMENTS, TOTAL) == DOCUMENTS
    assert sample(DOCUMENTS, 10 * TOTAL) == DOCUMENTS


def test_a_larger_sample_holds_the_smaller_one():
    assert set(sample(DOCUMENTS, TOTAL // 10)) < set(sample(DOCUMENTS, TOTAL // 3))


@pytest.mark.parametrize("size", [TOTAL // 4, 10 * TOTAL])
def test_weights_set_how_often_a_source_is_taken(size):
    chosen = sample(DOCUMENTS, size, {"a": 0.25})
    taken = {s: sum(len(t) for _, x, t in chosen if x == s.encode()) for s in BYTES}
    rates = {s: taken[s] / BYTES[s] for s in BYTES}
    assert rates["a"] / rates["b"] == pytest.approx(0.25, rel=0.15)
    assert {source for _, source, _ in sample(DOCUMENTS, size, {"a": 0})} == {b"b"}


def test_weights_that_cannot_be():
    with pytest.raises(TokenmillError, match="'c'"):
        sampling_rates(BYTES, 1, {"c": 2.0})
    with pytest.raises(TokenmillError, match="no text"):
        sampling_rates(BYTES, 1, {"a": 0, "b": 0})


# --- the steps --------------------------------------------------------------------------------


def train(home, train_texts, eval_texts, shards=2, sample_bytes=10**9, sha256="", **changes):
    """Runs TokenizerTrainer's executor; returns its artifact."""
    for split, texts in (("train", train_texts), ("eval", eval_texts)):
        rows = [(b"%s-%04d" % (split.encode(), i), b"s", t.encode()) for i, t in enumerate(texts)]
        for shard in range(shards):
            columns = zip(*rows[shard::shards], strict=True)
            records = [record for _, record in encode_documents(document_batch(*columns))]
            path = os.path.join(split_directory(str(home / "examples"), split), f"{shard}.gz")
            write_tfrecords(path, records, gzip=True)
    examples, tokenizer = Examples(), Tokenizer()
    examples.uri, tokenizer.uri = str(home / "examples"), str(home / "tokenizer")
    context = TokenizerTrainerExecutor.Context(tmp_dir=str(home / "tmp"), unique_id="1")
    asked = {"model_type": "bpe", "vocab_size": 500, "sample_bytes": sample_bytes, **changes}
    TokenizerTrainerExecutor(context).Do(
        {"examples": [examples]},
        {"tokenizer": [tokenizer]},
        {"config": TokenizerConfig(**asked).to_json(), "model_sha256": sha256},
    )
    return tokenizer


def model_of(tokenizer) -> bytes:
    with open(os.path.join(tokenizer.uri, TOKENIZER_MODEL_NAME), "rb") as source:
        return source.read()


def test_trainer_describes_the_model_it_wrote(tmp_path, docstrings):
    tokenizer = train(tmp_path, docstrings[:150], docstrings[150:160])
    digest = hashlib.sha256(model_of(tokenizer)).hexdigest()
    with open(os.path.join(tokenizer.uri, DESCRIPTION_NAME), encoding="utf-8") as source:
        description = json.load(source)
    assert description["sample"] == {
        "s": {
            "documents": 150,
            "bytes": sum(len(text.encode()) for text in docstrings[:150]),
        }
    }
    assert (description["model_type"], description["tokens"]) == ("bpe", 500)
    assert description["cut_words"] == 0
    assert description["sha256"] == digest
    assert tokenizer.get_int_custom_property("tokens") == 500
    assert tokenizer.get_string_custom_property("sha256") == digest


def test_words_that_were_cut_are_counted(tmp_path, docstrings):
    tokenizer = train(tmp_path, [*docstrings[:150], f"a {'xy' * 5000} b {'z' * 5000}"], ["b", "c"])
    with open(os.path.join(tokenizer.uri, DESCRIPTION_NAME), encoding="utf-8") as source:
        assert json.load(source)["cut_words"] == 2
    assert tokenizer.get_int_custom_property("cut_words") == 2


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


@pytest.fixture
def model_file(models, tmp_path):
    path = tmp_path / "own.model"
    path.write_bytes(models["bpe"])
    return str(path)


def test_an_existing_model_is_taken_as_it_is(models, model_file, tmp_path, docstrings):
    model, digest = read_model(model_file)
    tokenizer = train(tmp_path, docstrings[:50], docstrings[50:60], path=model_file, sha256=digest)
    assert model_of(tokenizer) == model == models["bpe"]
    with pytest.raises(TokenmillError, match="changed"):
        train(tmp_path / "b", docstrings[:50], docstrings[:9], path=model_file, sha256="0")


@pytest.mark.parametrize("task", ["causal-lm", "masked-lm", "classification"])
def test_own_models_fit_every_task(models, task):
    for model_type, model in models.items():
        check_imported_model(model, "m", model_type, VOCAB_SIZE, task)


def foreign_model(docstrings, **changes) -> bytes:
    out = io.BytesIO()
    ids = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "byte_fallback": True, **changes}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(docstrings), model_writer=out, model_type="bpe", vocab_size=500,
        minloglevel=2, **ids,
    )  # fmt: skip
    return out.getvalue()


def test_models_that_do_not_fit_say_why(models, docstrings):
    def message(model, model_type="bpe", size=500, task="causal-lm"):
        with pytest.raises(TokenmillError) as error:
            check_imported_model(model, "some.model", model_type, size, task)
        return f"{error.value.message} {error.value.hint}"

    assert "no SentencePiece model" in message(b"")
    assert "no SentencePiece model" in message(b"not one")
    assert "600" in message(models["bpe"])
    assert 'model_type = "bpe"' in message(models["bpe"], "unigram", VOCAB_SIZE)
    llama = foreign_model(docstrings, pad_id=-1, unk_id=0, bos_id=1, eos_id=2)
    check_imported_model(llama, "some.model", "bpe", 500, "causal-lm")
    assert "needs a bos token" in message(foreign_model(docstrings, bos_id=-1, eos_id=2))
    assert "byte fallback" in message(foreign_model(docstrings, byte_fallback=False))
    check_imported_model(foreign_model(docstrings), "some.model", "bpe", 500, "causal-lm")
    assert "needs a mask token" in message(foreign_model(docstrings), task="masked-lm")
    with pytest.raises(TokenmillError, match="cannot be read"):
        read_model("/nowhere/some.model")


def test_preprocessing_tokenizes_and_passes_the_rest_through(models, tokenizers, tmp_path):
    path = tmp_path / TOKENIZER_MODEL_NAME
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
    assert ids.to_list() == tokenizers["bpe"].tokenize(texts).to_list()  # bpe: whole or by word
    for name in ("doc_id", "source", "byte_count"):
        assert tf.reduce_all(outputs[name] == inputs[name])
